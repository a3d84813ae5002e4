"""Keep restricted data on this machine: samples of a `dua` task go to no foreign host.

A host is local if every address it resolves to is loopback, or if the user vouches for it with
`--local-host`. The check is on addresses, because a name can point anywhere.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterable

from medix_eval.errors import ConfigError


def refuse_foreign_hosts(
    *, tasks: Iterable[str], hosts: Iterable[str], vouched: Collection[str], reason: str | None
) -> None:
    """Raise `ConfigError` if samples of these restricted tasks would leave the machine."""
    names = sorted(tasks)
    if not names or reason:
        return
    for host in sorted(set(hosts)):
        if host not in vouched and not is_local(host):
            raise ConfigError(
                f"{', '.join(names)}: restricted data may not be sent to {host}",
                hint=f"use a model on this machine, vouch for it with --local-host {host}, "
                'or state why it is allowed with --allow-egress "reason"',
            )


def is_local(host: str) -> bool:
    """Whether every address of a host is loopback; a host without an address is not."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)
