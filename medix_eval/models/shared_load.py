"""Several servers of one model: each request goes to the least busy one.

A server that cannot be reached is left out for a while; then one request finds out whether it is
back. Requests in flight when a server dies are retried by the pipeline on another one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medix_eval.errors import ConfigError, RequestFailed, ServerError, Unreachable
from medix_eval.models.chat import ChatModel, Completion, Prompt, Sampling
from medix_eval.models.openai_server import Connected, OpenAIServer

_LOG = logging.getLogger(__name__)
_LEFT_OUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLoad:
    """Servers that serve the same model."""

    servers: tuple[OpenAIServer, ...]

    @property
    def name(self) -> str:
        """The model's name, the same at every server."""
        return self.servers[0].name

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts."""
        return tuple(host for server in self.servers for host in server.hosts)

    @property
    def devices(self) -> frozenset[str]:
        """Nothing of this machine."""
        return frozenset()

    @property
    def takes_images(self) -> bool | None:
        """Unknown: only a request would tell."""
        return None

    @property
    def concurrency(self) -> int:
        """What all servers can handle together."""
        return sum(server.concurrency for server in self.servers)

    @property
    def adapts(self) -> bool:
        """Whether the number in flight is tuned."""
        return self.servers[0].adapts

    def identity(self) -> dict[str, Any]:
        """Return the served id and every host."""
        hosts = sorted(server.identity()["host"] for server in self.servers)
        return self.servers[0].identity() | {"host": hosts}

    @asynccontextmanager
    async def open(self, logs: Path) -> AsyncIterator[ChatModel]:
        """Connect to every server; one that is down may come later, but one must answer."""
        async with AsyncExitStack() as stack:
            members = []
            down: list[ServerError] = []
            for server in self.servers:
                member = _Member(await stack.enter_async_context(server.connect()))
                members.append(member)
                try:
                    await member.model.check()
                except ServerError as error:
                    if not isinstance(error.__cause__, RequestFailed):
                        raise  # it is there, and does not want us
                    _LOG.warning("%s; the other servers take its load", error)
                    member.leave_out()
                    down.append(error)
            if len(down) == len(members):
                raise down[0]
            first, *others = [one.model for one in members if one.model.served] or [
                members[0].model
            ]
            for other in others:
                if other.served != first.served:
                    said = [f"{one.server.base_url} has {one.served}" for one in (first, other)]
                    raise ConfigError(f"two models share the name {self.name}: {'; '.join(said)}")
            yield _Shared(members, first.served)


@dataclass(slots=True)
class _Member:
    model: Connected
    under_way: int = 0
    back_at: float = field(default=float("-inf"))

    def leave_out(self) -> None:
        self.back_at = time.monotonic() + _LEFT_OUT_S


@dataclass(slots=True)
class _Shared:
    members: list[_Member]
    served: dict[str, str]

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Ask the least busy server; where it cannot be reached, the next one."""
        unreachable: Unreachable | None = None
        for _ in self.members:
            there = [one for one in self.members if one.back_at <= time.monotonic()]
            member = min(there, key=lambda one: one.under_way, default=None)
            if member is None:
                break
            member.under_way += 1
            try:
                return await member.model.complete(prompt, sampling)
            except Unreachable as error:
                member.leave_out()
                unreachable = error
            finally:
                member.under_way -= 1
        raise unreachable or Unreachable("none of the servers can be reached")
