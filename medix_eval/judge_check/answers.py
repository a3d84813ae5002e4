"""From labels and a run, or from labels alone, to labelled answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medix_eval.errors import ConfigError, NoJudge, ServerError, first_error
from medix_eval.evaluation.panel import Appointed, grader_for
from medix_eval.evaluation.progress import Progress
from medix_eval.judge_check.biases import Judged
from medix_eval.judge_check.probes import LabelledAnswer
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.outcomes import Scorer
from medix_eval.judging.protocol import Protocol
from medix_eval.models.chat import ModelSource
from medix_eval.models.requests import RetryPolicy, each
from medix_eval.records import CompletionRecord, VerdictRecord
from medix_eval.results.labels import LabelRow, Labels, mark_of, options_of
from medix_eval.results.store import JudgedRun

TEXTS = ("question", "reference", "answer")
"""What a sheet must carry for its answers to be judged without their run."""
_RIGHT_ABOVE = 0.5


def answers_of_run(labels: Labels, run: JudgedRun) -> list[Judged]:
    """Return the labelled answers of a run with the verdicts they have there.

    Raises `ConfigError` for a label of a sample or of an answer that the run does not have.
    """
    found = {}
    for sample in run.samples():
        sample_id = sample.completion.sample_id
        if sample_id in labels.by_sample:
            item = LabelledAnswer(
                record=sample.completion,
                is_correct=labels.by_sample[sample_id] > _RIGHT_ABOVE,
                label_class=sample.task,
                split="labelled",
            )
            found[sample_id] = Judged(item=item, verdict=sample.verdict)
    marks = {name: mark_of(one.item.record.completion) for name, one in found.items()}
    labels.check(marks, run=run.judged)
    return [found[sample_id] for sample_id in labels.by_sample]


def answers_of_sheet(labels: Labels) -> Iterator[LabelledAnswer]:
    """Yield the labelled answers of a sheet that carries question, reference and answer."""
    for number, (sample_id, label) in enumerate(labels.by_sample.items()):
        row = labels.rows[sample_id]
        missing = [name for name in TEXTS if name not in row.columns]
        if missing:
            raise ConfigError(
                f"{labels.source['file']} has no column {', '.join(missing)}",
                hint="name the run that was labelled with --sheet RUN, or add the columns",
            )
        yield LabelledAnswer(
            record=_record(row, number),
            is_correct=label > _RIGHT_ABOVE,
            label_class=row.columns.get("task") or "labelled",
            split="labelled",
        )


def restricted_tasks(labels: Labels) -> list[str]:
    """Return the tasks of a sheet whose texts may not leave the machine."""
    columns = [row.columns for row in labels.rows.values()]
    return sorted({one["task"] for one in columns if one.get("data_class") == "dua"})


def _record(row: LabelRow, number: int) -> CompletionRecord:
    columns = row.columns
    try:
        return CompletionRecord.model_validate(
            {
                "task": columns.get("task") or "labelled",
                "sample_id": row.sample_id,
                "row": number,
                "kind": columns.get("kind") or "open",
                "prompt": columns["question"],
                "reference": columns["reference"],
                "options": options_of(columns.get("options", ""), sample_id=row.sample_id),
                "completion": columns["answer"],
                "finish_reason": "stop",
            }
        )
    except ValidationError as error:
        raise ConfigError(f"sample {row.sample_id}: {first_error(error)}") from error


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
