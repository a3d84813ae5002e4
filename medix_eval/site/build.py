"""From run folders to a site: read, sort into boards, rank, write.

A site that is written again replaces the old one whole, so no page of a withdrawn run stays.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import ConfigError
from medix_eval.results.reproduction import load_published
from medix_eval.results.store import JudgedRun, read_run
from medix_eval.site import downloads
from medix_eval.site.boards import DEMO_GROUP, Board, Entry, Standing, entries_of, make_boards
from medix_eval.site.facts import ModelFacts
from medix_eval.site.illustrations import published_picture
from medix_eval.site.measured import Measured, measure
from medix_eval.site.pages import BoardPages, environment, links
from medix_eval.site.published import published_tables, sources
from medix_eval.site.ranking import Rules
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
) -> list[Board]:
    """Read runs into boards; one on synthetic data is refused unless that is allowed."""
    found = {run.judged: run for run in map(read_run, _runs(paths))}
    runs = {path: run for path, run in found.items() if run.control is None}
    for path in found.keys() - runs.keys():
        _LOG.warning("%s is left out: a control is no score of a model", path)
    demo_tasks = catalogue.groups.get(DEMO_GROUP, ())
    entries: list[Entry] = []
    for run in runs.values():
        here = entries_of(run, demo_tasks=demo_tasks, facts=facts)
        if not allow_synthetic:
            _refuse_synthetic(run, here)
        entries += here
    return make_boards(entries)


def write_site(
    boards: Sequence[Board], out: Path, *, catalogue: Catalogue, rules: Rules
) -> Written:
    """Write the whole site beside its place, then put it there."""
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
        part.chmod(0o777 & ~_umask())
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


def _runs(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the runs that the arguments name; a folder of runs stands for all of them."""
    for path in paths:
        below = sorted(path.glob("*/*/run.json"))
        if (path / "run.json").is_file() or (path / "judging.json").is_file() or not below:
            yield path
        else:
            yield from (file.parent for file in below)


def _refuse_synthetic(run: JudgedRun, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.standing is Standing.SYNTHETIC:
            raise ConfigError(
                f"{run.folder} was made on synthetic data: {', '.join(entry.tasks)}",
                hint="--allow-synthetic puts it on a board that says so on every page",
            )


def _check_place(out: Path) -> None:
    """Refuse to replace a folder that this command has not made."""
    if out.is_dir() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise ConfigError(
            f"--out {out} holds files that are no site of ours",
            hint="name a new folder, or one that an earlier build has made",
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file", hint="name a folder")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
