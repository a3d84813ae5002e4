"""From verdicts to scores: per task, per group, with everything that was not scored beside it.

A new metric is a new column of `TaskScore`, computed in `_Tally.score`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from medix_eval.models.text_only import IMAGES_LEFT_OUT
from medix_eval.records import CompletionRecord, Outcome, VerdictRecord
from medix_eval.store import (
    JudgingManifest,
    RunManifest,
    TaskEntry,
    newest_completions,
    verdicts,
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
    tallies = {name: _Tally(entry) for name, entry in manifest.tasks.items()}
    usage = {
        "candidate": Counter[str]({"requests": 0, "prompt_tokens": 0, "completion_tokens": 0}),
        "judge": Counter[str]({"calls": 0, "cached": 0}),
    }
    seconds: dict[str, list[float]] = {"candidate": [], "judge": []}
    for record in newest_completions(run):
        tally = tallies.get(record.task.partition("@")[0])
        if tally is not None and tally.selects(record):
            usage["candidate"]["requests"] += record.requests
            usage["candidate"]["prompt_tokens"] += record.prompt_tokens or 0
            usage["candidate"]["completion_tokens"] += record.completion_tokens or 0
            seconds["candidate"].append(record.seconds)
    for verdict in verdicts(judged):
        tally = tallies.get(verdict.task.partition("@")[0])
        if tally is not None and tally.add(verdict):
            for vote in verdict.votes:
                usage["judge"]["calls"] += vote.calls
                usage["judge"]["cached"] += vote.cached
                seconds["judge"].append(vote.seconds)
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

    def selects(self, record: CompletionRecord) -> bool:
        """Take note of a sample that belongs to the run as it was asked for last."""
        wanted = self._rows is None or record.row in self._rows
        if wanted:
            self._selected.add(record.sample_id)
        return wanted

    def add(self, verdict: VerdictRecord) -> bool:
        if verdict.sample_id not in self._selected:
            return False
        self.outcomes[verdict.outcome] += 1
        if verdict.score is not None:
            self.scores.append(verdict.score)
        if verdict.rule is not None:
            self.rules.append(verdict.rule.score)
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
