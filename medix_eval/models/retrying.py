"""Asking a model for real: bounded tries, capped back-off, and a stop when nobody answers.

One place for all adapters. What a retry cannot mend (a rejected prompt, a missing key) goes
straight through.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field

from medix_eval.errors import ModelError, RequestFailed, ServerError, Unreachable
from medix_eval.models.chat import ChatModel, Completion, Prompt, Sampling
from medix_eval.models.concurrency import Gate

_LOG = logging.getLogger(__name__)
_FIRST_WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to go on; all of it is in `run.json`."""

    tries: int = 5
    longest_wait_s: float = 60.0
    connection_failures: int = 20
    """This many in a row, over all requests, stop the run."""
    silence_s: float = 600.0
    """So long without any answer, while several requests wait for one, stops the run."""
    quotes: bool = False
    """Whether logs tell what a server said; it may quote the prompt, and so restricted data."""


@dataclass(slots=True, kw_only=True)
class RetryingModel:
    """A model whose passing failures are tried again."""

    model: ChatModel
    policy: RetryPolicy
    role: str
    gate: Gate
    """Requests under way at once; waiting for the next try takes no place."""
    _failures_in_a_row: int = 0
    _last_answer_at: float = field(default_factory=time.monotonic)
    _failed_since: int = 0
    """Requests that failed for good since the last answer: one alone proves nothing."""
    # Only spreads waiting times, so its seed moves no score.
    _random: random.Random = field(default_factory=random.Random)

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Return the first completion, or raise the last failure once the tries are used up."""
        number, seconds = 0, 0.0
        if not self.gate.under_way:  # nobody was asked, so nobody was silent
            self._last_answer_at = time.monotonic()
        while True:
            number += 1
            try:
                async with self.gate:
                    started = time.monotonic()
                    try:
                        completion = await self.model.complete(prompt, sampling)
                    finally:
                        seconds = round(seconds + time.monotonic() - started, 3)
            except RequestFailed as error:
                error.requests, error.seconds = number, seconds
                self._count(error)
                if number >= self.policy.tries:
                    self._failed_since += 1
                    raise
                await asyncio.sleep(self._wait_s(error, number=number))
            except ModelError as error:
                error.requests, error.seconds = number, seconds
                self._answered()
                raise
            else:
                self._answered()
                completion.requests, completion.seconds = number, seconds
                return completion

    def _answered(self) -> None:
        self.gate.answered()
        self._failures_in_a_row = self._failed_since = 0
        self._last_answer_at = time.monotonic()

    def _count(self, error: RequestFailed) -> None:
        """Slow down; and stop everything when the server is evidently gone."""
        self.gate.overloaded()
        if not isinstance(error, Unreachable):
            self._failures_in_a_row = 0
        else:
            self._failures_in_a_row += 1
        silence_s = time.monotonic() - self._last_answer_at
        if self._failures_in_a_row >= self.policy.connection_failures:
            said = f"{self._failures_in_a_row} connections to the {self.role} failed in a row"
        elif silence_s > self.policy.silence_s and self._failed_since + self.gate.under_way > 1:
            said = f"the {self.role} has not answered anything for {silence_s:.0f} s"
        else:
            return
        raise ServerError(
            f"{said} ({self._told(error)})",
            hint="finished work is kept: start the same command again",
        ) from error

    def _wait_s(self, error: RequestFailed, *, number: int) -> float:
        """Return the wait before the next try: what the server asks for, else growing."""
        cap = self.policy.longest_wait_s
        if error.retry_after_s is not None:
            return min(error.retry_after_s, cap)
        grown = min(_FIRST_WAIT_S * 2.0 ** (number - 1), cap)
        wait_s = grown * self._random.uniform(0.5, 1.0)
        _LOG.debug("try %d failed (%s); waiting %.1f s", number, self._told(error), wait_s)
        return wait_s

    def _told(self, error: RequestFailed) -> str:
        is_ours = self.policy.quotes or isinstance(error, Unreachable)
        return str(error) if is_ours else type(error).__name__
