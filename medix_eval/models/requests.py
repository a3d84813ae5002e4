"""How many requests are in flight, which are sent again, and which replies are answers.

The number is tuned like TCP: grow while it helps, halve when the server says it is too much. It
does not affect a score, so it is in no digest.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from medix_eval.errors import (
    EndpointFault,
    MedixError,
    ModelError,
    NoText,
    OtherModel,
    Overloaded,
    RefusesAll,
    ReplyUnusable,
    RequestFailed,
    RequestRefused,
    RequestRejected,
    ServerError,
    TimedOut,
    UnknownName,
    Unreachable,
)
from medix_eval.models.chat import ChatModel, Completion, Prompt, Sampling
from medix_eval.storage.bundled import read_mapping

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
FIRST = 32
"""Where the search begins."""
_GROWTH = 1.5
_PAYS = 1.1
"""A larger limit is kept if it brings a tenth more answers a second."""
_WINDOWS_AT_REST = 10
_CUT_AT_MOST_EVERY_S = 1.0
_AHEAD = 32
"""Items that are ready before there is room for them."""
_TURN_S = 0.001
"""So long items are taken before answers that have come in meanwhile get their turn."""


def gate_for(*, concurrency: int, adapts: bool) -> Gate:
    """Return the gate of a model: fixed, or tuned up to its concurrency."""
    return Gate(limit=min(FIRST, concurrency) if adapts else concurrency, most=concurrency)


@dataclass(slots=True, kw_only=True)
class Gate:
    """`async with gate:` waits for a slot; report every answer and every overload to the gate."""

    limit: int
    most: int
    """The limit never grows above this; where both are equal it is fixed."""
    clock: Callable[[], float] = time.monotonic
    under_way: int = 0
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    _is_fixed: bool = field(init=False)
    _answers: int = 0
    _window_began: float = field(init=False)
    _cut_at: float = float("-inf")
    _best: tuple[float, int] = (0.0, 0)
    """Answers a second at the best limit so far, and that limit."""
    _is_growing: bool = True
    _windows: int = 0

    def __post_init__(self) -> None:
        self._is_fixed = self.limit >= self.most
        self._window_began = self.clock()

    async def __aenter__(self) -> None:
        if self.under_way < self.limit:
            self.under_way += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given one just now
                await self.__aexit__(None, None, None)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.under_way -= 1
        self._admit()

    def answered(self) -> None:
        """Count an answer; after two rounds, check whether the limit helps."""
        if self._is_fixed:
            return
        self._answers += 1
        if self._answers < 2 * self.limit:
            return
        now = self.clock()
        per_s = self._answers / max(now - self._window_began, 1e-9)
        self._answers, self._window_began, self._windows = 0, now, self._windows + 1
        if self._is_growing and per_s < self._best[0] * _PAYS:
            self.limit, self._is_growing, self._windows = self._best[1], False, 0
        elif self._is_growing or self._windows >= _WINDOWS_AT_REST:
            self._best, self._is_growing = (per_s, self.limit), True
            self.limit = min(self.most, int(self.limit * _GROWTH) + 1)
            self._admit()

    def overloaded(self) -> None:
        """Halve the limit; the failures of one moment count once."""
        now = self.clock()
        if self._is_fixed or now - self._cut_at < _CUT_AT_MOST_EVERY_S:
            return
        self._cut_at = now
        self.limit, self._is_growing, self._windows = max(1, self.limit // 2), False, 0
        self._answers, self._window_began = 0, now

    def _admit(self) -> None:
        while self._waiting and self.under_way < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self.under_way += 1
                place.set_result(None)


async def each(
    items: Iterable[_Item], work: Callable[[_Item], Awaitable[None]], *, limit: int
) -> None:
    """Run `work` on every item, at most `limit` at a time.

    The next few items, of which none is None, are taken while work waits for answers: so an answer
    is followed by a request at once. `work` records expected failures; what escapes it stops the
    stage.
    """
    ready: asyncio.Queue[_Item | None] = asyncio.Queue(min(limit, _AHEAD))

    async def take() -> None:
        turn_began = time.monotonic()
        for item in items:
            await ready.put(item)
            if time.monotonic() - turn_began > _TURN_S:
                await asyncio.sleep(0)
                turn_began = time.monotonic()
        for _ in range(limit):
            await ready.put(None)

    async def worker() -> None:
        while (item := await ready.get()) is not None:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(take())
            for _ in range(limit):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        # Several requests in flight find out that a server is gone; one line is enough.
        known = [error for error in errors.exceptions if isinstance(error, MedixError)]
        raise (known[0] if known else errors.exceptions[0]) from None


_NO_TEXT = "the reply has no text"
_NO_ANSWER = "all of the reply is reasoning, without an answer"
_PARSER = "does the server's --reasoning-parser (llama.cpp: --reasoning-format) fit the model?"
OF_THE_SAMPLE = frozenset({"too_long", "image", "content_filter"})
"""Refusals that are the sample's own; for any other the model is not to blame."""


@cache
def thinking_switch(thinking: str, model: str) -> Mapping[str, Any]:
    """Return how a model is asked not to think, as `thinking.yaml` says: `body`, `suffix`.

    `thinking` is `off`, where the model's name tells its family, `as_is`, or the family's name.
    Raises `ConfigError` for another one.
    """
    families = read_mapping(Path(__file__).with_name("thinking.yaml"), what="switches of thinking")
    if thinking not in {"off", "as_is", *families}:
        raise UnknownName("family of models that think", thinking, ["off", "as_is", *families])
    name = model.casefold().rstrip("/").rpartition("/")[2]
    by_name = (one for one in families.values() if re.search(one["names"], name))
    found = families.get(thinking) or (next(by_name, {}) if thinking == "off" else {})
    return {key: value for key, value in found.items() if key != "names"}


@cache
def _words() -> tuple[dict[str, str], tuple[tuple[str, re.Pattern[str]], ...]]:
    listed = read_mapping(Path(__file__).with_name("vendors.yaml"), what="vendors' words")
    endings: dict[str, str] = {}
    for vendor in listed["finish_reasons"].values():
        endings |= vendor
    refusals = listed["refusals"].items()
    patterns = ((kind, "|".join(said)) for kind, said in refusals)
    return endings, tuple((kind, re.compile(said, re.IGNORECASE)) for kind, said in patterns)


@lru_cache(maxsize=256)
def ending_of(reason: str | None) -> str:
    """Return what a finish reason means: `stop`, `length`, `content_filter`, `refusal`, `failed`.

    Without one an answer counts as whole; a word that no known server says is `unknown`.

    >>> ending_of("MAX_TOKENS"), ending_of("abort"), ending_of(None), ending_of("tool_calls")
    ('length', 'failed', 'stop', 'unknown')
    """
    word = ((reason or "").strip() or "stop").rpartition(".")[2].casefold().replace("-", "_")
    return _words()[0].get(word, "unknown")


def refusal_kind(said: str) -> str:
    """Return what a refusal is about, as `vendors.yaml` sorts them; empty if it tells nothing.

    >>> refusal_kind("This model's maximum context length is 4096 tokens.")
    'too_long'
    """
    return next((kind for kind, pattern in _words()[1] if pattern.search(said)), "")


def unanswered(text: str | None, reason: str | None, *, thought_only: bool = False) -> str:
    """Return why a reply is not an answer of the model, in words; empty if it is one.

    The one place that tells them apart, of fresh replies and of what a run has kept.
    """
    ending = ending_of(reason)
    if ending in {"failed", "unknown"}:
        return f"the reply ended with finish_reason {reason!r}, which is no answer's"
    if text is None and ending == "stop":
        return _NO_TEXT
    if thought_only and ending == "stop":
        return _NO_ANSWER
    return ""


def accepted(completion: Completion) -> Completion:
    """Return a completion that is an answer, its finish reason in our words.

    Raises `RequestFailed` for one that the server broke off or left out, else `ReplyUnusable`.
    """
    reason, ending = completion.finish_reason, ending_of(completion.finish_reason)
    if why := unanswered(completion.text, reason, thought_only=completion.thought_only):
        hint = _PARSER if why == _NO_ANSWER else ""
        if ending == "failed" or why == _NO_TEXT:
            raise NoText(why) if why == _NO_TEXT else RequestFailed(why)
        raise ReplyUnusable(why, hint=hint)
    completion.finish_reason = reason and ending
    return completion


_LOG = logging.getLogger(__name__)
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_TO_CONNECT_S = 3.0
_DOUBLED_AT_MOST = 10
_CONNECTING_S = 15.0
"""More than it takes to find out that there is no connection."""
_FAULTS = 3
"""Samples in a row that failed for good by the endpoint's fault: it stays so."""
_REFUSALS = (OtherModel, RequestRefused, RequestRejected)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to go on; all of it is in `run.json`."""

    tries: int = 5
    longest_wait_s: float = 60.0
    patience_s: float = 300.0
    """So long a server that cannot be reached is waited for; then the run stops."""
    overload_s: float = 90.0
    """So long a request is tried again that the server turns away while it answers no other."""
    silence_s: float = 600.0
    """So long without any answer, while several requests fail, stops the run."""
    refusals: int = 8
    """This many of the same kind, before anything was answered, stop the run."""
    quotes: bool = False
    """Whether logs quote the server; it may quote the prompt, and so restricted data."""


@dataclass(slots=True, eq=False)
class _Asking:
    """One prompt on its way: how many requests, and what they took together."""

    requests: int = 0
    seconds: float = 0.0
    tries: int = 0
    """Requests whose failure counts: not those that found no connection."""
    sent_at: float = 0.0
    failed_at: float = float("inf")
    """When it failed first."""


@dataclass(slots=True, kw_only=True)
class RetryingModel:
    """A model whose temporary failures are retried."""

    model: ChatModel
    policy: RetryPolicy
    role: str
    gate: Gate
    """Requests in flight; waiting for the next try does not count."""
    answered: set[bool] = field(default_factory=set)
    """Whether prompts with images, or without, were answered in this run: then a refusal is not of
    every such request."""
    clock: Callable[[], float] = time.monotonic
    _refused: Counter[str] = field(default_factory=Counter)
    _is_warned: bool = False
    _is_waiting: bool = False
    """Whether it was said that the server is waited for."""
    _last_answer_at: float = field(init=False)
    _failing_since: float | None = None
    """When it began to fail, nothing having been answered since."""
    _under_way: set[_Asking] = field(default_factory=set)
    _num_open: int = 0
    """Prompts on their way, those included that wait for their next try."""
    _failed_since: int = 0
    """Requests that finally failed since the last answer: one alone proves nothing."""
    _faults: int = 0
    """Of these, those that the endpoint itself is to blame for."""
    # Only spreads waiting times, so its seed affects no score.
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._last_answer_at = self.clock()

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Return the first completion, or raise the last failure after all tries."""
        asking = _Asking()
        self._num_open += 1
        try:
            while True:
                try:
                    completion = await self._ask(asking, prompt, sampling)
                except ModelError as error:
                    error.requests, error.seconds = asking.requests, asking.seconds
                    if not isinstance(error, RequestFailed):
                        self._answered()
                        self._heed(error, prompt)
                        raise
                    self._count(error, asking)
                    if self._gives_up(error, asking):
                        self._heed(error, prompt)
                        raise
                    await asyncio.sleep(self._wait_s(error, asking))
                else:
                    self._answered()
                    self.answered.add(bool(prompt.images))
                    completion.requests, completion.seconds = asking.requests, asking.seconds
                    return completion
        finally:
            self._num_open -= 1

    async def _ask(self, asking: _Asking, prompt: Prompt, sampling: Sampling) -> Completion:
        asking.requests += 1
        async with self.gate:
            asking.sent_at = self.clock()
            self._under_way.add(asking)
            try:
                return accepted(await self.model.complete(prompt, sampling))
            finally:
                self._under_way.discard(asking)
                asking.seconds = round(asking.seconds + self.clock() - asking.sent_at, 3)

    def _answered(self) -> None:
        self.gate.answered()
        if self._is_waiting:
            waited_s = self.clock() - (self._failing_since or self._last_answer_at)
            _LOG.warning("the %s answers again, after %.0f s", self.role, waited_s)
        self._failed_since = self._faults = 0
        self._is_waiting, self._failing_since, self._last_answer_at = False, None, self.clock()

    def _gives_up(self, error: RequestFailed, asking: _Asking) -> bool:
        """Return whether a request has failed for good; raise if others would fail as it did."""
        now, policy = self.clock(), self.policy
        asking.failed_at = min(asking.failed_at, now)
        if isinstance(error, Unreachable):
            return False
        asking.tries += 1
        if asking.tries < policy.tries:
            return False
        if isinstance(error, Overloaded) and now - asking.failed_at < policy.patience_s:
            # Others may be let in before it, one after the other.
            since = max(asking.failed_at, self._last_answer_at)
            if now - since < policy.overload_s:
                return False
        self._failed_since += 1
        self._faults += isinstance(error, EndpointFault)
        if self._faults >= (_FAULTS if self.answered else 1):
            raise ServerError(str(error), hint=error.hint) from error
        return True

    def _heed(self, error: ModelError, prompt: Prompt) -> None:
        """Warn of what a hint can mend; and stop when the first requests are all refused alike."""
        if error.hint and not self._is_warned:
            self._is_warned = True
            _LOG.warning("%s; %s", error, error.hint)
        can_do_without = prompt.schema is not None and getattr(error, "is_schema", False)
        is_known = bool(prompt.images) in self.answered
        if is_known or can_do_without or not isinstance(error, _REFUSALS):
            return
        alike = type(error).__name__ + re.sub(r"\w*[0-9]\w*", "#", str(error))[:160]
        self._refused[alike] += 1
        if self._refused[alike] >= self.policy.refusals:
            told = str(error) if self.policy.quotes else type(error).__name__
            said = f"the first {self.policy.refusals} requests to the {self.role} are refused alike"
            hint = error.hint or "mend the server or its flags, and run the same command again"
            raise RefusesAll(f"{said}: {told}", hint=hint) from error

    def _count(self, error: RequestFailed, asking: _Asking) -> None:
        """Slow down; and stop everything when the server is evidently gone."""
        now, is_gone, limit_s = self.clock(), False, self.policy.silence_s
        if isinstance(error, Unreachable):
            is_gone, limit_s = True, self.policy.patience_s
            if any(now - other.sent_at > _CONNECTING_S for other in self._under_way):
                self._failing_since = now  # it has let that one in, and works on it
        else:
            self.gate.overloaded()
        waited_s = now - asking.sent_at  # if too long, this process had been stopped
        is_silence = isinstance(error, TimedOut) and waited_s < 1.1 * self.policy.silence_s
        since = asking.sent_at if is_silence else now
        known = since if self._failing_since is None else self._failing_since
        self._failing_since = max(min(known, since), self._last_answer_at)
        silence_s = now - self._failing_since
        if silence_s > limit_s and (is_gone or self._failed_since + self._num_open > 1):
            raise ServerError(
                f"the {self.role} has not answered for {silence_s:.0f} s ({self._told(error)})",
                hint="finished work is kept: run the same command again",
            ) from error
        if not self._is_waiting and (is_gone or silence_s > _CONNECTING_S):
            self._is_waiting = True
            said = "the %s does not answer (%s): trying again for up to %.0f s"
            _LOG.warning(said, self.role, self._told(error), limit_s)

    def _wait_s(self, error: RequestFailed, asking: _Asking) -> float:
        """Return the wait before the next try: growing, and no less than the server asks for."""
        cap, tries = self.policy.longest_wait_s, asking.tries
        if isinstance(error, Unreachable):  # to ask whether it is back costs nothing
            cap, tries = min(cap, _LONGEST_WAIT_TO_CONNECT_S), asking.requests
        spread = self._random.uniform(0.5, 1.0)
        wait_s = min(_FIRST_WAIT_S * 2.0 ** min(tries - 1, _DOUBLED_AT_MOST), cap) * spread
        if error.retry_after_s is not None:  # and a little more, so that not all come at once
            wait_s = max(wait_s, min(error.retry_after_s, cap) * (1.5 - spread / 2))
        _LOG.debug("try %d failed (%s); waiting %.1f s", tries, self._told(error), wait_s)
        return wait_s

    def _told(self, error: RequestFailed) -> str:
        is_ours = self.policy.quotes or isinstance(error, Unreachable)
        return str(error) if is_ours else type(error).__name__


def run_to_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine as `asyncio.run` does, even if a loop is already running.

    A notebook has one: the coroutine then runs in a loop of its own in another thread, and Ctrl-C
    cancels it there.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def told() -> _Result:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (a coroutine that runs has one)
        begun.set_result((asyncio.get_running_loop(), task))
        return await work

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(asyncio.run, told())
        try:
            return done.result()
        except BaseException:
            if not done.done():  # interrupted here, while the work goes on there
                loop, task = begun.result()
                loop.call_soon_threadsafe(task.cancel)
            raise
