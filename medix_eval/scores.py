"""From verdicts to scores: per task, per group, with everything that was not scored beside it.

A new metric is a new column of `TaskScore`, computed in `_Tally.score`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from medix_eval.models.text_only import IMAGES_LEFT_OUT
from medix_eval.records import Outcome
from medix_eval.store import (
    JudgingManifest,
    RunManifest,
    TaskEntry,
    newest,
)

Failed = frozenset(outcome for outcome in Outcome if outcome.is_failure)


class _Score(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskScore(_Score):
    """One row of the table; scores are in [0, 1] or null, never NaN."""

    version: str
    kind: str
    limit: int | None
    synthetic: bool
    n: int
    n_scored: int
    score: float | None
    stderr: float | None
    rules_score: float | None
    """Mean over the samples that the rules can decide, whoever scored the task."""
    rules_n: int
    outcomes: dict[str, int]
    bounds: tuple[float, float] | None
    """The score if every unscored sample were wrong, and if every one were right."""

    @property
    def is_complete(self) -> bool:
        """Whether the whole task was asked, and nothing on the way failed."""
        return self.limit is None and not any(self.outcomes[name] for name in Failed)

    @property
    def mark(self) -> str:
        """A dagger where part of the samples is outside the denominator."""
        return "†" if self.n_scored < self.n else ""


class GroupScore(_Score):
    """The unweighted mean of a group's tasks; null unless every task is complete."""

    score: float | None
    tasks: tuple[str, ...]
    complete: bool


class Scores(_Score):
    """`scores.json`: the machine's view of one judging of one run."""

    schema_version: int = 1
    model: str
    judges: list[dict[str, Any]]
    protocol: dict[str, str]
    generation_digest: str
    judging_digest: str
    run: str
    limit: int | None
    synthetic: bool
    text_only: bool = False
    """Whether the model was asked about images without being shown them."""
    tasks: dict[str, TaskScore]
    groups: dict[str, GroupScore]
    usage: dict[str, dict[str, float | int]]

    @property
    def num_failures(self) -> int:
        """Samples that failed on the way: they make the exit code 1."""
        return sum(task.outcomes[name] for task in self.tasks.values() for name in Failed)


def score_run(
    run: Path,
    judged: Path,
    *,
    manifest: RunManifest,
    judging: JudgingManifest,
    groups: Mapping[str, tuple[str, ...]],
    allow_partial: bool = False,
) -> Scores:
    """Score what a run folder holds; samples without a verdict count as skipped."""
    tallies = {name: _Tally(manifest.tasks[name]) for name in judging.tasks}
    usage = {
        "candidate": Counter[str]({"requests": 0, "prompt_tokens": 0, "completion_tokens": 0}),
        "judge": Counter[str]({"calls": 0, "cached": 0}),
    }
    seconds: dict[str, list[float]] = {"candidate": [], "judge": []}
    completions = newest(run / "completions.jsonl", _Answered.of)
    for (task, sample_id), answered in completions.items():
        tally = tallies.get(task.partition("@")[0])
        if tally is not None and tally.selects(sample_id, row=answered.row):
            usage["candidate"]["requests"] += answered.requests
            usage["candidate"]["prompt_tokens"] += answered.prompt_tokens
            usage["candidate"]["completion_tokens"] += answered.completion_tokens
            seconds["candidate"].append(answered.seconds)
    for (task, sample_id), judged_as in newest(judged / "verdicts.jsonl", _Judged.of).items():
        tally = tallies.get(task.partition("@")[0])
        if tally is not None and tally.add(sample_id, judged_as):
            usage["judge"]["calls"] += judged_as.calls
            usage["judge"]["cached"] += judged_as.cached
            seconds["judge"].append(judged_as.seconds)
    tasks = {name: tally.score() for name, tally in tallies.items()}
    limits = {task.limit for task in tasks.values()}
    return Scores(
        model=manifest.model,
        judges=judging.judges,
        protocol=judging.protocol,
        generation_digest=manifest.generation_digest,
        judging_digest=judging.judging_digest,
        run=str(judged),
        limit=max((limit for limit in limits if limit is not None), default=None),
        synthetic=any(task.synthetic for task in tasks.values()),
        text_only=IMAGES_LEFT_OUT.items() <= manifest.generation.get("model", {}).items(),
        tasks=tasks,
        groups=group_scores(tasks, groups, allow_partial=allow_partial),
        usage={
            role: {**counts, "seconds": round(math.fsum(seconds[role]), 3)}
            for role, counts in usage.items()
        },
    )


def group_scores(
    tasks: Mapping[str, TaskScore],
    groups: Mapping[str, tuple[str, ...]],
    *,
    allow_partial: bool = False,
) -> dict[str, GroupScore]:
    """Average each group of which at least one task was run.

    With `allow_partial` an incomplete group is averaged over what there is, and stays marked.
    """
    found = {}
    for name, members in groups.items():
        here = [tasks[member] for member in members if member in tasks]
        if not here:
            continue
        complete = len(here) == len(members) and all(task.is_complete for task in here)
        values = [task.score for task in here if task.score is not None]
        usable = len(values) == len(members) if not allow_partial else bool(values)
        score = mean(values) if usable and (complete or allow_partial) else None
        found[name] = GroupScore(score=score, tasks=members, complete=complete)
    return found


def mean(values: Iterable[float]) -> float | None:
    """Return the mean, the same whatever the order of the values; None of nothing."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else None


def standard_error(values: Iterable[float]) -> float | None:
    """Return the standard error of the mean (sample deviation); None below two values."""
    numbers = list(values)
    if len(numbers) < 2:  # noqa: PLR2004
        return None
    centre = math.fsum(numbers) / len(numbers)
    squares = math.fsum((number - centre) ** 2 for number in numbers)
    return math.sqrt(squares / (len(numbers) - 1) / len(numbers))


class _Answered(NamedTuple):
    """What counts of a completion's line."""

    row: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        return cls(
            int(line["row"]),
            int(line.get("requests", 0)),
            int(line.get("prompt_tokens", 0)),
            int(line.get("completion_tokens", 0)),
            float(line.get("seconds", 0.0)),
        )


class _Judged(NamedTuple):
    """What counts of a verdict's line."""

    outcome: Outcome
    score: float | None
    rules_score: float | None
    calls: int
    cached: int
    seconds: float

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        votes = line.get("votes", ())
        return cls(
            Outcome(line["outcome"]),
            None if line["score"] is None else float(line["score"]),
            float(line["rule"]["score"]) if "rule" in line else None,
            sum(vote.get("calls", 0) for vote in votes),
            sum(vote.get("cached", False) for vote in votes),
            math.fsum(vote.get("seconds", 0.0) for vote in votes),
        )


@dataclass(slots=True)
class _Tally:
    """Counts one task's verdicts."""

    entry: TaskEntry
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    scores: list[float] = field(default_factory=list)
    rules: list[float] = field(default_factory=list)
    _selected: set[str] = field(default_factory=set)
    _rows: frozenset[int] | None = field(init=False)

    def __post_init__(self) -> None:
        self._rows = None if self.entry.rows is None else frozenset(self.entry.rows)

    def selects(self, sample_id: str, *, row: int) -> bool:
        """Take note of a sample that belongs to the run as it was asked for last."""
        wanted = self._rows is None or row in self._rows
        if wanted:
            self._selected.add(sample_id)
        return wanted

    def add(self, sample_id: str, judged: _Judged) -> bool:
        if sample_id not in self._selected:
            return False
        self.outcomes[judged.outcome] += 1
        if judged.score is not None:
            self.scores.append(judged.score)
        if judged.rules_score is not None:
            self.rules.append(judged.rules_score)
        return True

    def score(self) -> TaskScore:
        n = self.entry.num_selected
        self.outcomes[Outcome.SKIPPED] += n - self.outcomes.total()
        unscored, total = n - len(self.scores), math.fsum(self.scores)
        return TaskScore(
            version=self.entry.version,
            kind=self.entry.kind,
            limit=self.entry.limit if self.entry.rows is not None else None,
            synthetic=self.entry.synthetic,
            n=n,
            n_scored=len(self.scores),
            score=mean(self.scores),
            stderr=standard_error(self.scores),
            rules_score=mean(self.rules),
            rules_n=len(self.rules),
            outcomes={outcome.value: self.outcomes[outcome] for outcome in Outcome},
            bounds=(total / n, (total + unscored) / n) if n else None,
        )
