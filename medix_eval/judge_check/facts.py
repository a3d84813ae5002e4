"""The facts of the lexicon as cases: a question, its reference, and what a wording may say of it.

A case is what templates are filled with; it has no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from string import ascii_uppercase
from typing import Any

from medix_eval.records import Kind

Lexicon = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fact, ready to be worded."""

    question: str
    reference: str
    kind: Kind = Kind.OPEN
    options: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    """What `$name` stands for in a wording; `$Name` is the same with a capital."""


def cases_of(section: str, lexicon: Lexicon, *, turn: int) -> list[Case]:
    """Return the cases of a section; `turn` moves right options to other letters."""
    if section == "choices":
        return list(_choices(lexicon, turn=turn))
    return list(_SECTIONS[section](lexicon))


def _told(lexicon: Lexicon, *, of: str, right: str, told: str = "wrong") -> Iterator[Case]:
    for row in lexicon[of]:
        fields = {told: row[told]}
        yield Case(question=row["question"], reference=row[right], fields=fields)


def _said_otherwise(lexicon: Lexicon, *, of: str, right: str) -> Iterator[Case]:
    for row in lexicon[of]:
        for same in row["same"]:
            yield Case(question=row["question"], reference=row[right], fields={"same": same})


def _findings(lexicon: Lexicon) -> Iterator[Case]:
    for row in lexicon["findings"]:
        yield Case(
            question=f"What does this {row['image']} show?",
            reference=row["name"],
            fields={"finding": row["name"], "plain": row["plain"]},
        )


def _absences(lexicon: Lexicon) -> Iterator[Case]:
    for row in lexicon["findings"]:
        yield Case(
            question=f"What does this {row['image']} say about {row['name']}?",
            reference=f"no {row['name']}",
            fields={"finding": row["name"]},
        )


def _presence(lexicon: Lexicon) -> Iterator[Case]:
    for row in lexicon["findings"]:
        claims = {"yes": f"there is {row['name']}", "no": f"there is no {row['name']}"}
        for reference, opposite in (("yes", "no"), ("no", "yes")):
            yield Case(
                question=f"Does this {row['image']} show {row['name']}?",
                reference=reference,
                kind=Kind.CLOSED,
                fields={"opposite": opposite, "opposite_claim": claims[opposite]},
            )


_OPPOSITE = {"left": "right", "right": "left"}


def _sides(lexicon: Lexicon) -> Iterator[Case]:
    for row in lexicon["findings"]:
        for side, opposite in _OPPOSITE.items() if row["sided"] else ():
            yield Case(
                question=f"On which side does this {row['image']} show {row['name']}?",
                reference=side,
                fields={"opposite": opposite},
            )


def _sided_findings(lexicon: Lexicon) -> Iterator[Case]:
    for row in lexicon["findings"]:
        for side, opposite in _OPPOSITE.items() if row["sided"] else ():
            yield Case(
                question=f"What does this {row['image']} show?",
                reference=f"{side} {row['name']}",
                fields={"opposite": opposite, "finding": row["name"]},
            )


def _doses(lexicon: Lexicon) -> Iterator[Case]:
    for row in lexicon["quantities"]:
        if row.get("tenfold", True):
            number, _, unit = row["value"].partition(" ")
            fields = {
                name: f"{(Decimal(number) * factor).normalize():f} {unit}"
                for name, factor in (("tenfold", Decimal(10)), ("tenth", Decimal("0.1")))
            }
            yield Case(question=row["question"], reference=row["value"], fields=fields)


def _choices(lexicon: Lexicon, *, turn: int) -> Iterator[Case]:
    for number, row in enumerate(lexicon["choices"], start=turn):
        wrong = list(row["wrong"])
        at = number % (len(wrong) + 1)
        options = (*wrong[:at], row["right"], *wrong[at:])
        other = wrong[number % len(wrong)]
        shown = zip(ascii_uppercase, options, strict=False)
        yield Case(
            question="\n".join((row["question"], *(f"{letter}. {text}" for letter, text in shown))),
            reference=row["right"],
            kind=Kind.MULTIPLE_CHOICE,
            options=options,
            fields={
                "letter": ascii_uppercase[at],
                "other": other,
                "other_letter": ascii_uppercase[options.index(other)],
            },
        )


def _pairs(lexicon: Lexicon) -> Iterator[Case]:
    for row in lexicon["pairs"]:
        reference = f"{row['first']} and {row['second']}"
        fields = {"first": row["first"], "second": row["second"]}
        yield Case(question=row["question"], reference=reference, fields=fields)


_SECTIONS: dict[str, Callable[[Lexicon], Iterator[Case]]] = {
    "terms": partial(_told, of="terms", right="term"),
    "synonyms": partial(_said_otherwise, of="terms", right="term"),
    "findings": _findings,
    "absences": _absences,
    "presence": _presence,
    "sides": _sides,
    "sided_findings": _sided_findings,
    "conversions": partial(_said_otherwise, of="quantities", right="value"),
    "doses": _doses,
    "pairs": _pairs,
    "places": partial(_told, of="places", right="right"),
    "lists": partial(_said_otherwise, of="lists", right="right"),
    "languages": partial(_said_otherwise, of="languages", right="term"),
    "narrower": partial(_told, of="levels", right="right", told="narrower"),
    "broader": partial(_told, of="levels", right="right", told="broader"),
    "explained": partial(_told, of="explained", right="right", told="why"),
}
