"""Scores sample by sample, read once per run: what paired comparison of two models is made of.

The same pass proves `scores.json`: a task score that its own verdicts do not give is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medix_eval.errors import ConfigError
from medix_eval.results.intervals import average_stderr, clustered, normal_quantile
from medix_eval.results.store import JudgedRun, newest

Scores = npt.NDArray[np.float64]
_MISSING = "-"
_FIRST_CODE = "0"
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSamples:
    """The samples of one task that any run of a board holds, in one order for all of them."""

    ids: list[str]
    clusters: npt.NDArray[np.str_] | None
    """Which image or patient each sample belongs to; None where each stands alone."""


def read_sample_scores(run: JudgedRun) -> dict[str, dict[str, float]]:
    """Return the score of every scored sample of a run, by task and sample id.

    Raises `ConfigError` where the mean of a task is not what `scores.json` says.
    """
    rows = {name: run.entry(name).rows for name in run.judging.tasks}
    wanted: dict[tuple[str, str], int] = {}
    if any(selected is not None for selected in rows.values()):
        wanted = newest(run.folder / "completions.jsonl", lambda line: int(line["row"]))
    chosen = {name: None if picked is None else frozenset(picked) for name, picked in rows.items()}
    found: dict[str, dict[str, float]] = {name: {} for name in rows}
    for key, score in newest(run.judged / "verdicts.jsonl", lambda line: line["score"]).items():
        task = key[0].partition("@")[0]
        if task not in found or score is None:
            continue
        selected = chosen[task]
        if selected is None or wanted.get(key) in selected:
            found[task][key[1]] = float(score)
    for task, scores in found.items():
        _prove(run, task, scores)
    return found


def _prove(run: JudgedRun, task: str, scores: Mapping[str, float]) -> None:
    said = run.scores.tasks[task].score if task in run.scores.tasks else None
    found = math.fsum(scores.values()) / len(scores) if scores else None
    same = said == found or (
        said is not None and found is not None and abs(said - found) <= _TOLERANCE
    )
    if not same:
        raise ConfigError(
            f"{run.judged / 'scores.json'}: {task} has score {said}, but its verdicts give {found}",
            hint=f"`medix-eval score {run.judged}` scores it again",
        )


def read_clusters(runs: Iterable[JudgedRun]) -> dict[str, dict[str, str]]:
    """Return which image or patient each sample belongs to, read from as few runs as hold all."""
    found: dict[str, dict[str, str]] = {}
    known: set[str] = set()
    for run in runs:
        columns = {
            task: entry.cluster
            for task, entry in run.manifest.tasks.items()
            if entry.cluster is not None and task not in known
        }
        if not columns:
            continue
        lines = newest(run.folder / "completions.jsonl", lambda line: line.get("columns", {}))
        for (key, sample_id), values in lines.items():
            task = key.partition("@")[0]
            column = columns.get(task)
            if column is not None:
                found.setdefault(task, {})[sample_id] = values.get(column, sample_id)
        known |= {task for task in columns if run.entry(task).rows is None}
    return found


def in_one_order(
    runs: Sequence[Mapping[str, Mapping[str, float]]],
    *,
    clusters: Mapping[str, Mapping[str, str]],
    tasks: Sequence[str],
) -> dict[str, TaskSamples]:
    """Give the samples of each task one order."""
    ordered = {}
    for task in tasks:
        ids = sorted(set().union(*(run.get(task, {}).keys() for run in runs)))
        known = clusters.get(task)
        names = None if known is None else np.asarray([known.get(one, one) for one in ids])
        ordered[task] = TaskSamples(ids=ids, clusters=names)
    return ordered


def as_array(scores: Mapping[str, float], samples: TaskSamples) -> Scores:
    """Return one run's scores of a task in the common order; NaN where it has none."""
    return np.fromiter((scores.get(name, math.nan) for name in samples.ids), dtype=np.float64)


def differs(
    a: Mapping[str, Scores],
    b: Mapping[str, Scores],
    *,
    samples: Mapping[str, TaskSamples],
    tasks: Sequence[str],
) -> bool | None:
    """Tell whether the 95 % interval of the difference of two averages leaves out zero.

    Paired by sample, and robust to clusters. None where a task has too few shared samples.
    """
    parts = []
    for task in tasks:
        if task not in a or task not in b:
            return None
        differences = a[task] - b[task]
        shared = ~np.isnan(differences)
        names = samples[task].clusters
        parts.append(
            clustered(differences[shared], None if names is None else names[shared].tolist())
        )
    stderr = average_stderr(parts)
    if stderr is None:
        return None
    mean = math.fsum(part.mean for part in parts) / len(parts)
    return abs(mean) > normal_quantile() * stderr


def encoded(scores: Scores) -> dict[str, Any]:
    """Write scores as text, one character a sample: `-` for none, else an index into `values`.

    >>> encoded(np.array([1.0, 0.0, math.nan, 1.0]))
    {'values': [0.0, 1.0], 'codes': '10-1'}
    """
    values = sorted({round(float(score), 6) for score in scores if not math.isnan(score)})
    code = {value: chr(ord(_FIRST_CODE) + number) for number, value in enumerate(values)}
    codes = (_MISSING if math.isnan(x) else code[round(float(x), 6)] for x in scores)
    return {"values": values, "codes": "".join(codes)}
