"""From a completion to an outcome: what needs no judge is settled here, and counted the same."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from medix_eval.errors import RequestRejected
from medix_eval.judging.error_tags import error_tags
from medix_eval.judging.judge import Grade, Grader
from medix_eval.judging.protocol import AnswerSpec, LLMJudge, Protocol
from medix_eval.judging.replies import RELATIONS
from medix_eval.models.requests import OF_THE_SAMPLE, ending_of, refusal_kind, unanswered
from medix_eval.records import CompletionRecord, Failure, Outcome, RuleVerdict, VerdictRecord, Vote
from medix_eval.rules.answers import (
    after_thinking,
    extract_answer,
    letter_of,
    may_think,
    published_answer,
)
from medix_eval.rules.decide import decide, may_take_back, stated_before_cut
from medix_eval.storage.digests import mark_of

_SKIPPED = frozenset({"NoAnswer", "BadRow"})
_REFUSED = {"refusal": "the server says: a refusal", "content_filter": "a content filter"}
"""Endings of a completion that are the server's word for it."""
_RIGHT = {relation for relation, points in RELATIONS.items() if points}


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
    said, rule, ended = _read(record, completion, spec=protocol.answer)
    answer = published_answer(completion) if is_published else said
    if ended is not None:
        return _verdict(record, ended, answer=answer)
    # The rules settle it where they may, else the judge; an audit asks both.
    spec = protocol.judge
    rules_settle, audit = False, 0.0
    if isinstance(spec, LLMJudge) and spec.rules == "first":
        rules_settle, audit = rule is not None, spec.audit
    grade = None
    if grader is not None and (not rules_settle or _is_drawn(record, share=audit)):
        grade = await grader.grade(record, answer=answer)
    is_by_rule = rules_settle or grader is None
    by = rule if is_by_rule else grade
    unsettled = Outcome.UNJUDGED if is_by_rule else Outcome.JUDGE_FAILED
    score = None if by is None else by.score
    outcome = unsettled if score is None else outcome_of(score)
    given: Any = {"score": score, "answer": answer, "rule": rule, "grade": grade}
    if isinstance(by, Grade) and by.refused_by:
        outcome, given["reason"] = Outcome.REFUSED, f"a refusal, says {by.refused_by}"
    return _verdict(record, outcome, **given)


def _read(
    record: CompletionRecord, completion: str, *, spec: AnswerSpec
) -> tuple[str, RuleVerdict | None, Outcome | None]:
    """Return what was said, what rules say of it, and the outcome where nobody has to judge it."""
    kind, options = record.kind, record.options
    expected: Any = {"reference": record.reference, "options": options, "facts": record.facts}
    said = extract_answer(completion, more=spec.thinking)
    is_thought = may_think(completion)  # then a judge must tell it from an answer
    is_strict = spec.reading != "published"
    stated = said
    if is_strict and ending_of(record.finish_reason) == "length":
        spoken = after_thinking(completion, more=spec.thinking) or ""
        whole = said + "\n" * spoken.endswith("\n")  # a line that ends is complete
        if "</answer" not in spoken.lower():
            stated = stated_before_cut(whole, kind=kind, options=options) or ""
        if not stated or is_thought:
            return said, None, Outcome.TRUNCATED
    if is_strict and not said:
        return said, None, Outcome.EMPTY
    rest = said[len(stated) :]
    is_open = is_thought or bool(rest and may_take_back(rest, options))
    rule = None if is_open else decide(stated, kind=kind, **expected)
    if rule is None and _only_refuses(said, record, spec):
        return said, None, Outcome.REFUSED
    return said, rule, None


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


_LEFT_OPEN = r"not\b|n't\b|unable|impossib|unknown|unclear|determin|insuffic|no im|consult|refer"
_LONG, _LONGEST_REFUSAL = 100, 2_000  # characters


def _only_refuses(answer: str, record: CompletionRecord, spec: AnswerSpec) -> bool:
    """Tell whether an answer refuses and, from its first word to its last, says nothing else.

    That inability, or a doctor to see, is the reference or an option leaves it to a judge.
    """
    texts = (answer, record.reference, *record.options)
    text, *expected = (" ".join(one.lower().replace("\u2019", "'").split()) for one in texts)
    for one in {*expected} - {"", "no"}:
        is_open = len(one) < _LONG and re.search(_LEFT_OPEN, one)
        if is_open or re.search(rf"\b{re.escape(one)}\b", text):
            return False
    refusals, courtesies = ("|".join(one) or "(?!)" for one in (spec.refusals, spec.courtesies))
    pattern = re.compile(rf"[\W_]*(?:(?P<refusal>{refusals})|{courtesies})(?![a-z\d'])")
    at, refuses = 0, False
    while len(text) <= _LONGEST_REFUSAL and (found := pattern.match(text, at)):
        at, refuses = found.end(), refuses or found["refusal"] is not None
    return refuses and not re.search(r"\w", text[at:])


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
    score = float(bool(letter) and record.options[ord(letter) - ord("A")] == record.reference)
    rule = RuleVerdict(score=score, rule=str(record.parser))
    return _verdict(record, outcome_of(score), score=score, answer=letter, rule=rule)


def _named_by_most(votes: Sequence[Vote]) -> tuple[str, ...]:
    """Return the mistakes that most votes name, but for those that see the answer as right."""
    saying = [one for one in votes if one.points is not None and _RIGHT.isdisjoint(one.labels)]
    counts = Counter(label for vote in saying for label in vote.labels)
    return tuple(sorted(label for label, num in counts.items() if 2 * num > len(saying)))


def _verdict(
    record: CompletionRecord,
    outcome: Outcome,
    *,
    score: float | None = 0.0,
    answer: str | None = None,
    grade: Grade | None = None,
    **given: Any,  # rule, reason
) -> VerdictRecord:
    expected: Any = {"reference": record.reference, "options": record.options}
    wrong = answer if outcome is Outcome.WRONG else None
    tags = error_tags(wrong, kind=record.kind, **expected) if wrong else ()
    if grade and outcome in {Outcome.WRONG, Outcome.PARTIAL}:
        tags = tuple(dict.fromkeys((*tags, *_named_by_most(grade.votes))))
    return VerdictRecord(
        task=record.task,
        sample_id=record.sample_id,
        outcome=outcome,
        score=score if outcome.is_scored else None,
        mark=mark_of(record.completion),
        answer=answer,
        judge_score=grade.score if grade else None,
        judge_scores=dict(grade.by_judge) if grade else {},
        votes=grade.votes if grade else (),
        restricted=record.restricted,
        error_tags=tags,
        **given,
    )
