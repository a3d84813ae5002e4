"""Results that another harness made: samples with the scores it gave them, and what it claims.

Every layout is read into these records, so that all of them are checked in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from medix_eval.errors import DatasetError
from medix_eval.storage.jsonl import read_lines

Layout = Literal["official", "lm-eval", "medevalkit"]
_SHOWN = 12
_TASK = re.compile(r"[A-Za-z0-9][\w .+-]*", re.ASCII)
_MOST_ROWS = 10_000_000


class Claim(NamedTuple):
    """A stated score, and how far from it the true one may be for having been rounded."""

    value: float
    within: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignSample:
    """One answered question, and what the other harness made of it."""

    task: str
    row: int
    question: str
    reference: str
    response: str
    score: float | None
    """In [0, 1]; None where it has no verdict."""
    verdict: str
    """The verdict as it stands in the file."""
    place: str
    """File and line, for messages."""
    options: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class ForeignResults:
    """Everything that was found in one folder."""

    layout: Layout
    model: str
    files: dict[str, str]
    """SHA-256 of every file that was read, by name."""
    samples: list[ForeignSample] = field(default_factory=list)
    claimed: dict[str, Claim] = field(default_factory=dict)
    """The scores that the files state, by task, in [0, 1]."""
    claimed_mean: tuple[Claim, tuple[str, ...]] | None = None
    """The mean that the files state, and of which tasks."""
    num_rows: dict[str, int] = field(default_factory=dict)
    """How many rows a task has, where the files say so."""
    synthetic: bool = False
    problems: list[str] = field(default_factory=list)
    """What makes the files unusable, each naming its place."""

    def refuse_defects(self, folder: Path) -> None:
        """Raise `DatasetError` naming what is wrong, if anything is."""
        first: dict[tuple[str, int], str] = {}
        for sample in self.samples:
            if not _TASK.fullmatch(sample.task):
                self.problems.append(f"{sample.place} is of {sample.task!r}, which names no task")
            if not 0 <= sample.row < _MOST_ROWS:
                self.problems.append(f"{sample.place} is of row {sample.row}")
            before = first.setdefault((sample.task, sample.row), sample.place)
            if before != sample.place:
                self.problems.append(
                    f"{sample.place} answers {sample.task} row {sample.row} again, after {before}"
                )
        if not self.samples and not self.problems:
            self.problems.append("not one answered sample")
        if self.problems:
            more = len(self.problems) - _SHOWN
            shown = "; ".join(self.problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
            raise DatasetError(f"{folder}: {shown}", hint="nothing was imported")


def lines_of(path: Path, found: ForeignResults) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every line with its place; a last line that a kill has torn is a defect."""
    number = 0
    for number, line in enumerate(read_lines(path), 1):
        yield line, f"{path.name}, line {number}"
    with path.open("rb") as file:
        if sum(1 for _ in file) > number:
            found.problems.append(f"{path.name}, line {number + 1} is torn")
