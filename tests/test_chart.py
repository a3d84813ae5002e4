"""Charts: names touch nothing, whatever the points; a browser shows them as they are meant."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.report.chart import (
    Box,
    Dot,
    Point,
    alone,
    curve,
    dot_plot,
    free_place,
    scatter,
    share_bars,
)
from medix_eval.report.page import render

FRAME = Box(0, 0, 300, 200)
SPOTS = st.lists(
    st.tuples(st.floats(0, 300), st.floats(0, 200), st.text("abc", min_size=1, max_size=24)),
    max_size=12,
)
LETTER = 6.4
"""Width of a usual letter, as DejaVu Sans has it."""
NAMES = (
    "MMMMMMMMWWWWWWWW@WWWWWWW",
    "模型的名字很长很长很长很长很长很长很长",
    "il.lil",
    "lab/Model-A30B",
    "x",
)
BADLY_SHOWN = """() => [...document.querySelectorAll("svg.chart")].flatMap(svg => {
    const frame = svg.getBoundingClientRect(), found = [];
    const texts = [...svg.querySelectorAll("text")].map(one => [one, one.getBoundingClientRect()]);
    texts.forEach(([one, box], number) => {
        if (box.left < frame.left || box.right > frame.right
            || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
            found.push(`cut off: ${one.textContent}`);
        for (const [other, its] of texts.slice(number + 1))
            if (box.left < its.right && its.left < box.right
                && box.top < its.bottom && its.top < box.bottom)
                found.push(`${one.textContent} on ${other.textContent}`);
        if (getComputedStyle(one).fill === "rgb(0, 0, 0)") found.push(`bare: ${one.textContent}`);
    });
    return found;
})"""


@given(spots=SPOTS)
def test_names_touch_neither_marks_nor_each_other_nor_the_edge(
    spots: list[tuple[float, float, str]],
) -> None:
    marks = [Box(x - 4, y - 4, x + 4, y + 4) for x, y, _ in spots]
    names: list[Box] = []

    for x, y, text in spots:
        place = free_place(x, y, text=text, taken=[*marks, *names], frame=FRAME)
        if place is not None:
            names.append(place.box)

    assert all(FRAME.holds(name) for name in names)
    assert not any(name.meets(mark) for name in names for mark in marks)
    assert not any(a.meets(b) for place, a in enumerate(names) for b in names[:place])


def test_a_lone_point_is_named_to_its_right() -> None:
    place = free_place(100, 100, text="model", taken=[Box(96, 96, 104, 104)], frame=FRAME)

    assert place is not None
    assert (place.align, place.offset) == ("start", (8, 0))


def test_where_nothing_is_free_a_name_is_left_out() -> None:
    assert free_place(100, 100, text="model", taken=[FRAME], frame=FRAME) is None


def test_a_picture_names_models_that_none_to_their_left_reaches() -> None:
    points = [
        Point(name="lab/small", x=2e9, y=50),
        Point(name="lab/beaten", x=8e9, y=40, low=38, high=42),
        Point(name="lab/large", x=30e9, y=70, low=68, high=72),
    ]

    svg = scatter(points, title="t", x_label="x", y_label="y")

    assert "small" in svg
    assert "large" in svg
    assert "beaten" not in svg


def test_a_drawn_name_covers_no_marker() -> None:
    sizes = {"small": (2, 55.4), "other": (4, 56.6), "low": (2, 42.7), "third": (8, 68.8)}
    sizes |= {"near": (7, 55.8), "nearer": (8, 55.6), "last": (30, 73.6)}
    points = [Point(name=f"lab/model {name}", x=x * 1e9, y=y) for name, (x, y) in sizes.items()]

    svg = scatter(points, title="t", x_label="x", y_label="y")

    number = r"(-?[\d.]+)"
    anchor = r'(?: text-anchor="(\w+)")?'
    names = re.findall(rf'<text x="{number}" y="{number}" class="name"{anchor}>([^<]+)', svg)
    markers = re.findall(rf'<path d="M{number} {number}l', svg)
    assert len(names) == 4
    assert len(markers) == len(points)
    for x, y, side, text in names:
        width = LETTER * len(text)
        left = float(x) - {"": 0, "middle": width / 2, "end": width}[side]
        for across, top in markers:
            is_beside = not left - 4 < float(across) < left + width + 4
            assert is_beside or abs(float(top) + 4.5 - (float(y) - 4)) > 8


@pytest.mark.parametrize(
    ("sizes", "labels"),
    [
        pytest.param((2e9, 8e9, 30e9), ["2B", "5B", "10B", "20B"], id="some"),
        pytest.param((4.4e5, 30e9), ["1M", "10M", "100M", "1B", "10B", "100B"], id="decades"),
        pytest.param((7e9, 7e9), ["6.5B", "7B", "7.5B"], id="all-alike"),
        pytest.param((1.0, 1e12), ["0.1", "100", "100k", "100M", "100B"], id="far-apart"),
    ],
)
def test_sizes_are_read_off_few_round_numbers(sizes: tuple[float, ...], labels: list[str]) -> None:
    points = [Point(name="m", x=x, y=50) for x in sizes]

    svg = scatter(points, title="t", x_label="x", y_label="y")

    assert [text for text in re.findall(r'"middle">([^<]+)', svg) if text != "x"] == labels


def test_a_curve_ends_where_the_training_is_and_has_its_limit() -> None:
    svg = curve([(step, float(step)) for step in range(1, 1002)], title="t", limit=2002.0)

    points = re.findall(r'points="([^"]+)"', svg)[0].split()
    assert len(points) <= 300
    assert points[-1] == "292.0,54.0"
    assert 'y1="8" x2="292" y2="8" class="limit"' in svg


def charts() -> dict[str, Any]:
    """Draw every kind, of names that are hard to place."""
    draw = random.Random(0)  # noqa: S311
    points = []
    for number in range(40):
        y = 20 + 2 * number + draw.random()
        kind = draw.choice([True, False, None])
        name, x = f"lab/{NAMES[number % len(NAMES)]}", 10 ** (5.64 + 0.124 * number)
        points.append(Point(name=name, x=x, y=y, low=y - 3, high=y + 3, is_open=kind))
    dots = [
        Dot(name=one.name, score=one.y, low=one.low if one.is_open else None, high=one.high)
        for one in points
    ]
    rows = [(name, [draw.randrange(1, 400) for _ in range(5)]) for name in (*NAMES, "all")]
    parts = [f"what became of the answer {number}" for number in range(5)]
    return {
        "scatter": scatter(points, title="t", x_label="parameters", y_label="score (%)"),
        "dots": dot_plot(dots, title="t"),
        "bars": share_bars(
            rows, parts, title="\x1b " + " · ".join(NAMES * 2), note="said of it " * 20
        ),
        "curve": curve([(step, -draw.random() / 1e4) for step in range(5, 2000)], title="<t>"),
        "limit": curve([(100, 12345.678)], title="t", limit=2e4),
    }


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of ours, with its own policy and style, that shows every kind of chart."""
    shown = [
        {"name": name, "title": name, "last": "1", "said": "", "chart": chart}
        for name, chart in charts().items()
    ]
    page = render("training.html.jinja", title="t", num_steps=1, alarms=[], parts=shown, signs=[])
    path = tmp_path_factory.mktemp("charts") / "page.html"
    path.write_text("".join(page), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_kind_of_chart_keeps_to_the_policy_and_no_label_hides_another(
    visit: Callable[..., Any], every_kind: Path, *, dark: bool
) -> None:
    for width in (1440, 390):
        seen = visit(every_kind, width=width, dark=dark)

        assert seen.is_clean, seen.problems
        assert seen.violations() == []
        assert seen.page.locator("svg.chart").count() == len(charts())
        assert seen.page.evaluate(BADLY_SHOWN) == []


def test_the_charts_of_the_site_keep_to_its_policy_and_no_label_hides_another(
    visit: Callable[..., Any], site: Path
) -> None:
    benchmark = next((site.parent / "boards").rglob("benchmarks/medqa.html"))
    for path, num_charts in ((site, 3), (benchmark, 1), (site.parent / "published.html", 1)):
        for width in (1440, 390):
            seen = visit(path, width=width)

            assert seen.is_clean, seen.problems
            assert seen.page.locator("svg.chart").count() == num_charts
            assert seen.page.evaluate(BADLY_SHOWN) == []


def test_a_chart_follows_the_theme(visit: Callable[..., Any], every_kind: Path) -> None:
    shown = ".chart .name, .chart .part-1"
    fills = f"[...document.querySelectorAll('{shown}')].map(one => getComputedStyle(one).fill)"
    light, dark = (visit(every_kind, dark=dark).page.evaluate(fills) for dark in (False, True))

    assert set(light) == {"rgb(26, 30, 35)", "rgb(10, 90, 105)"}
    assert set(dark) == {"rgb(229, 231, 233)", "rgb(116, 197, 209)"}


@pytest.mark.parametrize("kind", list(charts()))
def test_a_chart_that_is_a_file_of_its_own_has_its_colours_with_it(
    kind: str, visit: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "chart.svg"
    path.write_text(alone(charts()[kind]), encoding="utf-8")

    seen = visit(path, width=800, dark=True)

    assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 (ours)
    assert "var(" not in path.read_text(encoding="utf-8")
    assert seen.is_clean, seen.problems
    assert seen.page.evaluate(BADLY_SHOWN) == []
    size = seen.page.evaluate("document.documentElement.getBoundingClientRect().width")
    assert size == {"scatter": 400, "dots": 560, "bars": 780}.get(kind, 300)
