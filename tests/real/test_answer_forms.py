"""How real answers are read: no form is read less often than when it was measured, none falsely.

A change of the rules that reads more lowers the numbers below; none may raise one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from answer_forms import FORMS, FORMS_WITH_WHY, Measure, Tallies, every_option, with_why
from raw_rows import MMLU, raw_rows

OPEN = {
    "X": (1, 0),
    "X. text": (0, 0),
    "text": (1, 0),
    "The answer is X. text": (0, 0),
    "(X) text": (0, 0),
    "**X. text**": (0, 0),
    "Answer: X": (1, 0),
    "The correct answer is (X) text.": (0, 0),
    "X. text + a sentence": (0, 0),
    r"\boxed{X}": (1, 0),
    "<think>…</think> X. text": (0, 0),
}
"""At most so many answers are left open, each number of as many as `ASKED` says."""
ASKED = {"any of four": 2800, "yes, no or maybe": 1500}
OPEN_WITH_WHY = {
    "X. text + why": (96, 123, 11, 17),
    "The answer is X. text. + why": (95, 123, 11, 17),
    "**X. text** + **Explanation:** why": (91, 119, 11, 17),
    "text. why": (227, 274, 27, 35),
    "why + The answer is X.": (12, 11, 1, 1),
    "why + **Answer: X. text**": (11, 11, 1, 1),
    r"why + \boxed{X}": (12, 11, 1, 1),
    "why + Final answer: X": (12, 11, 1, 1),
    "why + Therefore, option X is correct.": (11, 11, 1, 1),
    "why + ### Answer X": (12, 11, 1, 1),
    "<think>why</think> X. text": (1, 0, 0, 0),
    "<think>why</think><answer>X</answer>": (1, 0, 0, 0),
}
ASKED_WITH_WHY = {
    "medmcqa right": 600,
    "medmcqa wrong": 600,
    "pubmedqa right": 500,
    "pubmedqa wrong": 500,
}
OPEN_OF_ALL = {every_option: 50, with_why: 4_591}
"""At most so many answers to all rows, of 304,480 and of 62,664."""
READ_FALSELY = {("medmcqa wrong", "text. why"): 1}
"""An option that is itself "A.Decrease in Km", before a rationale that ends "so answer is …"."""
ROWS = "0aa1eb52133b5cc39e44071a3da67af15d1ecaed6d365dbba1d5e52c9b5c4905"
"""SHA-256 of options, answers and rationales: of other rows the numbers above say nothing."""
_NUM_EXAMPLES = 3


def test_the_rows_are_those_that_were_measured(real_rows: Path) -> None:
    tasks = (*MMLU, "medmcqa", "medqa", "pubmedqa")
    rows = [
        [row.options, row.right, row.rationale]
        for task in tasks
        for row in raw_rows(task, real_rows)
    ]

    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == ROWS


def test_every_option_in_every_form_is_read_as_often_as_before(real_rows: Path) -> None:
    tallies = every_option(real_rows)

    assert {key: tally.num for key, tally in tallies.items()} == {
        (what, form): num for form in FORMS for what, num in ASKED.items()
    }
    worse = list(worse_than(OPEN, tallies, whats=[*ASKED]))
    assert not worse, "\n".join(worse)


def test_answers_beside_real_rationales_are_read_as_often_as_before(real_rows: Path) -> None:
    tallies = with_why(real_rows)

    assert {key: tally.num for key, tally in tallies.items()} == {
        (what, form): num for form in FORMS_WITH_WHY for what, num in ASKED_WITH_WHY.items()
    }
    worse = list(worse_than(OPEN_WITH_WHY, tallies, whats=[*ASKED_WITH_WHY]))
    assert not worse, "\n".join(worse)


@pytest.mark.long
@pytest.mark.parametrize("measure", [every_option, with_why])
def test_of_all_rows_no_answer_is_read_falsely(real_rows: Path, measure: Measure) -> None:
    tallies = measure(real_rows, num_rows=None)

    false = [one for key, tally in tallies.items() for one in falsely_read(key, tallies)]
    assert not false, "\n".join(false)
    assert sum(len(tally.open) for tally in tallies.values()) <= OPEN_OF_ALL[measure]


def worse_than(
    at_most: Mapping[str, tuple[int, ...]], tallies: Tallies, *, whats: list[str]
) -> Iterator[str]:
    """Yield what is read less often than before, or falsely, with examples."""
    for (what, form), tally in tallies.items():
        most = at_most[form][whats.index(what)]
        if len(tally.open) > most:
            examples = "\n  ".join(tally.open[:_NUM_EXAMPLES])
            yield f"{what}, {form}: {len(tally.open)} open, at most {most}, such as\n  {examples}"
        yield from falsely_read((what, form), tallies)


def falsely_read(key: tuple[str, str], tallies: Tallies) -> Iterator[str]:
    false = tallies[key].false
    if len(false) > READ_FALSELY.get(key, 0):
        examples = "\n  ".join(false[:_NUM_EXAMPLES])
        yield f"{', '.join(key)}: {len(false)} read falsely, such as\n  {examples}"
