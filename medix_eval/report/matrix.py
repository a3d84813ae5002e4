"""Tasks against models, as a paper prints them: Markdown and LaTeX from the same cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medix_eval.report.format import percent, span
from medix_eval.results.comparison import compare_runs
from medix_eval.results.scores import GroupScore, TaskScore
from medix_eval.results.store import JudgedRun

_RANKED_FROM = 3
"""Of two models the second best is the worse one; it needs no mark."""
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCell:
    """One score of one model."""

    score: float | None
    interval: tuple[float, float] | None
    is_partial: bool
    """Whether part of the samples is outside the score, or was not asked."""
    rank: int | None = None
    """1 for the best of the row, 2 for the second best where there are three or more."""
    is_tied: bool = False
    """Whether its paired difference from the best may be chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One task or group."""

    name: str
    is_group: bool
    n: int
    cells: tuple[MatrixCell, ...]


def matrix(runs: Sequence[JudgedRun]) -> list[Line]:
    """Return a line per task and group.

    Raises `RunMismatch` where runs of different protocol, judge or data would share a table.
    """
    compared = compare_runs(runs) if len(runs) > 1 else None
    lines = []
    for name in dict.fromkeys(task for run in runs for task in run.scores.tasks):
        found = [run.scores.tasks.get(name) for run in runs]
        contest = compared.tasks.get(name) if compared else None
        ties = contest.ties_with_best if contest else ()
        n = max(task.n for task in found if task)
        cells = tuple(map(_of_task, found))
        lines.append(Line(name=name, is_group=False, n=n, cells=_ranked(cells, ties)))
    for name in dict.fromkeys(group for run in runs for group in run.scores.groups):
        groups = [run.scores.groups.get(name) for run in runs]
        contest = compared.groups.get(name) if compared else None
        ties = contest.ties_with_best if contest else ()
        members = next(group.tasks for group in groups if group)
        n = sum(line.n for line in lines if line.name in members)
        cells = tuple(map(_of_group, groups))
        lines.append(Line(name=name, is_group=True, n=n, cells=_ranked(cells, ties)))
    return lines


def matrix_markdown(runs: Sequence[JudgedRun]) -> str:
    """Return the table as Markdown."""
    lines = matrix(runs)
    header = ["task", "n", *(_text(run.scores.model) for run in runs)]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for line in lines:
        name = f"**{line.name}**" if line.is_group else line.name
        rows.append([name, str(line.n), *(_markdown(cell) for cell in line.cells)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n\n".join([table, *_legend(lines), _source(runs)]) + "\n"


def matrix_latex(runs: Sequence[JudgedRun]) -> str:
    """Return the table for LaTeX with the package booktabs."""
    lines = matrix(runs)
    header = ["Task", "$n$", *(latex_text(run.scores.model) for run in runs)]
    body = [_latex_row(line) for line in lines if not line.is_group]
    groups = [_latex_row(line) for line in lines if line.is_group]
    caption = " ".join([latex_text(_source(runs)), *_latex_legend(lines)])
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{caption}}}",
            f"\\begin{{tabular}}{{lr{'r' * len(runs)}}}",
            "\\toprule",
            f"{' & '.join(header)} \\\\",
            "\\midrule",
            *body,
            *(["\\midrule", *groups] if groups else []),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


def latex_text(text: str) -> str:
    r"""Return text that LaTeX prints as it is.

    >>> latex_text("rad_vqa 50%")
    'rad\\_vqa 50\\%'
    """
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _of_task(task: TaskScore | None) -> MatrixCell:
    if task is None:
        return MatrixCell(score=None, interval=None, is_partial=False)
    partial = not task.is_complete or task.n_scored < task.n
    return MatrixCell(score=task.score, interval=task.interval, is_partial=partial)


def _of_group(group: GroupScore | None) -> MatrixCell:
    if group is None:
        return MatrixCell(score=None, interval=None, is_partial=False)
    return MatrixCell(score=group.score, interval=group.interval, is_partial=not group.complete)


def _ranked(cells: tuple[MatrixCell, ...], ties: Sequence[int]) -> tuple[MatrixCell, ...]:
    """Mark the best, the second best, and who ties with the best."""
    values = sorted({cell.score for cell in cells if cell.score is not None}, reverse=True)
    ranks = {value: at for at, value in enumerate(values[:2], 1)}
    num = sum(cell.score is not None for cell in cells)
    ranked = []
    for at, cell in enumerate(cells):
        rank = ranks.get(cell.score) if cell.score is not None and num > 1 else None
        ranked.append(
            MatrixCell(
                score=cell.score,
                interval=cell.interval,
                is_partial=cell.is_partial,
                rank=rank if rank == 1 or num >= _RANKED_FROM else None,
                is_tied=at in ties and rank != 1,
            )
        )
    return tuple(ranked)


def _markdown(cell: MatrixCell) -> str:
    if cell.score is None:
        return "–"
    around = {1: "**", 2: "_"}.get(cell.rank or 0, "")
    marks = "†" * cell.is_partial + "‡" * cell.is_tied
    return f"{around}{percent(cell.score)}{around}{marks}{_span(cell)}"


def _latex_row(line: Line) -> str:
    cells = [latex_text(line.name), str(line.n), *map(_latex_cell, line.cells)]
    return f"{' & '.join(cells)} \\\\"


def _latex_cell(cell: MatrixCell) -> str:
    if cell.score is None:
        return "--"
    command = {1: "\\textbf", 2: "\\underline"}.get(cell.rank or 0)
    shown = f"{command}{{{percent(cell.score)}}}" if command else percent(cell.score)
    marks = "\\dagger" * cell.is_partial + "\\ddagger" * cell.is_tied
    small = f" {{\\scriptsize{_span(cell).replace(' to ', '--')}}}" if cell.interval else ""
    return f"{shown}$^{{{marks}}}${small}" if marks else f"{shown}{small}"


def _span(cell: MatrixCell) -> str:
    return f" ({span(cell.interval)})" if cell.interval else ""


def _legend(lines: Sequence[Line]) -> list[str]:
    cells = [cell for line in lines for cell in line.cells]
    legend: list[tuple[str, Callable[[MatrixCell], bool]]] = [
        ("**Best**, in bold.", lambda cell: cell.rank == 1),
        ("_Second best_, in italics.", lambda cell: cell.rank == 2),  # noqa: PLR2004
        ("‡ The difference from the best may be chance (paired, 95 %).", lambda cell: cell.is_tied),
        ("† Part of the samples is outside the score.", lambda cell: cell.is_partial),
    ]
    return [text for text, holds in legend if any(map(holds, cells))]


def _latex_legend(lines: Sequence[Line]) -> list[str]:
    said = []
    for text in _legend(lines):
        plain = text.replace("**Best**, in bold.", "Best in bold.")
        plain = plain.replace("_Second best_, in italics.", "Second best underlined.")
        plain = latex_text(plain).replace("‡", r"$^{\ddagger}$").replace("†", r"$^{\dagger}$")
        said.append(plain)
    return said


def _source(runs: Sequence[JudgedRun]) -> str:
    """Say what made the numbers, and what they must not be taken for."""
    scores = runs[0].scores
    judges = ", ".join(str(judge["id"]) for judge in scores.judges) or "rules alone"
    named = sorted({one for run in runs for one, t in run.scores.tasks.items() if t.synthetic})
    stamp = f"SYNTHETIC DATA ({', '.join(named)}) says nothing about a benchmark. " if named else ""
    return (
        f"{stamp}Scores in percent with 95 % intervals; protocol {scores.protocol['name']} "
        f"({scores.protocol['digest'][:8]}), judged by {judges}."
    )


def _text(name: str) -> str:
    return name.replace("|", "\\|").replace("\n", " ")
