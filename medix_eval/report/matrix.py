"""Tasks against models, as a paper prints them: Markdown and LaTeX from the same cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from medix_eval.report.format import percent, span
from medix_eval.results.comparison import Contest, compare_runs
from medix_eval.results.scores import MARKED, Scores
from medix_eval.results.store import JudgedRun, distinct_names

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
    contests = {**compared.tasks, **compared.groups} if compared else {}
    tasks = [(name, task.n) for run in runs for name, task in run.scores.tasks.items()]
    sizes = dict(sorted(tasks, key=lambda pair: pair[1]))  # the largest stands
    groups = {name: one.tasks for run in runs for name, one in run.scores.groups.items()}
    return [
        Line(
            name=name,
            is_group=name in groups,
            n=sum(sizes.get(member, 0) for member in groups.get(name, (name,))),
            cells=_ranked([_cell(run.scores, name) for run in runs], contests.get(name)),
        )
        for name in (*dict(tasks), *groups)
    ]


def matrix_markdown(runs: Sequence[JudgedRun]) -> str:
    """Return the table as Markdown."""
    lines = matrix(runs)
    header = ["task", "n", *map(_text, distinct_names(runs))]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for line in lines:
        name = f"**{line.name}**" if line.is_group else line.name
        rows.append([name, str(line.n), *(_markdown(cell) for cell in line.cells)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n\n".join([table, *_legend(lines), _source(runs)]) + "\n"


def matrix_latex(runs: Sequence[JudgedRun]) -> str:
    """Return the table for LaTeX with the package booktabs."""
    lines = matrix(runs)
    header = ["Task", "$n$", *map(latex_text, distinct_names(runs))]
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


def _cell(scores: Scores, name: str) -> MatrixCell:
    one = scores.groups.get(name) or scores.tasks.get(name)
    if one is None:
        return MatrixCell(score=None, interval=None, is_partial=False)
    return MatrixCell(score=one.score, interval=one.interval, is_partial=bool(scores.mark_of(name)))


def _ranked(cells: Sequence[MatrixCell], contest: Contest | None) -> tuple[MatrixCell, ...]:
    """Mark the best, the second best, and who ties with the best, unless nobody is the best."""
    scores = [cell.score for cell in cells if cell.score is not None]
    if len(scores) < 2 or (contest and contest.best_withheld):  # noqa: PLR2004
        return tuple(cells)
    values = sorted(set(scores), reverse=True)[: 2 if len(scores) >= _RANKED_FROM else 1]
    ranks: dict[float | None, int] = {value: at for at, value in enumerate(values, 1)}
    ties = [at for at in contest.ties_with_best if cells[at].score != values[0]] if contest else []
    return tuple(
        replace(cell, rank=ranks.get(cell.score), is_tied=at in ties)
        for at, cell in enumerate(cells)
    )


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
        (f"† {MARKED}.", lambda cell: cell.is_partial),
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
