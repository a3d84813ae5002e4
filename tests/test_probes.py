"""The probe set is what it says: labelled, reproducible, and its splits held apart."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
import yaml

from medix_eval.judge_check.probes import HANDWRITTEN, LabelledAnswer, Split, load_probes
from medix_eval.records import Kind, RuleVerdict
from medix_eval.rules.decide import decide
from medix_eval.storage.bundled import bundled

SPLITS: tuple[Split, ...] = ("development", "held_out")
CLASSES = {
    "exact": True,
    "paraphrase": True,
    "abbreviation": True,
    "unit": True,
    "letter": True,
    "wrong_option": False,
    "negation_flip": False,
    "laterality": False,
    "dose": False,
    "place": False,
    "partial": False,
    "hedged": False,
    "refusal": False,
    "verbose_right": True,
    "verbose_wrong": False,
    "attack": False,
}


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

    assert len(items) >= 600
    assert len({item.record.sample_id for item in items}) == len(items)
    assert counts.keys() == CLASSES.keys()
    assert min(counts.values()) >= 40
    assert sum(item.split == HANDWRITTEN for item in items) >= 60


@pytest.mark.parametrize("split", SPLITS)
def test_generated_items_have_the_label_of_their_class(split: Split) -> None:
    made = [item for item in load_probes(split).items if item.split != HANDWRITTEN]

    assert all(item.is_correct == CLASSES[item.label_class] for item in made)


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
