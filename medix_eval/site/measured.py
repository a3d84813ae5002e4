"""A board with everything that its pages show, computed once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median

from medix_eval.data.tasks import Catalogue, TaskFile
from medix_eval.results.align import Aligned, align, read_clusters, read_sample_scores
from medix_eval.results.store import JudgedRun
from medix_eval.site.boards import Board, Entry, Ranked, Rules, rank_entries
from medix_eval.site.columns import Column, board_columns
from medix_eval.storage.jsonl import read_lines

_LOOKED_AT = 400
_LONGEST_TEXT = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One unselected sample: prompt and completion, cut if long."""

    task: str
    prompt: str
    completion: str
    score: float | None


def read_examples(
    run: JudgedRun, scores: Mapping[str, Mapping[str, float]], *, tasks: Iterable[str], most: int
) -> list[Example]:
    """Return the first answered sample of a few benchmarks whose text may be shown."""
    allowed = {name for name in tasks if run.entry(name).data_class == "public"}
    found: dict[str, Example] = {}
    for line in islice(read_lines(run.folder / "completions.jsonl"), _LOOKED_AT):
        task = str(line["task"]).partition("@")[0]
        if len(found) == most:
            break
        if task in allowed and task not in found and line.get("completion") is not None:
            found[task] = Example(
                task=task,
                prompt=cut(line["prompt"]),
                completion=cut(line["completion"]),
                score=scores.get(task, {}).get(line["sample_id"]),
            )
    return list(found.values())


def cut(text: str) -> str:
    """Cut a text that is too long for a page, and say so.

    >>> cut("a" * 2000).lstrip("a")
    ' … (and 500 more)'
    """
    more = len(text) - _LONGEST_TEXT
    return text if more <= 0 else f"{text[:_LONGEST_TEXT]} … (and {more:,} more)"


_NUM_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One board, read and ranked."""

    board: Board
    tasks: tuple[str, ...]
    ranked: tuple[Ranked, ...]
    columns: tuple[Column, ...]
    aligned: Mapping[str, Aligned]
    """By task, a row per entry of the board."""
    examples: Mapping[str, Sequence[Example]]
    files: Mapping[str, TaskFile]
    """The task files of the benchmarks that are known here."""
    _orders: dict[str, list[tuple[Ranked, float]]] = field(default_factory=dict)
    _medians: dict[str, float | None] = field(default_factory=dict)

    def ordered(self, name: str) -> list[tuple[Ranked, float]]:
        """Return the models that have a score of this benchmark or average, the best first."""
        if name not in self._orders:
            found = [(one, one.entry.part(name)) for one in self.ranked]
            scored = [(one, part.score) for one, part in found if part and part.score is not None]
            self._orders[name] = sorted(scored, key=lambda pair: -pair[1])
        return self._orders[name]

    def median(self, name: str) -> float | None:
        """Return the middle score of the board's models."""
        if name not in self._medians:
            scores = [score for _, score in self.ordered(name)]
            self._medians[name] = median(scores) if scores else None
        return self._medians[name]

    def place(self, entry: Entry, name: str) -> int | None:
        """Return the place of a model in one column, equal scores sharing it."""
        mine = entry.part(name)
        if mine is None or mine.score is None:
            return None
        return 1 + bisect_left(self.ordered(name), -mine.score, key=lambda pair: -pair[1])


def measure(board: Board, catalogue: Catalogue, *, rules: Rules) -> Measured:
    """Read the samples of a board's runs, check their scores and rank them."""
    tasks = tuple(board.ordered_tasks(catalogue.tasks))
    read = {entry.identity: read_sample_scores(entry.run) for entry in board.entries}
    fullest = sorted(board.entries, key=lambda entry: -len(entry.tasks))
    clusters = read_clusters(entry.run for entry in fullest)
    aligned = align(list(read.values()), clusters=clusters, tasks=tasks)
    ranked = rank_entries(board, rules=rules, aligned=aligned)
    return Measured(
        board=board,
        tasks=tasks,
        ranked=tuple(ranked),
        columns=tuple(board_columns(board, ranked, tasks=tasks)),
        aligned=aligned,
        examples={
            entry.identity: read_examples(
                entry.run, read[entry.identity], tasks=entry.tasks, most=_NUM_EXAMPLES
            )
            for entry in board.entries
        },
        files={task: catalogue.tasks[task] for task in tasks if task in catalogue.tasks},
    )
