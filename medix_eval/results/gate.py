"""A gate: what a run must reach before it is used, written down before it was measured.

What a policy asks for and a run does not report is not met: a gate that ignores a missing
task would pass a run that left it out. For the same reason a sample without a score counts as wrong
unless the policy says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from medix_eval.errors import ConfigError, first_error
from medix_eval.records import Frozen, Outcome
from medix_eval.results.align import align, read_clusters, read_sample_scores
from medix_eval.results.comparison import compare_runs, same_rows
from medix_eval.results.scores import GroupScore, Scores, SliceScore, TaskScore, whose
from medix_eval.results.scoring import score_run
from medix_eval.results.statistics import Difference, clustered, group_difference
from medix_eval.results.store import JudgedRun
from medix_eval.storage.bundled import read_mapping

Fraction = Annotated[float, Field(ge=0, le=1)]
_LOSSES = {"failed", *(one.value for one in Outcome if not one.is_scored)}
"""Limits on samples without a score."""


class _Part(Frozen):
    """A task, a group, or one slice of a task."""

    task: str | None = None
    group: str | None = None
    unscored: Literal["wrong", "leave_out"] = "wrong"
    """What samples without a score count as; left out of a baseline, they would be right."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.task is None) == (self.group is None):
            raise ValueError("name either a task or a group")
        return self

    @property
    def name(self) -> str:
        """The task or group."""
        return str(self.task or self.group)


class Floor(_Part):
    """A score that must be reached."""

    slice: dict[str, str] = {}
    """One column and value, such as `modality: CT`."""
    at_least: Fraction
    by: Literal["bounds", "score", "interval"] = "bounds"
    """What must reach it: the score if every sample without one were wrong, the score of the
    others alone, or the low end of the 95 % interval, of all samples unless some are left out."""

    @model_validator(mode="after")
    def _slices_have_tasks(self) -> Self:
        if self.slice and (self.task is None or len(self.slice) != 1):
            raise ValueError("a slice needs one column and value of a task")
        return self

    @property
    def is_worst_case(self) -> bool:
        """Whether samples without a score count as wrong."""
        return self.by != "score" and self.unscored == "wrong"

    @property
    def label(self) -> str:
        """How the rule is named in a table."""
        found = "".join(f", {column} {value}" for column, value in self.slice.items())
        how = "low end of the interval" if self.by == "interval" else "score"
        return f"{self.name}{found}: {how}{', worst case' if self.is_worst_case else ''}"


class NonInferiority(_Part):
    """How far a run may fall behind the baseline; samples that the baseline lost count as right."""

    margin: Fraction


class Limits(Frozen):
    """The largest share of the samples, in each task, that may end so: an outcome, or several."""

    failed: Fraction | None = None
    cut_off: Fraction | None = None
    truncated: Fraction | None = None
    unparsed: Fraction | None = None
    refused: Fraction | None = None
    empty: Fraction | None = None
    rejected: Fraction | None = None
    unjudged: Fraction | None = None
    judge_failed: Fraction | None = None
    request_failed: Fraction | None = None
    skipped: Fraction | None = None


class JudgeLimits(Frozen):
    """How far the judge must agree with itself and with the rules."""

    votes_kappa_at_least: Annotated[float, Field(ge=-1, le=1)] | None = None
    rules_kappa_at_least: Annotated[float, Field(ge=-1, le=1)] | None = None


class Policy(Frozen):
    """A policy file."""

    name: str
    floors: tuple[Floor, ...] = ()
    baseline: Path | None = None
    """A run; a relative path starts at the policy file's folder."""
    non_inferiority: tuple[NonInferiority, ...] = ()
    limits: Limits = Limits()
    judge: JudgeLimits = JudgeLimits()
    allow_limited: bool = False
    """Whether a limited run of a task is accepted."""
    allow_synthetic: bool = False

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        asked = (self.floors, self.non_inferiority)
        if not any(asked) and self.limits == Limits() and self.judge == JudgeLimits():
            raise ValueError("the policy has no rules")
        return self


class Check(Frozen):
    """One rule of a policy, checked on one run."""

    rule: str
    wanted: str
    measured: float | None
    """Null if the run does not report it: such a rule is not met."""
    is_met: bool
    short_by: float | None = None
    """How much is missing, where the rule is not met."""
    note: str = ""


def load_policy(path: Path) -> Policy:
    """Read a policy file; a baseline's path is made absolute."""
    try:
        policy = Policy.model_validate(read_mapping(path, what="policy"))
    except ValidationError as error:
        part = Limits if "limits" in error.errors()[0]["loc"][:1] else Policy
        hint = f"keys are {', '.join(part.model_fields)}"
        raise ConfigError(f"policy {path}: {first_error(error)}", hint=hint) from error
    if policy.baseline is None:
        return policy
    return policy.model_copy(update={"baseline": path.parent / policy.baseline})


def check_run(policy: Policy, run: JudgedRun, *, baseline: JudgedRun | None) -> list[Check]:
    """Check a run against a policy, rule by rule.

    Raises `ConfigError` where a baseline is needed and none is named, and `RunMismatch` where the
    baseline was measured in another way.
    """
    worst = score_run(
        run.folder,
        run.judged,
        manifest=run.manifest,
        judging=run.judging,
        groups={name: group.tasks for name, group in run.scores.groups.items()},
        worst=True,
    )
    checks = [_floor(floor, run.scores, worst) for floor in policy.floors]
    if policy.non_inferiority:
        if baseline is None:
            hint = "name one in the policy, or with --baseline"
            raise ConfigError("non_inferiority needs a baseline", hint=hint)
        checks += _non_inferior(policy, run, baseline)
    for name, task in run.scores.tasks.items():
        checks += _lost(policy.limits, name, task)
        checks += _agreed(policy.judge, name, task)
    asked = [rule.name for rule in (*policy.floors, *policy.non_inferiority)]
    if not asked and policy.limits.model_dump(exclude_none=True).keys().isdisjoint(_LOSSES):
        note = whose(run.scores.tasks.values(), scored=False)
        checks.append(_plain("every sample has a score", ok=not note, note=note))
    if control := run.control or (baseline.control if baseline else None):
        note = f"control {control}"
        checks.append(_plain("the questions are unchanged", ok=False, note=note))
    if run.scores.text_only:
        checks.append(_plain("the images were shown", ok=False, note="TEXT ONLY"))
    if not policy.allow_limited:
        limited = [name for name, task in run.scores.tasks.items() if task.limit is not None]
        checks.append(_plain("complete tasks were asked", ok=not limited, note=", ".join(limited)))
    if not policy.allow_synthetic:
        real = not run.scores.is_synthetic(*(asked or run.scores.tasks))
        checks.append(_plain("the data is real", ok=real, note="" if real else "SYNTHETIC"))
    return checks


def _floor(floor: Floor, plain: Scores, worst: Scores) -> Check:
    found, part = _find(floor, plain), _find(floor, worst if floor.is_worst_case else plain)
    measured = None
    if part and found and found.score is not None and getattr(found, "complete", True):
        low = part.interval[0] if part.interval else None
        measured = low if floor.by == "interval" else part.score
    members = plain.groups[floor.name].tasks if floor.group and found else [floor.name]
    lost = whose((plain.tasks[name] for name in members if name in plain.tasks), scored=False)
    note = f"samples without a score: {lost}" if lost else ""
    if measured is None:
        note = "not measured in this run, or incomplete"
    return _check(floor.label, measured, "≥", floor.at_least, note=note)


def _find(floor: Floor, scores: Scores) -> TaskScore | GroupScore | SliceScore | None:
    """Return what a floor applies to; None if the run does not report it."""
    task = scores.tasks.get(str(floor.task))
    for column, value in floor.slice.items():
        return task.slices.get(column, {}).get(value) if task else None
    return scores.groups.get(floor.group) if floor.group else task


def _non_inferior(policy: Policy, run: JudgedRun, baseline: JudgedRun) -> Iterator[Check]:
    """See that the low end of the paired difference's interval stays above minus the margin."""
    (pair,) = compare_runs([baseline, run]).pairs
    for rule in policy.non_inferiority:
        found = (pair.tasks if rule.task else pair.groups).get(rule.name)
        how, note = "low end of the difference", "not measured in both runs"
        if found and rule.unscored == "wrong":
            members = baseline.scores.groups[rule.name].tasks if rule.group else [rule.name]
            found, how = _worst_case(run, baseline, members), f"{how}, worst case"
            note = "not the same samples were asked"
        low = found.interval[0] if found and found.interval else None
        label = f"{rule.name}: not worse than {baseline.scores.model} ({how})"
        yield _check(label, low, "≥", 0.0 - rule.margin, note="" if low is not None else note)


def _worst_case(run: JudgedRun, baseline: JudgedRun, tasks: Sequence[str]) -> Difference | None:
    """Compare as if all that the run lost were wrong and all that the baseline lost were right."""
    scores = [read_sample_scores(one) for one in (baseline, run)]
    aligned = align(scores, clusters=read_clusters((run, baseline)), tasks=tasks)
    if not same_rows((run, baseline), tasks):
        return None
    parts = []
    for name in tasks:
        one, entry = aligned[name], run.entry(name)
        apart = np.nan_to_num(one.scores[1], nan=0.0) - np.nan_to_num(one.scores[0], nan=1.0)
        in_neither = np.arange(max(0, entry.num_selected - len(one.ids)))
        known = np.arange(len(one.ids)) if one.clusters is None else one.clusters
        clusters = np.append(known, known.max() + 1 + in_neither)
        parts.append(clustered(np.append(apart, np.full(len(in_neither), -1.0)), clusters))
    return group_difference(parts)


def _lost(limits: Limits, name: str, task: TaskScore) -> Iterator[Check]:
    shares = {one.value: task.outcomes.get(one, 0) / task.n for one in Outcome if task.n}
    known = {**(task.ledger.model_dump() if task.ledger else {}), **shares}
    for what, most in limits.model_dump(exclude_none=True).items():
        note = "" if what in known else "not counted"
        yield _check(f"{name}: {what.replace('_', ' ')}", known.get(what), "≤", most, note=note)


def _agreed(judge: JudgeLimits, name: str, task: TaskScore) -> Iterator[Check]:
    asked = (
        ("votes agree, κ", task.agreement, judge.votes_kappa_at_least),
        ("judge and rules agree, κ", task.agreement_with_rules, judge.rules_kappa_at_least),
    )
    for what, agreement, least in asked:
        if least is not None:
            kappa = agreement.cohen_kappa if agreement else None
            note = "not defined: fewer than two raters, or all agree" if kappa is None else ""
            yield _check(f"{name}: {what}", kappa, "≥", least, note=note)


def _check(
    rule: str, measured: float | None, sign: Literal["≥", "≤"], limit: float, *, note: str
) -> Check:
    short = None
    if measured is not None:
        short = limit - measured if sign == "≥" else measured - limit
    is_met = short is not None and short <= 0
    return Check(
        rule=rule,
        wanted=f"{sign} {limit:.3f}",
        measured=measured,
        is_met=is_met,
        short_by=None if is_met else short,
        note=note,
    )


def _plain(rule: str, *, ok: bool, note: str) -> Check:
    return Check(rule=rule, wanted="yes", measured=float(ok), is_met=ok, note=note)
