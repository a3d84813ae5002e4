"""The site's pictures: drawn by matplotlib when the site is built, inlined as SVG.

A strict content security policy forbids `style=`, and a picture must follow the page's colours, so
matplotlib's output is rewritten: styles become attributes, colours become the theme's variables.
The same input gives the same bytes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from medix_eval.report.format import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_LETTER = 5.6
"""Width of a letter at nine points, on the generous side."""
_HALF_HEIGHT = 5.5
_NEAR, _FAR = 8.0, 16.0


class Box(NamedTuple):
    """A rectangle: left, bottom, right, top."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Tell whether two boxes share any ground.

        >>> Box(0, 0, 2, 2).meets(Box(1, 1, 3, 3)), Box(0, 0, 1, 1).meets(Box(2, 0, 3, 1))
        (True, False)
        """
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def holds(self, other: Box) -> bool:
        """Tell whether another box is wholly inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a name stands, from its point."""

    offset: tuple[float, float]
    align: Literal["left", "center", "right"]
    box: Box


def free_place(x: float, y: float, *, text: str, taken: Iterable[Box], frame: Box) -> Place | None:
    """Return the nearest place that is free, right of the point first; None if there is none."""
    width = _LETTER * len(text)
    obstacles = list(taken)
    for distance in (_NEAR, _FAR):
        for across, up in ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1)):
            dx, dy = across * distance, up * (distance + 3)
            left = x + dx - {1: 0.0, 0: width / 2, -1: width}[across]
            box = Box(left, y + dy - _HALF_HEIGHT, left + width, y + dy + _HALF_HEIGHT)
            if frame.holds(box) and not any(box.meets(other) for other in obstacles):
                align: Literal["left", "center", "right"] = "center"
                if across:
                    align = "left" if across > 0 else "right"
                return Place(offset=(dx, dy), align=align, box=box)
    return None


# Colours that stand for the theme's variables until the picture is written.
_INK, _MUTED, _LINE, _ACCENT, _BAND, _PAGE = (
    "#010101", "#020202", "#030303", "#040404", "#050505", "#060606",
)  # fmt: skip
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _ACCENT: "var(--accent)",
    _BAND: "var(--band)",
    _PAGE: "var(--page)",
}
_MARKERS = {True: "open data", False: "closed data", None: "data not known"}
_MOST_DOTS = 30
_POINTS_PER_INCH = 72
_MARKER = 4.5
_FEW_DECADES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One model in a picture."""

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


def scatter(points: Sequence[Point], *, title: str, x_label: str, y_label: str, name: str) -> str:
    """Draw scores against a size, on a logarithmic scale; the unbeaten models carry their names."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415

    with _drawing(width=5.4, height=3.6, left=0.6, top=0.35) as (figure, axes):
        spans = [
            (point.x, point.low, point.high)
            for point in points
            if point.low is not None and point.high is not None
        ]
        if spans:
            where, low, high = zip(*spans, strict=True)
            axes.vlines(where, low, high, color=_BAND, linewidth=2.5, zorder=2)
        for is_open, marker, filled in ((True, "o", True), (False, "s", False), (None, "D", False)):
            group = [point for point in points if point.is_open is is_open]
            label = _MARKERS[is_open]
            axes.plot(
                [point.x for point in group], [point.y for point in group], marker,
                color=_ACCENT, markerfacecolor=_ACCENT if filled else _PAGE, markersize=5.5,
                markeredgewidth=1.3, zorder=3, label=label if group else None,
            )  # fmt: skip
        axes.set_xscale("log")
        sizes = [point.x for point in points]
        is_narrow = max(sizes) / min(sizes) < _FEW_DECADES
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if is_narrow else (1.0,)))
        axes.xaxis.set_major_formatter(FuncFormatter(_plain_number))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.margins(x=0.12, y=0.12)
        _name_unbeaten(figure, axes, points)
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
        if len({point.is_open for point in points}) > 1:
            axes.legend(
                frameon=False, labelcolor=_MUTED, ncols=3, loc="lower left", borderpad=0,
                bbox_to_anchor=(0, 1), handletextpad=0.2, columnspacing=1.2,
            )  # fmt: skip
        return _svg(figure, title=title, name=name)


def dot_plot(dots: Sequence[Dot], *, title: str, name: str) -> str:
    """Draw one line a model, best first: a dot for the score, a band for its interval."""
    shown = dots[:_MOST_DOTS]
    height = 0.6 + 0.21 * len(shown)
    with _drawing(width=7.2, height=height, left=2.4, top=0.1) as (figure, axes):
        places = range(len(shown))
        known = [
            (place, dot.low, dot.high)
            for place, dot in zip(places, shown, strict=True)
            if dot.low is not None and dot.high is not None
        ]
        if known:
            where, low, high = zip(*known, strict=True)
            axes.hlines(where, low, high, color=_BAND, linewidth=5, zorder=2)
        axes.plot([dot.score for dot in shown], list(places), "o", color=_ACCENT, markersize=5)
        # As plain texts: matplotlib's tick labels take four times as long.
        axes.set_yticks([])
        for place, dot in zip(places, shown, strict=True):
            axes.text(
                -0.02, place, short(dot.name), transform=axes.get_yaxis_transform(),
                ha="right", va="center_baseline",
            )  # fmt: skip
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.margins(x=0.04)
        axes.grid(axis="x", color=_LINE, linewidth=0.8)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("score (%)")
        return _svg(figure, title=title, name=name)


def _name_unbeaten(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Write names beside their points, the highest first, each where it touches nothing."""
    scale = _POINTS_PER_INCH / figure.dpi
    axes.autoscale_view()  # else the ends of the axes are settled only when it is drawn

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return float(across) * scale, float(up) * scale

    taken = []
    for point in points:
        x, y = place(point.x, point.y)
        ends = [place(point.x, end)[1] for end in (point.low, point.high) if end is not None]
        taken.append(Box(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER))
        if ends:
            taken.append(Box(x - 2, min(ends), x + 2, max(ends)))
    corners = axes.bbox.corners() * scale
    frame = Box(*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
    for point in reversed(_unbeaten(points)):
        name = short(point.name.rpartition("/")[2], 24)
        found = free_place(*place(point.x, point.y), text=name, taken=taken, frame=frame)
        if found is not None:
            taken.append(found.box)
            axes.annotate(
                name, (point.x, point.y), xytext=found.offset, textcoords="offset points",
                ha=found.align, va="center", color=_INK, zorder=4,
            )  # fmt: skip


def _unbeaten(points: Sequence[Point]) -> list[Point]:
    """Return the points that no point to their left reaches."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


def _plain_number(value: float, _position: int) -> str:
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


@contextmanager
def _drawing(
    *, width: float, height: float, left: float, top: float
) -> Iterator[tuple[Figure, Axes]]:
    """Open a figure that is in nobody's list, with the site's own settings."""
    from matplotlib import rc_context  # noqa: PLC0415 (half a second, and only where it draws)
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "medix-eval",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 9,
            "text.parse_math": False,
            "axes.edgecolor": _MUTED,
            "axes.labelcolor": _MUTED,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": _MUTED,
            "ytick.color": _MUTED,
            "text.color": _INK,
        }
    ):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        # Margins in inches: measuring every label to find them takes longer than drawing.
        figure.subplots_adjust(
            left=left / width, right=1 - 0.1 / width, top=1 - top / height, bottom=0.5 / height
        )
        yield figure, figure.add_subplot()


_PLACE = re.compile(r' (?:d|x|y|transform)="[^"]*"')
_TOO_FINE = re.compile(r"(\.\d\d)\d+")
_STYLE = re.compile(r' style="([^"]*)"')
_FONT = re.compile(r"([\d.]+)px")


def _svg(figure: Figure, *, title: str, name: str) -> str:
    """Return a figure as an `<svg>` element that a strict policy and a screen reader can take."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = _STYLE.sub(_as_attributes, body)
    body = body.replace("xlink:href", "href")
    body = _PLACE.sub(lambda found: _TOO_FINE.sub(r"\1", found[0]).replace("\n", ""), body)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
    body = re.sub(
        r' id="([^"]*)"',
        lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "",
        body,
    )
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    box = re.search(r'viewBox="[^"]*"', body)
    inner = re.sub(r">\s+<", "><", body[body.index(">") + 1 :])
    head = f'<svg {box[0] if box else ""} role="img" aria-label="{html.escape(title)}">'
    return (head + inner).strip()


def _as_attributes(found: re.Match[str]) -> str:
    """Turn one `style` into presentation attributes; the font is the page's own."""
    attributes = []
    for declaration in found[1].split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            size = _FONT.search(value)
            attributes.append(f' font-size="{size[1] if size else 9}"')
        elif key and key not in {"font-family", "font-size"}:
            attributes.append(f' {key}="{value}"')
        elif key == "font-size":
            attributes.append(f' font-size="{value.removesuffix("px")}"')
    return "".join(attributes)
