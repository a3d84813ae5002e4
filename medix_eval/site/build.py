"""From run folders to a site: read, sort into boards, rank, write.

A new build replaces the old site completely, so no page of a withdrawn run remains.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import ConfigError, MedixError
from medix_eval.results.align import read_sample_scores
from medix_eval.results.reproduction import Figure, load_published
from medix_eval.results.scoring import score_run
from medix_eval.results.store import JudgedRun, find_judgings, read_runs
from medix_eval.site import downloads
from medix_eval.site.boards import (
    DEMO_GROUP,
    Board,
    Entry,
    ModelFacts,
    Rules,
    Standing,
    entries_of,
    make_boards,
)
from medix_eval.site.illustrations import published_picture
from medix_eval.site.measured import Measured, measure
from medix_eval.site.pages import BoardPages, environment, links
from medix_eval.storage.bundled import bundled

_ASSETS = ("theme.css", "site.css", "script.js", "published_results.csv")
_MARK = ".medix-leaderboard"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a build made."""

    front: Path
    boards: tuple[Board, ...]
    num_pages: int


def read_boards(
    paths: Sequence[Path],
    *,
    catalogue: Catalogue,
    facts: Mapping[str, ModelFacts],
    allow_synthetic: bool,
    judging: str | None = None,
) -> list[Board]:
    """Read all judgings of runs into boards; synthetic data is left out unless it is allowed."""
    found = {run.place: run for run in read_runs(_runs(paths, judging), judging=judging)}
    if not found:
        raise ConfigError("none of these runs has scores", hint="run an evaluation to its end")
    runs = {path: run for path, run in found.items() if run.control is None}
    for path in found.keys() - runs.keys():
        _LOG.warning("%s is left out: a control is not a score of a model", path)
    demo_tasks = catalogue.groups.get(DEMO_GROUP, ())
    entries: list[Entry] = []
    for run in runs.values():
        here = entries_of(run, demo_tasks=demo_tasks, facts=facts)
        entries += here if allow_synthetic else _real(run, here)
    return make_boards(entries)


def write_site(
    boards: Sequence[Board], out: Path, *, catalogue: Catalogue, rules: Rules
) -> Written:
    """Write the complete site next to its target, then move it there."""
    _check_place(out)
    measured = [measure(board, catalogue, rules=rules) for board in boards]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        num_pages = 0
        for path, text in _files(measured, rules=rules):
            file = part / path
            file.parent.mkdir(parents=True, exist_ok=True)
            # A name may hold half a surrogate pair, which no file can.
            file.write_bytes(text.encode("utf-8", errors="replace"))
            num_pages += path.endswith(".html")
        (part / "assets").mkdir()
        for name in _ASSETS:
            shutil.copyfile(bundled("leaderboard") / name, part / "assets" / name)
        (part / _MARK).touch()
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o777 & ~umask)
        if out.exists():
            shutil.rmtree(out)
        part.replace(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Written(front=out / "index.html", boards=tuple(boards), num_pages=num_pages)


def _files(boards: Sequence[Measured], *, rules: Rules) -> Iterator[tuple[str, str]]:
    env = environment()
    ways = links([measured.board for measured in boards])
    for measured in boards:
        yield from BoardPages(measured, env=env, boards=ways, rules=rules).pages()
        folder = f"boards/{measured.board.slug}"
        yield f"{folder}/scores.json", downloads.as_json(measured)
        yield f"{folder}/scores.csv", downloads.as_csv(measured)
        yield f"{folder}/samples/_clusters.js", downloads.clusters_script(measured)
        for one in measured.ranked:
            yield f"{folder}/samples/{one.slug}.js", downloads.samples_script(measured, one)
    figures = load_published(bundled("leaderboard") / "published_results.csv")
    listed = sources(figures)
    yield (
        "published.html",
        env.get_template("published.html").render(
            root="",
            boards=ways,
            here="published",
            tables=published_tables(figures),
            sources=listed,
            numbers={source: number for number, source in enumerate(listed, 1)},
            picture=published_picture(figures),
        ),
    )


def _runs(paths: Sequence[Path], judging: str | None) -> Iterator[Path]:
    """Yield every judging that the arguments name; a folder of runs stands for all with scores."""
    for path in paths:
        below = [file.parent for file in sorted(path.glob("*/*/run.json"))]
        if (path / "run.json").is_file() or (path / "judging.json").is_file() or not below:
            yield from find_judgings(path, judging=judging)[1] or [path]
            continue
        for run in below:
            found = find_judgings(run, judging=judging)[1]
            yield from (finished := [one for one in found if (one / "scores.json").is_file()])
            if not finished:
                _LOG.warning("%s is left out: it has no scores", run)


def _real(run: JudgedRun, entries: Sequence[Entry]) -> list[Entry]:
    """Leave out what is synthetic. Raises `ConfigError` if that is all there is."""
    kept = [entry for entry in entries if entry.standing is not Standing.SYNTHETIC]
    names = ", ".join(task for one in entries if one not in kept for task in one.tasks)
    if not kept:
        raise ConfigError(
            f"{run.folder} was made on synthetic data: {names}",
            hint="--allow-synthetic puts it on a board that says so on every page",
        )
    if names:
        _LOG.warning("%s: left out, for the data is synthetic: %s", run.folder, names)
    return kept


def _check_place(out: Path) -> None:
    """Refuse to replace a folder that this command has not made."""
    if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise ConfigError(
            f"--out {out} is not a medix-eval site, refusing to overwrite it",
            hint="choose a new folder, or the site of an earlier build",
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file", hint="name a folder")


_OF_ONE_TASK = {
    "version", "kind", "limit", "synthetic", "n", "n_scored", "score", "stderr", "interval",
    "n_clusters", "outcomes", "bounds", "rules_score", "rules_n", "slices", "ledger",
}  # fmt: skip
_OF_A_GROUP = {"tasks", "complete", "score", "stderr", "interval", "closed_form"}
_TOLERANCE = 1e-6
"""Another release of numpy may differ in the last digit of a sum."""


def problems_of(paths: Sequence[Path], *, catalogue: Catalogue, **how: Any) -> list[str]:
    """Return why these runs should not be shown, one line each; none if they may be."""
    boards: list[Board] = []
    problems = []
    for path in paths:
        try:
            boards += read_boards([path], catalogue=catalogue, **how)
        except MedixError as error:
            problems.append(str(error))
    entries = [entry for board in boards for entry in board.all_runs]
    runs = {entry.run.place: entry.run for entry in entries}
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
        (task, said.tasks.get(task), again.tasks.get(task), _OF_ONE_TASK)
        for task in said.tasks.keys() | again.tasks.keys()
    ]
    figures += [
        (name, group, again.groups.get(name), _OF_A_GROUP) for name, group in said.groups.items()
    ]
    return sorted(
        f"{run.place}: {name}: {difference}"
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


_ALONE = "Single figures"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """The figures of one source."""

    title: str
    metrics: tuple[str, ...]
    benchmarks: tuple[str, ...]
    models: tuple[tuple[str, str], ...]
    """Name and size, the best first where the source has an average."""
    cells: dict[tuple[tuple[str, str], str], Figure]
    units: dict[str, str]
    """Of the benchmarks that are not in percent."""


def sources(figures: list[Figure]) -> list[str]:
    """Return every source once, in the order of the file; a cell refers to it by number."""
    return list(dict.fromkeys(figure.source for figure in figures))


def published_tables(figures: list[Figure]) -> list[PublishedTable]:
    """Sort figures into tables; sources with one or two figures share the last one."""
    by_study: dict[str, list[Figure]] = {}
    for figure in figures:
        study = re.split("[;,]", figure.source)[0].strip()  # whose figures these are
        by_study.setdefault(study, []).append(figure)
    many = {title: found for title, found in by_study.items() if len(found) > 2}  # noqa: PLR2004
    few = [figure for found in by_study.values() if len(found) < 3 for figure in found]  # noqa: PLR2004
    tables = [_table(title, found) for title, found in many.items()]
    return [*tables, _table(_ALONE, few)] if few else tables


def _table(title: str, figures: list[Figure]) -> PublishedTable:
    cells = {((figure.model, figure.params), figure.benchmark): figure for figure in figures}
    benchmarks = tuple(dict.fromkeys(figure.benchmark for figure in figures))
    averages = [name for name in benchmarks if name.startswith(("Overall", "Average"))]
    models = list(dict.fromkeys((figure.model, figure.params) for figure in figures))
    if averages:
        models.sort(key=lambda model: -_score(cells.get((model, averages[0]))))
    return PublishedTable(
        title=title,
        metrics=tuple(dict.fromkeys(one.metric for one in figures if "%" in one.metric)),
        benchmarks=benchmarks,
        models=tuple(models),
        cells=cells,
        units={one.benchmark: one.metric for one in figures if "%" not in one.metric},
    )


def _score(figure: Figure | None) -> float:
    return figure.value if figure is not None else -1.0
