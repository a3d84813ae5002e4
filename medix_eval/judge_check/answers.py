"""From labels and a run, or from labels alone, to labelled answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic import ValidationError

from medix_eval.errors import ConfigError, first_error
from medix_eval.evaluation.panel import Panel
from medix_eval.evaluation.pipeline import Progress
from medix_eval.judge_check.biases import JudgedAnswer
from medix_eval.judge_check.probes import LabelledAnswer
from medix_eval.records import CompletionRecord
from medix_eval.results.labels import LabelRow, Labels, options_of
from medix_eval.results.store import JudgedRun
from medix_eval.storage.digests import mark_of

TEXTS = ("question", "reference", "answer")
"""What a sheet must carry for its answers to be judged without their run."""
_RIGHT_ABOVE = 0.5


def answers_of_run(labels: Labels, run: JudgedRun) -> list[JudgedAnswer]:
    """Return the labelled answers of a run with their verdicts.

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
            found[sample_id] = JudgedAnswer(item=item, verdict=sample.verdict)
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
                "finish_reason": columns.get("finish_reason") or "stop",
            }
        )
    except ValidationError as error:
        raise ConfigError(f"sample {row.sample_id}: {first_error(error)}") from error


async def ask_panel(
    panel: Panel,
    items: Sequence[LabelledAnswer],
    *,
    logs: Path,
    restricted: bool,
    progress: Progress,
) -> list[JudgedAnswer]:
    """Return what the panel says of every item, in their order; a failed verdict says so.

    Of `restricted` answers the cache keeps no words of the judge. Raises `NoJudge`.
    """
    async with AsyncExitStack() as stack:
        await panel.open(stack, logs=logs)
        progress.begin("judging", Counter(item.record.task for item in items))
        verdicts = await panel.verdicts(
            [item.record for item in items],
            restricted=restricted,
            told=lambda one: progress.done("judging", one.task, failed=one.outcome.is_failure),
        )
        pairs = zip(items, verdicts, strict=True)
        return [JudgedAnswer(item=item, verdict=verdict) for item, verdict in pairs]
