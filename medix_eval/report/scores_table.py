"""Scores as one long table, a line per run and task: what a spreadsheet or pandas reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from medix_eval.records import Outcome
from medix_eval.results.store import JudgedRun

_COLUMNS = (
    "model", "protocol", "protocol_digest", "judges", "generation_digest", "judging_digest",
    "synthetic", "text_only", "control", "name", "what", "version", "kind", "limit", "complete",
    "n", "n_scored", "score", "stderr", "interval_low", "interval_high", "bounds_low",
    "bounds_high", "rules_score", "rules_n", *(outcome.value for outcome in Outcome),
)  # fmt: skip


def scores_csv(runs: Sequence[JudgedRun]) -> str:
    """Return every task and group of every run; runs of different protocols may stand together.

    Each line carries the digests that tell which of them may be compared.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for run in runs:
        about = _about(run)
        writer.writerows(about | row for row in _rows(run))
    return out.getvalue()


def _about(run: JudgedRun) -> dict[str, Any]:
    scores = run.scores
    return {
        "model": scores.model,
        "protocol": scores.protocol["name"],
        "protocol_digest": scores.protocol["digest"],
        "judges": " ".join(str(judge["id"]) for judge in scores.judges),
        "generation_digest": scores.generation_digest,
        "judging_digest": scores.judging_digest,
        "synthetic": scores.synthetic,
        "text_only": scores.text_only,
        "control": scores.control,
    }


def _rows(run: JudgedRun) -> Iterator[dict[str, Any]]:
    for name, task in run.scores.tasks.items():
        fields = {"version", "kind", "limit", "n", "n_scored", "score", "stderr"}
        fields |= {"rules_score", "rules_n"}
        row = task.model_dump(include=fields) | task.outcomes
        row |= _ends("interval", task.interval) | _ends("bounds", task.bounds)
        yield row | {"name": name, "what": "task", "complete": task.is_complete}
    for name, group in run.scores.groups.items():
        row = {"score": group.score, "stderr": group.stderr, "complete": group.complete}
        yield row | {"name": name, "what": "group"} | _ends("interval", group.interval)


def _ends(name: str, pair: tuple[float, float] | None) -> dict[str, float]:
    return {f"{name}_low": pair[0], f"{name}_high": pair[1]} if pair else {}
