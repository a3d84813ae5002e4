"""Runs compared with a baseline on the samples that all of them have."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from medix_eval.errors import ConfigError, RunMismatch
from medix_eval.records import Frozen
from medix_eval.results.align import Shared, shared_tasks, tie
from medix_eval.results.scores import MIN_SLICE
from medix_eval.results.scoring import sample_slices
from medix_eval.results.statistics import (
    Difference,
    Share,
    changed_share,
    group_difference,
    holm,
    task_difference,
)
from medix_eval.results.store import JudgedRun, distinct_names
from medix_eval.storage.digests import differences

_MAY_DIFFER = (("model",), ("control",), ("generation", "seed"))
"""What a comparison may vary: models, controls and repetitions."""

_ROUNDING = 1e-9
_Slices = tuple[tuple[str, str], ...]
"""Column and value of each slice that a sample is in."""


class ComparedRun(Frozen):
    """One of the runs; tables call it by its letter."""

    letter: str
    model: str
    run: str
    protocol: dict[str, str]
    settings: dict[str, Any]
    """Differences that do not prevent a comparison: control and seed, where given."""


class ChangedSample(Frozen):
    """A sample on which a run and the baseline have different scores."""

    task: str
    sample_id: str
    before: float
    after: float


class Contest(Frozen):
    """All runs on one task or group."""

    n: int
    """Samples that every run scored."""
    n_left_out: int
    """Samples without a score in some run; they are excluded for all."""
    scores: tuple[float, ...]
    best: int
    ties_with_best: tuple[int, ...]
    """Runs whose paired difference from the best one may be chance."""
    bounds: tuple[tuple[float, float], ...]
    """Of each run, over all its samples: its score if those without one were wrong, and right."""
    best_withheld: str
    """Why nobody may be called the best; empty if `best` is."""

    def mark(self, run: int) -> str:
        """Return `*` for the best and `=` for a tie with it, unless nobody is the best."""
        if self.best_withheld:
            return ""
        return "*" if run == self.best else "=" if run in self.ties_with_best else ""


class Pair(Frozen):
    """One run against the baseline."""

    letter: str
    tasks: dict[str, Difference]
    groups: dict[str, Difference]
    slices: dict[str, dict[str, dict[str, Difference]]]
    """By task, column and value, of slices with 30 shared samples or more. Their intervals are
    not corrected for multiple slices: of twenty that do not differ, one will seem to."""
    changed: dict[str, Share]
    """By task: samples with different scores in the two runs."""
    won: tuple[ChangedSample, ...]
    lost: tuple[ChangedSample, ...]


class Comparison(Frozen):
    """What `compare --json` prints."""

    schema_version: int = 1
    runs: tuple[ComparedRun, ...]
    """The first one is the baseline."""
    mismatches: tuple[str, ...] = ()
    """Why these runs should not be compared; only a forced comparison has any."""
    synthetic: bool
    tasks: dict[str, Contest]
    groups: dict[str, Contest]
    pairs: tuple[Pair, ...]


def compare_runs(runs: Sequence[JudgedRun], *, force: bool = False) -> Comparison:
    """Compare each run with the first.

    Raises `RunMismatch` where protocol, judge or data differ, unless forced; the result then
    says what differs. Raises `ConfigError` where the runs share no task or no sample.
    """
    mismatches = [
        f"{_letter(at)}: {found}"
        for at, run in enumerate(runs[1:], 1)
        for found in mismatches_of(runs[0], run)
    ]
    if mismatches and not force:
        raise RunMismatch(
            f"these runs cannot be compared: {'; '.join(mismatches[:5])}",
            hint="run and judge them with equal settings, or compare anyway (marked) with --force",
        )
    tasks = shared_tasks(runs, lambda run, one: sample_slices(run.entry(one.task), one.completion))
    if not tasks:
        same = set.intersection(*({*run.judging.tasks} for run in runs))
        hint = "they share no scored row of these tasks; look at `medix-eval score RUN`"
        hint = hint if same else "they ran different tasks"
        raise ConfigError("these runs share no scored sample", hint=hint)
    groups = {
        name: group.tasks
        for name, group in runs[0].scores.groups.items()
        if set(group.tasks) <= tasks.keys()
    }
    return Comparison(
        runs=tuple(map(_described, runs, distinct_names(runs), count())),
        mismatches=tuple(mismatches),
        synthetic=any(run.entry(name).synthetic for run in runs for name in tasks),
        tasks={name: _contest({name: one}, runs, is_group=False) for name, one in tasks.items()},
        groups={
            name: _contest({one: tasks[one] for one in members}, runs, is_group=True)
            for name, members in groups.items()
        },
        pairs=tuple(_pair(at, tasks, groups) for at in range(1, len(runs))),
    )


def mismatches_of(baseline: JudgedRun, other: JudgedRun) -> list[str]:
    """Name all that differs in protocol, judge and data, except what may differ."""
    found = differences(_fixed(baseline.manifest.generation), _fixed(other.manifest.generation))
    found += differences(baseline.judging.settings, other.judging.settings, at="judging")
    for name in baseline.judging.tasks:
        if name not in other.judging.tasks:
            continue
        before, after = baseline.entry(name), other.entry(name)
        for key in ("version", "digest", "source", "synthetic"):
            at = f"tasks.{name}.{key}"
            found += differences(getattr(before, key), getattr(after, key), at=at)
    return found


def _fixed(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a generation without those that may differ."""
    kept = copy.deepcopy(dict(generation))
    for *parents, last in _MAY_DIFFER:
        at: Any = kept
        for parent in parents:
            at = at.get(parent, {})
        at.pop(last, None)
    return kept


def same_rows(runs: Sequence[JudgedRun], tasks: Iterable[str]) -> bool:
    """Whether the runs were asked about the same rows of these tasks, in whatever order."""
    return all(len({frozenset(run.entry(name).rows or ()) for run in runs}) == 1 for name in tasks)


def _described(run: JudgedRun, name: str, at: int) -> ComparedRun:
    generation = run.manifest.generation
    seed = generation.get("generation", {}).get("seed")
    settings = {"control": generation.get("control"), "seed": seed}
    return ComparedRun(
        letter=_letter(at),
        model=name,
        run=run.label,
        protocol=run.protocol,
        settings={name: value for name, value in settings.items() if value is not None},
    )


def _by_slice(task: Shared[_Slices], run: int) -> dict[str, dict[str, Difference]]:
    slices: dict[tuple[str, str], list[int]] = {}
    for number, here in enumerate(task.kept[0]):
        for one in here:
            slices.setdefault(one, []).append(number)
    found: dict[str, dict[str, Difference]] = {}
    for (column, value), at in sorted(slices.items()):
        if MIN_SLICE <= len(at) < len(task.ids):
            part = task.difference(run, 0, at=at)
            found.setdefault(column, {})[value] = group_difference([part])
    return found


def _contest(
    tasks: Mapping[str, Shared[_Slices]], runs: Sequence[JudgedRun], *, is_group: bool
) -> Contest:
    means = np.mean([task.scores.mean(axis=1) for task in tasks.values()], axis=0)
    best = int(means.argmax())
    found = [[run.scores.tasks[name] for name in tasks] for run in runs]
    low, high = np.mean([[one.bounds or (0.0, 1.0) for one in each] for each in found], axis=1).T
    others = [at for at in range(len(runs)) if at != best]
    ties = [at for at in others if tie([*tasks.values()], at, best)]
    withheld = ""
    if not same_rows(runs, tasks):
        withheld = "the runs were not asked the same samples"
    elif is_group and not all(one.is_complete for one in found[best]):
        withheld = f"{_letter(best)} has not completed all tasks"
    elif max(high[others]) > low[best] + _ROUNDING:
        withheld = "samples without a score could turn the order"
    return Contest(
        n=sum(len(task.ids) for task in tasks.values()),
        n_left_out=sum(task.num_left_out for task in tasks.values()),
        scores=tuple(means.tolist()),
        best=best,
        ties_with_best=tuple(ties),
        bounds=tuple(zip(low.tolist(), high.tolist(), strict=True)),
        best_withheld=withheld,
    )


def _pair(
    run: int, tasks: Mapping[str, Shared[_Slices]], groups: Mapping[str, tuple[str, ...]]
) -> Pair:
    clusters = {name: shared.difference(run, 0) for name, shared in tasks.items()}
    found = {name: task_difference(one) for name, one in clusters.items()}
    adjusted = holm([one.p for one in found.values() if one.p is not None])
    changed = [
        ChangedSample(task=name, sample_id=sample_id, before=before, after=after)
        for name, shared in tasks.items()
        for sample_id, before, after in zip(
            shared.ids, shared.scores[0].tolist(), shared.scores[run].tolist(), strict=True
        )
        if before != after
    ]
    sliced = {name: _by_slice(shared, run) for name, shared in tasks.items()}
    return Pair(
        letter=_letter(run),
        tasks={
            name: one.model_copy(update={"p_holm": p})
            for (name, one), p in zip(found.items(), adjusted, strict=True)
        },
        groups={
            name: group_difference([clusters[member] for member in members])
            for name, members in groups.items()
        },
        slices={name: by_slice for name, by_slice in sliced.items() if by_slice},
        changed={
            name: changed_share(shared.scores[run] - shared.scores[0], shared.clusters)
            for name, shared in tasks.items()
        },
        won=tuple(one for one in changed if one.after > one.before),
        lost=tuple(one for one in changed if one.after < one.before),
    )


def _letter(at: int) -> str:
    return chr(ord("A") + at)
