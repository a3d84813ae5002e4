"""Asks the judge about a batch: all pairs at once, over one session, and again what it failed.

A failure is never a verdict. A few are left open; more, and the batch waits for the judge, because
a policy must not learn from who happened to be graded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from medix_eval.errors import RequestFailed, ServerError
from medix_eval.evaluation.panel import JudgeChoice, Panel, ResolvedJudge, judge_sources
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.judge import Grade
from medix_eval.models.requests import RetryPolicy, each
from medix_eval.records import CompletionRecord, Kind, Vote
from medix_train.reward_settings import FailureBudget, RewardSettings

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


class Asked(NamedTuple):
    """What the judge compares; equal ones are asked once."""

    question: str
    reference: str
    answer: str


@dataclass(slots=True, kw_only=True)
class JudgeDesk:
    """A judge that is open, in the event loop that opened it."""

    panel: Panel
    vote: Callable[[Grade], float | None]
    budget: FailureBudget
    num_calls: int = 0
    """Requests so far."""
    _said: str = ""
    """Why there was no verdict, the last time there was none."""

    @classmethod
    async def open(
        cls,
        settings: RewardSettings,
        *,
        vote: Callable[[Grade], float | None],
        stack: AsyncExitStack,
    ) -> Self:
        """Connect to the judge; `ConfigError` or `ServerError` where there is none."""
        protocol, _, _ = settings.load_protocol()
        flags = settings.judge.flags()
        choice = JudgeChoice(name=settings.judge.model, flags=flags)
        (source,) = judge_sources(protocol, [choice], out=Path())
        judge = ResolvedJudge(name=source.name, source=source, identity=source.identity())
        models = {judge.name: await stack.enter_async_context(source.open(Path("logs")))}
        cache = None
        if settings.cache:
            hint = "`cache: null` of the reward goes on without it"
            cache = stack.enter_context(VerdictCache.at(settings.cache, hint=hint))
        policy = RetryPolicy(tries=3, longest_wait_s=8.0, silence_s=flags.request_timeout_s)
        panel = Panel(protocol=protocol, judges=(judge,), policy=policy, cache=cache, models=models)
        await panel.open(stack)
        return cls(panel=panel, vote=vote, budget=settings.failures)

    async def verdicts(self, asked: Collection[Asked]) -> dict[Asked, float | None]:
        """Return a verdict for each; None where the judge failed, which is rare or raises.

        Raises `ServerError` where it goes on failing, and at once where waiting cannot help.
        """
        found: dict[Asked, float | None] = {}
        left = list(asked)
        waited_s, pause_s = 0.0, _FIRST_PAUSE_S
        while left:
            found |= await self.ask(left)
            left = [pair for pair, verdict in found.items() if verdict is None]
            if len(left) <= self.budget.tolerated_share * len(found):
                break
            if waited_s >= self.budget.patience_s:
                raise ServerError(
                    f"the judge failed {len(left)} of {len(found)} answers for {waited_s:.0f} s "
                    f"({self._said})",
                    hint="the last checkpoint is whole: see to the judge, then resume",
                )
            _LOG.warning("judge failed %d of %d: %s", len(left), len(found), self._said)
            await _pause(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return found

    async def ask(self, asked: Collection[Asked]) -> dict[Asked, float | None]:
        """Return a verdict for each, None where the judge failed; nothing is waited for."""
        found: dict[Asked, float | None] = {}
        votes: list[Vote] = []

        async def work(pair: Asked) -> None:
            try:
                grade = await self.panel.grade(_record(pair), answer=pair.answer)
            except ServerError as error:
                if not isinstance(error.__cause__, RequestFailed):
                    raise  # it is there, and does not want us
                found[pair], self._said = None, str(error)
                return
            votes.extend(grade.votes)
            found[pair] = self.vote(grade)
            for vote in grade.votes:
                self._said = vote.failure.message if vote.failure else self._said

        try:
            # Not all at once: the first request would wait until every prompt is made.
            await each(dict.fromkeys(asked), work, limit=self.panel.concurrency)
        finally:
            self.num_calls += sum(vote.calls for vote in votes)
            self.panel.keep(votes, restricted=False)
        return found


def _record(pair: Asked) -> CompletionRecord:
    return CompletionRecord(
        task="reward",
        sample_id=pair.question,
        row=0,
        kind=Kind.OPEN,
        prompt=pair.question,
        reference=pair.reference,
    )


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds)
