"""Which runs may stand in one table, in which order, and why a rank is withheld.

A board holds one protocol, one judge and, for each benchmark, one state of the data; a run that
differs in any of them opens another board. A seed is not another protocol: of repetitions the
one with the lowest seed is shown, not the best one. Real, imported, synthetic and demo results
never share a board.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from medix_eval.errors import ConfigError, first_error
from medix_eval.records import Frozen
from medix_eval.report.format import counted, percent
from medix_eval.results.align import Aligned, tie
from medix_eval.results.gate import Fraction
from medix_eval.results.scorecard import Scorecard
from medix_eval.results.scores import MAX_REJECTED, GroupScore, TaskScore, whose
from medix_eval.results.scoring import mean
from medix_eval.results.store import JudgedRun, distinct_names, load_record, slug
from medix_eval.storage.bundled import read_mapping
from medix_eval.storage.digests import digest

DEMO_GROUP = "phantom"
HEADLINE = "medix"
_IMPORTED = "imported"
"""The setting that a run of `medix-eval import` carries."""
_FILES = "files"
"""The hashes of what was imported: each submission has its own."""
_TOLERANCE = 1e-9
_TASK_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")
_SEED = re.compile(r"\+generation\.seed=\d+")
_SHORT = 8


class Standing(StrEnum):
    """What a board's numbers are worth."""

    REAL = "real"
    IMPORTED = "imported"
    """Scored elsewhere: judge and settings are as stated by the submitter."""
    SYNTHETIC = "synthetic"
    DEMO = "demo"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run of one model on one board."""

    run: JudgedRun
    standing: Standing
    tasks: tuple[str, ...]
    facts: ModelFacts
    mark: str = ""
    """What tells it from another model of this name on its board."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.run.manifest.model + self.mark

    @property
    def date(self) -> str:
        """The day on which the run began."""
        return self.run.manifest.started[:10]

    @property
    def seed(self) -> int | None:
        """The seed of its sampling; None if unknown."""
        sampling = self.run.manifest.generation.get("generation")
        seed = sampling.get("seed") if isinstance(sampling, dict) else None
        return seed if isinstance(seed, int) else None

    @cached_property
    def groups(self) -> dict[str, GroupScore]:
        """The groups of which this entry has at least one benchmark."""
        here, scores = set(self.tasks), self.run.scores
        groups = {name: one for name, one in scores.groups.items() if here.intersection(one.tasks)}
        for name, one in groups.items():
            if (scores.tasks.keys() - here).intersection(one.tasks):  # no mean over two boards
                groups[name] = GroupScore(score=None, tasks=one.tasks, complete=False)
        return groups

    @property
    def mean_score(self) -> float | None:
        """The mean of its benchmarks, in a group or not."""
        found = [self.score(task).score for task in self.tasks]
        return mean(score for score in found if score is not None)

    @property
    def tokens_per_sample(self) -> float | None:
        """Tokens that the model wrote per sample, on average; None if not counted."""
        ledgers = [self.score(task).ledger for task in self.tasks]
        written = [ledger.completion_tokens for ledger in ledgers if ledger is not None]
        counted = [number for number in written if number is not None]
        num_samples = sum(self.score(task).n for task in self.tasks)
        return sum(counted) / num_samples if len(counted) == len(self.tasks) else None

    def score(self, task: str) -> TaskScore:
        """Return the score of one of its benchmarks."""
        return self.run.scores.tasks[task]

    def part(self, name: str) -> TaskScore | GroupScore | None:
        """Return its score of a benchmark or an average."""
        return self.score(name) if name in self.tasks else self.groups.get(name)

    @cached_property
    def identity(self) -> str:
        """Digest of what answered: a newer run of equal identity replaces an older one."""
        return digest([self.run.manifest.model, self.run.manifest.generation.get("model")])


@dataclass(kw_only=True)
class Board:
    """One table: entries that may be compared."""

    standing: Standing
    protocol: dict[str, str]
    judges: list[dict[str, Any]]
    entries: list[Entry] = field(default_factory=list)
    earlier: list[Entry] = field(default_factory=list)
    """Older runs of models that have a newer one."""
    repetitions: list[Entry] = field(default_factory=list)
    """Runs of models that have one with a lower seed."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """The state of the data and of the task file, by benchmark."""
    slug: str = ""
    """Name of the board's files: it stays the same when boards of other settings come or go."""

    @property
    def all_runs(self) -> list[Entry]:
        """Those that are shown and those that are not."""
        return [*self.entries, *self.earlier, *self.repetitions]

    @property
    def judge(self) -> str:
        """Who graded, in words."""
        return ", ".join(str(judge["id"]) for judge in self.judges) or "rules, no language model"

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The averages of this board and their benchmarks, the headline first.

        That is the largest that some model has completed: if no model ran all 17 benchmarks, the
        answers to the images alone still have an order.
        """
        found = {name: one.tasks for entry in self.entries for name, one in entry.groups.items()}
        whole = {
            name
            for entry in self.entries
            for name, one in entry.groups.items()
            if one.complete and one.score is not None
        }
        order = sorted(
            found, key=lambda name: (name not in whole, name != HEADLINE, -len(found[name]), name)
        )
        return {name: found[name] for name in order}

    @property
    def headline(self) -> str | None:
        """The average that ranks; None where the benchmarks are in no group."""
        return next(iter(self.groups), None)

    def ordered_tasks(self, known: Iterable[str]) -> list[str]:
        """Return the board's benchmarks: as the headline has them, then as the catalogue."""
        first = dict.fromkeys(self.groups[self.headline] if self.headline else ())
        order = first | dict.fromkeys(known) | dict.fromkeys(sorted(self.fingerprints))
        return [task for task in order if task in self.fingerprints]

    def takes(self, entry: Entry, fingerprints: Mapping[str, str]) -> bool:
        """Tell whether an entry may be on this board."""
        return (
            self.standing == entry.standing
            and _is_same_protocol(self.entries[0], entry)
            and _judges(self.judges) == _judges(entry.run.judging.judges)
            and _conditions(self.entries[0].run) == _conditions(entry.run)
            and all(self.fingerprints.get(task, its) == its for task, its in fingerprints.items())
        )


def entries_of(
    run: JudgedRun, *, demo_tasks: Collection[str], facts: Mapping[str, ModelFacts]
) -> list[Entry]:
    """Split a run into what is real or imported, what is synthetic and what is the demo."""
    _prove(run)
    sorted_out: dict[Standing, list[str]] = {}
    for task in run.scores.tasks:
        standing = Standing.IMPORTED if _IMPORTED in run.manifest.generation else Standing.REAL
        if task in demo_tasks:
            standing = Standing.DEMO
        elif run.entry(task).synthetic:
            standing = Standing.SYNTHETIC
        sorted_out.setdefault(standing, []).append(task)
    known = facts_of(run.manifest.model, facts)
    return [
        Entry(run=run, standing=standing, tasks=tuple(tasks), facts=known)
        for standing, tasks in sorted_out.items()
    ]


def make_boards(entries: Iterable[Entry]) -> list[Board]:
    """Put entries on as few boards as their settings allow; the fullest runs come first.

    The order does not depend on the order of the arguments. Of two runs of one model the newer
    one is shown on the board.
    """
    boards: list[Board] = []
    for entry in sorted(entries, key=_fullest_first):
        here = {task: _fingerprint(entry.run, task) for task in entry.tasks}
        board = next((board for board in boards if board.takes(entry, here)), None)
        if board is None:
            board = Board(
                standing=entry.standing,
                protocol=entry.run.protocol,
                judges=entry.run.judging.judges,
            )
            boards.append(board)
        board.entries.append(entry)
        board.fingerprints |= here
    for board in boards:
        _keep_one_of_each(board)
    _name(boards)
    order = list(Standing)
    return sorted(
        boards, key=lambda board: (order.index(board.standing), -len(board.entries), board.slug)
    )


def _keep_one_of_each(board: Board) -> None:
    """Let one run of a model stand: the newest of those with its lowest seed."""
    runs: dict[str, list[Entry]] = {}
    for entry in sorted(board.entries, key=lambda entry: entry.run.manifest.started):
        runs.setdefault(entry.identity, []).append(entry)
    board.entries = []
    for each in runs.values():
        lowest = min(each, key=_seed).seed
        its = [one for one in each if one.seed == lowest]
        # Of the judgings of one run the fullest stands, and the newest of equals.
        *older, standing = sorted(its, key=lambda one: (one.run.manifest.started, len(one.tasks)))
        board.entries.append(standing)
        board.earlier += older
        board.repetitions += sorted((one for one in each if one.seed != lowest), key=_seed)
    names = distinct_names([entry.run for entry in board.entries])
    board.entries = [
        replace(entry, mark=name.removeprefix(entry.run.manifest.model))
        for entry, name in zip(board.entries, names, strict=True)
    ]
    board.protocol = min(board.entries, key=_seed).run.protocol


def _seed(entry: Entry) -> int:
    return entry.seed or 0


def _is_same_protocol(one: Entry, other: Entry) -> bool:
    """Compare protocols; those of two seeds differ in digest and name, and in nothing else."""
    first, second = one.run, other.run
    if one.seed == other.seed:
        return first.protocol["digest"] == second.protocol["digest"]
    names = [_SEED.sub("", run.protocol["name"]) for run in (first, second)]
    return names[0] == names[1] and first.judging.settings == second.judging.settings


def _name(boards: Iterable[Board]) -> None:
    taken: set[str] = set()
    for board in boards:
        conditions = _conditions(board.entries[0].run)
        made_of = [board.standing, board.protocol, _judges(board.judges), conditions]
        base = f"{slug(board.protocol['name'])[:40]}-{digest(made_of)[:_SHORT]}".casefold()
        names = (base if number == 1 else f"{base}-{number}" for number in count(1))
        board.slug = next(name for name in names if name not in taken)
        taken.add(board.slug)


def _prove(run: JudgedRun) -> None:
    """Refuse a name that cannot be a file, and an average that does not follow from its tasks."""
    for task in run.scores.tasks:
        if not _TASK_NAME.fullmatch(task):  # its page could be written anywhere
            raise ConfigError(
                f"{run.place / 'scores.json'}: {task[:80]!r} is not a benchmark name",
                hint="use letters, digits, `_`, `-` and `.`",
            )
    for name, group in run.scores.groups.items():
        found = [run.scores.tasks[task].score for task in group.tasks if task in run.scores.tasks]
        average = mean(score for score in found if score is not None)
        if group.score is not None and (average is None or abs(average - group.score) > _TOLERANCE):
            raise ConfigError(
                f"{run.place / 'scores.json'}: {name} is {group.score}, "
                f"but its benchmarks give {average}",
                hint=f"`medix-eval score {run.place}` scores it again",
            )


def _fullest_first(entry: Entry) -> tuple[int, str, str]:
    manifest = entry.run.manifest  # the judgings of one run come in the order of their age
    return (-len(entry.tasks), manifest.started, manifest.generation_digest)


def _fingerprint(run: JudgedRun, task: str) -> str:
    entry = run.entry(task)
    source = {key: value for key, value in entry.source.items() if key != _FILES}
    return digest([entry.version, entry.digest, source, entry.synthetic])


def _judges(judges: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(judge["digest"]) for judge in judges]


def _conditions(run: JudgedRun) -> dict[str, Any]:
    """Everything that made the completions except the model and its sampling seed."""
    own = {"model", _FILES}
    made = {key: value for key, value in run.manifest.generation.items() if key not in own}
    sampling = made.get("generation")
    if isinstance(sampling, dict):
        made["generation"] = {key: value for key, value in sampling.items() if key != "seed"}
    return made


class ModelFacts(Frozen):
    """One model of `models.yaml`; None is unknown."""

    parameters_b: PositiveFloat | None = None
    """Billions of parameters."""
    base: str | None = None
    """The model it was trained from."""
    training_samples: NonNegativeInt | None = None
    inputs: Literal["text", "image+text"] | None = None
    open_weights: bool | None = None
    open_data: bool | None = None
    licence: str | None = None
    source: str | None = None
    """Where a reader can check these facts."""


class _File(Frozen):
    models: dict[str, ModelFacts]


UNKNOWN = ModelFacts()


def load_facts(files: Iterable[Path]) -> dict[str, ModelFacts]:
    """Read files of model facts; a later file replaces single facts of an earlier one."""
    facts: dict[str, ModelFacts] = {}
    for path in files:
        for name, found in _read(_File, path).models.items():
            known = facts.get(name, UNKNOWN)
            facts[name] = known.model_copy(update=found.model_dump(exclude_unset=True))
    return facts


def facts_of(model: str, facts: Mapping[str, ModelFacts]) -> ModelFacts:
    """Find a model's facts by its name, then by its name without provider and revision.

    >>> facts_of("openai:a/b@1f", {"a/b": ModelFacts(licence="mit")}).licence
    'mit'
    """
    bare = model.partition(":")[2] or model
    names = (model, bare, bare.partition("@")[0])
    return next((facts[name] for name in names if name in facts), UNKNOWN)


_Read = TypeVar("_Read", bound=Frozen)


def _read(kind: type[_Read], path: Path) -> _Read:
    try:
        return kind.model_validate(read_mapping(path, what="leaderboard"))
    except ValidationError as error:
        hint = "the form is shown in leaderboard/models.yaml and leaderboard/README.md"
        raise ConfigError(f"{path}: {first_error(error)}", hint=hint) from error


class NeededScorecard(Frozen):
    """What a judge's scorecard must show: at least the first two, at most the others."""

    labels: PositiveInt = 100
    """Labelled answers that the judge decided."""
    kappa: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """The low end of its 95 % interval."""
    false_accept: Fraction = 0.1
    false_reject: Fraction = 0.1
    unreadable: Fraction = 0.05
    """Of the votes."""

    def missed_by(self, card: Scorecard | None) -> list[str]:
        """Return why a scorecard does not do."""
        if card is None:
            return ["the judge has no scorecard"]
        of = card.overall
        if of.n_decided < self.labels:
            labels = counted(of.n_decided, "label")
            return [f"the judge's scorecard has {labels}, {self.labels:,} are needed"]
        rates = (
            ("false accept", of.false_accept.value, self.false_accept),
            ("false reject", of.false_reject.value, self.false_reject),
            ("share of unreadable votes", card.parse_failures.value, self.unreadable),
        )
        low = -1.0 if of.kappa.low is None else of.kappa.low
        missed = []
        if low < self.kappa:
            missed.append(f"the judge's kappa may be {low:.2f}, {self.kappa:.2f} is needed")
        for what, rate, most in rates:
            if rate is None or rate > most:
                told = "not known" if rate is None else f"{percent(rate)} %"
                missed.append(f"the judge's {what} is {told}, {percent(most)} % is allowed")
        return missed


class Rules(Frozen):
    """What a board requires for a rank."""

    max_unscored: Fraction = 0.05
    """Largest part of the samples that may be outside the denominator."""
    max_rejected: Fraction = MAX_REJECTED
    """Largest part of a benchmark's samples that the server may reject."""
    needs_scorecard: bool = False
    """Whether the judge must have been measured, and have done well enough."""
    scorecard: NeededScorecard = NeededScorecard()


def load_rules(path: Path | None, **flags: Any) -> Rules:
    """Read a board's configuration; a flag that was given stands above it."""
    given = {name: value for name, value in flags.items() if value is not None}
    return (_read(Rules, path) if path else Rules()).model_copy(update=given)


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
    """Whether a paired comparison cannot tell which is better; None if there was none."""


def rank_entries(board: Board, *, rules: Rules, aligned: Mapping[str, Aligned]) -> list[Ranked]:
    """Order a board's entries; `aligned` holds each task with a row per entry."""
    headline = board.headline
    scorecard = find_scorecard(board)
    slugs = _slugs(board.entries)
    reasons = {entry.identity: _reasons(entry, board, rules, scorecard) for entry in board.entries}

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
        why = reasons[entry.identity]
        rank = None if why else place
        if rank and ranked and value(ranked[-1].entry) == value(entry):
            rank = ranked[-1].rank
        ties = None
        if best is not None and not why and entry is not best:
            rows = board.entries.index(entry), board.entries.index(best)
            ties = tie([aligned[task] for task in tasks], *rows)
        name = slugs[entry.identity]
        ranked.append(Ranked(entry=entry, slug=name, rank=rank, withheld=why, ties_with_best=ties))
    return ranked


def find_scorecard(board: Board) -> Scorecard | None:
    """Return the scorecard of this very judge and protocol, from beside any of the runs.

    Of several it is the one with the most decided answers.
    """
    digests = [str(judge["digest"]) for judge in board.judges]
    # Measured alone, or on the answers of a run.
    wanted = {digest(digests), *(digests if len(digests) == 1 else ())}
    # A scorecard of 0.1 has the digest that runs of 0.1 state.
    protocols = {one.run.judging.protocol["digest"] for one in board.entries}
    protocols.add(board.protocol["digest"])
    place = Path("judges") / slug(" + ".join(str(judge["id"]) for judge in board.judges))
    outs = sorted({entry.run.folder.parent.parent for entry in board.entries})
    files = [file for out in outs for file in sorted((out / place).glob("*/scorecard.json"))]
    cards = [
        card
        for card in (load_record(Scorecard, file) for file in files)
        if card.judge.get("digest") in wanted and card.protocol.get("digest") in protocols
    ]
    return max(cards, key=lambda card: card.overall.n_decided, default=None)


def _reasons(entry: Entry, board: Board, rules: Rules, card: Scorecard | None) -> tuple[str, ...]:
    found = []
    scores = {task: entry.score(task) for task in entry.tasks}
    num_failed = sum(one.num_failures for one in scores.values())
    num, lost = sum(one.n for one in scores.values()), whose(scores.values(), scored=False)
    unscored = sum(one.n - one.n_scored for one in scores.values()) / num if num else 1.0
    if board.standing is Standing.IMPORTED:
        found.append("imported: its judge and settings are stated by the submitter")
    group = entry.groups.get(board.headline or "")
    if group is None:
        found.append("its benchmarks are in no ranked group")
    else:
        missing = [task for task in group.tasks if task not in entry.tasks]
        if missing:
            found.append(f"{len(missing)} of {counted(len(group.tasks), 'benchmark')} not run")
        limited = [task for task, one in scores.items() if one.limit is not None]
        if limited:
            found.append(f"only part of the samples ran in {counted(len(limited), 'benchmark')}")
        if not missing and not limited and not (group.complete and group.score is not None):
            found.append(f"{counted(num_failed, 'sample')} failed; without a score: {lost}")
    if unscored > rules.max_unscored:
        found.append(f"{percent(unscored)} % of the samples have no score: {lost}")
    for task, one in scores.items():
        if one.ledger and one.ledger.rejected > rules.max_rejected:
            share = percent(one.ledger.rejected)
            found.append(f"the server rejected {share} % of the samples of {task}")
    if rules.needs_scorecard and board.judges:
        found += rules.scorecard.missed_by(card)
    return tuple(found)


def _slugs(entries: Sequence[Entry]) -> dict[str, str]:
    """Name each entry's files; two models of one name are told apart by their digest."""
    plain = [slug(entry.run.manifest.model)[:60].casefold() for entry in entries]
    names = {}
    for entry, name in zip(entries, plain, strict=True):
        alone = plain.count(name) == 1
        names[entry.identity] = name if alone else f"{name}-{entry.identity[:_SHORT]}"
    return names
