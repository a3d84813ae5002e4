"""One task's samples: what its completions and verdicts come to.

A new metric is a new field of `TaskScore`, computed in `Tally.score`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from medix_eval.records import Kind, Outcome
from medix_eval.results.corrected import Judged
from medix_eval.results.scores import FAILED, Ledger, TaskScore
from medix_eval.results.slices import Row, said, slice_scores, slices_of, yes_no
from medix_eval.results.store import TaskEntry
from medix_eval.statistics.agreement import Agreement, agreement, ratings
from medix_eval.statistics.intervals import Clusters, clustered, limits_of, task_interval

_READ = frozenset({Outcome.CORRECT, Outcome.WRONG, Outcome.PARTIAL})
"""Outcomes of answers that a judge, or a rule, has read; the others are wrong without that."""


class Answered(NamedTuple):
    """What counts of a completion's line."""

    requests: int
    prompt_tokens: int
    completion_tokens: int | None
    seconds: float
    is_cut: bool
    cluster: str
    slices: tuple[tuple[str, str], ...]
    expects: str | None
    """`yes` or `no`, if that is the reference."""
    num_options: int

    @classmethod
    def of(cls, line: Mapping[str, Any], entry: TaskEntry) -> Self:
        """Take it from the line; the task's entry says which columns are slices."""
        columns = line.get("columns", {})
        tokens = line.get("completion_tokens")
        return cls(
            int(line.get("requests", 0)),
            int(line.get("prompt_tokens") or 0),
            None if tokens is None else int(tokens),
            float(line.get("seconds", 0.0)),
            line.get("finish_reason") == "length",
            # What has no image stands alone.
            columns.get(entry.cluster, line["sample_id"]),
            slices_of(columns, names=entry.slices, kind=entry.kind, reference=line["reference"]),
            said(line["reference"], whole=True),
            len(line.get("options", ())),
        )


class JudgedAs(NamedTuple):
    """What counts of a verdict's line."""

    outcome: Outcome
    score: float | None
    rules_score: float | None
    judge_score: float | None
    ratings: dict[str, float | None]
    calls: int
    cached: int
    seconds: float
    tags: tuple[str, ...]
    says: str | None
    """`yes` or `no`, if the answer begins so."""

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """Take it from the line."""
        votes = line.get("votes", ())
        return cls(
            Outcome(line["outcome"]),
            None if line["score"] is None else float(line["score"]),
            float(line["rule"]["score"]) if "rule" in line else None,
            line.get("judge_score"),
            ratings((vote["judge"], vote["prompt"], vote.get("points")) for vote in votes),
            sum(vote.get("calls", 0) for vote in votes),
            sum(vote.get("cached", False) for vote in votes),
            math.fsum(vote.get("seconds", 0.0) for vote in votes),
            tuple(line.get("error_tags", ())),
            said(line.get("answer") or ""),
        )


@dataclass(slots=True)
class Tally:
    """One task's samples."""

    entry: TaskEntry
    answered: dict[str, Answered] = field(default_factory=dict)
    judged: dict[str, JudgedAs] = field(default_factory=dict)
    _rows: frozenset[int] | None = field(init=False)

    def __post_init__(self) -> None:
        self._rows = None if self.entry.rows is None else frozenset(self.entry.rows)

    def wants(self, row: int) -> bool:
        """Whether a row belongs to the run as it was asked for last."""
        return self._rows is None or row in self._rows

    def scored(self) -> list[tuple[Answered, float]]:
        """Pair each score with its completion."""
        return [
            (self.answered[name], one.score)
            for name, one in self.judged.items()
            if one.score is not None
        ]

    def clusters(self) -> Clusters:
        """Sum the scores by image or patient."""
        scored = self.scored()
        names = [one.cluster for one, _ in scored] if self.entry.cluster else None
        return clustered([score for _, score in scored], names)

    def labelled(self, labels: Mapping[str, float]) -> list[Judged]:
        """Put people's labels beside the scores."""
        return [
            Judged(
                score=one.score,
                label=labels.get(name),
                is_read=one.outcome in _READ,
                cluster=self.answered[name].cluster,
            )
            for name, one in self.judged.items()
            if one.score is not None
        ]

    def score(self) -> TaskScore:
        """Return the task's row of the table."""
        n, judged = self.entry.num_selected, self.judged.values()
        outcomes = Counter(one.outcome for one in judged)
        outcomes[Outcome.SKIPPED] += n - outcomes.total()
        scores = [one.score for one in judged if one.score is not None]
        rules = [one.rules_score for one in judged if one.rules_score is not None]
        total, clusters = math.fsum(scores), self.clusters()
        interval = task_interval(clusters)
        rows = self._rows_for_slices()
        is_graded = self.entry.kind == Kind.REPORT
        options = [one.num_options for one in self.answered.values()]
        return TaskScore(
            version=self.entry.version,
            kind=self.entry.kind,
            limit=self.entry.limit if self.entry.rows is not None else None,
            synthetic=self.entry.synthetic,
            n=n,
            n_scored=len(scores),
            score=mean(scores),
            stderr=clusters.stderr if scores else None,
            rules_score=mean(rules),
            rules_n=len(rules),
            outcomes={outcome.value: outcomes[outcome] for outcome in Outcome},
            bounds=(total / n, (total + n - len(scores)) / n) if n else None,
            interval=limits_of(interval),
            interval_method=interval.method if interval else None,
            n_clusters=clusters.num_clusters if self.entry.cluster else None,
            slices=slice_scores(rows, with_clusters=self.entry.cluster is not None),
            agreement=agreement((one.ratings for one in judged), graded=is_graded),
            agreement_with_rules=self._agreement_with_rules(graded=is_graded),
            error_tags=dict(sorted(Counter(tag for one in judged for tag in one.tags).items())),
            ledger=self._ledger(outcomes, total=total),
            yes_no=yes_no(rows),
            chance=mean(1 / number for number in options) if options and all(options) else None,
        )

    def _rows_for_slices(self) -> list[Row]:
        rows = []
        for name, one in self.answered.items():
            judged = self.judged.get(name)
            rows.append(
                Row(
                    slices=one.slices,
                    cluster=one.cluster,
                    score=judged.score if judged else None,
                    expects=one.expects,
                    says=judged.says if judged else None,
                )
            )
        return rows

    def _agreement_with_rules(self, *, graded: bool) -> Agreement | None:
        both = [
            {"judge": one.judge_score, "rules": one.rules_score}
            for one in self.judged.values()
            if one.judge_score is not None and one.rules_score is not None
        ]
        return agreement(both, graded=graded)

    def _ledger(self, outcomes: Mapping[Outcome, int], *, total: float) -> Ledger | None:
        n, answered, judged = self.entry.num_selected, self.answered.values(), self.judged.values()
        if not n:
            return None
        counted = [one.completion_tokens for one in answered if one.completion_tokens is not None]
        tokens = sum(counted) if counted else None
        return Ledger(
            cut_off=sum(one.is_cut for one in answered) / n,
            empty=outcomes[Outcome.EMPTY] / n,
            refused=outcomes[Outcome.REFUSED] / n,
            rejected=outcomes[Outcome.REJECTED] / n,
            failed=sum(outcomes[outcome] for outcome in FAILED) / n,
            completion_tokens=tokens,
            tokens_per_sample=None if tokens is None else tokens / len(counted),
            tokens_per_correct=None if tokens is None or total <= 0 else tokens / total,
            judge_calls=sum(one.calls for one in judged),
            candidate_seconds=round(math.fsum(one.seconds for one in answered), 3),
            judge_seconds=round(math.fsum(one.seconds for one in judged), 3),
        )


def mean(values: Iterable[float]) -> float | None:
    """Return the mean, the same whatever the order of the values; None of nothing."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else None
