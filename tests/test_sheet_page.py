"""The sheet's page, in a real browser: it labels, it saves, it forgets nothing and asks nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medix_eval.judge_check.sheet import COLUMNS, as_page
from medix_eval.results.labels import read_labels

SAID = '=A, </script><script>alert(1)</script><b>it</b> & "left"\nor <!-- so'
Open = Callable[..., Any]


@pytest.fixture
def sheet(visit: Any, tmp_path: Path) -> Open:
    """Open the page of three answers."""

    def opened(
        *, data_class: str = "public", answer: str = SAID, note: str = "", **options: Any
    ) -> Any:
        rows = [
            dict.fromkeys(COLUMNS, "")
            | {"sample_id": f"s{number}", "task": "medqa", "data_class": data_class}
            | {
                "question": "Which side?\n" * 40,
                "reference": "left",
                "answer": answer,
                "note": note if number else "",
                "answer_mark": "m1",
            }
            for number in range(3)
        ]
        path = tmp_path / "answers.html"
        path.write_text(as_page(rows), encoding="utf-8")
        return visit(path, **options)

    return opened


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
def test_the_page_labels_answers_and_saves_them(
    sheet: Open, tmp_path: Path, *, width: int, dark: bool
) -> None:
    visited = sheet(width=width, dark=dark)
    page = visited.page
    shown = page.locator("#answer").text_content()
    page.fill("#annotator", "=anna")
    page.click("[data-label=right]")
    page.keyboard.press("2")
    with page.expect_download() as saved:
        page.click("#save")
    path = tmp_path / "labels.csv"
    saved.value.save_as(path)

    assert shown == SAID
    assert saved.value.suggested_filename == "labels--anna.csv"
    assert "'=anna" in path.read_text()
    labels = read_labels(path)
    assert labels.by_sample == {"s0": 1.0, "s1": 0.0}
    assert labels.marks == {"s0": {"m1"}, "s1": {"m1"}}
    assert {row.annotator for row in labels.rows.values()} == {"=anna"}
    assert page.locator("#status").text_content() == "2 of 3 labelled"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert visited.violations() == []
    assert visited.is_clean


def test_typing_a_name_labels_nothing(sheet: Open) -> None:
    page = sheet().page
    page.locator("#annotator").press_sequentially("R2 D1")

    assert page.locator("#status").text_content() == "0 of 3 labelled"


def test_labels_outlast_a_reload(sheet: Open) -> None:
    page = sheet().page
    page.click("[data-label=unsure]")
    page.reload()

    assert page.locator("#status").text_content() == "1 of 3 labelled"
    assert page.locator("#number").text_content().startswith("Answer 2 of 3")


def test_labels_are_not_those_of_another_models_answers(sheet: Open) -> None:
    page = sheet().page
    page.click("[data-label=right]")
    page = sheet(answer="right").page

    assert page.locator("#status").text_content() == "0 of 3 labelled"


def test_an_answer_can_be_left_for_later_and_found_again(sheet: Open) -> None:
    page = sheet().page
    page.keyboard.press("ArrowRight")
    page.keyboard.press("1")
    page.click("#open")

    assert page.locator("#number").text_content().startswith("Answer 1 of 3")


def test_restricted_data_says_so(sheet: Open) -> None:
    assert sheet(data_class="dua").page.locator("[role=note]").count() == 1
    assert sheet().page.locator("[role=note]").count() == 0


def test_what_is_no_answer_is_shown_with_a_note(sheet: Open) -> None:
    visited = sheet(answer="<think>It may be left", note="cut off", width=390)
    note = visited.page.locator("#note")

    assert not note.is_visible()
    visited.page.keyboard.press("ArrowRight")
    assert note.is_visible()
    assert note.text_content() == "cut off"
    assert visited.page.locator("#answer").text_content() == "<think>It may be left"
    assert visited.is_clean
