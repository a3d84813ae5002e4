"""A gate: what a run must reach before it is used, written down before it was measured.

What a policy asks for and a run does not report is not met: a gate that ignores a missing
task would pass a run that left it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from medix_eval.errors import ConfigError, first_error
from medix_eval.records import Frozen
from medix_eval.results.comparison import compare_runs
from medix_eval.results.scores import GroupScore, Ledger, SliceScore, TaskScore
from medix_eval.results.store import JudgedRun
from medix_eval.storage.bundled import read_mapping

Fraction = Annotated[float, Field(ge=0, le=1)]
_KEYS = "keys are floors, non_inferiority, limits, judge, allow_limited, allow_synthetic"


class _Part(Frozen):
    """A task, a group, or one slice of a task."""

    task: str | None = None
    group: str | None = None

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
    by: Literal["score", "interval", "bounds"] = "score"
    """What must reach it: the score itself, the low end of its 95 % interval, or the score if
    every sample that was not scored were wrong."""

    @model_validator(mode="after")
    def _slices_have_tasks(self) -> Self:
        if self.slice and (self.task is None or len(self.slice) != 1):
            raise ValueError("a slice needs one column and value of a task")
        if self.by == "bounds" and (self.group or self.slice):
            raise ValueError("only a task has bounds")
        return self

    @property
    def label(self) -> str:
        """How the rule is named in a table."""
        found = "".join(f", {column} {value}" for column, value in self.slice.items())
        how = {"score": "score", "interval": "low end of the interval", "bounds": "worst case"}
        return f"{self.name}{found}: {how[self.by]}"


class NonInferiority(_Part):
    """How far a run may fall behind the baseline, on the samples that both have."""

    margin: Fraction


class Limits(Frozen):
    """The largest share of the samples, in each task, that may end so."""

    failed: Fraction | None = None
    cut_off: Fraction | None = None
    refused: Fraction | None = None
    empty: Fraction | None = None
    rejected: Fraction | None = None


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
    raw = read_mapping(path, what="policy")
    try:
        policy = Policy.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"policy {path}: {first_error(error)}", hint=_KEYS) from error
    if policy.baseline is None:
        return policy
    return policy.model_copy(update={"baseline": path.parent / policy.baseline})


def check_run(policy: Policy, run: JudgedRun, *, baseline: JudgedRun | None) -> list[Check]:
    """Check a run against a policy, rule by rule.

    Raises `ConfigError` where a baseline is needed and none is named, and `RunMismatch` where the
    baseline was measured in another way.
    """
    checks = [_floor(floor, run) for floor in policy.floors]
    if policy.non_inferiority:
        if baseline is None:
            hint = "name one in the policy, or with --baseline"
            raise ConfigError("non_inferiority needs a baseline", hint=hint)
        checks += _non_inferior(policy, run, baseline)
    for name, task in run.scores.tasks.items():
        checks += _lost(policy.limits, name, task.ledger)
        checks += _agreed(policy.judge, name, task)
    if run.control:
        note = f"control {run.control}"
        checks.append(_plain("the questions are unchanged", ok=False, note=note))
    if run.scores.text_only:
        checks.append(_plain("the images were shown", ok=False, note="TEXT ONLY"))
    if not policy.allow_limited:
        limited = [name for name, task in run.scores.tasks.items() if task.limit is not None]
        checks.append(_plain("complete tasks were asked", ok=not limited, note=", ".join(limited)))
    if not policy.allow_synthetic:
        asked = [rule.name for rule in (*policy.floors, *policy.non_inferiority)]
        real = not run.scores.is_synthetic(*(asked or run.scores.tasks))
        checks.append(_plain("the data is real", ok=real, note="" if real else "SYNTHETIC"))
    return checks


def _floor(floor: Floor, run: JudgedRun) -> Check:
    measured = _measured(floor, run.scores.tasks, run.scores.groups)
    return _at_least(
        floor.label, measured, floor.at_least, why="not measured in this run, or incomplete"
    )


def _measured(
    floor: Floor, tasks: Mapping[str, TaskScore], groups: Mapping[str, GroupScore]
) -> float | None:
    """Return the value that a floor applies to; None if the run does not report it."""
    part: TaskScore | GroupScore | SliceScore | None
    if floor.group:
        group = groups.get(floor.group)
        part = group if group and group.complete else None
    else:
        task = part = tasks.get(str(floor.task))
        if task and floor.by == "bounds":
            return task.bounds[0] if task.bounds else None
        for column, value in floor.slice.items():
            part = task.slices.get(column, {}).get(value) if task else None
    if part is None or floor.by == "score":
        return part.score if part else None
    return part.interval[0] if part.interval else None


def _non_inferior(policy: Policy, run: JudgedRun, baseline: JudgedRun) -> Iterator[Check]:
    """See that the low end of the paired difference's interval stays above minus the margin."""
    compared = compare_runs([baseline, run])
    (pair,) = compared.pairs
    for rule in policy.non_inferiority:
        found = (pair.tasks if rule.task else pair.groups).get(rule.name)
        low = found.interval[0] if found and found.interval else None
        label = f"{rule.name}: not worse than {baseline.scores.model} (low end of the difference)"
        yield _at_least(label, low, 0.0 - rule.margin, why="not measured in both runs")


def _lost(limits: Limits, name: str, ledger: Ledger | None) -> Iterator[Check]:
    for what, most in limits.model_dump().items():
        if most is None:
            continue
        share = getattr(ledger, what) if ledger else None
        yield _at_most(f"{name}: {what.replace('_', ' ')}", share, most)


def _agreed(judge: JudgeLimits, name: str, task: TaskScore) -> Iterator[Check]:
    asked = (
        ("votes agree, κ", task.agreement, judge.votes_kappa_at_least),
        ("judge and rules agree, κ", task.agreement_with_rules, judge.rules_kappa_at_least),
    )
    for what, agreement, least in asked:
        if least is not None:
            kappa = agreement.cohen_kappa if agreement else None
            why = "not defined: fewer than two raters, or all agree"
            yield _at_least(f"{name}: {what}", kappa, least, why=why)


def _at_least(rule: str, measured: float | None, least: float, *, why: str) -> Check:
    return _compared(rule, measured, f"≥ {least:.3f}", lambda value: least - value, why=why)


def _at_most(rule: str, measured: float | None, most: float) -> Check:
    return _compared(rule, measured, f"≤ {most:.3f}", lambda value: value - most, why="not counted")


def _compared(
    rule: str, measured: float | None, wanted: str, missing: Callable[[float], float], *, why: str
) -> Check:
    if measured is None:
        return Check(rule=rule, wanted=wanted, measured=None, is_met=False, note=why)
    short = missing(measured)
    return Check(
        rule=rule,
        wanted=wanted,
        measured=measured,
        is_met=short <= 0,
        short_by=short if short > 0 else None,
    )


def _plain(rule: str, *, ok: bool, note: str) -> Check:
    return Check(rule=rule, wanted="yes", measured=float(ok), is_met=ok, note=note)
