"""`--repeat K`: the same evaluation with K seeds, and how much its scores vary.

Each repetition is an ordinary run in its own folder, and resumes where it was stopped. The
first has the protocol's own seed: it is the run that is made without `--repeat`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import ConfigError
from medix_eval.evaluation.evaluation import Settings, evaluate
from medix_eval.judging.protocol import Protocol
from medix_eval.records import Frozen, Kind
from medix_eval.report.format import percent, span, stacked, table
from medix_eval.results.align import Shared, shared_tasks
from medix_eval.results.statistics import (
    Floats,
    average_stderr,
    clustered,
    limits_of,
    task_interval,
)
from medix_eval.results.store import JudgedRun, JudgedSample, read_run
from medix_eval.rules.decide import Expected, chosen_option
from medix_eval.rules.text import normalise, read
from medix_eval.storage.digests import ShownName
from medix_eval.storage.jsonl import write_text

if TYPE_CHECKING:
    from rich.console import RenderableType

FULL_MARK = 1.0


def between_runs(means: Sequence[float]) -> float:
    """Return the standard deviation of the scores of several runs: variation by sampling seed."""
    return float(np.std(means, ddof=1))


def pass_at(k: int, scores: Floats) -> float:
    """Return how often at least one of `k` runs has the full mark (rows are runs).

    It is the mean over every choice of `k` of the runs, in closed form.

    >>> scores = np.array([[1.0, 0.0], [0.0, 0.0]])
    >>> pass_at(1, scores), pass_at(2, scores)
    (0.25, 0.5)
    """
    num_runs = len(scores)
    right = (scores >= FULL_MARK).sum(axis=0)
    none = [math.comb(num_runs - int(count), k) / math.comb(num_runs, k) for count in right]
    return 1.0 - math.fsum(none) / len(none)


def majority_at(k: int, scores: Floats, answers: Sequence[Sequence[Hashable | None]]) -> float:
    """Return the score of the answer that most of `k` runs give (rows are runs).

    Of answers that are equally frequent each counts in part; no answer (None) has no vote. The
    mean is over `K` choices of runs that follow each other, so that each run counts alike.

    >>> majority_at(3, np.array([[1.0], [0.0], [1.0]]), [["left"], ["right"], ["left"]])
    1.0
    """
    num_runs, num_samples = scores.shape
    found = [
        _winner([(answers[run][at], float(scores[run, at])) for run in chosen])
        for start in range(num_runs if k < num_runs else 1)
        for chosen in [[(start + step) % num_runs for step in range(k)]]
        for at in range(num_samples)
    ]
    return math.fsum(found) / len(found)


def _winner(given: Sequence[tuple[Hashable | None, float]]) -> float:
    votes: defaultdict[Hashable, list[float]] = defaultdict(list)
    for answer, score in given:
        if answer is not None:
            votes[answer].append(score)
    most = max(map(len, votes.values()), default=0)
    best = [math.fsum(one) / most for one in votes.values() if len(one) == most]
    return math.fsum(best) / len(best) if best else 0.0


class Spread(Frozen):
    """The scores of all repetitions on one task or group."""

    scores: tuple[float, ...]
    mean: float
    between_runs: float
    """Standard deviation of the scores: how much the sampling seed varies one run."""
    sampling: float | None
    """Standard error of one run's score: by the choice of samples, sampling seed included."""
    stderr: float | None
    """Standard error of the mean."""


class RepeatedTask(Spread):
    """One task."""

    n: int
    """Samples that every repetition scored."""
    n_left_out: int
    interval: tuple[float, float] | None
    """Of the mean; 95 %."""
    pass_at: dict[int, float]
    """By k: at least one of k answers has the full mark."""
    majority_at: dict[int, float] | None
    """By k: the score of the most frequent of k answers; null for reports, which never repeat."""


class Repeats(Frozen):
    """`repeats.json`, beside the scores of the first repetition."""

    schema_version: int = 1
    model: ShownName
    protocol: dict[str, str]
    """Of the first repetition."""
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    synthetic: bool
    num_failures: int
    tasks: dict[str, RepeatedTask]
    groups: dict[str, Spread]


def evaluate_repeatedly(settings: Settings, catalogue: Catalogue, *, times: int) -> Repeats:
    """Run an evaluation with `times` seeds, one after the other, and write `repeats.json`."""
    refuse_equal(settings, catalogue, times=times)
    first = settings.protocol.generation.seed
    seeds = tuple(range(first, first + times))
    folders = [
        Path(evaluate(replace(settings, protocol=_seeded(settings.protocol, seed)), catalogue).run)
        for seed in seeds
    ]
    runs = [read_run(folder) for folder in folders]
    found = summarise(runs, seeds=seeds)
    shared = found.model_copy(update={"runs": tuple(run.label for run in runs)})
    write_text(folders[0] / "repeats.json", shared.model_dump_json(indent=2) + "\n")
    return found


def summarise(runs: Sequence[JudgedRun], *, seeds: Sequence[int]) -> Repeats:
    """Put runs of one model side by side, on the samples that all of them scored."""
    first = runs[0]
    shared = shared_tasks(runs, _vote)
    if not shared:
        raise ConfigError("the repetitions share no scored sample")
    groups = {
        name: [shared[task] for task in group.tasks]
        for name, group in first.scores.groups.items()
        if set(group.tasks) <= shared.keys()
    }
    return Repeats(
        model=first.scores.model,
        protocol=first.scores.protocol,
        seeds=tuple(seeds),
        runs=tuple(str(run.place) for run in runs),
        synthetic=first.scores.synthetic,
        num_failures=sum(run.scores.num_failures for run in runs),
        tasks={name: _repeated(one, first.entry(name).kind) for name, one in shared.items()},
        groups={name: _spread(members) for name, members in groups.items()},
    )


def _repeated(task: Shared[str | None], kind: str) -> RepeatedTask:
    means = clustered(task.scores.mean(axis=0), task.clusters)
    ks = range(1, len(task.scores) + 1)
    majority = {k: majority_at(k, task.scores, task.kept) for k in ks}
    return RepeatedTask(
        **_spread([task]).model_dump(),
        n=len(task.ids),
        n_left_out=task.num_left_out,
        interval=limits_of(task_interval(means)),
        pass_at={k: pass_at(k, task.scores) for k in ks},
        majority_at=None if kind == Kind.REPORT else majority,
    )


def _spread(tasks: Sequence[Shared[str | None]]) -> Spread:
    scores = np.mean([task.scores.mean(axis=1) for task in tasks], axis=0)
    single = [
        average_stderr([clustered(task.scores[run], task.clusters) for task in tasks])
        for run in range(len(scores))
    ]
    known = [error for error in single if error is not None]
    return Spread(
        scores=tuple(scores.tolist()),
        mean=float(scores.mean()),
        between_runs=between_runs(scores.tolist()),
        sampling=float(np.sqrt(np.mean(np.square(known)))) if known else None,
        stderr=average_stderr([clustered(one.scores.mean(axis=0), one.clusters) for one in tasks]),
    )


def _vote(_: JudgedRun, sample: JudgedSample) -> str | None:
    """Return what an answer votes for: its option, else its words; None where there is none."""
    answer, asked = sample.verdict.answer, sample.completion
    if not answer:
        return None
    expected = Expected(reference=asked.reference, options=asked.options, facts={})
    option = chosen_option(read(answer), expected) if asked.options else None
    return option or normalise(answer)


def _seeded(protocol: Protocol, seed: int) -> Protocol:
    """Return the protocol with another seed, named as `--set` names it."""
    if seed == protocol.generation.seed:
        return protocol
    return protocol.model_copy(
        update={
            "name": f"{protocol.name}+generation.seed={seed}",
            "generation": protocol.generation.model_copy(update={"seed": seed}),
        }
    )


def refuse_equal(settings: Settings, catalogue: Catalogue, *, times: int) -> None:
    """Refuse repetitions that cannot differ."""
    if times < 2:  # noqa: PLR2004
        raise ConfigError(f"--repeat {times} is too small", hint="use 2 or more")
    if not settings.protocol.generation.temperature:
        raise ConfigError(
            "--repeat gives identical answers at temperature 0",
            hint="add --set generation.temperature=0.7",
        )
    if settings.model.startswith("replay:"):
        raise ConfigError(
            "--repeat gives identical answers: a replay has one per sample",
            hint="generate the repetitions where the replay file was generated",
        )
    if weighed := catalogue.weighed(settings.tasks):
        raise ConfigError(
            f"--repeat: {weighed}: likelihoods are no draw, and stay the same",
            hint="leave --repeat out, or repeat the tasks whose answers are written",
        )
    if settings.control:
        raise ConfigError("--repeat and --control cannot be combined", hint="use one at a time")


def repeats_table(found: Repeats) -> RenderableType:
    """Return the scores of every repetition and the sources of their spread."""
    last = len(found.seeds)
    stamp = "SYNTHETIC DATA · " if found.synthetic else ""
    title = f"{stamp}{found.model} · protocol {found.protocol['name']} · {last} repetitions"
    header = ["task", "n", "mean", "95 %", "lowest", "highest", "between runs", "sampling"]
    header += [f"pass@{last}", f"majority@{last}"]
    tasks = [
        (name, str(one.n), percent(one.mean), span(one.interval), *_luck(one),
         percent(one.pass_at[last]), percent(one.majority_at[last]) if one.majority_at else "")
        for name, one in found.tasks.items()
    ]  # fmt: skip
    groups = [
        (name, "", percent(group.mean), "", *_luck(group), "", "")
        for name, group in found.groups.items()
    ]
    notes = (
        f"seeds {', '.join(map(str, found.seeds))}; n: samples that every repetition scored.",
        "between runs: standard deviation of the score from seed to seed.",
        "sampling: standard error of the score of one run.",
    )
    return stacked(table(header, tasks, groups, title=title), notes=notes)


def _luck(one: Spread) -> list[str]:
    return [
        percent(value)
        for value in (min(one.scores), max(one.scores), one.between_runs, one.sampling)
    ]
