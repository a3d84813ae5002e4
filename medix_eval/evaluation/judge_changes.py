"""What judging the same completions again changed: verdicts, scores, the order of models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medix_eval.evaluation.kinship import Known, kinship_warnings
from medix_eval.evaluation.rejudging import Rejudged
from medix_eval.records import Frozen
from medix_eval.report.format import decimal, percent, stacked, strong, table
from medix_eval.results.scores import whose
from medix_eval.results.scoring import mean
from medix_eval.results.store import JudgedRun, newest, read_run

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_SCORED = dict[tuple[str, str], float | None]


class TaskChange(Frozen):
    """One task of one run, judged twice."""

    n: int
    """Samples with a verdict in both judgings."""
    up: int
    """Samples whose score rose."""
    down: int
    lost: int
    """Scored before, but no longer."""
    gained: int
    """Not scored before, but now."""
    before: float | None
    after: float | None
    scored_before: int
    """Samples that `before` is the mean of; less than `n` where some had no verdict."""
    scored_after: int

    @property
    def changed(self) -> int:
        """Samples whose verdict changed."""
        return self.up + self.down + self.lost + self.gained


class RunChange(Frozen):
    """One run, judged twice; ranks are among the runs named together, 1 being the best."""

    model: str
    run: str
    judged_before: str | None
    judged_after: str
    tasks: dict[str, TaskChange]
    mean_before: float | None = None
    """Over the tasks that every run has scored in both judgings."""
    mean_after: float | None = None
    rank_before: int | None = None
    rank_after: int | None = None


class JudgeChanges(Frozen):
    """Everything that changed; `medix-eval judge --json` prints this."""

    schema_version: int = 1
    runs: list[RunChange]
    ranked_by: list[str]
    """The tasks that the means and ranks are over."""
    kendall_tau: float | None
    """Of the two orders of the models; null for fewer than two."""
    num_failures: int
    lost: str
    """Whose the samples without a score are."""
    warnings: list[str]


def changes_of(rejudged: Sequence[Rejudged]) -> JudgeChanges:
    """Compare each run's two judgings, and the order of the runs in both."""
    after = [read_run(one.after) for one in rejudged]
    before = [read_run(one.before) if one.before else None for one in rejudged]
    pairs = list(zip(before, after, strict=True))
    tasks = _shared_tasks(pairs)
    means = [(_mean(old, tasks), _mean(new, tasks)) if old else (None, None) for old, new in pairs]
    was, now = _ranks([old for old, _ in means]), _ranks([new for _, new in means])
    runs = [
        RunChange(
            model=new.manifest.model,
            run=str(new.place),
            judged_before=_described(old) if old else None,
            judged_after=_described(new),
            tasks=_task_changes(old, new) if old else {},
            mean_before=means[number][0],
            mean_after=means[number][1],
            rank_before=was[number],
            rank_after=now[number],
        )
        for number, (old, new) in enumerate(pairs)
    ]
    return JudgeChanges(
        runs=runs,
        ranked_by=tasks,
        kendall_tau=_kendall_tau(means),
        num_failures=sum(new.scores.num_failures for new in after),
        lost=whose((one for new in after for one in new.scores.tasks.values()), scored=False),
        warnings=_warnings(pairs),
    )


def changes_table(changes: JudgeChanges) -> RenderableType:
    """Return the tables for a terminal."""
    parts: list[RenderableType] = []
    for run in changes.runs:
        before = run.judged_before or "not judged before"
        parts.append(strong(f"{run.model} · {before} -> {run.judged_after}"))
        parts += [_tasks_table(run)] if run.tasks else []
    tau = decimal(changes.kendall_tau, "is not defined: too few runs have both scores, or all tie")
    if len(changes.runs) > 1 and changes.ranked_by:
        parts += [_ranks_table(changes), f"Kendall's tau {tau}"]
    tasks = [task for run in changes.runs for task in run.tasks.values()]
    if any(min(task.scored_before, task.scored_after) < task.n for task in tasks):
        parts.append("† the mean of some of the samples: the others have no verdict")
    if changes.num_failures:
        retry = "run the same command to retry; without a score"
        parts.append(f"failed samples: {changes.num_failures}; {retry}: {changes.lost}")
    return stacked(*parts, *(f"warning: {said}" for said in changes.warnings))


def _tasks_table(run: RunChange) -> Table:
    header = ("task", "before", "after", "n", "changed", "up", "down", "lost", "gained")
    rows = []
    for name, task in run.tasks.items():
        counts = (task.n, task.changed, task.up, task.down, task.lost, task.gained)
        was = _marked(task.before, is_part=task.scored_before < task.n)
        now = _marked(task.after, is_part=task.scored_after < task.n)
        rows.append((name, was, now, *map(str, counts)))
    return table(header, rows, broken=header)


def _ranks_table(changes: JudgeChanges) -> Table:
    header = ("model", "before", "after", "rank before", "rank after")
    rows = []
    for run in changes.runs:
        ranks = (str(run.rank_before or "-"), str(run.rank_after or "-"))
        rows.append((run.model, percent(run.mean_before), percent(run.mean_after), *ranks))
    title = f"ranks by the mean of {', '.join(changes.ranked_by)}"
    return table(header, rows, title=title, broken=header)


def _marked(score: float | None, *, is_part: bool) -> str:
    return percent(score) + ("†" if is_part and score is not None else "")


def _task_changes(old: JudgedRun, new: JudgedRun) -> dict[str, TaskChange]:
    was, now = _scores(old.judged), _scores(new.judged)
    counts: dict[str, dict[str, int]] = {}
    for key in was.keys() & now.keys():
        count = counts.setdefault(
            key[0].partition("@")[0],
            dict.fromkeys(("n", "same", "up", "down", "lost", "gained"), 0),
        )
        count["n"] += 1
        count[_kind_of_change(was[key], now[key])] += 1
    return {
        name: TaskChange(
            **{key: value for key, value in counts[name].items() if key != "same"},
            before=old.scores.tasks[name].score,
            after=new.scores.tasks[name].score,
            scored_before=old.scores.tasks[name].n_scored,
            scored_after=new.scores.tasks[name].n_scored,
        )
        for name in new.scores.tasks
        if name in counts and name in old.scores.tasks
    }


def _scores(judged: Path) -> _SCORED:
    """Return what each sample scored; nothing else of the verdicts is kept in memory."""

    def score(line: Mapping[str, Any]) -> float | None:
        return None if line["score"] is None else float(line["score"])

    return newest(judged / "verdicts.jsonl", score)


def _kind_of_change(was: float | None, now: float | None) -> str:
    if was is None or now is None:
        return "same" if was is now else "gained" if was is None else "lost"
    if math.isclose(was, now):
        return "same"
    return "up" if now > was else "down"


def _shared_tasks(pairs: Sequence[tuple[JudgedRun | None, JudgedRun]]) -> list[str]:
    """Return the tasks that every run has a score of, in both judgings."""
    judged = [run.scores.tasks for old, new in pairs if old is not None for run in (old, new)]
    return [
        name
        for name in next(iter(judged), {})
        if all(name in tasks and tasks[name].score is not None for tasks in judged)
    ]


def _mean(run: JudgedRun, tasks: Sequence[str]) -> float | None:
    return mean(score for name in tasks if (score := run.scores.tasks[name].score) is not None)


def _ranks(means: Sequence[float | None]) -> list[int | None]:
    """Return the rank of each; equal means share the better one."""
    known = [value for value in means if value is not None]
    return [None if value is None else 1 + sum(other > value for other in known) for value in means]


def _kendall_tau(means: Sequence[tuple[float | None, float | None]]) -> float | None:
    """Return tau-b, which ties do not flatter; None where there is no order to compare."""
    known = [(was, now) for was, now in means if was is not None and now is not None]
    if len(known) < 2:  # noqa: PLR2004 (an order takes two)
        return None
    from scipy.stats import kendalltau  # noqa: PLC0415 (half a second)

    tau = float(kendalltau(*zip(*known, strict=True)).statistic)
    return None if math.isnan(tau) else tau


def _warnings(pairs: Sequence[tuple[JudgedRun | None, JudgedRun]]) -> list[str]:
    said: list[str] = []
    for _, new in pairs:
        identity = new.manifest.generation.get("model", {})
        if identity.get("kind") == "openai":  # what an address serves may have changed since
            identity = {}
        candidate = Known(new.manifest.model, identity)
        names = [str(judge["id"]) for judge in new.judging.judges]
        identities = new.judging.judging.get("judges", [])
        said += kinship_warnings(candidate, map(Known, names, identities))
    if len({_described(old) for old, _ in pairs if old is not None}) > 1:
        said.append("the runs were judged differently before: the old ranks are not comparable")
    return said


def _described(run: JudgedRun) -> str:
    judges = ", ".join(str(judge["id"]) for judge in run.judging.judges) or "no language model"
    return f"{run.judging.protocol['name']} by {judges}"
