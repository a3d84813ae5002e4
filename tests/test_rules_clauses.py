"""An answer with a clause beside it means what the whole text says, or the rules leave it open.

`clauses.yaml` has answers, clauses, and what each pair may fairly be taken for. A number makes an
example: an answer, a clause, where it stands, and what the reference is.

    MEDIX_CLAUSES=20000 .venv/bin/python -m pytest tests/test_rules_clauses.py
    MEDIX_CLAUSE=4711 MEDIX_CLAUSES=1 .venv/bin/python -m pytest tests/test_rules_clauses.py
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from medix_eval.records import Kind
from medix_eval.rules.decide import decide

NUMBER = int(os.environ.get("MEDIX_CLAUSES", "500"))
FIRST = int(os.environ.get("MEDIX_CLAUSE", "0"))
STEP = 641
"""Shares no factor with the number of clauses, so each comes up before any comes again."""
MOST = 0.8
TOLD = 3
"""Examples of each kind that a failure tells."""
IS_RIGHT, IS_OTHER = 0.5, 0.8
"""The reference is what is given, else the other thing, else a third one."""
FACTS = {
    "modality": ("X-ray", "CT", "ultrasound"),
    "count": ("2", "3"),
    "side": ("left", "right"),
    "size": ("small", "large"),
}
NOTHING = {"count": "0", "side": "", "size": ""}
Fair = frozenset[float | None]
Reader = Callable[["Example"], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """What stands beside an answer."""

    kind: str
    where: str
    text: str
    of: tuple[str, ...]
    fair: str = "loses"
    loses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A form in which answers are given."""

    family: str
    core: str
    form: str
    head: str = ""
    stop: str = ""
    tail: str = ""

    def takes(self, clause: Clause) -> bool:
        """Tell whether the clause can stand beside this answer."""
        if self.family not in clause.of:
            return False
        match clause.where:
            case "attached" | "behind":
                return True
            case "before":
                return not self.head
            case "digits":
                return self.core == "<text>"
            case "letter":
                return self.core.endswith("<letter>")
            case form:
                return self.form == form


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An answer, a clause beside it, and what may come of them."""

    number: int
    clause: Clause
    answer: str
    kind: Kind
    reference: str
    options: tuple[str, ...] = ()
    facts: Mapping[str, str]
    alone: float
    """What the answer is worth without the clause."""
    fair: Fair


@cache
def written() -> Mapping[str, Any]:
    path = Path(__file__).parent / "fixtures" / "clauses.yaml"
    found: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@cache
def clauses() -> tuple[Clause, ...]:
    return tuple(
        Clause(
            kind=group["kind"],
            where=group["where"],
            text=text,
            of=tuple(group["of"]),
            fair=group.get("fair", "loses"),
            loses=tuple(group.get("loses", ())),
        )
        for group in written()["clauses"]
        for text in group["texts"]
    )


@cache
def answers() -> tuple[Answer, ...]:
    return tuple(
        Answer(family=name, **form)
        for name, family in written()["families"].items()
        for form in family["answers"]
    )


def example(number: int) -> Example:
    rng = Random(number)  # noqa: S311 (examples, not secrets)
    clause = clauses()[number * STEP % len(clauses())]
    answer = rng.choice([one for one in answers() if one.takes(clause)])
    made = _report if answer.family in {"report", "clear"} else _naming
    return made(number, clause, answer, rng)


def _naming(number: int, clause: Clause, answer: Answer, rng: Random) -> Example:
    """Make an answer that names one of several things."""
    family = written()["families"][answer.family]
    things = tuple(rng.choice(family["things"]))
    given, other, *rest = rng.sample(range(len(things)), len(things))
    drawn = rng.random()
    right = given if drawn < IS_RIGHT else other if drawn < IS_OTHER or not rest else rest[0]
    is_option, is_by_letter = answer.family == "option", "<letter>" in answer.core
    letter = "ABCD"[other]
    names = (letter, f"({letter})", f"option {letter}") if is_by_letter else (things[other],)
    names = names if is_option else (things[other],)
    words = {
        "letter": "ABCD"[given],
        "text": things[given],
        "other": rng.choice(names),
        "other text": things[other],
    }
    alone, of_other = float(given == right), float(other == right)
    opposite = 1 - alone if answer.family == "yes_no" else 0.0 if alone else None
    fair: dict[str, float | None] = {
        "same": alone, "other": of_other, "denied": opposite, "changed": 0.0, "open": None,
        "marked": None if alone else 0.0,
    }  # fmt: skip
    return Example(
        number=number,
        clause=clause,
        answer=_joined(clause, answer, words=words, rng=rng),
        kind=Kind(family["kind"]),
        reference=things[right],
        options=things if is_option else (),
        facts={},
        alone=alone,
        fair=frozenset({None, fair[clause.fair]}),
    )


def _report(number: int, clause: Clause, answer: Answer, rng: Random) -> Example:
    """Make a report that states facts, each of them right or not."""
    said = {name: rng.choice(values) for name, values in FACTS.items()}
    facts = {
        name: said[name] if rng.random() < IS_RIGHT else rng.choice(values)
        for name, values in FACTS.items()
    }
    right = {name for name, value in facts.items() if value == said[name]}
    num_facts = len(facts)
    if answer.family == "clear":
        facts |= NOTHING
        right = right & {"modality"} | {"nothing"}
        num_facts = 2
    words = said | {
        f"other {name}": next(value for value in FACTS[name] if value != said[name])
        for name in FACTS
    }
    alone = len(right) / num_facts
    fair: dict[str, float | None] = {
        "same": alone, "loses": len(right - {*clause.loses}) / num_facts, "open": None,
    }  # fmt: skip
    return Example(
        number=number,
        clause=clause,
        answer=_joined(clause, answer, words=words, rng=rng),
        kind=Kind.REPORT,
        reference="as written",
        facts=facts,
        alone=alone,
        fair=frozenset({None, fair[clause.fair]}),
    )


def _joined(clause: Clause, answer: Answer, *, words: Mapping[str, str], rng: Random) -> str:
    """Put the clause where it stands, and name what is named."""
    core, end = answer.core + answer.stop, answer.tail
    gap = rng.choice((" ", " ", "\n", "\n\n"))
    if clause.where == "behind" and gap == " " and not (answer.stop or answer.tail):
        gap = ". "
    match clause.where:
        case "before":
            text = clause.text + gap + answer.head + core + end
        case "behind" if rng.random() < 1 / 6:
            aside = _lowered(clause.text.removesuffix("."))
            text = f"{answer.head}{answer.core} ({aside}){answer.stop}{end}"
        case "behind":
            text = answer.head + core + end + gap + clause.text
        case _:
            is_inside = not clause.text.startswith("{}")
            inner = _lowered(answer.core) if is_inside else answer.core
            around = clause.text.replace("{}", inner)
            stop = "" if around[-1] in "?!" else answer.stop
            text = answer.head + around + stop + end
    for name, word in words.items():
        text = text.replace(f"<{name}>", word)
        text = text.replace(f"<{name.capitalize()}>", word[0].upper() + word[1:])
    return text


def _lowered(text: str) -> str:
    """Begin in the middle of a sentence; "I" and names in capitals stay."""
    is_word = text[:1].isupper() and text[1:2].islower()
    text = text.replace("<Text>", "<text>", 1) if text.startswith("<Text>") else text
    return text[0].lower() + text[1:] if is_word else text


def alone(given: Answer, number: int) -> Example:
    """Make an example of an answer without a clause."""
    rng = Random(number)  # noqa: S311 (examples, not secrets)
    nothing = Clause(kind="none", where="attached", text="{}", of=(given.family,), fair="same")
    made = _report if given.family in {"report", "clear"} else _naming
    return made(number, nothing, given, rng)


def by_rules(one: Example) -> float | None:
    verdict = decide(
        one.answer, kind=one.kind, reference=one.reference, options=one.options, facts=one.facts
    )
    return verdict.score if verdict else None


def wrong(numbers: Iterable[int], reader: Reader = by_rules) -> Iterator[tuple[Example, float]]:
    for number in numbers:
        one = example(number)
        verdict = reader(one)
        if verdict is not None and verdict not in one.fair:
            yield one, verdict


def told(found: Sequence[tuple[Example, float]]) -> str:
    """Tell what went wrong, some of each kind."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for one, verdict in found:
        fair = " or ".join(str(value) for value in sorted(one.fair, key=str))
        kinds[one.clause.kind].append(
            f"  {one.number}: {one.answer!r} for {one.reference!r}"
            f" {[*one.options] or one.facts or ''}: {verdict}, fair is {fair}"
        )
    lines = [f"{len(found)} wrong verdicts"]
    for kind, these in sorted(kinds.items()):
        lines += [f"{kind}: {len(these)}, such as", *these[:TOLD]]
    return "\n".join(lines)


def test_a_clause_beside_an_answer_never_leaves_a_wrong_verdict() -> None:
    found = [*wrong(range(FIRST, FIRST + NUMBER))]

    assert not found, told(found)


@pytest.mark.parametrize("given", answers(), ids=lambda one: f"{one.family}: {one.core}")
def test_an_answer_without_a_clause_is_decided_if_it_is_right(given: Answer) -> None:
    """What the property starts from: rules that decide nothing would hold it, too."""
    every = [alone(given, number) for number in range(40)]

    assert {by_rules(one) for one in every if one.alone == 1.0} == {1.0}
    assert all(by_rules(one) in one.fair for one in every)


@pytest.mark.parametrize("gap", [" ", "\n\n"])
def test_a_courtesy_behind_an_option_leaves_most_answers_decided(gap: str) -> None:
    courtesies = [one.text for one in clauses() if (one.kind, one.where) == ("courtesy", "behind")]
    forms = [one for one in answers() if one.family == "option" and (one.stop or "\n" in gap)]
    options = [alone(given, number) for number, given in enumerate(forms)]
    read = [
        by_rules(replace(one, answer=one.answer + gap + courtesy))
        for one in options
        for courtesy in courtesies
    ]

    assert len(read) - read.count(None) >= MOST * len(read)


def test_each_clause_comes_up_before_any_comes_again() -> None:
    drawn = {example(number).clause for number in range(len(clauses()))}

    assert drawn == {*clauses()}


def test_a_reader_that_skips_the_clause_is_found_by_every_kind() -> None:
    found = [*wrong(range(len(clauses())), lambda one: one.alone)]
    kinds = {one.clause.kind for one, _ in found}

    assert kinds == {one.kind for one in clauses()} - {"courtesy", "reason"}
    assert len(found) > len(clauses()) / 2
