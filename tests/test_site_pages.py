"""The site in a real browser: from a disk, under a strict policy, by keyboard, and large."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invented_runs import InventedRuns

from medix_eval.data.tasks import Catalogue
from medix_eval.site.boards import ModelFacts, Rules
from medix_eval.site.build import read_boards, write_site

pytestmark = pytest.mark.slow
Open = Callable[..., Any]


FOCUSED = """() => {
    const it = document.activeElement, box = it.getBoundingClientRect();
    const labels = it.labels ? [...it.labels].map((one) => one.textContent).join(" ") : "";
    const [across, down] = [Math.min(box.width, 40) / 2, Math.min(box.height, 16) / 2];
    const middle = document.elementFromPoint(box.left + across, box.top + down);
    return {
        name: (it.ariaLabel || labels || it.textContent).trim(),
        outline: getComputedStyle(it).outlineStyle,
        isInSight: box.height > 300 || it === middle || it.contains(middle),
    };
}"""


def pages_of(site: Path) -> list[Path]:
    first: dict[str, Path] = {}
    for page in sorted(site.parent.rglob("*.html")):
        kind = page.parent.name if page.parent.name in {"models", "benchmarks"} else page.name
        first.setdefault(kind, page)
    return list(first.values())


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_kind_of_page_is_clean_and_accessible(site: Path, visit: Open, dark: bool) -> None:  # noqa: FBT001
    pages = pages_of(site)

    assert len(pages) == 6
    for page in pages:
        visited = visit(page, dark=dark)
        assert visited.is_clean, (page, visited.problems)
        assert visited.violations() == []


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_no_page_is_wider_than_the_screen(site: Path, visit: Open, width: int) -> None:
    for page in pages_of(site):
        visited = visit(page, width=width)
        if page.name == "index.html":
            visited.page.evaluate("document.getElementById('filters').open = true")
            visited.page.locator(".chooser summary").click()

        assert visited.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_page_says_what_it_allows_and_has_nothing_inline(site: Path) -> None:
    for page in pages_of(site):
        text = page.read_text(encoding="utf-8")

        assert "default-src 'none'; script-src 'self'; style-src 'self'" in text
        assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|https?://", text)


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    for page in site.parent.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src|data-compare)="([^"#:]+)["#]', text):
            assert (page.parent / link).is_file(), (page, link)


def test_whatever_the_keyboard_reaches_has_a_name_and_an_outline(site: Path, visit: Open) -> None:
    for path in pages_of(site):
        page = visit(path).page
        stops = page.locator("a[href], button, select, input, summary, [tabindex='0']")
        total = sum(stop.is_visible() for stop in stops.all())

        seen = []
        for _ in range(total):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(FOCUSED))

        assert all(one["name"] for one in seen), (path, seen)
        assert {one["outline"] for one in seen} == {"solid"}
        assert all(one["isInSight"] for one in seen), (path, seen)
        assert seen[0]["name"] == "Skip to the content"


def test_a_screen_reader_hears_intervals_boards_and_the_order(site: Path, visit: Open) -> None:
    page = visit(site).page

    page.get_by_role("button", name="Overall", exact=True).or_(
        page.get_by_role("button", name="All four", exact=True)
    ).click()
    heard = page.locator("main").aria_snapshot()

    assert re.search(r'cell "\d\d\.\d to \d\d\.\d"', heard)
    assert "status: All 6 models" in heard
    assert not re.search("[▲▼↕▾]", heard)
    assert page.locator("th[aria-sort=descending]").count() == 1


def test_a_rank_that_is_withheld_says_why(site: Path, visit: Open) -> None:
    visited = visit(site)

    visited.page.locator("tr[data-slug=lab__model-5] .rank a").click()

    assert "No rank: 2 of 4 benchmarks not run" in visited.page.locator("#standing").inner_text()


def test_another_protocol_is_a_page_of_its_own(site: Path, visit: Open) -> None:
    visited = visit(site)

    visited.page.select_option("#protocol", label="cascade · Qwen/Qwen3-14B")

    visited.page.wait_for_url("**/cascade-*.html")
    assert visited.page.locator("#ranks tbody tr").count() == 1


def test_without_javascript_the_table_is_there(site: Path, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.as_uri())

    assert page.locator("#ranks tbody tr").count() == 6
    assert not page.locator("#filters").is_visible()
    context.close()


def test_300_models_on_40_benchmarks_stay_fast_and_small(
    runs: InventedRuns, catalogue: Catalogue, tmp_path: Path, visit: Open
) -> None:
    tasks = [f"benchmark_{number:02d}" for number in range(40)]
    answers = {task: [float(row % 7 > 2) for row in range(20)] for task in tasks}
    first = runs.make("medical-model-000", answers, groups={"all_forty": tuple(tasks)})
    for place in range(1, 300):
        copied = tmp_path / "results" / f"copy-{place}" / first.name
        shutil.copytree(first, copied)
        for file in (copied / "run.json", *copied.glob("judged/*/scores.json")):
            renamed = file.read_text().replace("model-000", f"model-{place:03}")
            file.write_text(renamed)
    facts = {
        f"medical-model-{place:03}": ModelFacts(parameters_b=1.0 + place % 70)
        for place in range(300)
    }

    start = time.process_time()
    boards = read_boards([runs.out], catalogue=catalogue, facts=facts, allow_synthetic=False)
    site = write_site(boards, tmp_path / "site", catalogue=catalogue, rules=Rules()).front
    built = time.process_time() - start

    assets = sum(file.stat().st_size for file in (site.parent / "assets").iterdir())
    pages = [page for page in site.parent.rglob("*.html") if page != site]
    visited = visit(site)
    # The page's own computing: a clock on the wall would measure what else the machine does.
    session = visited.page.context.new_cdp_session(visited.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    visited.page.reload()
    visited.page.get_by_role("button", name="Benchmark 07").click()
    spent = session.send("Performance.getMetrics")["metrics"]
    interactive = next(one["value"] for one in spent if one["name"] == "TaskDuration")

    assert built < 20
    assert interactive < 2
    assert site.stat().st_size + assets < 3_000_000
    assert max(page.stat().st_size for page in pages) < 60_000
    assert len(pages) == 300 + 40 + 2
    assert visited.page.locator("#ranks tbody tr:visible").count() == 100
    visited.page.get_by_role("button", name="Show all 300 models").click()
    assert visited.page.locator("#ranks tbody tr:visible").count() == 300
    assert visited.is_clean
