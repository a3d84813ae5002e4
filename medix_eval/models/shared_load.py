"""Several servers of one model: each request goes to the least busy one.

A server that fails is left out for a while, longer each time; then one request finds out whether
it is well again. What it did not answer the next one is asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from medix_eval.errors import (
    ConfigError,
    EndpointFault,
    ModelError,
    RequestFailed,
    ServerError,
    Unreachable,
)
from medix_eval.models.chat import ChatModel, Completion, Prompt, Sampling
from medix_eval.models.openai_server import Connected, OpenAIServer

_LOG = logging.getLogger(__name__)
_LEFT_OUT_S, _LONGEST_LEFT_OUT_S = 5.0, 60.0
_NEVER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLoad:
    """Servers that serve the same model."""

    servers: tuple[OpenAIServer, ...]

    @property
    def name(self) -> str:
        """The model's name, the same at every server."""
        return self.servers[0].name

    def bound(self, addresses: Mapping[str, tuple[str, ...]]) -> Self:
        """Return the same servers, to be reached at these addresses of their hosts only."""
        return replace(self, servers=tuple(one.bound(addresses) for one in self.servers))

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
                    member.failed(error.__cause__ if _rank(error.__cause__) < _NEVER else error)
                    down.append(error)
            if len(down) == len(members):
                raise down[0]
            first, *others = [one.model for one in members if one.model.served] or [
                members[0].model
            ]
            for other in others:
                if other.served != first.served:
                    said = [f"{one.server.address} has {one.served}" for one in (first, other)]
                    raise ConfigError(f"two models share the name {self.name}: {'; '.join(said)}")
            yield _Shared(members, first.served)


def _rank(failure: BaseException | None) -> int:
    """Return how little hope a server's last word leaves."""
    if isinstance(failure, Unreachable):
        return 0
    if isinstance(failure, EndpointFault):
        return 2
    return 1 if isinstance(failure, RequestFailed) else _NEVER


@dataclass(slots=True)
class _Member:
    model: Connected
    under_way: int = 0
    back_at: float = float("-inf")
    left_out_s: float = 0.0
    failure: BaseException | None = None
    """Its last word, where that was no answer."""
    is_told: bool = False

    def failed(self, failure: BaseException | None) -> None:
        """Leave it out for a while, longer each time; what fails together counts once."""
        now, self.failure = time.monotonic(), failure
        if now < self.back_at:
            return
        is_gone = _rank(failure) in {0, _NEVER}
        asked_s = getattr(failure, "retry_after_s", None) or 0.0
        least_s = max(_LEFT_OUT_S if is_gone else 1.0, 2 * self.left_out_s, asked_s)
        self.left_out_s = min(least_s, _LONGEST_LEFT_OUT_S)
        self.back_at = now + self.left_out_s
        if self.left_out_s >= _LEFT_OUT_S and not self.is_told:
            self.is_told = True
            own = _rank(failure) == 1  # which may quote a prompt
            words = f"{self.model.server.address}: {type(failure).__name__}" if own else failure
            _LOG.warning("%s; the other servers take its load", words)

    def answered(self) -> None:
        """Ask it like the others."""
        self.back_at, self.left_out_s = float("-inf"), 0.0
        self.failure, self.is_told = None, False


@dataclass(slots=True)
class _Shared:
    members: list[_Member]
    served: dict[str, str]

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Ask the least busy server; where that fails, the next one.

        Raises the last failure where all fail, and `ServerError` only where all refuse to work.
        """
        left, failure = [*self.members], None
        while left:
            there = [one for one in left if one.back_at <= time.monotonic()]
            if not there and failure is not None:
                break
            busy = {id(one): one.under_way if there else one.back_at for one in left}
            member = min(there or left, key=lambda one: busy[id(one)])
            left.remove(member)
            member.under_way += 1
            try:
                completion = await member.model.complete(prompt, sampling)
            except (RequestFailed, ServerError) as error:
                member.failed(error)
                failure = error
            except ModelError:
                member.answered()  # it is there, and will not take this prompt
                raise
            else:
                member.answered()
                return completion
            finally:
                member.under_way -= 1
        assert failure is not None  # noqa: S101 (there is at least one server)
        known = [one.failure for one in self.members if one.failure is not None]
        hopeful = min([failure, *known], key=_rank)
        if _rank(hopeful) < _rank(failure):  # it is waited for
            raise Unreachable(str(hopeful)) from hopeful
        raise failure
