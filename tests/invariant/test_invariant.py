"""Nothing is scored that was not read: generated histories, and mistakes that they must find."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from histories import report, several
from vendor_replies import ASKED

from medix_eval.errors import MedixError, RequestRejected
from medix_eval.evaluation import panel
from medix_eval.evaluation.pipeline import JudgingStage
from medix_eval.judging import judge, outcomes
from medix_eval.models import openai_server
from medix_eval.models.chat import Completion
from medix_eval.models.openai_server import Connected
from medix_eval.records import CompletionRecord, Outcome, VerdictRecord
from medix_eval.results.store import RunFolder
from medix_eval.storage import jsonl

NUMBER = int(os.environ.get("MEDIX_HISTORIES", "300"))
FIRST = int(os.environ.get("MEDIX_HISTORY", "0"))
PARTS = 4
CUT = {"length", "max_tokens", "model_length", "model_context_window_exceeded"}
ENOUGH = 400
"""A planted mistake must show in fewer histories."""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_sample_counts_only_if_it_was_asked_answered_and_read(part: int) -> None:
    found = several(range(FIRST + part, FIRST + NUMBER, PARTS), stop_at_first=True)

    wrong = [report(one) for one in found if one.complaints]
    assert not wrong, wrong[0]


def replies_edited(edit: Callable[[dict[str, Any]], None]) -> AbstractContextManager[Any]:
    """Change what the adapter takes a server's reply for."""
    parsed = jsonl.parsed

    def edited(raw: bytes) -> Any:
        reply = parsed(raw)
        if isinstance(reply, dict) and isinstance(reply.get("choices"), list):
            edit(reply)
        return reply

    return patch.object(openai_server, "parsed", edited)


def failures_are_answers() -> AbstractContextManager[Any]:
    def edit(reply: dict[str, Any]) -> None:
        for choice in reply["choices"]:
            if choice.get("finish_reason") in {"error", "abort", "network_error"}:
                choice["finish_reason"] = "stop"

    return replies_edited(edit)


def any_model_may_answer() -> AbstractContextManager[Any]:
    return replies_edited(lambda reply: reply.update(model=ASKED))


def cut_judges_are_read() -> AbstractContextManager[Any]:
    complete = Connected.complete

    async def uncut(self: Connected, *given: Any) -> Completion:
        completion = await complete(self, *given)
        if self.server.role == "judge" and str(completion.finish_reason).casefold() in CUT:
            completion.finish_reason = "stop"
        return completion

    return patch.object(Connected, "complete", uncut)


def every_400_is_the_samples_fault() -> AbstractContextManager[Any]:
    complete = Connected.complete

    async def rejected(self: Connected, *given: Any) -> Completion:
        try:
            return await complete(self, *given)
        except MedixError as error:
            if self.server.role == "model" and "answered 400" in str(error):
                raise RequestRejected("answered 400: maximum context length") from error
            raise

    return patch.object(Connected, "complete", rejected)


def verdicts_of_older_completions_stand() -> AbstractContextManager[Any]:
    score = JudgingStage.score

    async def unless_judged(self: JudgingStage, record: CompletionRecord) -> None:
        if record.sample_id not in self.judging.lines.path.read_text(encoding="utf-8"):
            await score(self, record)

    return patch.object(JudgingStage, "score", unless_judged)


def failures_are_never_asked_again() -> AbstractContextManager[Any]:
    def every_row(self: RunFolder, task: str) -> set[int]:
        return {seen.row for (name, _), seen in self.seen.items() if name == task}

    return patch.object(RunFolder, "answered_rows", every_row)


def failures_are_wrong_answers() -> AbstractContextManager[Any]:
    verdict_of = outcomes.verdict_of

    async def scored(record: CompletionRecord, **given: Any) -> VerdictRecord:
        verdict = await verdict_of(record, **given)
        if verdict.outcome is not Outcome.REQUEST_FAILED:
            return verdict
        return verdict.model_copy(update={"outcome": Outcome.WRONG, "score": 0.0})

    return patch.object(panel, "verdict_of", scored)


def one_vote_decides() -> AbstractContextManager[Any]:
    def first(points: list[float | None], *_: Any) -> float | None:
        return next((one for one in points if one is not None), None)

    return patch.object(judge, "decide", first)


@contextmanager
def half_a_line_stays() -> Iterator[None]:
    with patch.object(jsonl, "_repair", lambda _: None):
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistake",
    [
        failures_are_answers,
        any_model_may_answer,
        cut_judges_are_read,
        every_400_is_the_samples_fault,
        verdicts_of_older_completions_stand,
        failures_are_never_asked_again,
        failures_are_wrong_answers,
        one_vote_decides,
        half_a_line_stays,
    ],
)
def test_a_planted_mistake_is_found(mistake: Callable[[], AbstractContextManager[Any]]) -> None:
    with mistake():
        *_, last = several(range(FIRST, FIRST + ENOUGH), stop_at_first=True)
    (same,) = several([last.seed])

    sys.stdout.write(f"found in history {last.seed}: {last.complaints[0]}\n")
    assert last.complaints
    assert not same.complaints
