"""Where restricted data may go: to models on this machine, and to hosts that the user names.

A name is looked up once. What was checked is where the requests go: a name that meant this machine
at the check could mean another one at the connection.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterable, Sequence

from medix_eval.errors import ConfigError
from medix_eval.models.chat import ModelSource


def kept_local(
    sources: Sequence[ModelSource],
    *,
    tasks: Iterable[str],
    allowed: Collection[str],
    reason: str | None,
) -> tuple[ModelSource, ...]:
    """Return the models, those behind a server bound to the addresses that were checked.

    `tasks` are the restricted ones; without any, or with a reason, models are as they were. Raises
    `ConfigError` for a host that is neither this machine nor `allowed`.
    """
    names = sorted(tasks)
    if not names or (reason or "").strip():
        return tuple(sources)
    found = {}
    for host in sorted({host for source in sources for host in source.hosts}):
        found[host] = addresses_of(host)
        if host not in allowed and not is_local(found[host]):
            raise ConfigError(
                f"{', '.join(names)}: restricted data may not be sent to {host}",
                hint=f"use a model on this machine, allow the host with --local-host {host}, "
                'or state why it is allowed with --allow-egress "reason"',
            )
    bind = [getattr(source, "bound", None) for source in sources]
    return tuple(
        source if to is None else to(found) for source, to in zip(sources, bind, strict=True)
    )


def addresses_of(host: str) -> tuple[str, ...]:
    """Return all addresses of a host; none if it is unknown."""
    try:
        return tuple({str(info[4][0]): None for info in socket.getaddrinfo(host, None)})
    except OSError:
        return ()


def is_local(addresses: Collection[str]) -> bool:
    """Whether all of these are loopback addresses, and there is one."""
    return bool(addresses) and all(ipaddress.ip_address(one).is_loopback for one in addresses)
