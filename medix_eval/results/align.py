"""Runs side by side: the samples they share, in one order, and which of them tie with the best.

All that holds runs against each other sample by sample starts here: comparisons, repetitions,
gates and the site.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from medix_eval.errors import ConfigError
from medix_eval.results.statistics import Clusters, Floats, Numbers, clustered, is_clear, numbered
from medix_eval.results.store import JudgedRun, JudgedSample, newest

_TOLERANCE = 1e-9
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned:
    """One task in several runs: a row per run, a column per sample."""

    ids: list[str]
    scores: Floats
    """NaN where a run has no score of a sample."""
    clusters: Numbers | None
    """Number of the image or patient of each sample; None where each stands alone."""

    def difference(
        self, run: int, other: int, *, at: Sequence[int] | slice = slice(None)
    ) -> Clusters:
        """Return what a run scores above another, on the samples that both scored."""
        apart = self.scores[run, at] - self.scores[other, at]
        both = ~np.isnan(apart)
        return clustered(apart[both], None if self.clusters is None else self.clusters[at][both])


def tie(tasks: Sequence[Aligned], run: int, best: int) -> bool | None:
    """Tell whether chance may explain how far a run is from the best, on average over tasks.

    It may unless the paired interval that `compare` prints leaves out zero: a mark must not deny
    the interval beside it, and the plain 1.96 standard errors would call two lost samples of three
    a clear difference. None where the two share no sample of a task.
    """
    parts = [task.difference(run, best) for task in tasks]
    return not is_clear(parts) if all(part.num_samples for part in parts) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared(Aligned, Generic[Kept]):
    """One task on the samples that every run scored, in the first run's order."""

    kept: list[list[Kept]]
    """What was kept of each sample, by run."""
    num_left_out: int
    """Samples that some run has no score of."""


def shared_tasks(
    runs: Sequence[JudgedRun], keep: Callable[[JudgedRun, JudgedSample], Kept]
) -> dict[str, Shared[Kept]]:
    """Return the tasks of which all runs scored some sample; `keep` says what else is wanted."""
    read = [_by_task(run, keep) for run in runs]
    found = {}
    for name in runs[0].judging.tasks:
        tasks = [one[name] for one in read if name in one]
        ids = [one for one in tasks[0].scored if all(one in task.scored for task in tasks)]
        if ids and len(tasks) == len(runs):
            found[name] = Shared(
                ids=ids,
                scores=np.array([[task.scored[one][0] for one in ids] for task in tasks]),
                clusters=numbered([tasks[0].scored[one][1] for one in ids]),
                kept=[[task.scored[one][2] for one in ids] for task in tasks],
                num_left_out=max(task.num_samples for task in tasks) - len(ids),
            )
    return found


@dataclass(slots=True)
class _TaskOfRun(Generic[Kept]):
    scored: dict[str, tuple[float, str, Kept]]
    """Score, cluster and what is kept, by sample id."""
    num_samples: int = 0


def _by_task(
    run: JudgedRun, keep: Callable[[JudgedRun, JudgedSample], Kept]
) -> dict[str, _TaskOfRun[Kept]]:
    found: dict[str, _TaskOfRun[Kept]] = {name: _TaskOfRun({}) for name in run.judging.tasks}
    for sample in run.samples():
        task, name = found[sample.task], sample.completion.sample_id
        task.num_samples += 1
        if sample.verdict.score is not None:
            cluster = sample.completion.columns.get(run.entry(sample.task).cluster or "", name)
            task.scored[name] = (sample.verdict.score, cluster, keep(run, sample))
    return found


def align(
    runs: Sequence[Mapping[str, Mapping[str, float]]],
    *,
    clusters: Mapping[str, Mapping[str, str]],
    tasks: Iterable[str],
) -> dict[str, Aligned]:
    """Give all samples of each task one order, from the scores by task and sample id of each run.

    Unlike `shared_tasks` it drops no sample: of many runs each pair shares its own.
    """
    found = {}
    for task in tasks:
        ids = sorted(set().union(*(run.get(task, {}).keys() for run in runs)))
        known = clusters.get(task)
        rows = ((run.get(task, {}).get(one, math.nan) for one in ids) for run in runs)
        found[task] = Aligned(
            ids=ids,
            scores=np.stack([np.fromiter(row, dtype=np.float64) for row in rows]),
            clusters=None if known is None else numbered([known.get(one, one) for one in ids]),
        )
    return found


def read_sample_scores(run: JudgedRun) -> dict[str, dict[str, float]]:
    """Return the score of every scored sample of a run, by task and sample id.

    Raises `ConfigError` where the mean of a task is not what `scores.json` says.
    """
    takes = {name: run.entry(name).takes() for name in run.judging.tasks}
    rows: dict[tuple[str, str], int] = {}
    if any(run.entry(name).rows is not None for name in takes):
        rows = newest(run.folder / "completions.jsonl", lambda line: int(line["row"]))
    found: dict[str, dict[str, float]] = {name: {} for name in takes}
    for key, score in newest(run.judged / "verdicts.jsonl", lambda line: line["score"]).items():
        task = key[0].partition("@")[0]
        if task in found and score is not None and takes[task](rows.get(key, -1)):
            found[task][key[1]] = float(score)
    for task, scores in found.items():
        _prove(run, task, scores)
    return found


def _prove(run: JudgedRun, task: str, scores: Mapping[str, float]) -> None:
    said = run.scores.tasks[task].score if task in run.scores.tasks else None
    found = math.fsum(scores.values()) / len(scores) if scores else None
    if said != found and (said is None or found is None or abs(said - found) > _TOLERANCE):
        raise ConfigError(
            f"{run.place / 'scores.json'}: {task} has score {said}, but its verdicts give {found}",
            hint=f"`medix-eval score {run.place}` scores it again",
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
