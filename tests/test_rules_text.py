from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medix_eval.records import Kind
from medix_eval.rules.decide import decide
from medix_eval.rules.text import normalise

README = Path(__file__).parent.parent / "README.md"
ROW = re.compile(r"^\| `(.+?)` \| `(.+?)` \| (right|wrong|nothing) \|", re.MULTILINE)
SCORES = {"right": 1.0, "wrong": 0.0, "nothing": None}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Aspirin", "aspirin"),
        ("The left lung.", "left lung"),
        ("a fracture", "fracture"),
        ("**bold** `code`", "bold code"),
        ("“quoted”", "quoted"),
        ("Crohn’s", "Crohn's"),
        ("x-ray", "x ray"),
        ("5-10 mg", "5\u201310mg"),
        ("\u22123", "-3"),
        ("CO₂", "CO2"),
        ("1,000,000", "1000000"),
        ("28×27", "28 x 27"),
        ("28X27", "28 x 27"),
        ("Ménière", "Meniere"),
        ("one, two; three", "one two three"),
        ("\\text{aorta}", "aorta"),
    ],
)
def test_spellings_of_one_thing_are_equal(left: str, right: str) -> None:
    assert normalise(left) == normalise(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("-3", "3"),
        ("0.5", "5"),
        ("1.5", "15"),
        ("10³", "103"),
        ("2½", "21/2"),
        ("120/80", "12080"),
        ("3:1", "31"),
        ("5-10", "510"),
        ("28x27", "2827"),
        ("<5", "5"),
        ("50%", "50"),
        ("HER2+", "HER2-"),
        ("HER2-", "HER2"),
        ("vitamin A", "vitamin"),
        ("A", ""),
        ("fracture?", "fracture"),
        ("≠5", "5"),
        ("¬A", "A"),
        ("↑ calcium", "↓ calcium"),
        ("\u2212x", "x"),
        ("mM", "mm"),
        ("\u03b1", "a"),
    ],
)
def test_what_changes_the_meaning_is_kept(left: str, right: str) -> None:
    assert normalise(left) != normalise(right)


@given(text=st.text(max_size=80))
@example(text="₋")
@example(text="\u00df\uac00")  # folded to two letters that are Latin
def test_normalising_twice_changes_nothing_of_the_words(text: str) -> None:
    once = normalise(text)

    assert set(normalise(once).split()) <= set(once.split()) | {"range", "ratio", "x"}


@pytest.mark.parametrize(("answer", "reference", "said"), ROW.findall(README.read_text("utf-8")))
def test_every_row_of_the_table_in_the_readme_holds(answer: str, reference: str, said: str) -> None:
    verdict = decide(answer, kind=Kind.OPEN, reference=reference)

    assert (verdict and verdict.score) == SCORES[said]


def test_the_table_in_the_readme_is_found() -> None:
    rows = ROW.findall(README.read_text("utf-8"))

    assert len(rows) >= 40
    assert {said for _, _, said in rows} == SCORES.keys()
