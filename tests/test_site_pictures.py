"""The names in a picture: they touch nothing, whatever the points."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from medix_eval.site.pictures import Box, Point, free_place, scatter

FRAME = Box(0, 0, 300, 200)
SPOTS = st.lists(
    st.tuples(st.floats(0, 300), st.floats(0, 200), st.text("abc", min_size=1, max_size=24)),
    max_size=12,
)


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
    assert (place.align, place.offset) == ("left", (8, 0))


def test_where_nothing_is_free_a_name_is_left_out() -> None:
    assert free_place(100, 100, text="model", taken=[FRAME], frame=FRAME) is None


def test_a_picture_names_models_that_none_to_their_left_reaches() -> None:
    points = [
        Point(name="lab/small", x=2e9, y=50),
        Point(name="lab/beaten", x=8e9, y=40, low=38, high=42),
        Point(name="lab/large", x=30e9, y=70, low=68, high=72),
    ]

    svg = scatter(points, title="t", x_label="x", y_label="y", name="n")

    assert "small" in svg
    assert "large" in svg
    assert "beaten" not in svg


def test_a_drawn_name_covers_no_marker() -> None:
    sizes = {"small": (2, 55.4), "other": (4, 56.6), "low": (2, 42.7), "third": (8, 68.8)}
    sizes |= {"near": (7, 55.8), "nearer": (8, 55.6), "last": (30, 73.6)}
    points = [Point(name=f"lab/model {name}", x=x * 1e9, y=y) for name, (x, y) in sizes.items()]

    svg = scatter(points, title="t", x_label="x", y_label="y", name="n")

    place = r'x="([\d.]+)" y="([\d.]+)"'
    anchor = r'text-anchor="(\w+)" fill="var\(--ink\)"'
    names = re.findall(rf"<text [^>]*{anchor} {place}[^>]*>([^<]+)", svg)
    markers = re.findall(rf'<use [^>]*{place} fill="var\(--page\)"', svg)
    assert len(names) == 4
    assert len(markers) == len(points)
    for side, x, y, text in names:
        left = float(x) - {"start": 0, "middle": 2.8, "end": 5.6}[side] * len(text)
        for across, down in markers:
            is_beside = not left - 4 < float(across) < left + 5.6 * len(text) + 4
            assert is_beside or abs(float(down) - (float(y) - 2.3)) > 8
