"""Which pictures the site shows, and what each says in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from medix_eval.report.chart import MOST_DOTS, Dot, Point, dot_plot, scatter
from medix_eval.report.format import percent, short
from medix_eval.results.reproduction import Figure
from medix_eval.site.boards import Entry
from medix_eval.site.columns import group_label, task_label
from medix_eval.site.measured import Measured

_FEWEST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An inlined picture and its caption."""

    svg: Markup
    caption: str


def board_pictures(measured: Measured) -> list[Picture]:
    """Draw a board's average against size, training data and tokens, where these are known."""
    headline = measured.board.headline
    if headline is None:
        return []
    label = group_label(headline)
    against: list[tuple[str, Callable[[Entry], float | None]]] = [
        ("parameters", lambda entry: 1e9 * (entry.facts.parameters_b or 0)),  # 0 is not drawn
        ("training samples", lambda entry: entry.facts.training_samples),
        ("tokens per answer", lambda entry: entry.tokens_per_sample),
    ]
    pictures = []
    for what, read in against:
        points = []
        for one, score in measured.ordered(headline):
            low, high = _in_percent(one.entry.groups[headline].interval)
            name, y, is_open = one.entry.name, 100 * score, one.entry.facts.open_data
            if x := read(one.entry):
                at = Point(name=name, x=float(x), y=y, low=low, high=high, is_open=is_open)
                points.append(at)
        if len(points) >= _FEWEST:
            pictures.append(_scatter(points, y_label=f"{label} (%)", what=what))
    return pictures


def benchmark_picture(measured: Measured, task: str) -> Picture | None:
    """Draw the scores of one benchmark with their intervals."""
    dots = []
    for one, score in measured.ordered(task):
        low, high = _in_percent(one.entry.score(task).interval)
        dots.append(Dot(name=one.entry.name, score=100 * score, low=low, high=high))
    if len(dots) < _FEWEST:
        return None
    best = dots[0]
    title = (
        f"{task_label(task)}: {len(dots)} models from {dots[-1].score:.1f} to {best.score:.1f} %; "
        f"the best is {short(best.name)}. The table below has every figure."
    )
    which = f"The {MOST_DOTS} best of {len(dots)} models." if len(dots) > MOST_DOTS else ""
    has_spans = any(dot.low is not None for dot in dots)
    bands = "Dot: score; band: 95 % interval." if has_spans else "Dot: score."
    return Picture(svg=dot_plot(dots, title=title), caption=f"{which} {bands}".strip())


def published_picture(figures: Sequence[Figure]) -> Picture | None:
    """Draw the published averages against the size that their source gives."""
    points = [
        Point(name=f"{one.model} {one.params}", x=1e9 * float(one.params[:-1]), y=float(one.score))
        for one in figures
        if one.benchmark.startswith("Overall") and one.params.removesuffix("B").isdigit()
    ]
    if len(points) < _FEWEST:
        return None
    return _scatter(points, y_label="published average (%)", what="parameters")


def _scatter(points: Sequence[Point], *, y_label: str, what: str) -> Picture:
    best = max(points, key=lambda point: point.y)
    smallest = min(points, key=lambda point: point.x)
    title = (
        f"{y_label} against {what} of {len(points)} models. The highest is {short(best.name)} "
        f"with {best.y:.1f}; the one furthest left is {short(smallest.name)} "
        f"with {percent(smallest.y / 100)}."
    )
    caption = (
        f"{y_label.removesuffix(' (%)').capitalize()} against {what}, on a logarithmic scale. "
        "Named, where there is room, are the models that none to their left reaches."
    )
    svg = scatter(points, title=title, x_label=what, y_label=y_label)
    return Picture(svg=svg, caption=caption)


def _in_percent(ends: tuple[float, float] | None) -> tuple[float | None, float | None]:
    return (100 * ends[0], 100 * ends[1]) if ends else (None, None)
