"""How much of what real models write the rules read: real options and rationales in known forms.

An answer is read as what it is, left open (a judge must be asked), or read falsely: never that.

    python tests/real/answer_forms.py           # 1200 and 1100 rows, whose figures the tests hold
    python tests/real/answer_forms.py --all     # every row
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Protocol

from raw_rows import MMLU, RawRow, place_of_real_rows, raw_rows

from medix_eval.records import Kind
from medix_eval.rules.answers import extract_answer
from medix_eval.rules.decide import decide

FORMS = {
    "X": "{letter}",
    "X. text": "{letter}. {text}",
    "text": "{text}",
    "The answer is X. text": "The answer is {letter}. {text}",
    "(X) text": "({letter}) {text}",
    "**X. text**": "**{letter}. {text}**",
    "Answer: X": "Answer: {letter}",
    "The correct answer is (X) text.": "The correct answer is ({letter}) {text}.",
    "X. text + a sentence": "{letter}. {text}\n\nThis is the best choice for the patient.",
    r"\boxed{X}": r"\boxed{{{letter}}}",
    "<think>…</think> X. text": "<think>\nLet me see.\n</think>\n\n{letter}. {text}",
}
"""An answer alone."""
FORMS_WITH_WHY = {
    "X. text + why": "{letter}. {text}\n\n{why}",
    "The answer is X. text. + why": "The answer is {letter}. {text}.\n\n{why}",
    "**X. text** + **Explanation:** why": "**{letter}. {text}**\n\n**Explanation:** {why}",
    "text. why": "{text}. {why}",
    "why + The answer is X.": "{why}\n\nThe answer is {letter}.",
    "why + **Answer: X. text**": "{why}\n\n**Answer: {letter}. {text}**",
    r"why + \boxed{X}": "{why}\n\n\\boxed{{{letter}}}",
    "why + Final answer: X": "{why}\n\nFinal answer: {letter}",
    "why + Therefore, option X is correct.": "{why}\n\nTherefore, option {letter} is correct.",
    "why + ### Answer X": "{why}\n\n### Answer\n{letter}",
    "<think>why</think> X. text": "<think>\n{why}\n</think>\n\n{letter}. {text}",
    "<think>why</think><answer>X</answer>": "<think>{why}</think><answer>{letter}</answer>",
}
"""An answer beside a rationale that people wrote, always that of the right answer."""
_NUM_ROWS = 700
_NUM_RATIONALES = 600
_USUAL_RATIONALE = range(41, 1500)
"""Characters of a rationale that says something and is not a page of a textbook."""


@dataclass(slots=True)
class Tally:
    """How the answers of one form were read."""

    num_right: int = 0
    open: list[str] = field(default_factory=list)
    """Answers that no rule decided, each with its options."""
    false: list[str] = field(default_factory=list)
    """Right answers that were read as wrong, and wrong ones that were read as right."""

    @property
    def num(self) -> int:
        """How many answers were read."""
        return self.num_right + len(self.open) + len(self.false)


Tallies = Mapping[tuple[str, str], Tally]
"""By what was answered, and in which form."""
Asked = tuple[str, RawRow, int]
"""What is answered, the row, and the option that is chosen."""


class Measure(Protocol):
    """A measure of some rows, or of all of them."""

    def __call__(self, folder: Path, *, num_rows: int | None = ...) -> Tallies:
        """Count how answers to the rows in a folder are read."""
        ...


def every_option(folder: Path, *, num_rows: int | None = _NUM_ROWS) -> Tallies:
    """Choose every option in every form: of all of PubMedQA, and of some rows with four options.

    Without a number of rows, of all of these.
    """
    of_four = [row for task in (*MMLU, "medmcqa", "medqa") for row in raw_rows(task, folder)]
    groups = {
        "any of four": _picked(of_four, num_rows),
        "yes, no or maybe": raw_rows("pubmedqa", folder),
    }
    return _read(
        (
            (what, row, at)
            for what, rows in groups.items()
            for row in rows
            for at in range(len(row.options))
        ),
        FORMS,
    )


def with_why(folder: Path, *, num_rows: int | None = _NUM_RATIONALES) -> Tallies:
    """Choose the right and a wrong option beside a rationale: of all of PubMedQA, some of MedMCQA.

    Without a number of rows, all of MedMCQA whose rationale has a usual length.
    """
    medmcqa = [
        row
        for row in raw_rows("medmcqa", folder)
        if row.rationale and len(row.rationale) in _USUAL_RATIONALE
    ]
    tasks = {"medmcqa": _picked(medmcqa, num_rows), "pubmedqa": raw_rows("pubmedqa", folder)}
    return _read(
        (
            (f"{task} {which}", row, at)
            for task, rows in tasks.items()
            for row in rows
            for which, at in (("right", row.right), ("wrong", (row.right + 1) % len(row.options)))
        ),
        FORMS_WITH_WHY,
    )


def _picked(rows: Sequence[RawRow], num: int | None) -> Sequence[RawRow]:
    # The figures are of these rows: another seed gives others.
    return rows if num is None else random.Random(0).sample(rows, num)  # noqa: S311 (no secret)


def _read(asked: Iterable[Asked], forms: Mapping[str, str]) -> Tallies:
    tallies: dict[tuple[str, str], Tally] = {}
    for what, row, at in asked:
        for name, form in forms.items():
            said = form.format(letter=ascii_uppercase[at], text=row.options[at], why=row.rationale)
            verdict = decide(
                extract_answer(said),
                kind=Kind.MULTIPLE_CHOICE,
                reference=row.reference,
                options=row.options,
            )
            tally = tallies.setdefault((what, name), Tally())
            # Some rows print one option twice: then both letters are right.
            is_right = row.options[at] == row.reference
            if verdict is None:
                tally.open.append(_example(said, row))
            elif verdict.score == float(is_right):
                tally.num_right += 1
            else:
                tally.false.append(_example(said, row))
    return tallies


def _example(said: str, row: RawRow) -> str:
    return f"{said!r}, where {row.reference!r} is right of {list(row.options)}"


def table(tallies: Tallies) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| answered | form | answers | open | open % | read falsely |"
    yield "|---|---|---:|---:|---:|---:|"
    for (what, name), tally in tallies.items():
        share = f"{100 * len(tally.open) / tally.num:.2f}"
        cells = (what, f"`{name}`", tally.num, len(tally.open), share, len(tally.false))
        yield f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Print both tables, and every answer that was read falsely."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every row, not only some")
    every_row = parser.parse_args().all
    folder = place_of_real_rows()
    if folder is None:
        parser.error("no real rows: set MEDIX_REAL_DATA to their folder")
    measures: tuple[Measure, ...] = (every_option, with_why)
    for measure in measures:
        tallies = measure(folder, num_rows=None) if every_row else measure(folder)
        lines = [*table(tallies), ""]
        lines += [
            f"{what}, {name}, read falsely: {one}"
            for (what, name), tally in tallies.items()
            for one in tally.false
        ]
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
