"""What a board's CI asks before runs are shown: that their verdicts give their figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medix_eval.errors import MedixError
from medix_eval.judged_run import JudgedRun
from medix_eval.scoring import score_run
from medix_eval.site.boards import Board
from medix_eval.site.build import read_boards
from medix_eval.site.facts import ModelFacts
from medix_eval.site.sample_scores import read_sample_scores
from medix_eval.tasks import Catalogue

_COMPARED = (
    "version", "kind", "limit", "synthetic", "n", "n_scored", "score", "outcomes", "bounds",
    "rules_score", "rules_n",
)  # fmt: skip


def problems_of(
    paths: Sequence[Path],
    *,
    catalogue: Catalogue,
    facts: Mapping[str, ModelFacts],
    allow_synthetic: bool,
) -> list[str]:
    """Return why these runs should not be shown, one line each; none if they may be."""
    boards: list[Board] = []
    problems = []
    for path in paths:
        try:
            boards += read_boards(
                [path], catalogue=catalogue, facts=facts, allow_synthetic=allow_synthetic
            )
        except MedixError as error:
            problems.append(str(error))
    entries = [entry for board in boards for entry in (*board.entries, *board.earlier)]
    runs = {entry.run.judged: entry.run for entry in entries}
    for run in runs.values():
        try:
            problems += _differences(run, catalogue)
        except MedixError as error:
            problems.append(str(error))
    return problems


def _differences(run: JudgedRun, catalogue: Catalogue) -> list[str]:
    """Score a run again from its verdicts and compare all that a reader sees."""
    read_sample_scores(run)
    again = score_run(
        run.folder,
        run.judged,
        manifest=run.manifest,
        judging=run.judging,
        groups=catalogue.groups,
    )
    found = []
    for task in run.scores.tasks.keys() | again.tasks.keys():
        said, true = run.scores.tasks.get(task), again.tasks.get(task)
        for field in _COMPARED:
            before, now = getattr(said, field, None), getattr(true, field, None)
            if before != now:
                found.append(f"{run.judged}: {task}: {field} is {before}, its verdicts give {now}")
    return sorted(found)
