"""Names and completions that mean harm, shown in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invented_runs import InventedRuns
from invented_site import GROUPS, TASKS, site_of

from medix_eval.site.boards import ModelFacts

pytestmark = pytest.mark.slow
Open = Callable[..., Any]


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    '"><svg onload=alert(3)>{{ 7*7 }}',
    "\u202eevil/desrever\u2066",
    "x" * 10_000,
    "javascript:alert(4)",
)


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

    return site_of(make, out=tmp_path_factory.mktemp("hostile"))


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
