"""Boards of invented runs, as the site reads, measures and shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from invented_runs import Answers

from medix_eval.data.tasks import Catalogue
from medix_eval.site.boards import Board, Rules
from medix_eval.site.build import Written, read_boards, write_site
from medix_eval.site.measured import Measured, measure

VQA = ("slake_vqa", "rad_vqa", "path_vqa", "pmc_vqa", "pmc_vqa_hard")
RULES = Rules()


def right(share: float, *, n: int = 40, tasks: Sequence[str] = VQA) -> Answers:
    """Answer the first part of each task's samples right."""
    return {task: [float(row < share * n) for row in range(n)] for task in tasks}


def boards_of(
    paths: Sequence[Path], catalogue: Catalogue, *, allow_synthetic: bool = False
) -> list[Board]:
    return read_boards(paths, catalogue=catalogue, facts={}, allow_synthetic=allow_synthetic)


def measured(paths: Sequence[Path], catalogue: Catalogue, rules: Rules = RULES) -> Measured:
    (board,) = boards_of(paths, catalogue)
    return measure(board, catalogue, rules=rules)


def built(paths: Sequence[Path], out: Path, catalogue: Catalogue) -> Written:
    boards = boards_of(paths, catalogue, allow_synthetic=True)
    return write_site(boards, out, catalogue=catalogue, rules=RULES)
