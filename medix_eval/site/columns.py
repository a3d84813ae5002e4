"""The columns of a board's table: one list says what is shown and sorted, in what order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from medix_eval.report.format import NOTHING, percent, quantity, short
from medix_eval.site.boards import HEADLINE, Board, Entry, Ranked

DAGGER = "†"
_GROUP_LABELS = {HEADLINE: "Overall"}
_WORDS = {
    word.lower(): word
    for word in (
        "CXR", "LLM", "MIMIC", "MMLU", "MedMCQA", "MedQA", "MedVQA", "PMC", "PubMedQA", "SA",
        "SLAKE", "USMLE", "VLM", "VQA",
    )
}  # fmt: skip
"""Names that are not written as other words are."""
_FACT_LENGTH = 48
Section = Literal["averages", "facts", "benchmarks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell: what is read, and what it is sorted by where that is not what is read."""

    text: str = NOTHING
    value: float | str | None = None
    is_best: bool = False

    @property
    def sort(self) -> str | None:
        """The sort key, unless the text serves."""
        if self.value is None or isinstance(self.value, str) or self.text[:1].isdigit():
            return None
        return f"{self.value:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column over all rows of a board."""

    key: str
    label: str
    section: Section
    cells: tuple[Cell, ...]
    groups: tuple[str, ...] = ()
    """The averages that this benchmark is part of."""
    is_text: bool = False
    is_hidden: bool = False
    """Whether it is hidden at first."""


def group_label(name: str) -> str:
    """Return what an average is called at the head of its column."""
    return _GROUP_LABELS.get(name) or task_label(name)


def task_label(name: str) -> str:
    """Return a benchmark's name for display, with places where it may break.

    >>> task_label("mimic_cxr_report_generation")
    'MIMIC CXR report generation'
    """
    words = [_WORDS.get(word, word) for word in name.split("_") if word]
    label = " ".join(words)
    return label[:1].upper() + label[1:]


def board_columns(board: Board, ranked: Sequence[Ranked], *, tasks: Sequence[str]) -> list[Column]:
    """Return all columns but rank, model and the picture of the interval."""
    entries = [one.entry for one in ranked]
    groups = board.groups
    shown = {board.headline, "llm", "vlm"}
    averages = [
        Column(
            key=name,
            label=group_label(name),
            section="averages",
            cells=_scored(entries, name),
            is_hidden=name not in shown,
        )
        for name in groups
    ]
    benchmarks = [
        Column(
            key=task,
            label=task_label(task),
            section="benchmarks",
            cells=_scored(entries, task),
            groups=tuple(name for name, members in groups.items() if task in members),
        )
        for task in tasks
    ]
    size, *facts = _facts(entries, num_tasks=len(tasks))
    return [*averages, size, *benchmarks, *facts]


def _facts(entries: Sequence[Entry], *, num_tasks: int) -> list[Column]:
    def column(
        key: str, label: str, read: Callable[[Entry], Cell], *, text: bool = False, hidden: bool
    ) -> Column:
        cells = tuple(read(entry) for entry in entries)
        return Column(
            key=key, label=label, section="facts", cells=cells, is_text=text, is_hidden=hidden
        )

    def said(text: str | None) -> Cell:
        return Cell(text=short(text, _FACT_LENGTH), value=text) if text else Cell()

    def yes(value: bool | None) -> Cell:  # noqa: FBT001 (a fact, not a switch)
        return Cell() if value is None else Cell(text="open" if value else "closed")

    return [
        column("size", "Size", lambda entry: size_cell(entry.facts.parameters_b), hidden=False),
        column("base", "Base model", lambda entry: said(entry.facts.base), text=True, hidden=True),
        column("training", "Training samples", _training, hidden=False),
        column("weights", "Weights", lambda e: yes(e.facts.open_weights), text=True, hidden=False),
        column("data", "Data", lambda e: yes(e.facts.open_data), text=True, hidden=False),
        column("licence", "Licence", lambda e: said(e.facts.licence), text=True, hidden=True),
        column(
            "coverage", "Coverage", lambda e: Cell(text=coverage_text(e, num_tasks)), hidden=False
        ),
        column("tokens", "Tokens per answer", _tokens, hidden=True),
        column("date", "Date", lambda entry: Cell(text=entry.date), text=True, hidden=False),
    ]


def size_cell(billions: float | None) -> Cell:
    """Write a number of parameters in short form.

    >>> [size_cell(size).text for size in (8, 0.5, 0.00044, None)]
    ['8B', '500M', '440k', '–']
    """
    return Cell() if billions is None else Cell(text=quantity(1e9 * billions), value=billions)


def coverage_text(entry: Entry, num_tasks: int) -> str:
    """Say how many of the board's benchmarks were run whole, of how many."""
    whole = sum(entry.score(task).is_complete for task in entry.tasks)
    return f"{whole}/{num_tasks}"


def _training(entry: Entry) -> Cell:
    number = entry.facts.training_samples
    return Cell() if number is None else Cell(text=f"{number:,}", value=float(number))


def _tokens(entry: Entry) -> Cell:
    number = entry.tokens_per_sample
    return Cell() if number is None else Cell(text=f"{number:.0f}", value=number)


def _scored(entries: Iterable[Entry], name: str) -> tuple[Cell, ...]:
    """Write a benchmark's or average's scores; of two or more without a dagger the best is bold."""
    parts = [(entry, entry.part(name)) for entry in entries]
    cells = [
        Cell(text=percent(part.score) + entry.run.scores.mark_of(name), value=part.score)
        if part and part.score is not None
        else Cell()
        for entry, part in parts
    ]
    whole = [cell for cell in cells if cell.value is not None and cell.text[-1:] != DAGGER]
    best = max((cell.value for cell in whole if isinstance(cell.value, float)), default=None)
    return tuple(
        replace(cell, is_best=len(whole) > 1 and cell in whole and cell.value == best)
        for cell in cells
    )
