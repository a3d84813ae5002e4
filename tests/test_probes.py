"""The probe set is what it says: labelled, reproducible, and its splits held apart."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
import yaml

from medix_eval.judge_check.probes import HANDWRITTEN, LabelledAnswer, Split, load_probes
from medix_eval.judging.replies import RELATIONS
from medix_eval.records import Kind, RuleVerdict
from medix_eval.rules.decide import decide
from medix_eval.storage.bundled import bundled

SPLITS: tuple[Split, ...] = ("development", "held_out")
CLASSES = {
    "exact": {"same"},
    "paraphrase": {"same"},
    "abbreviation": {"same"},
    "unit": {"same"},
    "letter": {"same"},
    "language": {"same"},
    "reordered": {"same"},
    "likely": {"same"},
    "extra": {"same"},
    "verbose_right": {"same"},
    "narrower": {"narrower"},
    "broader": {"broader"},
    "partial": {"partial"},
    "negation_flip": {"opposite"},
    "laterality": {"opposite"},
    "wrong_option": {"other"},
    "dose": {"other"},
    "place": {"other"},
    "too_many": {"other"},
    "verbose_wrong": {"other"},
    "hedged": {"undecided"},
    "refusal": {"undecided"},
    "attack": {"undecided", "opposite"},
}
"""How the generated answers of a class stand to their references."""
PROBED = {
    "synonym": "paraphrase",
    "abbreviation": "abbreviation",
    "other language": "language",
    "converted or rounded value": "unit",
    "list in any order": "reordered",
    "letter of its option": "letter",
    '"probably X"': "likely",
    "adds a detail it allows": "narrower",
    "less precise": "broader",
    "lacks a part": "partial",
    "other side": "laterality",
    "denied": "negation_flip",
    "yes for no": "negation_flip",
    "another thing": "wrong_option",
    "place": "place",
    "dose": "dose",
    "an answer or item too many": "too_many",
    "letter and text disagree": "wrong_option",
    "no choice": "hedged",
    '"cannot be excluded"': "hedged",
    "off topic": "attack",
    "only declines": "refusal",
    "Explanation": "extra",
}
"""The words of the rubric, each with the class that probes it."""


def rubric() -> str:
    return (bundled("judges") / "rubric" / "question.txt").read_text(encoding="utf-8")


def templates() -> dict[str, Any]:
    path = bundled("judges") / "probes" / "templates.yaml"
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def by_rules(item: LabelledAnswer) -> RuleVerdict | None:
    record = item.record
    return decide(
        record.completion or "",
        kind=record.kind,
        reference=record.reference,
        options=record.options,
    )


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_has_enough_items_of_every_class(split: Split) -> None:
    items = load_probes(split).items
    counts = Counter(item.label_class for item in items)

    assert len(items) >= 1000
    assert len({item.record.sample_id for item in items}) == len(items)
    assert counts.keys() == CLASSES.keys()
    assert min(counts.values()) >= 40
    assert sum(item.split == HANDWRITTEN for item in items) >= 60


@pytest.mark.parametrize("split", SPLITS)
def test_generated_items_have_the_relations_of_their_class(split: Split) -> None:
    relations: dict[str, set[str]] = {}
    for item in load_probes(split).items:
        if item.split != HANDWRITTEN:
            relations.setdefault(item.label_class, set()).add(item.relation)

    assert relations == CLASSES
    assert set().union(*relations.values()) == RELATIONS.keys()


@pytest.mark.parametrize("split", SPLITS)
def test_an_answer_is_right_where_the_rubric_gives_its_relation_a_point(split: Split) -> None:
    assert all(it.is_correct == (RELATIONS[it.relation] == 1) for it in load_probes(split).items)


def test_the_rubric_lists_the_relations_with_their_points() -> None:
    listed = re.findall(r"(?m)^(\d+): (\w+) - ", rubric())

    assert [(relation, int(points)) for points, relation in listed] == [*RELATIONS.items()]


@pytest.mark.parametrize(("words", "label_class"), PROBED.items())
def test_what_the_rubric_says_is_probed_by_a_class_of_that_relation(
    words: str, label_class: str
) -> None:
    (line,) = (line for line in rubric().splitlines() if re.search(rf"(?<!\w){words}", line))
    relation = re.match(r"\d+: (\w+) - ", line)

    assert label_class in CLASSES
    assert relation is None or relation[1] in CLASSES[label_class]


def test_the_same_split_is_the_same_set() -> None:
    assert load_probes("held_out") == load_probes("held_out")
    assert load_probes("held_out").source != load_probes("development").source


def test_no_wording_is_in_both_splits_and_the_seeds_differ() -> None:
    made = templates()
    seeds = made["seeds"]

    assert seeds["development"] != seeds["held_out"]
    for described in made["classes"].values():
        for block in described["blocks"]:
            assert set(block["development"]).isdisjoint(block["held_out"])


def test_no_generated_answer_is_in_both_splits() -> None:
    told = [
        {
            (item.record.prompt, item.record.completion)
            for item in load_probes(split).items
            if item.split == split
        }
        for split in SPLITS
    ]

    assert not told[0] & told[1]


def test_right_options_stand_under_every_letter_about_equally_often() -> None:
    items = [item.record for item in load_probes("held_out").items if item.label_class == "letter"]
    places = Counter(item.options.index(item.reference) for item in items if item.options)

    assert set(places) == {0, 1, 2, 3}
    assert max(places.values()) <= 2 * min(places.values())


def test_a_choice_shows_its_options_in_the_question() -> None:
    items = [item.record for item in load_probes("held_out").items]
    choices = [item for item in items if item.kind is Kind.MULTIPLE_CHOICE]

    assert choices
    for item in choices:
        assert item.reference in item.options
        assert all(f". {option}" in item.prompt for option in item.options)


@pytest.mark.parametrize("split", SPLITS)
def test_the_rules_never_err_on_what_they_decide(split: Split) -> None:
    said = [(item, by_rules(item)) for item in load_probes(split).items]
    wrong = [
        (item.label_class, item.record.completion, item.record.reference)
        for item, verdict in said
        if verdict is not None and (verdict.score == 1.0) != item.is_correct
    ]

    assert wrong == []


@pytest.mark.parametrize("label_class", ["exact", "letter", "unit"])
def test_the_rules_decide_nearly_all_of_what_is_plain(label_class: str) -> None:
    said = [by_rules(it) for it in load_probes("held_out").items if it.label_class == label_class]

    assert sum(verdict is not None for verdict in said) >= 0.9 * len(said)


def test_a_dose_is_off_by_exactly_ten() -> None:
    doses = [
        item.record
        for item in load_probes("held_out").items
        if item.label_class == "dose" and item.split != HANDWRITTEN
    ]
    factors = {number_in(dose.completion or "") / number_in(dose.reference) for dose in doses}

    assert factors == {Fraction(10), Fraction(1, 10)}


def number_in(text: str) -> Fraction:
    found = re.search(r"[0-9.]*[0-9]", text)
    assert found
    return Fraction(found[0])
