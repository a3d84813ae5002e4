from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.judging.outcomes import verdict_of
from medix_eval.judging.protocol import load_protocol
from medix_eval.records import CompletionRecord, Kind, Outcome
from medix_eval.rules.answers import letter_of

OPTIONS = ("the left lung", "the right lung", "the liver")


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("The answer is B", "B"),
        ("(A) is wrong, (C) is right", "C"),
        ("C, no: (A)", "A"),  # brackets are looked for first
        ("A or B or", "B"),
        ("<answer>C</answer> although (A)", "C"),
        (r"(A) at first, but \boxed{B}", "B"),
        (r"<answer>\boxed{C}</answer>", "C"),
        ("It must be the liver in this picture.", "C"),
        ("First the liver and then the left lung.", "A"),
        ("the liver", None),  # five words or fewer are not compared with the options
        ("B) is right", None),
        ("I do not know at all, sorry.", None),
        ("", None),
        ("(D)", None),
    ],
)
def test_the_published_parser_finds_this_letter(completion: str, letter: str | None) -> None:
    assert letter_of(completion, OPTIONS) == letter


@given(text=st.lists(st.sampled_from([*"ABC()", " ", r"\boxed{", "}", "<answer>"]) | st.text()))
def test_only_letters_that_were_offered_are_found(text: list[str]) -> None:
    assert letter_of("".join(text), OPTIONS) in {"A", "B", "C", None}


@pytest.mark.parametrize(
    ("completion", "options", "outcome"),
    [
        ("(B)", OPTIONS, Outcome.CORRECT),
        ("(A)", OPTIONS, Outcome.WRONG),
        ("no idea", OPTIONS, Outcome.UNPARSED),
        ("", OPTIONS, Outcome.UNPARSED),
        ("the right lung", (), Outcome.WRONG),
    ],
)
@pytest.mark.parametrize("protocol", ["medix", "rules"])
async def test_a_guess_is_unparsed_and_a_short_answer_always_wrong_whatever_the_protocol(
    completion: str, options: tuple[str, ...], outcome: Outcome, protocol: str
) -> None:
    record = CompletionRecord(
        task="mmmu_pharmacy_compat@1",
        sample_id="1",
        row=0,
        kind=Kind.MULTIPLE_CHOICE if options else Kind.OPEN,
        prompt="Which?",
        reference="the right lung",
        options=options,
        parser="mmmu_letters",
        completion=completion,
    )

    verdict = await verdict_of(record, protocol=load_protocol(protocol), grader=None)

    assert verdict.outcome is outcome
    assert verdict.score == float(outcome is Outcome.CORRECT)
    assert verdict.outcome.is_scored
