from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.records import Kind, RuleVerdict
from medix_eval.rules.decide import decide
from medix_eval.rules.text import normalise


def said(answer: str, *, kind: Kind = Kind.CLOSED) -> str | None:
    """Return the yes or no that the rules read, asked once for each reference."""
    as_yes, as_no = (decide(answer, kind=kind, reference=word) for word in ("yes", "No."))
    if as_yes is None or as_no is None:
        assert as_yes is as_no
        return None
    assert {as_yes.score, as_no.score} == {0.0, 1.0}
    return "yes" if as_yes.score == 1.0 else "no"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("yes", "yes"),
        ("YES!", "yes"),
        ("**Yes**", "yes"),
        ("Yes, there is a lesion.", "yes"),
        ("Yes. The left lung shows one.", "yes"),
        ("Yes it is", "yes"),
        ("Yes - in the left lung", "yes"),
        ("The answer is yes.", "yes"),
        ("Answer: yes", "yes"),
        ("I would say yes.", "yes"),
        ("There is a lesion. The answer is yes.", "yes"),
        ("There is a lesion, so the answer is yes.", "yes"),
        ("no", "no"),
        ("No, there is none.", "no"),
        ("No, there is no lesion.", "no"),
        ("No. It is not a fracture.", "no"),
        ("The answer is no, because the lungs are clear.", "no"),
    ],
)
def test_an_explicit_yes_or_no_is_read(answer: str, expected: str) -> None:
    assert said(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "There is no lesion.", "No lesion is seen.", "No evidence of disease", "A lesion is seen.",
        "The answer is not yes", "The answer is not no.", "Not yes", "yes and no", "yes or no",
        "yes/no", "Yes, no", "No, yes", "Yes. No.", "Yes\nNo", "Yes? No.", "yes?", "not sure",
        "I am not sure, yes", "maybe", "Maybe yes.", "Yes, but there is none.",
        "No way to tell, yes", "The answer is yes. the",
        "Yes, there is no lesion.", "Yes, it is not normal.", "Yes, that is wrong.", "yesterday",
        "No, that is false.", "No, sorry, wait.", "true", "correct", "nope", "", "the", ":",
        "No, I can't help with that.", "No, as an AI I do not diagnose.", "No, inconclusive.",
        "No - image not found", "score 1", "sí", "是", "yes\u200b", "The answer is yes or no.",
        "It is a no-brainer",
        "No 5", "no.1 finding", "yes if you zoom in", "Yes: no.", "No, no, no.",
    ],
)  # fmt: skip
def test_what_is_no_plain_yes_or_no_is_undecided(answer: str) -> None:
    assert said(answer) is None


def test_an_open_question_whose_reference_is_yes_is_read_alike() -> None:
    assert said("The answer is no.", kind=Kind.OPEN) == "no"
    assert said("There is no lesion.", kind=Kind.OPEN) is None


def test_a_closed_question_with_options_takes_text_and_letter() -> None:
    options = ["left", "right"]
    by_text = decide("The answer is left.", kind=Kind.CLOSED, reference="right", options=options)
    by_letter = decide("B", kind=Kind.CLOSED, reference="right", options=options)

    assert by_text == RuleVerdict(score=0.0, rule="option_text")
    assert by_letter == RuleVerdict(score=1.0, rule="option_letter")


@given(word=st.sampled_from(["yes", "no"]), rest=st.text(max_size=40))
def test_nothing_after_a_clear_answer_turns_it_round(word: str, rest: str) -> None:
    assert said(f"The answer is {word}. {rest}") in {word, None}


@given(answer=st.text(max_size=60))
def test_noise_is_no_answer(answer: str) -> None:
    if not {"yes", "no"} & set(normalise(answer).split()):
        assert said(answer) is None
