"""A scorecard as a picture: for each class what the judge did with its answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medix_eval.judge_check.confusion import Confusion
from medix_eval.judge_check.scorecard import Scorecard
from medix_eval.judge_check.table import kappa_of, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _MUTED = "#1a1e23", "#565f6a"
_PARTS = (
    ("judged as labelled", "#0a5a69"),
    ("wrong answer accepted", "#a12f28"),
    ("right answer rejected", "#d98032"),
    ("left open", "#d9dcd8"),
    ("no readable verdict", "#565f6a"),
)
"""What may become of an answer, and its colour: dark red is the error that flatters a model."""
_LIGHT = frozenset({"#d98032", "#d9dcd8"})
_ROW_INCHES = 0.3
_READABLE_SHARE = 0.07
"""A narrower part of a bar has no room for its number."""


def draw(card: Scorecard, path: Path) -> None:
    """Write the picture; equal scorecards give equal files."""
    import matplotlib as mpl  # noqa: PLC0415 (a second)
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    groups = [*card.classes.items(), ("all", card.overall)]
    with mpl.rc_context({"svg.hashsalt": "medix-eval", "font.size": 9, "text.color": _INK}):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        figure = Figure(figsize=(8.4, 1.7 + _ROW_INCHES * len(groups)), layout=layout)
        axes = figure.add_subplot()
        _bars(axes, groups)
        axes.set_title(title(card), loc="left", fontsize=10.5, fontweight="bold", pad=24)
        axes.text(0, 1.0, _summary(card), transform=axes.transAxes, va="bottom", color=_MUTED)
        figure.legend(loc="outside lower center", ncols=len(_PARTS), frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None})


def _bars(axes: Axes, groups: Sequence[tuple[str, Confusion]]) -> None:
    names = [name.replace("_", " ") for name, _ in groups]
    places = [*range(len(groups) - 1), len(groups) - 0.6]  # a gap before the sum
    left = [0.0] * len(groups)
    for number, (label, colour) in enumerate(_PARTS):
        shares = [_counts(group)[number] / group.n for _, group in groups]
        axes.barh(places, shares, left=left, color=colour, height=0.72, label=label)
        for place, start, share, (_, group) in zip(places, left, shares, groups, strict=True):
            if share >= _READABLE_SHARE:
                axes.text(
                    start + share / 2,
                    place,
                    str(_counts(group)[number]),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=_INK if colour in _LIGHT else "white",
                )
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.tick_params(length=0, colors=_MUTED)
    axes.tick_params(axis="y", colors=_INK)
    axes.spines[:].set_visible(False)


def _counts(group: Confusion) -> tuple[int, ...]:
    return (
        group.accuracy.k,
        group.false_accept.k,
        group.false_reject.k,
        group.n_abstained,
        group.n_failed,
    )


def _summary(card: Scorecard) -> str:
    overall = card.overall
    parts = [f"{overall.n} answers, {overall.n_decided} decided"]
    for name, share in (
        ("accuracy", overall.accuracy),
        ("false accept", overall.false_accept),
        ("false reject", overall.false_reject),
    ):
        if share.value is not None:
            parts.append(f"{name} {share.value:.1%}")
    return " · ".join([*parts, f"kappa {kappa_of(card)}"])
