"""A wrong answer is tagged with its clinical mistake, and only where its words prove it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.judge_check.probes import HANDWRITTEN, load_probes
from medix_eval.judging.error_tags import error_tags
from medix_eval.judging.outcomes import verdict_of
from medix_eval.judging.protocol import load_protocol
from medix_eval.records import CompletionRecord, Kind, Outcome

DRUGS = ("left kidney", "right kidney", "5 mg", "liver")


@pytest.mark.parametrize(
    ("reference", "answer", "tags"),
    [
        ("yes", "No, there is none.", ("negation",)),
        ("no", "Yes.", ("negation",)),
        ("pleural effusion", "No pleural effusion.", ("negation",)),
        ("pleural effusion", "There is no evidence of pleural effusion.", ("negation",)),
        ("no pleural effusion", "Pleural effusion is present.", ("negation",)),
        ("The fracture is not displaced", "The fracture is displaced.", ("negation",)),
        ("left", "right", ("laterality",)),
        ("left kidney", "The right kidney", ("laterality",)),
        ("left pleural effusion", "Right-sided pleural effusion", ("laterality",)),
        ("left", "It is on the right side.", ("laterality",)),
        ("left kidney", "right", ("laterality",)),
        ("left", "bilateral", ("laterality",)),
        ("5 mg", "50 mg", ("number", "factor_10")),
        ("5 mg", "0.05 mg", ("number", "factor_100")),
        ("5 mg", "5 g", ("unit", "factor_1000")),
        ("5 mg", "5000000 mg", ("number", "factor_1000000")),
        ("5 mg", "7 mg", ("number",)),
        ("5 mg", "5 ml", ("unit",)),
        ("2 lesions", "3 lesions", ("number",)),
        ("CT", "MRI", ("modality",)),
        ("chest CT", "It is a chest X-ray.", ("modality",)),
        ("liver", "The spleen.", ("organ",)),
        ("renal vein", "hepatic vein", ("organ",)),
        ("left lung", "right lung", ("laterality",)),
        ("left kidney", "right ovary", ()),
    ],
)
def test_a_plain_mistake_has_its_name(reference: str, answer: str, tags: tuple[str, ...]) -> None:
    assert error_tags(answer, kind=Kind.OPEN, reference=reference) == tags


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("left kidney", "left or right kidney"),
        ("left kidney", "Not the right kidney, the other one."),
        ("left kidney", "spleen on the right next to the liver"),
        ("5 mg", "5 mg twice a day or 10 mg once"),
        ("5 mg", "10 ml"),
        ("CT", "CT and MRI"),
        ("CT", "not an MRI"),
        ("pleural effusion", "No pneumothorax."),
        ("pleural effusion", "pneumonia"),
        ("pleural effusion", "Is there no pleural effusion?"),
        ("aspirin", "warfarin"),
        ("liver", "It could be the spleen."),
        ("pancreas", "pancreas and spleen"),
        ("left kidney", "left kidney"),
        ("", ""),
        ("-", "- -"),
    ],
)
def test_what_is_not_certain_has_no_tag(reference: str, answer: str) -> None:
    assert error_tags(answer, kind=Kind.OPEN, reference=reference) == ()


@pytest.mark.parametrize(
    ("answer", "tags"),
    [
        ("B", ("laterality",)),
        ("(B) right kidney", ("laterality",)),
        ("The answer is D.", ("organ",)),
        ("C", ()),
        ("A or B", ()),
        ("E", ()),
    ],
)
def test_a_choice_is_tagged_by_the_text_behind_its_letter(
    answer: str, tags: tuple[str, ...]
) -> None:
    found = error_tags(answer, kind=Kind.MULTIPLE_CHOICE, reference="left kidney", options=DRUGS)

    assert found == tags


def test_a_report_has_no_tags() -> None:
    assert error_tags("left", kind=Kind.REPORT, reference="right") == ()


@pytest.mark.parametrize(
    ("label_class", "tag"),
    [
        ("laterality", "laterality"),
        ("dose", "factor_10"),
        ("negation_flip", "negation"),
    ],
)
def test_probes_of_a_mistake_carry_its_tag_or_none(label_class: str, tag: str) -> None:
    records = [
        item.record
        for item in load_probes("development").items
        if item.label_class == label_class and item.split != HANDWRITTEN
    ]
    found = [error_tags(r.completion or "", kind=r.kind, reference=r.reference) for r in records]

    assert all(tag in tags or not tags for tags in found)
    assert sum(tag in tags for tags in found) > len(found) / 2


def test_only_a_wrong_answer_is_tagged() -> None:
    def ending(answer: str) -> tuple[Outcome, tuple[str, ...]]:
        record = CompletionRecord(
            task="t@1", sample_id="s", row=0, kind=Kind.OPEN, prompt="Which side?",
            reference="left", completion=answer, finish_reason="stop",
        )  # fmt: skip
        verdict = asyncio.run(verdict_of(record, protocol=load_protocol("rules"), grader=None))
        return verdict.outcome, verdict.error_tags

    assert ending("right") == (Outcome.WRONG, ("laterality",))
    assert ending("left") == (Outcome.CORRECT, ())
    assert ending("It might be right.") == (Outcome.UNJUDGED, ())


WORDS = ["left", "right", "no", "kidney", "5", "mg", "50", "CT", "MRI", "liver", "effusion", "the"]


@given(text=st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join) | st.text(max_size=40))
def test_an_answer_equal_to_its_reference_has_no_tag(text: str) -> None:
    assert error_tags(text, kind=Kind.OPEN, reference=text) == ()


PHRASES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)


@given(reference=PHRASES, answer=PHRASES)
def test_a_mistake_is_the_same_from_either_side(reference: str, answer: str) -> None:
    there = error_tags(answer, kind=Kind.OPEN, reference=reference)
    back = error_tags(reference, kind=Kind.OPEN, reference=answer)

    assert there == back
