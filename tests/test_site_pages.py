"""The site in a real browser: from a disk, under a strict policy, with names that mean harm."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medix_eval.bundled import bundled
from medix_eval.invented_runs import InventedRuns
from medix_eval.site.build import read_boards, write_site
from medix_eval.site.facts import ModelFacts
from medix_eval.site.ranking import Rules
from medix_eval.tasks import Catalogue, load_tasks

pytestmark = pytest.mark.slow
Open = Callable[..., Any]

TASKS = ("medqa", "medmcqa", "slake_vqa", "rad_vqa")
MINUS = "\N{MINUS SIGN}"
GROUPS = {"all_four": TASKS, "text_two": TASKS[:2]}
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
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    '"><svg onload=alert(3)>{{ 7*7 }}',
    "\u202eevil/desrever\u2066",
    "x" * 10_000,
    "javascript:alert(4)",
)


def write(out: Path, make: Callable[[InventedRuns], dict[str, ModelFacts]]) -> Path:
    catalogue: Catalogue = load_tasks([bundled("tasks")])
    runs = InventedRuns(out / "results", catalogue)
    facts = make(runs)
    boards = read_boards([runs.out], catalogue=catalogue, facts=facts, allow_synthetic=True)
    return write_site(boards, out / "site", catalogue=catalogue, rules=Rules()).front


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six models of falling skill, of which the last did not see the images."""

    def make(runs: InventedRuns) -> dict[str, ModelFacts]:
        facts = {}
        for place in range(6):
            name, draw = f"lab/model-{place}", random.Random(place)  # noqa: S311
            tasks = TASKS[:2] if place == 5 else TASKS
            answers = {
                task: [float(draw.random() < 0.9 - 0.1 * place) for _ in range(60)]
                for task in tasks
            }
            runs.make(name, answers, groups=GROUPS, tokens=50 * (place + 1))
            facts[name] = ModelFacts(
                parameters_b=2.0 * 2**place,
                base="base/alpha" if place % 2 else "base/beta",
                training_samples=1000 * (place + 1),
                inputs="text" if place == 5 else "image+text",
                open_weights=True,
                open_data=place < 2,
            )
        runs.make("lab/other", {"medqa": [1.0] * 30}, protocol="cascade")
        return facts

    return write(tmp_path_factory.mktemp("site"), make)


@pytest.fixture(scope="module")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(runs: InventedRuns) -> dict[str, ModelFacts]:
        for place, text in enumerate(HOSTILE):
            answers = {task: [float(row % (place + 2) > 0) for row in range(40)] for task in TASKS}
            runs.make(
                text, answers, completion=text * 2, groups=GROUPS,
                protocol=HOSTILE[1], judge=HOSTILE[0], note="".join(HOSTILE),
            )  # fmt: skip
        return {text: ModelFacts(base=text, licence=text, source=text) for text in HOSTILE}

    return write(tmp_path_factory.mktemp("hostile"), make)


def names(visited: Any) -> list[str]:
    cells = visited.page.locator("#ranks tbody tr:visible th.model")
    return [name.rpartition("-")[2] for name in cells.all_inner_texts()]


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
    from medix_eval.statistics.intervals import clustered, normal_quantile  # noqa: PLC0415

    drawn = []
    for place in (0, 3):
        draw = random.Random(place)  # noqa: S311
        answers = {
            task: [float(draw.random() < 0.9 - 0.1 * place) for _ in range(60)] for task in TASKS
        }
        drawn.append(answers["slake_vqa"])
    differences = [second - first for first, second in zip(*drawn, strict=True)]
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


def test_hostile_names_and_completions_are_only_text(hostile_site: Path, visit: Open) -> None:
    pages = [hostile_site, *sorted(hostile_site.parent.rglob("models/*.html"))]
    (compare,) = hostile_site.parent.glob("boards/*/compare.html")

    assert len(pages) == 1 + len(HOSTILE)
    for path in (*pages, compare):
        visited = visit(path)
        visited.page.on("dialog", lambda _: pytest.fail("a script ran"))
        assert visited.is_clean, visited.problems
        assert visited.page.locator("main img, main script").count() == 0
        assert visited.page.evaluate("document.documentElement.scrollWidth") <= 1440
        assert "49" not in visited.page.locator("h1").inner_text()
        assert path.stat().st_size < 60_000


def test_hostile_models_can_be_compared(hostile_site: Path, visit: Open) -> None:
    visited = visit(hostile_site)
    boxes = visited.page.locator("input.pick")
    boxes.nth(0).check()
    boxes.nth(1).check()

    visited.page.get_by_role("link", name="Compare these two").click()

    assert visited.page.locator("#status", has_text="shared").inner_text() == "160 shared samples"
    assert visited.is_clean


def test_a_name_written_from_right_to_left_turns_nothing_around_it(
    hostile_site: Path, visit: Open
) -> None:
    visited = visit(hostile_site)
    row = visited.page.locator("#ranks tbody tr", has_text="desrever")

    directions = row.locator("td").evaluate_all(
        "all => all.map(one => getComputedStyle(one).direction)"
    )

    assert set(directions) == {"ltr"}
    assert "\u202e" not in hostile_site.read_text(encoding="utf-8")


def test_300_models_on_40_benchmarks_stay_fast_and_small(tmp_path: Path, visit: Open) -> None:
    tasks = [f"benchmark_{number:02d}" for number in range(40)]
    catalogue = load_tasks([bundled("tasks")])
    runs = InventedRuns(tmp_path / "results", catalogue)
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
