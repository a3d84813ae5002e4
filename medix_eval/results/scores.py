"""What `scores.json` holds: per task and per group, with all that was not scored beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from medix_eval.records import Frozen, Outcome
from medix_eval.results.statistics import Agreement, Corrected, Difference, Share
from medix_eval.storage.digests import ShownName

FAILED = frozenset(outcome for outcome in Outcome if outcome.is_failure)
MIN_SLICE = 30
"""A slice with fewer scored samples is shown in grey, and is never the worst one."""
MAX_REJECTED = 0.02
"""The largest part of a task's samples that may be rejected for a score without a mark."""
_WHOSE = {
    Outcome.REQUEST_FAILED: "server failed", Outcome.JUDGE_FAILED: "judge failed",
    Outcome.UNJUDGED: "rules undecided", Outcome.SKIPPED: "not asked",
    Outcome.TRUNCATED: "model cut off", Outcome.UNPARSED: "model unparsed",
    Outcome.EMPTY: "model empty", Outcome.REFUSED: "model refused",
    Outcome.REJECTED: "rejected by the server",
}  # fmt: skip
"""Who lost a sample that no reader gave a verdict on."""
MARKED = (
    "some samples have no score, only some were asked, or the server rejected more than "
    f"{100 * MAX_REJECTED:g} % of the samples, which count as wrong"
)
"""What a dagger after a score says."""


class SliceScore(Frozen):
    """The samples of a task that share one value of a column."""

    n: int
    n_scored: int
    score: float | None
    interval: tuple[float, float] | None

    @property
    def is_small(self) -> bool:
        """Whether there are too few samples for a meaningful score."""
        return self.n_scored < MIN_SLICE


class Ledger(Frozen):
    """What a task cost and what was lost on the way; shares are of all its samples."""

    cut_off: float
    """Share of the completions that reached the token limit, whatever their outcome."""
    empty: float
    refused: float
    rejected: float
    failed: float
    """Request failed, judge failed or skipped."""
    completion_tokens: int | None
    """Null if the model's server or file does not count them; so are the two below."""
    tokens_per_sample: float | None
    tokens_per_correct: float | None
    """Tokens written for each full mark."""
    judge_calls: int
    candidate_seconds: float
    judge_seconds: float


class YesNo(Frozen):
    """Questions whose reference is yes or no, and what needs no knowledge to score on them."""

    n: int
    score: float | None
    majority: float
    """The score of always giving the more frequent answer."""
    majority_answer: str
    reference_yes: float
    answered_yes: float | None
    """Share of yes among the answers that begin with yes or no; far from the share in the
    references it is a bias."""
    n_answered: int


class MetricValue(Frozen):
    """What a metric from outside found, and how tables show it."""

    value: float | None
    label: str = ""
    """Words for it; its name, if empty."""
    percent: bool = False

    def shown(self, name: str) -> str:
        """Return label and number as text."""
        if self.value is None:
            return f"{self.label or name} not measured"
        number = f"{100 * self.value:.1f} %" if self.percent else f"{self.value:.4g}"
        return f"{self.label or name} {number}"


class TaskScore(Frozen):
    """One row of the table; scores are in [0, 1] or null, never NaN."""

    version: str
    kind: str
    limit: int | None
    synthetic: bool
    n: int
    n_scored: int
    score: float | None
    stderr: float | None
    """Robust to clusters; without them it is the plain one, as lm-eval gives it."""
    rules_score: float | None
    """Mean over the samples that the rules can decide, whatever scored the task."""
    rules_n: int
    outcomes: dict[str, int]
    bounds: tuple[float, float] | None
    """The score if every unscored sample were wrong, and if every one were right."""
    interval: tuple[float, float] | None = None
    """95 %."""
    interval_method: str | None = None
    n_clusters: int | None = None
    """Images or patients behind the scored samples; null if the task file names no column."""
    slices: dict[str, dict[str, SliceScore]] = {}
    """By column and value."""
    agreement: Agreement | None = None
    """Of the votes: between judges, or between the prompts of one judge."""
    agreement_with_rules: Agreement | None = None
    """Between the judge and the rules, where these can decide."""
    judge_effects: dict[str, Difference] = {}
    """What a vote gains by showing the reference first, and by each wording, in shares of the
    scale: paired, over the first two votes of every answer."""
    error_tags: dict[str, int] = {}
    """What kind of error the imperfect answers hold, where rules or most votes tell."""
    harm: float | None = None
    """Mean severity of the errors, 0 to 1, by the protocol's table; null if it has none."""
    ledger: Ledger | None = None
    yes_no: YesNo | None = None
    chance: float | None = None
    """What guessing among the options scores."""
    corrected: Corrected | None = None
    """Null: uncalibrated, no answers of this run are labelled."""
    metrics: dict[str, float | MetricValue | None] = {}
    """What metrics from outside found, by name; left out where none is installed."""

    @model_serializer(mode="wrap")
    def _without_empty_metrics(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = write(self)
        return fields if self.metrics else {k: v for k, v in fields.items() if k != "metrics"}

    @property
    def metric_values(self) -> dict[str, MetricValue]:
        """The same, with a plain number as a value without label."""
        return {
            name: one if isinstance(one, MetricValue) else MetricValue(value=one)
            for name, one in self.metrics.items()
        }

    @property
    def is_complete(self) -> bool:
        """Whether the complete task was asked, and nothing failed."""
        return self.limit is None and not self.num_failures

    @property
    def num_failures(self) -> int:
        """Samples whose request or judging failed, or that were not asked."""
        return sum(self.outcomes[name] for name in FAILED)

    @property
    def mark(self) -> str:
        """A dagger where samples have no score, or the server rejected too many."""
        rejected = self.ledger.rejected if self.ledger else 0.0
        return "†" if self.n_scored < self.n or rejected > MAX_REJECTED else ""

    @property
    def worst_slice(self) -> tuple[str, str, SliceScore] | None:
        """Column, value and score of the lowest slice that is large enough."""
        found = [
            (column, value, one)
            for column, values in self.slices.items()
            for value, one in values.items()
            if not one.is_small and one.score is not None and one.n < self.n
        ]
        return min(found, key=lambda one: (one[2].score, one[:2]), default=None)


def whose(tasks: Iterable[TaskScore], *, scored: bool) -> str:
    """Say who lost the samples that count as wrong unread, or those that have no score."""
    every = [task.outcomes for task in tasks]
    found = [(sum(outcomes.get(one, 0) for outcomes in every), name)
             for one, name in _WHOSE.items() if scored is one.is_scored]  # fmt: skip
    return ", ".join(f"{name} {num:,}" for num, name in sorted(found, key=lambda p: -p[0]) if num)


def losses(task: TaskScore, *bounds: str) -> str:
    """Say whose the samples without a score are, and whose those that count as wrong unread."""
    lost, wrong = whose([task], scored=False), whose([task], scored=True)
    found = (("no score", lost, *bounds), ("counted wrong", wrong))
    return " · ".join(f"{what}: {', '.join(said)}" for what, *said in found if said[0])


class GroupScore(Frozen):
    """The unweighted mean of a group's tasks; null unless every task is complete."""

    score: float | None
    tasks: tuple[str, ...]
    complete: bool
    stderr: float | None = None
    interval: tuple[float, float] | None = None
    """95 %, from clusters resampled within each task."""
    interval_method: str | None = None
    closed_form: tuple[float, float] | None = None
    """The same without resampling."""
    corrected: float | None = None
    """Null unless every task has labels."""
    corrected_interval: tuple[float, float] | None = None


class ControlEffect(Frozen):
    """The effect of a control: the plain run against the perturbed one, sample by sample."""

    name: Literal["vision gain", "order sensitivity", "gain over normal"]
    plain: str
    """The plain run's judging folder."""
    tasks: dict[str, Difference]
    """Score of the plain run minus score of the perturbed one."""
    groups: dict[str, Difference]
    changed: dict[str, Share]
    """By task: samples with a different score, up or down."""


class Cost(Frozen):
    """What a run cost by a file of prices."""

    currency: str
    candidate: float
    judge: float
    per_correct: float | None
    """For each full mark; null if there was none."""


class Scores(Frozen):
    """`scores.json`: the machine's view of one judging of one run."""

    schema_version: int = 1
    model: ShownName
    judges: list[dict[str, Any]]
    protocol: dict[str, str]
    generation_digest: str
    judging_digest: str
    run: str
    selection: str = ""
    """Digest of the tasks and rows that these scores are of; empty in a run of 0.1."""
    limit: int | None
    synthetic: bool
    served_models: dict[str, int] = {}
    """Answers by the id in the reply, where servers named others than the one asked for; those
    under the very id are under ""."""
    text_only: bool = False
    """Whether the model was asked about images without being shown them."""
    control: str | None = None
    """How the samples were perturbed, if at all: then this is not a score of the model."""
    effect: ControlEffect | None = None
    """Null unless the plain run of a control exists next to it."""
    labels: dict[str, Any] | None = None
    """The file of people's labels that corrected scores come from: its hash, how many labels,
    how many people, how far they agree."""
    tasks: dict[str, TaskScore]
    groups: dict[str, GroupScore]
    usage: dict[str, dict[str, float | int]]
    cost: Cost | None = None
    """Null unless prices were given."""

    def mark_of(self, name: str) -> str:
        """Return a dagger where a task, or one of a group, is incomplete or has a mark."""
        members = self.groups[name].tasks if name in self.groups else (name,)
        tasks = [self.tasks.get(member) for member in members]
        return "" if all(one and one.is_complete and not one.mark for one in tasks) else "†"

    def is_synthetic(self, *names: str) -> bool:
        """Whether one of these tasks, or of the tasks of these groups, is of synthetic data."""
        named = {*names}.union(*(self.groups[one].tasks for one in names if one in self.groups))
        return any(one.synthetic for task, one in self.tasks.items() if task in named)

    @property
    def num_failures(self) -> int:
        """Samples that failed: they make the exit code 1."""
        return sum(task.num_failures for task in self.tasks.values())
