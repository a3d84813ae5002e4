"""Repetitions as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medix_eval.evaluation.repeats import Repeats, Spread

if TYPE_CHECKING:
    from rich.console import RenderableType


def for_terminal(found: Repeats) -> RenderableType:
    """Return the scores of every repetition and what their spread is made of."""
    from rich import box  # noqa: PLC0415 (rich only where a table is shown)
    from rich.console import Group  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    last = len(found.seeds)
    stamp = "SYNTHETIC DATA · " if found.synthetic else ""
    title = f"{stamp}{found.model} · protocol {found.protocol['name']} · {last} repetitions"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    header = ("task", "n", "mean", "95 %", "lowest", "highest", "between runs", "sampling")
    for number, name in enumerate((*header, f"pass@{last}", f"majority@{last}")):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for name, one in found.tasks.items():
        span = " to ".join(map(_percent, one.interval)) if one.interval else ""
        majority = _percent(one.majority_at[last]) if one.majority_at else ""
        cells = (str(one.n), _percent(one.mean), span, *_luck(one), _percent(one.pass_at[last]))
        table.add_row(name, *cells, majority)
    table.add_section()
    for name, group in found.groups.items():
        table.add_row(name, "", _percent(group.mean), "", *_luck(group), "", "", style="bold")
    notes = (
        f"seeds {', '.join(map(str, found.seeds))}; n: samples that every repetition scored.",
        "between runs: standard deviation of the score from seed to seed.",
        "sampling: standard error of the score of one run.",
    )
    return Group(table, *(Text(note, style="dim") for note in notes))


def _luck(one: Spread) -> tuple[str, str, str, str]:
    sampling = "-" if one.sampling is None else _percent(one.sampling)
    return (
        _percent(min(one.scores)),
        _percent(max(one.scores)),
        _percent(one.between_runs),
        sampling,
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
