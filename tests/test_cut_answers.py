"""A completion that was cut by its limit: what it stated before is an answer, the rest is not."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medix_eval.judging.outcomes import verdict_of
from medix_eval.judging.protocol import load_protocol
from medix_eval.records import CompletionRecord, Kind, VerdictRecord

OPTIONS = ("CT scan", "MRI", "Ultrasound", "X-ray")
CHOICE, CLOSED, OPEN, REPORT = Kind.MULTIPLE_CHOICE, Kind.CLOSED, Kind.OPEN, Kind.REPORT
REFERENCE = {CHOICE: "CT scan", CLOSED: "yes", OPEN: "pneumonia", REPORT: "No acute disease."}


def verdict(
    said: str,
    kind: Kind,
    *,
    finish: str = "length",
    protocol: str = "rules",
    options: tuple[str, ...] = OPTIONS,
) -> VerdictRecord:
    record = CompletionRecord(
        task="t@1",
        sample_id="s",
        row=0,
        kind=kind,
        prompt="Q",
        reference=REFERENCE[kind],
        options=options if kind is CHOICE else (),
        completion=said,
        finish_reason=finish,
    )
    return asyncio.run(verdict_of(record, protocol=load_protocol(protocol), grader=None))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("A. CT scan. Because the patient is", CHOICE),
        ("<answer>A</answer> Let me expl", CHOICE),
        ("<think>x</think><answer>A</answer>", CHOICE),
        ("The answer is A.\n\nExplanation: the", CHOICE),
        ("The answer is A. Because CT", CHOICE),
        ("(A) CT scan\n\nThe reas", CHOICE),
        ("**A. CT scan**\n\nThe reas", CHOICE),
        ("Answer: A\nReason: the pa", CHOICE),
        ("**A. CT scan** because it sh", CHOICE),
        ("A\n\nThe", CHOICE),
        ("The answer is A\n", CHOICE),
        ('{"answer": "A"', CHOICE),
        ("\\boxed{A}", CHOICE),
        ("<think>x</think>The answer is A.\n\nIt", CHOICE),
        ("<answer>The answer is A. Bec", CHOICE),
        ("Yes. The image sh", CLOSED),
        ("Yes\nThe im", CLOSED),
        ("Yes, the lungs are cl", CLOSED),
        ("The diagnosis is pneumonia. The", OPEN),
        ("Based on the image, the diagnosis is pneumonia. Fur", OPEN),
        ("<answer>No acute disease.</answer> as", REPORT),
    ],
)
def test_an_answer_that_was_stated_before_the_cut_is_an_answer(said: str, kind: Kind) -> None:
    assert verdict(said, kind).outcome == "correct"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Let's look at each option. A. CT sc", CHOICE),
        ("The answer is A", CHOICE),
        ("<think>x</think>The answer is A", CHOICE),
        ("<think>hm</think>CT scan", CHOICE),
        ("The answer is A, or rather", CHOICE),
        ("Let me consider each option. Option A is", CHOICE),
        ("A. CT sc", CHOICE),
        ("A. CT scan.\nB. MR", CHOICE),
        ("A. CT scan: fast.\nB. MRI: slo", CHOICE),
        ("A. CT scan.\nB. MRI.\nC. Ultra", CHOICE),
        ("The patient has chest pain. The answer options are", CHOICE),
        ("<answer>A", CHOICE),
        ("<answer>A</answer><think>The most", CHOICE),
        ("<think>A. CT scan.\n", CHOICE),
        ("## Thinking\n\nThe answer is A.\n\nNo, it", CHOICE),
        ("Yes", CLOSED),
        ("<think>x</think>Yes", CLOSED),
        ("The most likely diagnosis is a", OPEN),
        ("The most likely diagnosis is\npneu", OPEN),
        ("The answer is:\n\n**pneu", OPEN),
        ("Let me look at it. The im", OPEN),
        ("Sure! Here is", OPEN),
        ("It is 2.", OPEN),
        ("<think>count</think>It is 2", OPEN),
        ("1. The image is\n2", OPEN),
        ("", OPEN),
        ("<answer> </answer>", OPEN),
        ("Findings: there is", REPORT),
        ("Let me look at the film first. The lungs", REPORT),
    ],
)
def test_what_was_cut_before_any_answer_is_truncated(said: str, kind: Kind) -> None:
    assert verdict(said, kind).outcome == "truncated"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("The answer is A. Wait, actually it", CHOICE),
        ("The answer is A. However, B is also a very goo", CHOICE),
        ("The answer is A. That is not", CHOICE),
        ("The answer is A.\n\n\\boxed{B", CHOICE),
        ("The answer is A. B", CHOICE),
        ("The diagnosis is pneumonia. However, TB", OPEN),
        ("Pneumonia. There is another les", OPEN),
        ("Yes, I can't pro", CLOSED),
        ("The image shows pneumonia. The", OPEN),
        ("The most likely cause is pneumonia. The", OPEN),
        ("Left lung. There", OPEN),
        ("There is no fracture. Th", CLOSED),
        ("Yes and no. Th", CLOSED),
        ("**A. CT scan**\n\nLet me double-check: the patient is", CHOICE),
        ("- CT scan: fast.\n- MRI: slo", CHOICE),
        ("The diagnosis is pneumonia. No, it", OPEN),
        ("The heart has four chambers. The left at", OPEN),
        ('{"answer": "B", "text": "MRI", "conf', CHOICE),
        ("CT is the test of choice here.\n\nMRI takes lon", CHOICE),
        ("IMPRESSION:\n1. Pneumonia.\n2. Effu", REPORT),
        ("Impression: Small effusion. Th", REPORT),
        (
            "Findings: clear.\n\nImpression: No acute disease.\n\nRecommendation: follow-up in",
            REPORT,
        ),
    ],
)
def test_what_is_stated_but_not_certain_is_left_to_a_judge(said: str, kind: Kind) -> None:
    assert verdict(said, kind).outcome == "unjudged"


def test_the_judge_reads_the_whole_text_and_not_only_what_was_complete() -> None:
    said = "The diagnosis is pneumonia. Wait, ac"

    assert verdict(said, OPEN).answer == said


def test_a_cut_that_names_a_letter_which_is_also_another_options_text_is_left_to_a_judge() -> None:
    blood_groups = ("CT scan", "A", "B", "AB")

    assert verdict("The answer is CT scan. A", CHOICE, options=blood_groups).outcome == "unjudged"


@pytest.mark.parametrize("finish", ["max_tokens", "MAX_TOKENS", "model_length"])
def test_a_cut_is_a_cut_in_every_vendors_words(finish: str) -> None:
    assert verdict("The answer is A", CHOICE, finish=finish).outcome == "truncated"


def test_the_published_evaluation_still_judges_what_was_cut() -> None:
    found = verdict("The most likely diagnosis is a", OPEN, protocol="medix-compat")

    assert found.outcome == "unjudged"
    assert found.answer == "The most likely diagnosis is a"


@example(stated="Yes.", gap=" ", tail="A\n0", kind=CHOICE)
@given(
    stated=st.sampled_from(
        ["The answer is A.", "A. CT scan.", "\\boxed{A}.", "Yes.", "Pneumonia."]
    ),
    gap=st.sampled_from([" ", "\n\n"]),
    tail=st.text(max_size=30),
    kind=st.sampled_from([CHOICE, CLOSED, OPEN]),
)
def test_a_cut_answer_is_decided_as_a_part_of_it_or_the_whole_or_not_at_all(
    stated: str, gap: str, tail: str, kind: Kind
) -> None:
    said = stated + gap + tail
    # The tail may hold complete sentences, too: "Yes. A\n0".
    parts = [said[:end] for end in range(len(stated), len(said) + 1)]
    fair = {verdict(part, kind, finish="stop").outcome for part in parts}

    assert verdict(said, kind).outcome in fair | {"unjudged", "truncated"}
