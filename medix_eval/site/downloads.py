"""What a board gives to programs: JSON, CSV, and each model's samples as a script."""

from __future__ import annotations

import json
import math
from typing import Any

from medix_eval.report.format import csv_of
from medix_eval.results.statistics import Floats
from medix_eval.site.boards import Ranked
from medix_eval.site.measured import Measured

_OF_A_TASK = {"version", "kind", "n", "n_scored", "score", "interval", "rules_score", "bounds"}
_SHORT = 16
_MISSING = "-"
_FIRST_CODE = "0"
_FIELDS: tuple[str, ...] = (
    "model", "rank", "task", "version", "score", "low", "high", "n", "n_scored", "complete",
    "protocol", "protocol_digest", "judge", "date", "run", "standing", "note",
)  # fmt: skip


def as_json(measured: Measured) -> str:
    """Return the whole board: every score with what made it."""
    board = measured.board
    content = {
        "schema_version": 1,
        "standing": board.standing,
        "protocol": board.protocol,
        "judges": board.judges,
        "headline": board.headline,
        "groups": board.groups,
        "fingerprints": board.fingerprints,
        "models": [_model(one) for one in measured.ranked],
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


def as_csv(measured: Measured) -> str:
    """Return one line a model and benchmark; averages are lines, too."""
    board, rows = measured.board, list[dict[str, Any]]()
    for one in measured.ranked:
        common = {
            "model": _inert(one.entry.name),
            "rank": one.rank,
            "protocol": _inert(board.protocol["name"]),
            "protocol_digest": board.protocol["digest"][:_SHORT],
            "judge": _inert(board.judge),
            "date": one.entry.date,
            "run": one.entry.run.scores.judging_digest[:_SHORT],
            "standing": board.standing,
            "note": _inert(board.protocol.get("note", "")),
        }
        for name, group in one.entry.groups.items():
            low, high = group.interval or (None, None)
            line = {"task": name, "score": group.score, "low": low, "high": high}
            rows.append(common | line | {"complete": group.complete})
        for name in one.entry.tasks:
            score = one.entry.score(name)
            low, high = score.interval or (None, None)
            line = {"task": name, "version": score.version, "score": score.score, "low": low}
            line |= {"high": high, "n": score.n, "n_scored": score.n_scored}
            rows.append(common | line | {"complete": score.is_complete})
    return csv_of(_FIELDS, rows)


def samples_script(measured: Measured, one: Ranked) -> str:
    """Return one model's scores sample by sample, as a script that hands them to the page."""
    row = measured.board.entries.index(one.entry)
    tasks = {task: encoded(measured.aligned[task].scores[row]) for task in one.entry.tasks}
    return _call(one.slug, {"tasks": tasks})


def clusters_script(measured: Measured) -> str:
    """Return which samples share an image or a patient, for the benchmarks where some do."""
    return _call(
        "_clusters",
        {
            task: one.clusters.tolist()
            for task, one in measured.aligned.items()
            if one.clusters is not None
        },
    )


def encoded(scores: Floats) -> dict[str, Any]:
    """Write scores as text, one character a sample: `-` for none, else an index into `values`.

    >>> import numpy as np
    >>> encoded(np.array([1.0, 0.0, math.nan, 1.0]))
    {'values': [0.0, 1.0], 'codes': '10-1'}
    """
    values = sorted({round(float(score), 6) for score in scores if not math.isnan(score)})
    code = {value: chr(ord(_FIRST_CODE) + number) for number, value in enumerate(values)}
    codes = (_MISSING if math.isnan(x) else code[round(float(x), 6)] for x in scores)
    return {"values": values, "codes": "".join(codes)}


def _model(one: Ranked) -> dict[str, Any]:
    entry = one.entry
    scores = entry.run.scores
    return {
        "model": entry.name,
        "slug": one.slug,
        "rank": one.rank,
        "rank_withheld": list(one.withheld),
        "ties_with_best": one.ties_with_best,
        "facts": entry.facts.model_dump(mode="json", exclude_none=True),
        "date": entry.run.manifest.started,
        "text_only": scores.text_only,
        "generation_digest": scores.generation_digest,
        "judging_digest": scores.judging_digest,
        "tokens_per_sample": entry.tokens_per_sample,
        "groups": {name: group.model_dump(mode="json") for name, group in entry.groups.items()},
        "tasks": {
            name: entry.score(name).model_dump(mode="json", include=_OF_A_TASK)
            for name in entry.tasks
        },
    }


def _inert(text: str) -> str:
    """Keep a spreadsheet from reading a name as a formula."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _call(name: str, content: Any) -> str:
    # JSON is JavaScript, and nothing in it can end a script that is a file of its own.
    return f"medixSamples({json.dumps(name)},{json.dumps(content, separators=(',', ':'))});\n"
