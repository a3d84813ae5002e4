"""Ranks: who has one, who ties with the best, and why a rank is withheld."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from medix_eval.errors import ConfigError
from medix_eval.results.align import Aligned, tie
from medix_eval.results.scorecard import Scorecard
from medix_eval.results.store import slug
from medix_eval.site.boards import Board, Entry, Standing
from medix_eval.storage.digests import digest

_SHORT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a board demands before it gives a rank."""

    max_unscored: float = 0.05
    """Largest part of the samples that may be outside the denominator."""
    needs_scorecard: bool = False
    """Whether the judge must have been measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """An entry with its place."""

    entry: Entry
    slug: str
    """Name of the model's files, unique on the board, also where case does not count."""
    rank: int | None
    withheld: tuple[str, ...]
    """Why there is no rank."""
    ties_with_best: bool | None
    """Whether a paired comparison leaves it open who is better; None if there was none."""


def rank_entries(
    board: Board,
    *,
    rules: Rules,
    aligned: Mapping[str, Aligned],
) -> list[Ranked]:
    """Order a board's entries; `aligned` holds each task with a row per entry."""
    headline = board.headline
    scorecard = find_scorecard(board)
    slugs = _slugs(board.entries)
    reasons = {
        entry.identity: _reasons(entry, board, rules=rules, has_scorecard=scorecard is not None)
        for entry in board.entries
    }

    def value(entry: Entry) -> float:
        group = entry.groups.get(headline or "")
        return -1.0 if group is None or group.score is None else group.score

    ordered = sorted(
        board.entries,
        key=lambda entry: (
            bool(reasons[entry.identity]),
            -value(entry),
            -len(entry.tasks),
            entry.name.casefold(),
        ),
    )
    best = next((entry for entry in ordered if not reasons[entry.identity]), None)
    tasks = board.groups[headline] if headline else ()
    ranked: list[Ranked] = []
    for place, entry in enumerate(ordered, 1):
        withheld = reasons[entry.identity]
        rank = None if withheld else place
        if rank and ranked and value(ranked[-1].entry) == value(entry):
            rank = ranked[-1].rank
        ties = None
        if best is not None and not withheld and entry is not best:
            rows = board.entries.index(entry), board.entries.index(best)
            ties = tie([aligned[task] for task in tasks], *rows)
        ranked.append(
            Ranked(
                entry=entry,
                slug=slugs[entry.identity],
                rank=rank,
                withheld=withheld,
                ties_with_best=ties,
            )
        )
    return ranked


def find_scorecard(board: Board) -> Scorecard | None:
    """Return the newest scorecard of this very judge and protocol, from beside any of the runs."""
    digests = [str(judge["digest"]) for judge in board.judges]
    # Measured alone, or on the answers of a run.
    wanted = {digest(digests), *(digests if len(digests) == 1 else ())}
    # A scorecard of 0.1 has the digest that runs of 0.1 state.
    protocols = {one.run.judging.protocol["digest"] for one in board.entries}
    protocols.add(board.protocol["digest"])
    place = Path("judges") / slug(" + ".join(str(judge["id"]) for judge in board.judges))
    outs = sorted({entry.run.folder.parent.parent for entry in board.entries})
    files = [file for out in outs for file in (out / place).glob("*/scorecard.json")]
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            card = Scorecard.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise ConfigError(f"{file} cannot be read: {type(error).__name__}") from error
        if card.judge.get("digest") in wanted and card.protocol.get("digest") in protocols:
            return card
    return None


def _reasons(entry: Entry, board: Board, *, rules: Rules, has_scorecard: bool) -> tuple[str, ...]:
    found = []
    if board.standing is Standing.IMPORTED:
        found.append("imported: who judged it, and how, is the submitter’s word")
    group = entry.groups.get(board.headline or "")
    if group is None:
        found.append("its benchmarks are in no group that ranks")
    else:
        missing = [task for task in group.tasks if task not in entry.tasks]
        if missing:
            found.append(f"{len(missing)} of {len(group.tasks)} benchmarks not run")
        limited = [task for task in entry.tasks if entry.score(task).limit is not None]
        if limited:
            found.append(f"only part of the samples was asked in {len(limited)} benchmarks")
        if not missing and not limited and not (group.complete and group.score is not None):
            found.append(f"{entry.run.scores.num_failures} samples failed on the way")
    if entry.unscored_share > rules.max_unscored:
        share = f"{100 * entry.unscored_share:.1f} %"
        found.append(f"{share} of the samples have no score")
    if rules.needs_scorecard and not has_scorecard:
        found.append("the judge has no scorecard")
    return tuple(found)


def _slugs(entries: Sequence[Entry]) -> dict[str, str]:
    """Name each entry's files; two models of one name are told apart by their digest."""
    plain = [slug(entry.name)[:60].casefold() for entry in entries]
    names = {}
    for entry, name in zip(entries, plain, strict=True):
        alone = plain.count(name) == 1
        names[entry.identity] = name if alone else f"{name}-{entry.identity[:_SHORT]}"
    return names
