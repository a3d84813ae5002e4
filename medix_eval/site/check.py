"""What a board's CI asks before runs are shown: that their verdicts give their figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import MedixError
from medix_eval.results.scoring import score_run
from medix_eval.results.store import JudgedRun
from medix_eval.site.boards import Board
from medix_eval.site.build import read_boards
from medix_eval.site.facts import ModelFacts
from medix_eval.site.sample_scores import read_sample_scores

_OF_A_TASK = {
    "version", "kind", "limit", "synthetic", "n", "n_scored", "score", "stderr", "interval",
    "n_clusters", "outcomes", "bounds", "rules_score", "rules_n", "slices", "ledger",
}  # fmt: skip
_OF_A_GROUP = {"tasks", "complete", "score", "stderr", "interval", "closed_form"}
_TOLERANCE = 1e-6
"""Another release of numpy may end a sum in another digit."""


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
    entries = [entry for board in boards for entry in board.all_runs]
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
    said = run.scores
    again = score_run(
        run.folder,
        run.judged,
        manifest=run.manifest,
        judging=run.judging,
        # A group that nobody here knows is averaged as the run says; the others as they are.
        groups={**{name: one.tasks for name, one in said.groups.items()}, **catalogue.groups},
        allow_partial=any(
            group.score is not None and not group.complete for group in said.groups.values()
        ),
    )
    figures: list[tuple[str, BaseModel | None, BaseModel | None, set[str]]] = [
        (task, said.tasks.get(task), again.tasks.get(task), _OF_A_TASK)
        for task in said.tasks.keys() | again.tasks.keys()
    ]
    figures += [
        (name, group, again.groups.get(name), _OF_A_GROUP) for name, group in said.groups.items()
    ]
    return sorted(
        f"{run.judged}: {name}: {difference}"
        for name, before, now, fields in figures
        for difference in _compared(before, now, fields)
    )


def _compared(said: BaseModel | None, true: BaseModel | None, fields: set[str]) -> Iterator[str]:
    before, now = ({} if one is None else dict(_leaves(one, fields)) for one in (said, true))
    for path in before.keys() | now.keys():
        first, second = before.get(path), now.get(path)
        if not _same(first, second):
            yield f"{path} is {first}, its verdicts give {second}"


def _leaves(score: BaseModel, fields: set[str]) -> Iterator[tuple[str, Any]]:
    """Yield every figure of a score with its place, such as `slices.sex.F.n`."""
    open_places: list[tuple[str, Any]] = list(score.model_dump(include=fields).items())
    while open_places:
        place, value = open_places.pop()
        if isinstance(value, dict):
            open_places += [(f"{place}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, tuple):
            open_places += [(f"{place}.{number}", inner) for number, inner in enumerate(value)]
        else:
            yield place, value


def _same(said: Any, true: Any) -> bool:
    if isinstance(said, float) and isinstance(true, float):
        return math.isclose(said, true, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(said == true)
