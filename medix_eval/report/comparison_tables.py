"""A comparison as tables for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medix_eval.results.comparison import ChangedSample, Comparison, Pair
from medix_eval.results.statistics import Difference

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_LISTED = 12
"""Changed samples that are listed; all are in the JSON."""


def for_terminal(comparison: Comparison) -> RenderableType:
    """Return who is best, and how each run differs from the baseline."""
    from rich.console import Group  # noqa: PLC0415 (rich only where a table is shown)
    from rich.text import Text  # noqa: PLC0415

    stamps = [Text(line, style="bold") for line in _stamps(comparison)]
    parts: list[RenderableType] = [*map(Text, _head(comparison)), *stamps, _contests(comparison)]
    for pair in comparison.pairs:
        parts += [_differences(pair), *map(Text, [*_slices(pair), *_changed(pair)])]
    notes = (
        "* best; = may be as good: the interval of its paired difference from the best holds 0.",
        "p: McNemar's exact test, or sign flips by image or patient; Holm: for all tasks together.",
        "seen from: the smallest true difference that so many samples would show 4 times in 5.",
    )
    return Group(*parts, *(Text(note, style="dim") for note in notes))


def _head(comparison: Comparison) -> list[str]:
    settings = [run.settings for run in comparison.runs]
    telling = [
        name for name in ("control", "seed") if len({str(s.get(name)) for s in settings}) > 1
    ]
    return [
        f"{run.letter} = {run.model}"
        + "".join(f" · {name} {run.settings.get(name, 'none')}" for name in telling)
        + f" · protocol {run.protocol['name']} · {run.run}"
        for run in comparison.runs
    ]


def _stamps(comparison: Comparison) -> list[str]:
    synthetic = "SYNTHETIC: made-up rows stand in for a benchmark; these numbers say nothing of it."
    forced = [f"FORCED, not comparable: {found}" for found in comparison.mismatches]
    return [*([synthetic] if comparison.synthetic else []), *forced]


def _contests(comparison: Comparison) -> Table:
    letters = [run.letter for run in comparison.runs]
    table = _table(["task", "shared", "left out", *letters])
    for contests in (comparison.tasks, comparison.groups):
        for name, contest in contests.items():
            marks = {contest.best: "*", **dict.fromkeys(contest.ties_with_best, "=")}
            scores = [
                f"{100 * score:.1f}{marks.get(at, ' ')}" for at, score in enumerate(contest.scores)
            ]
            table.add_row(name, str(contest.n), str(contest.n_left_out), *scores)
        table.add_section()
    return table


def _differences(pair: Pair) -> Table:
    table = _table([
        "task", f"{pair.letter} - A", "95 %", "p", "Holm", "seen from", "won", "lost"
    ])  # fmt: skip
    won, lost = (Counter(one.task for one in changed) for changed in (pair.won, pair.lost))
    for name, one in pair.tasks.items():
        table.add_row(name, *_cells(one), str(won[name]), str(lost[name]))
    table.add_section()
    for name, one in pair.groups.items():
        table.add_row(name, *_cells(one), "", "")
    return table


def _cells(one: Difference) -> list[str]:
    span = f"{100 * one.interval[0]:+.1f} to {100 * one.interval[1]:+.1f}" if one.interval else "-"
    seen = "-" if one.minimum_detectable is None else f"{100 * one.minimum_detectable:.1f}"
    return [f"{100 * one.difference:+.1f}", span, _p(one.p), _p(one.p_holm), seen]


def _slices(pair: Pair) -> list[str]:
    """List the slices on which the runs clearly differ, and say of how many."""
    every = [
        (f"{task}, {column} {value}", one)
        for task, columns in pair.slices.items()
        for column, values in columns.items()
        for value, one in values.items()
    ]
    clear = [(name, one) for name, one in every if one.is_clear]
    lines = [f"  {name}, n {one.n}: {' ('.join(_cells(one)[:2])})" for name, one in clear]
    said = f"{pair.letter} differs on {len(clear)} of {len(every)} slices; by chance on 1 of 20"
    return [said + (":" if lines else ""), *lines] if every else []


def _changed(pair: Pair) -> list[str]:
    lines = []
    for what, changed in (("fixed", pair.won), ("broke", pair.lost)):
        lines.append(f"{pair.letter} {what} {len(changed)}{':' if changed else ''}")
        lines += [f"  {_line(one)}" for one in changed[:_LISTED]]
        left = len(changed) - _LISTED
        lines += [f"  and {left} more; --json lists all"] if left > 0 else []
    return [*lines, ""]


def _line(one: ChangedSample) -> str:
    return f"{one.task} {one.sample_id}  {one.before:.2f} -> {one.after:.2f}"


def _table(header: Sequence[str]) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<.001" if value < 0.001 else f"{value:.3f}"  # noqa: PLR2004
