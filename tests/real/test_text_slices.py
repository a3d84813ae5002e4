"""Slices made of text, on every real stem: against pronouns and rows that a person read."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from medix_eval.data.lm_task import open_task
from medix_eval.data.tasks import Catalogue

READ: dict[str, list[int]] = yaml.safe_load(
    Path(__file__).with_name("absent_image.yaml").read_text()
)
"""Numbers of rows of medqa, by whether a person saw that they speak of a picture."""
MISSED = {587}
"""A picture that no pattern finds."""
_HERS, _HIS = r"(?i)\b(?:she|her|hers)\b", r"(?i)\b(?:he|his|him)\b"


@pytest.fixture(scope="module")
def stems(real_rows: Path, catalogue: Catalogue) -> list[tuple[str, dict[str, str]]]:
    """Read each stem of medqa with its slices."""
    task = open_task(catalogue.tasks["medqa"], data_root=real_rows)
    return [(row["sent1"], task.columns(row)) for row in task.rows]


def test_pictures_are_found_where_a_person_saw_that_one_is_missing(
    stems: list[tuple[str, dict[str, str]]],
) -> None:
    found = {
        row for row, (_, columns) in enumerate(stems) if columns["needs_absent_image"] == "yes"
    }

    assert found == {*READ["picture"]} - MISSED
    assert found.isdisjoint(READ["complete"])


def test_sex_is_that_of_most_pronouns(stems: list[tuple[str, dict[str, str]]]) -> None:
    num, other = Counter[str](), []
    for row, (text, columns) in enumerate(stems):
        hers, his = len(re.findall(_HERS, text)), len(re.findall(_HIS, text))
        num[columns["sex"]] += 1
        if (columns["sex"] == "female" and his > hers) or (columns["sex"] == "male" and hers > his):
            other.append(row)

    assert set(other) <= {17, 221, 236}  # sons whose mother is spoken of
    assert num["female"] + num["male"] > 1100


def test_age_is_the_first_that_is_told(stems: list[tuple[str, dict[str, str]]]) -> None:
    spans = {"1 to 11 years": (1, 12), "12 to 17 years": (12, 18), "18 to 64 years": (18, 65)}
    other = []
    for row, (text, columns) in enumerate(stems):
        first = re.search(r"(\d+)-(year|month)s?-old", text)
        if first is None or columns["age_group"] not in spans:
            continue
        age = int(first[1]) / (1 if first[2] == "year" else 12)
        low, high = spans[columns["age_group"]]
        other += [] if low <= age < high else [row]

    assert other == []
