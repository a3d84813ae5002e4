"""Charts as plain SVG: one way to draw for the site, a scorecard and the page of a training.

Shapes have classes, and `leaderboard/theme.css` gives them the page's colours: so a strict content
security policy lets them in, and they follow the theme. The same input gives the same bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple
from unicodedata import east_asian_width

from markupsafe import Markup, escape

from medix_eval.report.format import quantity, short
from medix_eval.storage.bundled import bundled

MOST_DOTS = 30
_NARROW, _LETTER, _CAPITAL, _WIDE = 4.8, 7.4, 9.0, 11.6
"""Widths of letters in a chart's type, on the generous side; a browser alone would know them."""
_BOLD = 1.28
"""How much wider a heading is."""
_HALF_HEIGHT = 7.0
_MIDDLE = 4.0
"""How far below the middle of a line its letters stand."""
_LINE = 18.0
_NEAR, _FAR = 8.0, 16.0
_MARKER = 5.0
_FEW_DECADES = 2.0
_LEAST_ROOM = 0.05
_KINDS = {True: "open data", False: "closed data", None: "data not known"}
_MOST_POINTS = 300
_READABLE_SHARE = 0.07
"""A narrower part of a bar has no room for its number."""
Align = Literal["start", "middle", "end"]


class Box(NamedTuple):
    """A rectangle; as in every picture, y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Tell whether two boxes overlap.

        >>> Box(0, 0, 2, 2).meets(Box(1, 1, 3, 3)), Box(0, 0, 1, 1).meets(Box(2, 0, 3, 1))
        (True, False)
        """
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def holds(self, other: Box) -> bool:
        """Tell whether another box is wholly inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a name stands, from its point."""

    offset: tuple[float, float]
    align: Align
    box: Box


def free_place(x: float, y: float, *, text: str, taken: Iterable[Box], frame: Box) -> Place | None:
    """Return the nearest place that is free, right of the point first; None if there is none."""
    width = _width(text)
    obstacles = list(taken)
    for distance in (_NEAR, _FAR):
        for across, up in ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1)):
            dx, dy = across * distance, -up * (distance + 3)
            left = x + dx - {1: 0.0, 0: width / 2, -1: width}[across]
            box = Box(left, y + dy - _HALF_HEIGHT, left + width, y + dy + _HALF_HEIGHT)
            if frame.holds(box) and not any(box.meets(other) for other in obstacles):
                align: Align = "start" if across > 0 else "end" if across else "middle"
                return Place(offset=(dx, dy), align=align, box=box)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One model in a scatter plot."""

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    is_open: bool | None = None
    """Whether its training data is open; it picks the marker's shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One line of a dot plot."""

    name: str
    score: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where a number stands: `low` at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, margin: float) -> _Axis:
        """Return an axis that has room at both ends."""
        room = max(margin * (max(values) - min(values)), _LEAST_ROOM)
        return cls(min(values) - room, max(values) + room, start, end)

    def at(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Return places and labels of round numbers."""
        return [(self.at(one), f"{one:g}") for one in _round_numbers(self.low, self.high, most)]

    def powers(self) -> list[tuple[float, str]]:
        """Return places and labels where the axis is of logarithms to base ten."""
        steps = (1, 2, 5) if self.high - self.low < _FEW_DECADES else (1,)
        decades = range(math.floor(self.low), math.ceil(self.high))
        found = [step * 10.0**decade for decade in decades for step in steps]
        found = [value for value in found if self.low <= math.log10(value) <= self.high]
        if len(found) < 2:  # noqa: PLR2004 (one label is no scale)
            found = _round_numbers(10**self.low, 10**self.high, 4)
        found = found[:: math.ceil(len(found) / 7)]
        return [(self.at(math.log10(value)), quantity(value)) for value in found]


def scatter(points: Sequence[Point], *, title: str, x_label: str, y_label: str) -> Markup:
    """Draw scores against a size, on a logarithmic scale; the unbeaten models carry their names."""
    kinds = [kind for kind in _KINDS if any(point.is_open is kind for point in points)]
    has_legend = len(kinds) > 1
    ends = [end for one in points for end in (one.y, one.low, one.high) if end is not None]
    frame = Box(0, 22 + _LINE * has_legend, 384, 236)
    up = _Axis.over(ends, frame.bottom, frame.top, margin=0.12)
    frame = frame._replace(left=_gutter(label for _, label in up.ticks(6)))
    across = _Axis.over([math.log10(one.x) for one in points], frame.left, frame.right, margin=0.12)
    places = [(across.at(math.log10(one.x)), up.at(one.y)) for one in points]
    spans, taken = [], []
    for one, (x, y) in zip(points, places, strict=True):
        taken.append(Box(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER))
        if one.low is not None and one.high is not None:
            taken.append(Box(x - 2, up.at(one.high), x + 2, up.at(one.low)))
            spans.append(_rect(taken[-1], "band"))
    marks = [_mark(x, y, kind=one.is_open) for one, (x, y) in zip(points, places, strict=True)]
    entries = [(_KINDS[kind], partial(_mark, kind=kind)) for kind in kinds]
    legend, _ = _legend(entries, left=frame.left, top=_LINE, right=frame.right)
    return _svg(
        400, 274, title,
        _text(2, 8, y_label),
        *(legend if has_legend else ()),
        *_y_axis(up.ticks(6), frame),
        *_x_axis(across.powers(), frame, x_label),
        *spans, *marks,
        *_names(points, places, taken=taken, frame=frame),
    )  # fmt: skip


def dot_plot(dots: Sequence[Dot], *, title: str) -> Markup:
    """Draw one line a model, best first: a dot for the score, a band for its interval."""
    shown = dots[:MOST_DOTS]
    names = [short(dot.name) for dot in shown]
    frame = Box(_gutter(names), 2, 546, 6 + _LINE * len(shown))
    ends = [end for dot in shown for end in (dot.score, dot.low, dot.high) if end is not None]
    axis = _Axis.over(ends, frame.left, frame.right, margin=0.04)
    parts = _x_axis(axis.ticks(8), frame, "score (%)", has_grid=True)
    for number, (dot, name) in enumerate(zip(shown, names, strict=True)):
        y = 4 + _LINE * (number + 0.5)
        parts.append(_text(frame.left - 8, y, name, kind="name", align="end"))
        if dot.low is not None and dot.high is not None:
            parts.append(_rect(Box(axis.at(dot.low), y - 3, axis.at(dot.high), y + 3), "band"))
        parts.append(_mark(axis.at(dot.score), y, kind=True))
    return _svg(560, frame.bottom + 38, title, *parts)


def share_bars(
    rows: Sequence[tuple[str, Sequence[int]]], parts: Sequence[str], *, title: str, note: str
) -> Markup:
    """Draw what counts are made of, a bar a row; the last row is the sum and stands apart."""
    width = 780
    heading, notes = _lines(title, (width - 20) / _BOLD), _lines(note, width - 20)
    top = 14 + _LINE * (len(heading) + len(notes))
    names = [short(name) for name, _ in rows]
    frame = Box(_gutter(names), top, width - 24, top + 22 * (len(rows) + 0.7))
    axis = _Axis(0, 1, frame.left, frame.right)
    drawn = [
        _text(10, 16 + _LINE * line, text, kind="heading" if line < len(heading) else "")
        for line, text in enumerate([*heading, *notes])
    ]
    drawn += _x_axis([(axis.at(tenth / 10), f"{10 * tenth} %") for tenth in range(0, 11, 2)], frame)
    for row, (name, (_, counts)) in enumerate(zip(names, rows, strict=True)):
        y = frame.top + 22 * (row + 0.5 + 0.5 * (row == len(rows) - 1))
        drawn.append(_text(frame.left - 8, y, name, kind="name", align="end"))
        start = 0.0
        for number, count in enumerate(counts, start=1):
            share = count / sum(counts)
            box = Box(axis.at(start), y - 8, axis.at(start + share), y + 8)
            drawn += [_rect(box, f"part-{number}")] if count else []
            if share >= _READABLE_SHARE:
                middle = (box.left + box.right) / 2
                drawn.append(_text(middle, y, str(count), kind=f"on-{number}", align="middle"))
            start += share
    entries = [(part, partial(_swatch, kind=f"part-{n}")) for n, part in enumerate(parts, start=1)]
    legend, bottom = _legend(entries, left=10, top=frame.bottom + 34, right=width - 10)
    return _svg(width, bottom + 6, title, *drawn, *legend)


def curve(
    steps: Sequence[tuple[float, float]], *, title: str, limit: float | None = None
) -> Markup:
    """Draw a number over the steps, from zero on, with a broken line at its limit."""
    values = [value for _, value in steps]
    frame = Box(0, 8, 292, 100)
    up = _Axis(min(0.0, *values), max(*values, limit or 0.0, 1e-9), frame.bottom, frame.top)
    frame = frame._replace(left=_gutter(label for _, label in up.ticks(4)))
    first, last = steps[0][0], steps[-1][0]
    across = _Axis(first, max(last, first + 1), frame.left, frame.right)
    every = math.ceil(len(steps) / _MOST_POINTS)
    shown = steps[(len(steps) - 1) % every :: every]  # the last is always among them
    drawn = [
        *_y_axis(up.ticks(4), frame),
        _rule(frame.left, frame.bottom, frame.right, frame.bottom),
        _text(frame.left, frame.bottom + 13, f"step {first:g}"),
    ]
    if last > first:
        drawn.append(_text(frame.right, frame.bottom + 13, f"{last:g}", align="end"))
    if limit is not None:
        drawn.append(_rule(frame.left, up.at(limit), frame.right, up.at(limit), "limit"))
    line = " ".join(f"{across.at(step):.1f},{up.at(value):.1f}" for step, value in shown)
    return _svg(300, 122, title, *drawn, _tag("polyline", points=line, class_="line"))


def alone(chart: Markup) -> str:
    """Return a chart as a file of its own, with the colours of the theme's light side."""
    theme = (bundled("leaderboard") / "theme.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"(--[\w-]+): ([^;]+);", theme[: theme.index("}")]))
    rules = theme[theme.index("/* Charts") :]
    # Not as variables: what turns an SVG into a PDF does not know them.
    style = re.sub(r"var\((--[\w-]+)\)", lambda found: colours[found[1]], rules)
    head, _, body = str(chart).partition(">")
    width, height = re.findall(r'viewBox="0 0 (\S+) (\S+)"', head)[0]
    head += f' xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
    page = '<rect class="page" width="100%" height="100%"/>'
    return f"{head}><style>\n{style}</style>{page}{body}\n"


def _names(
    points: Sequence[Point], places: Sequence[tuple[float, float]], *, taken: list[Box], frame: Box
) -> list[Markup]:
    """Name the points that none to their left reaches, the highest first, where there is room."""
    placed = zip(points, places, strict=True)
    unbeaten: list[tuple[Point, tuple[float, float]]] = []
    for point, place in sorted(placed, key=lambda one: (one[0].x, -one[0].y)):
        if not unbeaten or point.y > unbeaten[-1][0].y:
            unbeaten.append((point, place))
    written = []
    for point, (x, y) in reversed(unbeaten):
        name = short(point.name.rpartition("/")[2], 24)
        found = free_place(x, y, text=name, taken=taken, frame=frame)
        if found is not None:
            taken.append(found.box)
            dx, dy = found.offset
            written.append(_text(x + dx, y + dy, name, kind="name", align=found.align))
    return written


def _round_numbers(low: float, high: float, most: int) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten, some `most` of them.

    >>> _round_numbers(38.2, 77.1, 6)
    [40.0, 50.0, 60.0, 70.0]
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * size for size in (1, 2, 5, 10) if (high - low) / (power * size) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.6g}") for number in range(first, last + 1)]


def _x_axis(
    ticks: Sequence[tuple[float, str]], frame: Box, label: str = "", *, has_grid: bool = False
) -> list[Markup]:
    start, kind = (frame.top, "grid") if has_grid else (frame.bottom + 4, "")
    drawn = [_rule(x, start, x, frame.bottom, kind) for x, _ in ticks]
    drawn.append(_rule(frame.left, frame.bottom, frame.right, frame.bottom))
    drawn += [_text(x, frame.bottom + 13, text, align="middle") for x, text in ticks]
    middle = (frame.left + frame.right) / 2
    return [*drawn, *([_text(middle, frame.bottom + 30, label, align="middle")] if label else [])]


def _y_axis(ticks: Sequence[tuple[float, str]], frame: Box) -> list[Markup]:
    lines = [_rule(frame.left, y, frame.right, y, "grid") for y, _ in ticks]
    return [*lines, *(_text(frame.left - 6, y, text, align="end") for y, text in ticks)]


def _legend(
    entries: Sequence[tuple[str, Callable[[float, float], Markup]]],
    *,
    left: float,
    top: float,
    right: float,
) -> tuple[list[Markup], float]:
    """Write entries beside each other, on as many lines as they need; return where they end."""
    drawn: list[Markup] = []
    x, y = left, top + _LINE / 2
    for label, mark in entries:
        if x > left and x + 18 + _width(label) > right:
            x, y = left, y + _LINE
        drawn += [mark(x + 6, y), _text(x + 18, y, label)]
        x += 18 + _width(label) + 8
    return drawn, y + _LINE / 2


def _mark(x: float, y: float, *, kind: bool | None) -> Markup:
    """Draw a marker: full where the data is open, else hollow and of another shape."""
    if kind:
        return _tag("circle", cx=x, cy=y, r=3.4, class_="mark full")
    if kind is None:
        return _tag("path", d=f"M{x:.1f} {y - 4.5:.1f}l4.5 4.5-4.5 4.5-4.5-4.5z", class_="mark")
    return _tag("rect", x=x - 3.2, y=y - 3.2, width=6.4, height=6.4, class_="mark")


def _swatch(x: float, y: float, *, kind: str) -> Markup:
    return _rect(Box(x - 6, y - 5, x + 6, y + 5), kind)


def _rect(box: Box, kind: str) -> Markup:
    width, height = box.right - box.left, box.bottom - box.top
    return _tag("rect", x=box.left, y=box.top, width=width, height=height, class_=kind)


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str = "") -> Markup:
    return _tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _text(x: float, y: float, said: str, *, kind: str = "", align: Align = "start") -> Markup:
    """Write a line whose middle is at `y`."""
    anchor = "" if align == "start" else align
    return _tag("text", escape(said), x=x, y=y + _MIDDLE, class_=kind, text_anchor=anchor)


def _gutter(labels: Iterable[str]) -> float:
    """Return how much room labels to the left of a frame take."""
    return 10 + max(map(_width, labels), default=0.0)


def _width(text: str) -> float:
    """Return about how wide a text is."""
    return sum(
        _NARROW if letter in " .,:;·|'()-Ifijlrt"
        else _WIDE if letter in "MWmw@%…" or east_asian_width(letter) in "WF"
        else _CAPITAL if letter.isupper()
        else _LETTER
        for letter in text
    )  # fmt: skip


def _lines(text: str, room: float) -> list[str]:
    """Break a text where it would be wider than there is room."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {short(word, 64)}" if lines else ""
        if lines and _width(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(short(word, 64))
    return lines


def _svg(width: float, height: float, title: str, *parts: Markup) -> Markup:
    title = short(title, 1000)
    return _tag(
        "svg", _tag("title", escape(title)), *parts,
        class_="chart", viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title,
    )  # fmt: skip


def _tag(name: str, *inside: Markup, **attributes: float | str) -> Markup:
    """Return one element; a number is written with one decimal, an empty attribute left out."""
    said = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"),
            value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0"),
        )
        for key, value in attributes.items()
        if value != ""
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, said, Markup("").join(inside))
