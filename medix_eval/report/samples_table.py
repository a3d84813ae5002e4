"""Every sample of some runs as one Parquet table, for an analysis of one's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medix_eval.results.store import JudgedRun, JudgedSample


def write_samples(runs: Sequence[JudgedRun], path: Path) -> None:
    """Write the table; of restricted tasks ids and verdicts only."""
    import pandas as pd  # noqa: PLC0415 (half a second, and only here)

    rows = [_row(run, sample) for run in runs for sample in run.samples()]
    pd.DataFrame(rows).to_parquet(path, index=False)


def _row(run: JudgedRun, sample: JudgedSample) -> dict[str, Any]:
    completion, verdict = sample.completion, sample.verdict
    row: dict[str, Any] = {
        "model": run.scores.model,
        "judging_digest": run.scores.judging_digest,
        "task": sample.task,
        "version": completion.task.partition("@")[2],
        "sample_id": completion.sample_id,
        "row": completion.row,
        "kind": completion.kind.value,
        "outcome": verdict.outcome.value,
        "score": verdict.score,
        "judge_score": verdict.judge_score,
        "rule": verdict.rule.rule if verdict.rule else None,
        "rule_score": verdict.rule.score if verdict.rule else None,
        "points": [vote.points for vote in verdict.votes],
        "error_tags": list(verdict.error_tags),
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "seconds": completion.seconds,
    }
    hidden = run.entry(sample.task).data_class == "dua"
    return row | {
        "prompt": None if hidden else completion.prompt,
        "reference": None if hidden else completion.reference,
        "options": None if hidden else list(completion.options),
        "columns": None if hidden else json.dumps(completion.columns, ensure_ascii=False),
        "completion": None if hidden else completion.completion,
        "answer": None if hidden else verdict.answer,
        "replies": None if hidden else [vote.reply for vote in verdict.votes],
    }
