"""From a completion to an outcome: what needs no judge is settled here, and counted the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from medix_eval.errors import RequestRejected
from medix_eval.judging.error_tags import error_tags
from medix_eval.judging.judge import Grade, Grader
from medix_eval.judging.protocol import LLMJudge, Protocol
from medix_eval.models.requests import OF_THE_SAMPLE, ending_of, refusal_kind, unanswered
from medix_eval.records import CompletionRecord, Failure, Outcome, RuleVerdict, VerdictRecord
from medix_eval.rules.answers import extract_answer, has_final_answer, letter_of, published_answer
from medix_eval.rules.decide import decide as decide_by_rules
from medix_eval.storage.digests import mark_of

_SKIPPED = frozenset({"NoAnswer", "BadRow"})
_REFUSED = {"refusal": "the server says: a refusal", "content_filter": "a content filter"}
"""Endings of a completion that are the server's word for it."""


async def verdict_of(
    record: CompletionRecord, *, protocol: Protocol, grader: Grader | None
) -> VerdictRecord:
    """Return how a sample ended under a protocol; the grader is asked where rules may not settle.

    A failure of the judge is an outcome. `ServerError` is raised where it cannot be used at all.
    """
    is_published = protocol.answer.reading == "published"
    if (unread := _without_answer(record, is_published=is_published)) is not None:
        return unread
    completion = record.completion or ""
    if record.parser is not None:
        return _parsed(record, completion)
    said = extract_answer(completion)
    answer = published_answer(completion) if is_published else said
    was_cut = ending_of(record.finish_reason) == "length" and not has_final_answer(completion)
    if was_cut and not is_published:
        return _verdict(record, Outcome.TRUNCATED, answer=answer)
    if not answer and not is_published:
        return _verdict(record, Outcome.EMPTY, answer=answer)
    rule = decide_by_rules(
        said,  # tags would only hide from the rules what was said
        kind=record.kind,
        reference=record.reference,
        options=record.options,
        facts=record.facts,
    )
    if rule is None and _is_refusal(answer, protocol.answer.refusals):
        return _verdict(record, Outcome.REFUSED, answer=answer)
    # The rules settle it where they may, else the judge; an audit asks both.
    spec = protocol.judge
    rules_settle, audit = False, 0.0
    if isinstance(spec, LLMJudge) and spec.rules == "first":
        rules_settle, audit = rule is not None, spec.audit
    grade = None
    if grader is not None and (not rules_settle or _is_drawn(record, share=audit)):
        grade = await grader.grade(record, answer=answer)
    if rules_settle or grader is None:
        score = None if rule is None else rule.score
        outcome = Outcome.UNJUDGED if score is None else outcome_of(score)
    else:
        score = None if grade is None else grade.score
        outcome = Outcome.JUDGE_FAILED if score is None else outcome_of(score)
    return _verdict(record, outcome, score=score, answer=answer, rule=rule, grade=grade)


def _without_answer(record: CompletionRecord, *, is_published: bool) -> VerdictRecord | None:
    """Return how a sample ended that the model has not answered; None where there is an answer."""
    if record.failure is not None:
        outcome = _failed(record.failure, is_published=is_published)
        said = filter(None, (record.failure.kind, record.failure.message))
        return _verdict(record, outcome, reason=": ".join(said))
    if why := unanswered(record.completion, record.finish_reason):
        return _verdict(record, Outcome.REQUEST_FAILED, reason=why)
    if reason := _REFUSED.get(ending_of(record.finish_reason)):
        return _verdict(record, Outcome.REFUSED, answer=record.completion, reason=reason)
    return None


def _failed(failure: Failure, *, is_published: bool) -> Outcome:
    """Name the outcome of a sample without a completion.

    Earlier versions took any refusal for a rejection of the sample, without a kind. The published
    evaluation knows no rejection: what failed, for whatever reason, is left out.
    """
    if failure.error in _SKIPPED:
        return Outcome.SKIPPED
    kind = failure.kind or refusal_kind(failure.message)
    is_rejected = failure.error == RequestRejected.__name__ and kind in OF_THE_SAMPLE
    return Outcome.REJECTED if is_rejected and not is_published else Outcome.REQUEST_FAILED


def _is_refusal(answer: str, refusals: Sequence[str]) -> bool:
    text = " ".join(answer.lower().replace("\u2019", "'").split())
    return any(re.fullmatch(pattern, text, re.DOTALL) for pattern in refusals)


def _is_drawn(record: CompletionRecord, *, share: float) -> bool:
    """Pick this share of the samples, the same ones in every run."""
    drawn = hashlib.sha256(f"{record.task} {record.sample_id}".encode()).digest()
    return int.from_bytes(drawn[:8]) < share * 2**64


def outcome_of(score: float) -> Outcome:
    """Name the outcome of a decided score.

    >>> outcome_of(0.6)
    <Outcome.PARTIAL: 'partial'>
    """
    if score == 1.0:
        return Outcome.CORRECT
    return Outcome.PARTIAL if score > 0.0 else Outcome.WRONG


def _parsed(record: CompletionRecord, completion: str) -> VerdictRecord:
    """Score by the published parser: it finds no short answer right, and guesses count as none."""
    letter = letter_of(completion, record.options) if record.options else ""
    if letter is None:
        return _verdict(record, Outcome.UNPARSED)
    is_right = bool(letter) and record.options[ord(letter) - ord("A")] == record.reference
    score = float(is_right)
    rule = RuleVerdict(score=score, rule=str(record.parser))
    return _verdict(record, outcome_of(score), score=score, answer=letter, rule=rule)


def _verdict(
    record: CompletionRecord,
    outcome: Outcome,
    *,
    score: float | None = 0.0,
    answer: str | None = None,
    rule: RuleVerdict | None = None,
    grade: Grade | None = None,
    reason: str = "",
) -> VerdictRecord:
    return VerdictRecord(
        task=record.task,
        sample_id=record.sample_id,
        outcome=outcome,
        score=score if outcome.is_scored else None,
        mark=mark_of(record.completion),
        answer=answer,
        rule=rule,
        judge_score=grade.score if grade else None,
        judge_scores=dict(grade.by_judge) if grade else {},
        votes=grade.votes if grade else (),
        reason=reason,
        restricted=record.restricted,
        error_tags=_tags(record, answer) if answer and outcome is Outcome.WRONG else (),
    )


def _tags(record: CompletionRecord, answer: str) -> tuple[str, ...]:
    return error_tags(answer, kind=record.kind, reference=record.reference, options=record.options)
