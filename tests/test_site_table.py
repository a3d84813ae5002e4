"""The table of models in a real browser: sorted, filtered, linked to, and two models compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invented_site import drawn

pytestmark = pytest.mark.slow
Open = Callable[..., Any]


MINUS = "\N{MINUS SIGN}"


def names(visited: Any) -> list[str]:
    cells = visited.page.locator("#ranks tbody tr:visible th.model")
    return [name.rpartition("-")[2] for name in cells.all_inner_texts()]


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order(
    site: Path, visit: Open
) -> None:
    visited = visit(site)
    head = visited.page.get_by_role("button", name="Size")

    head.click()
    down = names(visited)
    head.click()
    up = names(visited)

    assert (down, up) == (["5", "4", "3", "2", "1", "0"], ["0", "1", "2", "3", "4", "5"])
    assert visited.page.locator("th[aria-sort]").inner_text() == "Size"


def test_a_missing_score_is_last_in_either_order(site: Path, visit: Open) -> None:
    visited = visit(site)
    head = visited.page.get_by_role("button", name="SLAKE VQA")

    for _ in range(2):
        head.click()
        assert names(visited)[-1] == "5"


@pytest.mark.parametrize(
    ("control", "value", "left"),
    [
        pytest.param("size", "0-4", ["0", "1"], id="size"),
        pytest.param("inputs", "text", ["5"], id="modality"),
        pytest.param("open", "data", ["0", "1"], id="openness"),
    ],
)
def test_filters_leave_the_models_that_fit(
    site: Path, visit: Open, control: str, value: str, left: list[str]
) -> None:
    visited = visit(site)

    visited.page.select_option(f"#{control}", value)

    assert names(visited) == left
    assert visited.page.locator("#status").inner_text() == f"{len(left)} of 6 models"


def test_search_looks_at_names_and_base_models(site: Path, visit: Open) -> None:
    visited = visit(site)

    visited.page.fill("#search", "LAB alpha")

    assert names(visited) == ["1", "3", "5"]


def test_a_group_shows_its_own_benchmarks_and_orders_by_its_average(
    site: Path, visit: Open
) -> None:
    visited = visit(site)

    visited.page.select_option("#group", "text_two")

    heads = visited.page.locator("#ranks thead th[data-section=benchmarks]:visible")
    assert heads.all_inner_texts() == ["MedQA", "MedMCQA"]
    assert visited.page.locator("th[aria-sort]").get_attribute("data-key") == "text_two"


def test_columns_can_be_chosen_by_keyboard(site: Path, visit: Open) -> None:
    page = visit(site).page

    page.locator(".chooser summary").focus()
    page.keyboard.press("Enter")
    page.locator("input[data-key=licence]").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Escape")

    assert page.locator("th[data-key=licence]").is_visible()
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert not page.locator(".menu").is_visible()


def test_a_link_to_a_view_shows_the_same_view(site: Path, visit: Open) -> None:
    first = visit(site)
    first.page.select_option("#open", "weights")
    first.page.fill("#search", "beta")
    first.page.locator(".chooser summary").click()
    first.page.locator("input[data-key=licence]").check()
    first.page.keyboard.press("Escape")
    first.page.get_by_role("button", name="Size").click()
    address = first.page.locator("#permalink").evaluate("link => link.href")

    second = visit(site)
    second.page.goto(address)
    second.page.reload()

    assert names(second) == names(first) == ["4", "2", "0"]
    assert second.page.locator("th[data-key=licence]").is_visible()


def test_reset_shows_everything_again(site: Path, visit: Open) -> None:
    visited = visit(site)
    visited.page.fill("#search", "beta")

    visited.page.get_by_role("button", name="Reset").click()

    assert len(names(visited)) == 6
    assert "#" not in visited.page.url


def test_a_link_with_nonsense_shows_the_whole_table(site: Path, visit: Open) -> None:
    visited = visit(site)

    visited.page.goto(f"{site.as_uri()}#size=<b>&sort=x.descending&compare=no,no&group=%ff")
    visited.page.reload()

    assert len(names(visited)) == 6
    assert visited.is_clean


def test_two_chosen_models_are_compared_sample_by_sample(site: Path, visit: Open) -> None:
    visited = visit(site)
    visited.page.get_by_label("Compare lab/model-0").check()
    visited.page.get_by_label("Compare lab/model-3").check()
    assert not [url for url in visited.requested if "/samples/" in url]

    visited.page.get_by_role("link", name="Compare these two").click()

    row = visited.page.locator("#pair-result tr", has_text="MedQA").inner_text().split("\t")
    assert visited.page.locator("#status", has_text="shared").inner_text() == "240 shared samples"
    wins, losses, equal, shared = (int(cell) for cell in row[-4:])
    assert (wins + losses + equal, shared) == (60, 60)
    assert float(row[1]) - float(row[2]) == pytest.approx(100 * (losses - wins) / 60, abs=0.11)
    assert visited.is_clean
    assert visited.violations() == []


def test_the_interval_of_a_comparison_is_that_of_the_statistics(site: Path, visit: Open) -> None:
    from medix_eval.results.statistics import clustered, normal_quantile  # noqa: PLC0415

    answers = (drawn(place)["slake_vqa"] for place in (0, 3))
    differences = [second - first for first, second in zip(*answers, strict=True)]
    found = clustered(differences, [str(row // 2) for row in range(60)])
    assert found.stderr is not None
    half = normal_quantile() * found.stderr
    ends = [
        f"{'+' if end > 0 else MINUS}{abs(100 * end):.1f}"
        for end in (found.mean - half, found.mean + half)
    ]

    (page,) = site.parent.glob("boards/medix-*/compare.html")
    visited = visit(page)
    visited.page.goto(f"{page.as_uri()}#a=lab__model-0&b=lab__model-3")
    visited.page.reload()

    row = visited.page.locator("#pair-result tr", has_text="SLAKE").inner_text()
    assert f"({ends[0]} to {ends[1]})" in row
