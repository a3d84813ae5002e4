"""Ask a judge about labelled answers, in the very way an evaluation asks it.

The same protocol, prompts, votes, retries and cache: what is measured here is what scores runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medix_eval.errors import ConfigError, NoJudge, ServerError
from medix_eval.evaluation.panel import Appointed, grader_for
from medix_eval.evaluation.progress import Progress
from medix_eval.judge_check.probes import LabelledAnswer
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.outcomes import Scorer
from medix_eval.judging.protocol import Protocol
from medix_eval.models.chat import ModelSource
from medix_eval.models.requests import RetryPolicy, each
from medix_eval.records import VerdictRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedJudge:
    """A judge under a protocol, and what it takes to ask it."""

    protocol: Protocol
    source: ModelSource | None
    """None where the protocol uses no language model."""
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    cache: VerdictCache | None = None
    logs: Path = Path("logs")
    restricted: bool = False
    """Whether the answers are `dua` data: then the cache keeps no words of the judge."""

    @property
    def name(self) -> str:
        """The name that appears in tables and folders."""
        return self.source.name if self.source else self.protocol.name

    def identity(self) -> dict[str, Any]:
        """Everything that tells this judge from another. Raises `NoJudge`."""
        try:
            return self.source.identity() if self.source else {}
        except (ConfigError, ServerError) as error:
            raise NoJudge(error) from error

    async def judged(
        self, items: Sequence[LabelledAnswer], *, progress: Progress
    ) -> list[VerdictRecord]:
        """Return the verdict of every item, in their order; a failed one says so."""
        async with AsyncExitStack() as stack:
            scorer = await self._opened(stack)
            progress.begin("judging", len(items))
            verdicts: dict[int, VerdictRecord] = {}

            async def judge(numbered: tuple[int, LabelledAnswer]) -> None:
                number, item = numbered
                verdict = verdicts[number] = await scorer.score(item.record)
                if self.cache is not None:
                    self.cache.keep(verdict.votes, restricted=self.restricted)
                progress.judged(verdict)

            limit = self.source.concurrency if self.source else 1
            await each(enumerate(items), judge, limit=limit)
            return [verdicts[number] for number in range(len(items))]

    async def _opened(self, stack: AsyncExitStack) -> Scorer:
        if self.source is None:
            return Scorer(self.protocol, None)
        judge = Appointed(name=self.source.name, source=self.source, identity=self.identity())
        try:
            model = await stack.enter_async_context(self.source.open(self.logs))
        except (ConfigError, ServerError) as error:
            raise NoJudge(error) from error
        grader = grader_for(
            judge, model, protocol=self.protocol, policy=self.policy, cache=self.cache
        )
        return Scorer(self.protocol, grader)
