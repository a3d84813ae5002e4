"""What passes between the stages, and what a run folder keeps: one frozen record each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Kind(StrEnum):
    """What sort of answer a task asks for."""

    MULTIPLE_CHOICE = "multiple_choice"
    CLOSED = "closed"
    OPEN = "open"
    REPORT = "report"


class Outcome(StrEnum):
    """How a sample ended: always exactly one of these."""

    CORRECT = "correct"
    WRONG = "wrong"
    PARTIAL = "partial"
    TRUNCATED = "truncated"
    UNPARSED = "unparsed"
    """No letter was found where a published parser guesses one at random; scored 0."""
    EMPTY = "empty"
    REFUSED = "refused"
    REJECTED = "rejected"
    UNJUDGED = "unjudged"
    JUDGE_FAILED = "judge_failed"
    REQUEST_FAILED = "request_failed"
    SKIPPED = "skipped"

    @property
    def is_scored(self) -> bool:
        """Whether the sample is in the denominator; the others only widen the bounds."""
        return self not in _UNSCORED

    @property
    def is_failure(self) -> bool:
        """Whether something broke, so that the run ends with exit code 1."""
        return self in _FAILURES

    @property
    def is_read(self) -> bool:
        """Whether a judge, or a rule, has read the answer; others are wrong without that."""
        return self in _READ


_FAILURES = frozenset({Outcome.JUDGE_FAILED, Outcome.REQUEST_FAILED, Outcome.SKIPPED})
_UNSCORED = _FAILURES | {Outcome.UNJUDGED}
_READ = frozenset({Outcome.CORRECT, Outcome.WRONG, Outcome.PARTIAL})
UNREAD = frozenset({Outcome.TRUNCATED, Outcome.EMPTY, Outcome.REFUSED})
"""Scored 0 unread; a person may find a right answer in the text."""

SWAPPED = "/answer_first"
"""Ends a vote's name of its prompt where it saw the answer before the reference."""
IMAGE_MARK = "<image>"
"""Where an image stands in a prompt's text, as in stock lm-eval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question of a task, ready to be sent."""

    id: str
    task: str
    """Task and version, such as `medqa@1`."""
    row: int
    """Row number in the dataset split, after the task's own filter."""
    kind: Kind
    prompt: str
    """The rendered `doc_to_text`; each image stands at its `<image>` mark."""
    question_at: int = 0
    """Where in it the question begins; what stands before is not sent to a judge."""
    reference: str
    options: tuple[str, ...] = ()
    option_prefix: str | None = None
    """What stands before an option whose likelihood is asked for; None if answers are text."""
    images: tuple[bytes, ...] = ()
    """Encoded image files, exactly as the dataset stores them."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What a report must state, by name; only for tasks that list their facts."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Slice, cluster and kept columns of the row, as text."""
    parser: str | None = None
    """What reads a letter in place of rules and judge: a published parser, `log_likelihood`."""
    restricted: bool = False
    """Whether a data use agreement covers it."""
    answer: str | None = None
    """What a control answers in place of the model."""


class Frozen(BaseModel):
    """What every record, setting and result is: it cannot be changed, and has no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Failure(Frozen):
    """Why a request or a vote gave nothing."""

    error: str
    """Name of the error class, such as `RequestFailed`."""
    message: str
    kind: str = ""
    """Of a rejected sample: `too_long`, `image` or `content_filter`."""


class RuleVerdict(Frozen):
    """The score that the rules gave an answer, and which rule decided."""

    score: float
    rule: str


class Vote(Frozen):
    """One call to one judge: the raw reply is kept, so that a person can disagree with it."""

    judge: str
    prompt: str
    """Name of the rubric prompt, such as `question_1`."""
    key: str
    """Digest of all that can affect this vote; its key in the verdict cache."""
    points: float | None = None
    """The number the judge gave, on the rubric's own scale; None if the vote failed."""
    is_refusal: bool = False
    """The judge says that the answer declines to answer; `points` are then the lowest."""
    labels: tuple[str, ...] = ()
    """What it says in words of its schema: the relation, or the errors of a report."""
    reply: str | None = None
    failure: Failure | None = None
    tokens: int = 0
    """That the judge wrote, as far as its server counts them."""
    thinking_tokens: int = 0
    """Of these, about how many before its reply."""
    calls: int = 0
    """Requests that were made for it; 0 if the verdict was cached."""
    cached: bool = False
    seconds: float = 0.0


class CompletionRecord(Frozen):
    """What the candidate returned for one sample: one line of `completions.jsonl`.

    It carries all that judging needs, so saved completions can be judged again anywhere.
    """

    schema_version: Literal[1] = 1
    task: str
    sample_id: str
    row: int
    kind: Kind
    prompt: str
    question_at: int = 0
    reference: str
    options: tuple[str, ...] = ()
    facts: dict[str, str] = {}
    columns: dict[str, str] = {}
    image_sha256: tuple[str, ...] = ()
    parser: str | None = None
    restricted: bool = False
    """Whether a data use agreement covers this line: readable only by its owner."""
    completion: str | None = None
    log_likelihoods: tuple[float, ...] = ()
    """Of each option, where they were asked for: the completion is the likeliest one's letter."""
    finish_reason: str | None = None
    """`stop`, `length`, `content_filter` or `refusal`; None where nobody said."""
    served_model: str | None = None
    """The id in the reply, where it is not the one asked for."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    requests: int = 0
    seconds: float = 0.0
    failure: Failure | None = None


class VerdictRecord(Frozen):
    """How one sample was scored: one line of `verdicts.jsonl`."""

    schema_version: Literal[1] = 1
    task: str
    sample_id: str
    outcome: Outcome
    score: float | None
    """In [0, 1]; None exactly when the outcome is outside the denominator."""
    mark: str = ""
    """Of the completion that was judged; a verdict of 0.2.0 and before has none."""
    answer: str | None = None
    """The part of the completion that was judged."""
    votes: tuple[Vote, ...] = ()
    rule: RuleVerdict | None = None
    """What the rules say about the same answer, whatever decided the score."""
    judge_score: float | None = None
    """The result of the judge's votes, whatever decided the score; None if not asked or failed."""
    judge_scores: dict[str, float | None] = {}
    """The score by each judge of a jury; empty if there was only one."""
    restricted: bool = False
    """Whether a data use agreement covers this line: votes quote the sample."""
    reason: str = ""
    """Why a sample was skipped, refused or could not be judged."""
    error_tags: tuple[str, ...] = ()
    """What kind of mistake a wrong answer makes, where rules can tell, such as `laterality`."""
