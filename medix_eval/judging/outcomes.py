"""From a completion to an outcome: what needs no judge is settled here, and counted the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from medix_eval.judging.answers import extract_answer, has_final_answer
from medix_eval.judging.judge import Judge
from medix_eval.judging.rules import decide as decide_by_rules
from medix_eval.protocol import Protocol
from medix_eval.records import CompletionRecord, Outcome, RuleVerdict, VerdictRecord, Vote

_FAILED = {
    "RequestRejected": Outcome.REJECTED,
    "NoAnswer": Outcome.SKIPPED,
    "BadRow": Outcome.SKIPPED,
}
"""What an error on the way to a completion means; any other is `request_failed`."""


@dataclass(frozen=True)
class Scorer:
    """Scores completions under one protocol, with its judge if it has one."""

    protocol: Protocol
    judge: Judge | None

    async def score(self, record: CompletionRecord) -> VerdictRecord:
        """Return how this sample ended."""
        if record.failure is not None:
            outcome = _FAILED.get(record.failure.error, Outcome.REQUEST_FAILED)
            return _verdict(record, outcome, reason=record.failure.message)
        completion = record.completion or ""
        answer = extract_answer(completion)
        if record.finish_reason == "length" and not has_final_answer(completion):
            return _verdict(record, Outcome.TRUNCATED, answer=answer)
        if not answer:
            return _verdict(record, Outcome.EMPTY, answer=answer)
        rule = decide_by_rules(
            answer,
            kind=record.kind,
            reference=record.reference,
            options=record.options,
            facts=record.facts,
        )
        if rule is None and self._is_refusal(answer):
            return _verdict(record, Outcome.REFUSED, answer=answer)
        if self.judge is None:
            score = None if rule is None else rule.score
            outcome = Outcome.UNJUDGED if score is None else outcome_of(score)
            return _verdict(record, outcome, score=score, answer=answer, rule=rule)
        grade = await self.judge.grade(record, answer=answer)
        score = grade.score
        outcome = Outcome.JUDGE_FAILED if score is None else outcome_of(score)
        return _verdict(record, outcome, score=score, answer=answer, rule=rule, votes=grade.votes)

    @cached_property
    def _refusals(self) -> list[re.Pattern[str]]:
        return [re.compile(pattern, re.DOTALL) for pattern in self.protocol.answer.refusals]

    def _is_refusal(self, answer: str) -> bool:
        text = " ".join(answer.lower().replace("\u2019", "'").split())
        return any(pattern.fullmatch(text) for pattern in self._refusals)


def outcome_of(score: float) -> Outcome:
    """Name the outcome of a decided score.

    >>> outcome_of(0.6)
    <Outcome.PARTIAL: 'partial'>
    """
    if score == 1.0:
        return Outcome.CORRECT
    return Outcome.PARTIAL if score > 0.0 else Outcome.WRONG


def _verdict(
    record: CompletionRecord,
    outcome: Outcome,
    *,
    score: float | None = 0.0,
    answer: str | None = None,
    rule: RuleVerdict | None = None,
    votes: tuple[Vote, ...] = (),
    reason: str = "",
) -> VerdictRecord:
    return VerdictRecord(
        task=record.task,
        sample_id=record.sample_id,
        outcome=outcome,
        score=score if outcome.is_scored else None,
        answer=answer,
        rule=rule,
        votes=votes,
        reason=reason,
    )
