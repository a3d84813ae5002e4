"""A run folder: what was asked, what came back, and how it was judged.

    OUT/<model>/<generation8>/                    run.json  completions.jsonl
    OUT/<model>/<generation8>/judged/<judging8>/  judging.json  verdicts.jsonl  scores.json ...
    OUT/.../judged/<judging8>/selections/<selection8>/  selection.json  scores.json ...

Generation and judging have a digest each, so saved completions can be judged again. A sample's
newest line counts: a retried failure gets a second line, nothing is ever rewritten. What one
request asks for is a selection with its own scores; a judging has those of the largest complete.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Annotated, Any, BinaryIO, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from medix_eval.errors import ConfigError, ReplyUnusable, RunMismatch, first_error
from medix_eval.judging.protocol import JUDGING_VERSION, by_role, stamp_now
from medix_eval.models.requests import unanswered
from medix_eval.records import CompletionRecord, Failure, Outcome, VerdictRecord
from medix_eval.results.scores import Scores
from medix_eval.rules.answers import after_thinking
from medix_eval.storage.digests import ShownName, differences, digest, mark_of, marked_name
from medix_eval.storage.jsonl import LONGEST, JsonLines, newest_lines, read_lines, write_text

_LOG = logging.getLogger(__name__)
_SHORT = 8
_RESTORE = "restore the file, or give another --out"
_DAMAGES = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)
"""Of a line that is JSON, but of another shape."""
_M = TypeVar("_M", bound=BaseModel)
_Kept = TypeVar("_Kept")


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Sealed(_Manifest):
    digests: dict[str, str] = {}
    """Of what affects a score, by key, as the file was written; earlier versions did without."""

    def made_of(self) -> dict[str, str]:
        """Return the digests of what it holds now."""
        kept = self.model_dump(mode="json", exclude_defaults=True)
        its = {key: kept.get(key) for key in ("generation", "protocol", "judges", "judging")}
        for name, task in kept["tasks"].items() if isinstance(kept["tasks"], dict) else ():
            its[f"tasks.{name}"] = {key: task[key] for key in task if key != "source"}
        return {key: digest(value) for key, value in its.items()}

    def edited(self) -> list[str]:
        """Return the keys that somebody else has written since."""
        now = self.made_of()
        return [key for key, was in self.digests.items() if now.get(key) != was]

    def sealed(self) -> dict[str, Any]:
        """Return what its file holds."""
        return {**self.model_dump(mode="json"), "digests": self.made_of()}


def _with(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def checked(record: dict[str, Any]) -> dict[str, Any]:
        if missing := [key for key in keys if not isinstance(record.get(key), str)]:
            raise ValueError(f"it has no {' and no '.join(missing)}")
        return record

    return checked


def _without_folder(source: dict[str, Any]) -> dict[str, Any]:
    path = source.get("path")
    return source | {"path": marked_name(path)} if isinstance(path, str) else source


class Chosen(_Manifest):
    """The rows of a task that one request asked for."""

    version: str
    limit: int | None
    seed: int
    rows: list[int] | None
    """If limited; all of them otherwise."""


class TaskEntry(Chosen):
    """One task of a run: which rows were asked, of which data."""

    digest: str
    """Digest of the task file."""
    source: Annotated[dict[str, Any], AfterValidator(_without_folder)]
    """Where the rows come from: path, revision, number of rows, hashes where known."""
    synthetic: bool
    num_rows: int
    data_class: str
    modality: str
    kind: str
    cluster: str | None = None
    """Column that says which samples share an image or a patient."""
    slices: list[str] = []
    """Columns to report the score by."""

    @property
    def num_selected(self) -> int:
        """How many samples the task has in this run."""
        return self.num_rows if self.rows is None else len(self.rows)

    def takes(self) -> Callable[[int], bool]:
        """Return what tells whether a row belongs to the run."""
        return (lambda _: True) if self.rows is None else frozenset(self.rows).__contains__


class RunManifest(_Sealed):
    """`run.json`: everything that made the completions."""

    schema_version: int = 1
    model: ShownName
    served: dict[str, str] = {}
    """What a server said that it is, such as its `root`."""
    generation_digest: str
    generation: dict[str, Any]
    """Everything that can affect a completion; the digest is of this."""
    tasks: dict[str, TaskEntry]
    limits: dict[str, Any]
    """Time-outs, tries and prompts in flight: they do not affect a score."""
    versions: dict[str, str]
    hardware: dict[str, Any]
    started: str
    num_untold: int | None = None
    """Lines of completions whose reasoning may have passed for the answer: those of versions that
    did not tell. None where such a version wrote the file."""

    def only(self, what: Selection | None) -> Self:
        """Return what the file would be if nothing but this selection had been asked for."""
        tasks = {
            name: self.tasks[name].model_copy(update=one.model_dump(exclude={"version"}))
            for name, one in (what.tasks if what else {}).items()
            if name in self.tasks
        }
        return self.model_copy(update={"tasks": tasks}) if what else self

    def edited(self) -> list[str]:
        """Return the keys; rows are numbers of the data, each once, in any version."""
        odd = []
        for name, task in self.tasks.items():
            rows = task.rows or []
            if len({*rows}) < len(rows) or not all(0 <= row < task.num_rows for row in rows):
                odd.append(f"tasks.{name}.rows")
        return [*odd, *super().edited()]

    @property
    def is_served(self) -> bool:
        """Whether a server answered, which may split reasoning off."""
        model = self.generation.get("model", {})
        engine = model.get("engine")
        is_vllm = isinstance(engine, dict) and engine.get("name") == "vllm"
        return is_vllm or model.get("kind") == "openai"

    @field_validator("generation")
    @classmethod
    def _is_readable(cls, generation: dict[str, Any]) -> dict[str, Any]:
        """Refuse what no run of ours says, in a file that may come from anywhere."""
        is_text = isinstance(generation.get("control"), str | None)
        if not (is_text and isinstance(generation.get("generation", {}), dict)):
            raise ValueError("control or generation has the wrong type")
        return generation


class JudgingManifest(_Sealed):
    """`judging.json`: everything that made the verdicts."""

    schema_version: int = 1
    protocol: Annotated[dict[str, str], AfterValidator(_with("name", "digest"))]
    judges: list[Annotated[dict[str, Any], AfterValidator(_with("id"))]]
    judging_digest: str
    judging: dict[str, Any]
    prompt_names: dict[str, str] = {}
    """How votes name the prompts, by role; empty in a run of 0.1, which kept paths instead."""
    egress_reason: str | None = None
    """Why restricted samples were sent to a judge on another host, if they were."""
    tasks: list[str]
    """The tasks of the run that were judged this way."""

    def edited(self) -> list[str]:
        """Return the keys; the judges are those of the settings, in any version."""
        identities = self.judging.get("judges")
        known = [digest(one) for one in identities] if isinstance(identities, list) else None
        is_odd = known not in (None, [one.get("digest") for one in self.judges])
        return [*super().edited(), *(["judges"] if is_odd else [])]

    @property
    def settings(self) -> dict[str, Any]:
        """What made the verdicts, with prompts named by role, whichever version wrote it."""
        return by_role(self.judging)

    @property
    def prompts(self) -> dict[str, str]:
        """Text of each prompt of the judge, by the name that votes carry or its path."""
        texts: dict[str, str] = self.judging.get("prompts", {})
        return {self.prompt_names.get(name, name): text for name, text in texts.items()}


class Selection(_Manifest):
    """`selection.json`: the tasks and rows that one request asked for."""

    schema_version: int = 1
    asked: str = Field(default_factory=lambda: str(datetime.now(UTC)))
    tasks: Mapping[str, Chosen]

    @property
    def digest(self) -> str:
        """The digest of its tasks, with their versions, and of their rows."""
        rows = {f"{name}@{one.version}": one.rows for name, one in self.tasks.items()}
        return digest({name: found and sorted(found) for name, found in rows.items()})


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a run already holds of one sample."""

    row: int
    line: int
    answered: bool
    """Whether the completion is valid; a failed request is retried."""
    mark: str


@dataclass(slots=True)
class RunFolder:
    """An open run folder: one writer, the index of what is there in memory."""

    path: Path
    manifest: RunManifest
    lines: JsonLines
    seen: dict[tuple[str, str], Seen] = field(default_factory=dict)
    """By task and sample id."""
    num_lines: int = 0

    def append(self, record: CompletionRecord) -> None:
        """Keep one completion."""
        self.lines.append(record.model_dump_json(exclude_defaults=True))
        key, mark = (record.task, record.sample_id), mark_of(record.completion)
        self._index(key, record.row, mark, failed=record.failure is not None)

    def save_manifest(self) -> None:
        """Write `run.json`."""
        _write(self.path / "run.json", self.manifest.sealed())

    def note_served(self, told: Mapping[str, str], *, vouched: bool) -> None:
        """Keep what a server says that its model is; refuse one that was another model before.

        Of one that the user vouches for only the folders above may differ.
        """
        was, now = dict(self.manifest.served), dict(told)
        if vouched:
            was, now = ({key: one[key].partition(" (")[0] for key in one} for one in (was, now))
        both = was.keys() & now.keys()  # a server of another version tells more, or less
        if differ := differences({key: was[key] for key in both}, {key: now[key] for key in both}):
            raise ConfigError(
                f"{self.path}: the server has another model now: {', '.join(differ)}",
                hint="name it with --name NAME to start another run; if only its folder moved, "
                "--same-model",
            )
        self.manifest = self.manifest.model_copy(
            update={"served": {**self.manifest.served, **told}}
        )
        self.save_manifest()

    def answered_rows(self, task: str) -> set[int]:
        """Return the rows of a task with valid completions."""
        return {seen.row for (name, _), seen in self.seen.items() if name == task and seen.answered}

    def answered_ids(self, task: str) -> set[str]:
        """Return the ids of a task with valid completions."""
        return {name for (key, name), seen in self.seen.items() if key == task and seen.answered}

    def as_read(self, record: CompletionRecord) -> CompletionRecord:
        """Return a kept completion, as a failure where an earlier version took it for an answer."""
        if record.failure is not None or self.seen[record.task, record.sample_id].answered:
            return record
        failure = Failure(error=ReplyUnusable.__name__, message="the reply was not an answer")
        return record.model_copy(update={"failure": failure})

    def _index(self, key: tuple[str, str], row: int, mark: str, *, failed: bool) -> None:
        self.num_lines += 1
        self.seen[key] = Seen(row=row, line=self.num_lines, answered=not failed, mark=mark)


def slug(name: str) -> str:
    """Turn a model's name into a folder's; the digest below it keeps two models apart.

    >>> slug("MBZUAI/MediX-R1-8B")
    'MBZUAI__MediX-R1-8B'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("/", "__")).strip(".-_")[-80:] or "model"


@contextmanager
def open_run(out: Path, manifest: RunManifest, *, at: Path | None = None) -> Iterator[RunFolder]:
    """Create a run folder, or resume the one with equal settings, or the one `at` a path.

    Raises `RunMismatch` naming the keys where the folder was made with other settings, other
    task files or other data, and `ConfigError` where another process writes to it.
    """
    path = at or folder_of(out, manifest)
    with ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(path))
        except OSError as error:
            raise ConfigError(
                f"--out {out} cannot be written to: {error.strerror}",
                hint="choose a writable folder",
            ) from error
        if (path / "run.json").exists():
            before = load_run_manifest(path)
            manifest = _continued(before, manifest, path=path)
            _refuse_edits(path, before)
        lines = stack.enter_context(_lines(path, "completions.jsonl", "run.json", manifest))
        run = RunFolder(path, manifest, lines)
        untold = math.inf if manifest.num_untold is None else manifest.num_untold
        for number, row in enumerate(read_lines(lines.path), 1):
            try:
                key = sys.intern(row["task"]), row["sample_id"]
                failed = _is_no_answer(row, may_be_split=number <= untold and manifest.is_served)
                run._index(key, row["row"], mark_of(row.get("completion")), failed=failed)  # noqa: SLF001
            except _DAMAGES as error:
                raise _damaged(lines.path, number, error) from error
        if manifest.num_untold is None:
            run.manifest = manifest.model_copy(update={"num_untold": run.num_lines})
        run.save_manifest()
        yield run


def _is_no_answer(row: Mapping[str, Any], *, may_be_split: bool) -> bool:
    """Tell whether a line is a failure, or what an earlier version took for an answer."""
    text, reason = row.get("completion"), row.get("finish_reason")
    rest = after_thinking(text) if may_be_split and text else text
    is_thought = text != rest and rest is not None and not rest.strip()
    why = unanswered(text, reason, thought_only=is_thought)
    return row.get("failure") is not None or bool(why)


@dataclass(slots=True)
class Judging:
    """An open `judged/` folder: one writer, and which samples have a valid verdict."""

    path: Path
    manifest: JudgingManifest
    lines: JsonLines
    judged: dict[tuple[str, str], str] = field(default_factory=dict)
    """The mark of the completion that was judged, by sample; empty where nobody noted it."""
    rejected: set[tuple[str, str]] = field(default_factory=set)
    """Samples that had no completion to judge; a later completion voids that verdict."""
    readable: set[str] = field(default_factory=set)
    """Judges of whom a vote could be read."""

    def append(self, verdict: VerdictRecord) -> None:
        """Keep one verdict."""
        self.lines.append(verdict.model_dump_json(exclude_defaults=True))
        self.note((verdict.task, verdict.sample_id), verdict.outcome, verdict.mark)

    def void_rejections(self) -> None:
        """Take back that samples were rejected: every request was."""
        for task, sample_id in [*self.rejected]:
            reason = "refused as all requests were"
            failed: Any = {"outcome": Outcome.REQUEST_FAILED, "score": None, "reason": reason}
            self.append(VerdictRecord(task=task, sample_id=sample_id, **failed))

    def note(self, key: tuple[str, str], outcome: Outcome, mark: str) -> None:
        """Remember how a sample ended, as its newest line says."""
        self.judged.pop(key, None)
        self.rejected.discard(key)
        if outcome is Outcome.REJECTED:
            self.rejected.add(key)
        elif not outcome.is_failure:
            self.judged[key] = mark


def _noted(line: Mapping[str, Any]) -> tuple[Outcome, str, frozenset[str]]:
    """Return outcome, mark, and who gave a vote that could be read."""
    votes = (one["judge"] for one in line.get("votes", ()) if one.get("points") is not None)
    return Outcome(line["outcome"]), line.get("mark", ""), frozenset(votes)


@contextmanager
def open_judging(run: RunFolder, manifest: JudgingManifest) -> Iterator[Judging]:
    """Create or resume the folder of one judging of a run."""
    path = run.path / "judged" / manifest.judging_digest[:_SHORT]
    path.mkdir(parents=True, exist_ok=True)
    if (path / "judging.json").exists():
        before = load_judging_manifest(path)
        _refuse_edits(path, before)
        tasks = list(dict.fromkeys([*before.tasks, *manifest.tasks]))
        manifest = manifest.model_copy(update={"tasks": tasks, "protocol": before.protocol})
    with _lines(path, "verdicts.jsonl", "judging.json", run.manifest) as lines:
        _write(path / "judging.json", manifest.sealed())
        judging = Judging(path, manifest, lines)
        for key, (outcome, mark, judges) in newest(lines.path, _noted).items():
            judging.note(key, outcome, mark)
            judging.readable |= judges
        yield judging


def newest_completions(
    path: Path, *, wanted: Mapping[tuple[str, str], int] | None = None
) -> Iterator[CompletionRecord]:
    """Yield the newest line of each sample, one at a time.

    `wanted` maps task and sample id to the number of the line that counts; without it the file is
    read twice, first for the numbers.
    """
    file = path / "completions.jsonl"
    if wanted is None:
        wanted = {
            (row["task"], row["sample_id"]): number
            for number, row in enumerate(read_lines(file), 1)
        }
    for number, row in enumerate(read_lines(file), 1):
        if wanted.get((row["task"], row["sample_id"])) == number:
            yield _parsed(CompletionRecord, row, file=file, number=number)


def newest(path: Path, keep: Callable[[Mapping[str, Any]], _Kept]) -> dict[tuple[str, str], _Kept]:
    """Return what `keep` takes of the newest line of each sample, by task and sample id."""
    found = {}
    for number, line in enumerate(read_lines(path), 1):
        try:
            found[line["task"], line["sample_id"]] = keep(line)
        except _DAMAGES as error:
            raise _damaged(path, number, error) from error
    return found


def _damaged(path: Path, number: int | str, error: Exception) -> ConfigError:
    said = f"{type(error).__name__} {error}"
    if isinstance(error, ValidationError):
        said = first_error(error)
    return ConfigError(
        f"{path}, line {number} is damaged: {said}",
        hint="delete that line; its sample is then done again",
    )


def find_run(path: Path) -> tuple[Path, Path | None]:
    """Return the run folder, and the folder of the scores if a RUN argument names one.

    That is a judging, or one selection of it. Raises `ConfigError` for a folder that is not a run.
    """
    for place in (path, Path(os.path.realpath(path))):  # a judging knows its run by what it lies in
        judged = judging_at(place)
        if (judged / "judging.json").is_file() and (judged.parent.parent / "run.json").is_file():
            return judged.parent.parent, place
    if not (path / "run.json").is_file():
        nearest = sorted(path.glob("*/run.json")) + sorted(path.glob("*/*/run.json"))
        hint = f"did you mean {nearest[0].parent}?" if nearest else "a run folder holds a run.json"
        raise ConfigError(f"{path} is not a run", hint=hint)
    return path, None


def selection_at(judged: Path, digest: str) -> Path:
    """Return the folder of the scores of one selection."""
    return judged / "selections" / digest[:_SHORT]


def judging_at(place: Path) -> Path:
    """Return the folder of the judging that scores belong to."""
    return place.parent.parent if (place / "selection.json").is_file() else place


def find_judgings(path: Path, *, judging: str | None = None) -> tuple[Path, list[Path]]:
    """Return the run folder and the folders of scores that a RUN argument may mean.

    They are the judgings whose digest begins so, the one asked for last at the end. Those without
    scores are left out with a warning, if others have some.
    """
    folder, place = find_run(path)
    there = [place] if place else [one.parent for one in folder.glob("judged/*/verdicts.jsonl")]
    digests = {one: load_judging_manifest(judging_at(one)).judging_digest for one in there}
    found = [one for one in there if digests[one].startswith(judging or "")]
    finished = [one for one in found if (one / "scores.json").is_file()]
    if finished and (left := [str(one) for one in found if one not in finished]):
        _LOG.warning("left out, interrupted before it had scores: %s", ", ".join(left))
    kept = finished or found
    if kept[1:]:
        kept.sort(key=lambda one: read_selection(folder, one).asked)
    return folder, kept


def find_judging(path: Path, *, judging: str | None = None) -> tuple[Path, Path]:
    """Return the run folder and the folder that a RUN means; of several, say which was taken."""
    folder, found = find_judgings(path, judging=judging)
    if not found:
        known = ", ".join(sorted(one.name for one in folder.glob("judged/*")))
        hint = f"judged as {known}" if known else "run the evaluation to its end first"
        said = f"is not judged as {judging}" if judging else "has no verdicts yet"
        raise ConfigError(f"{path} {said}", hint=hint)
    if len(found) > 1:
        taken, *others = (
            f"{one.judging_digest[:_SHORT]} (protocol {one.protocol['name']}, "
            f"judge {' '.join(str(judge['id']) for judge in one.judges) or 'none'})"
            for one in map(load_judging_manifest, reversed(found))
        )
        said = "%s has %d judgings; took %s; others: %s; choose with --judging DIGEST"
        _LOG.warning(said, path, len(found), taken, ", ".join(others))
    return folder, found[-1]


def read_selection(folder: Path, place: Path, scores: Scores | None = None) -> Selection:
    """Return what the `scores` in a folder are of; those of a judging say which selection's.

    A judging of 0.1 has none: it is what the run was asked for, at the time of its file.
    """
    file = place / "selection.json"
    if not file.is_file() and (place / "scores.json").is_file():
        scores = scores or load_record(Scores, place / "scores.json")
        file = selection_at(place, scores.selection) / file.name
    if file.is_file():
        return load_record(Selection, file)
    known, judged = load_run_manifest(folder).tasks, load_judging_manifest(place).tasks
    asked = str(datetime.fromtimestamp((place / "judging.json").stat().st_mtime, UTC))
    return Selection(asked=asked, tasks={name: known[name] for name in judged if name in known})


@contextmanager
def _lines(folder: Path, name: str, about: str, run: RunManifest) -> Iterator[JsonLines]:
    """Open the lines of a folder; a new one is removed if its work stops before it has any."""
    was_there = (folder / about).exists()
    try:
        with JsonLines(folder / name) as lines:
            if any(task.data_class == "dua" for task in run.tasks.values()):
                lines.restrict()
            yield lines
    except BaseException:
        if not was_there and (folder / name).exists() and not (folder / name).stat().st_size:
            for one in (about, name, ".lock"):
                (folder / one).unlink(missing_ok=True)
            with suppress(OSError):  # the log of a server that did not start is kept
                folder.rmdir()
                folder.parent.rmdir()
        raise


def load_run_manifest(path: Path, what: Selection | None = None) -> RunManifest:
    """Read `run.json`, or what it would be if nothing but this selection had been asked for."""
    return load_record(RunManifest, path / "run.json").only(what)


def load_judging_manifest(path: Path) -> JudgingManifest:
    """Read `judging.json`."""
    return load_record(JudgingManifest, path / "judging.json")


def _refuse_edits(folder: Path, made: RunManifest | JudgingManifest) -> None:
    """Raise `RunMismatch` where a manifest is not what was written, naming the keys."""
    name, keys = "run.json", made.edited()
    if isinstance(made, JudgingManifest):
        name, is_own = "judging.json", made.judging_digest.startswith(folder.name)
        keys += [] if is_own else ["judging_digest"]
    if keys:
        said = f"{name}: {', '.join(dict.fromkeys(keys))[:300]}"
        raise RunMismatch(f"{folder} was edited after it was written: {said}", hint=_RESTORE)


def apart_from_other_data(out: Path, manifest: RunManifest) -> RunManifest:
    """Give accepted data changes their own run, with old and new values in its settings.

    Without this the run made with the old data would be resumed with the new.
    """
    path = folder_of(out, manifest)
    if not (path / "run.json").exists():
        return manifest
    changed = _data_changes(load_run_manifest(path), manifest)
    if not changed:
        return manifest
    generation = manifest.generation | {"accepted_data_changes": changed}
    update = {"generation": generation, "generation_digest": digest(generation)}
    return manifest.model_copy(update=update)


def folder_of(out: Path, manifest: RunManifest) -> Path:
    """Return the folder of a run with these settings.

    Earlier versions named it after the whole path of a model's folder.
    """
    short, name = manifest.generation_digest[:_SHORT], PurePath(manifest.model).name
    path = out / slug(manifest.model) / short
    for other in [] if path.exists() else out.glob(f"*/{short}/run.json"):
        known = load_run_manifest(other.parent)
        is_equal = known.generation_digest == manifest.generation_digest
        if is_equal and PurePath(known.model).name == name:
            return other.parent
    return path


def shared(scores: Scores, run: Path) -> Scores:
    """Return scores as files have them, which tell nothing of the folders above the run."""
    place = _label(scores, Path(scores.run), run)
    return _placed(scores, place, plain=lambda path: os.path.relpath(path, run))


def _label(scores: Scores, place: Path, run: Path) -> str:
    short = scores.generation_digest[:_SHORT]
    return f"{slug(scores.model)}/{short}/{os.path.relpath(place, run)}"


def load_scores(place: Path, run: Path, *, hint: str = _RESTORE) -> Scores:
    """Read the scores at a place of a run."""
    scores = load_record(Scores, place / "scores.json", hint=hint)
    return _placed(scores, str(place), plain=lambda path: os.path.normpath(run / path))


def _placed(scores: Scores, place: str, *, plain: Callable[[str], str]) -> Scores:
    effect = scores.effect
    effect = effect and effect.model_copy(update={"plain": plain(effect.plain)})
    return scores.model_copy(update={"run": place, "effect": effect})


def distinct_names(runs: Sequence[JudgedRun]) -> list[str]:
    """Return the models' names, those of different models told apart by address or digest."""
    made = [(run.scores.model, run.manifest.generation.get("model", {})) for run in runs]
    told = [model.get("host") for _, model in made]
    hosts = [", ".join(one) if isinstance(one, list) else one for one in told]
    names = []
    for (name, model), host in zip(made, hosts, strict=True):
        others = [at for at, (its, other) in enumerate(made) if its == name and other != model]
        mark = host if host and host not in {hosts[at] for at in others} else digest(model)[:_SHORT]
        names.append(f"{name} ({mark})" if others else name)
    return names


def made_elsewhere(out: Path, manifest: RunManifest, *, one: bool) -> RunManifest | None:
    """Return the newest run that differs from this one in the address of its server alone.

    Raises `ConfigError` if there are several and it must be `one`: they may be several models.
    """

    def without_host(one: RunManifest) -> dict[str, Any]:
        model = one.generation.get("model", {})
        return one.generation | {"model": {key: model[key] for key in model if key != "host"}}

    alike = []
    for file in out.glob(f"{slug(manifest.model)}/*/run.json"):
        with suppress(ConfigError):  # a damaged one is none of ours
            found = load_run_manifest(file.parent)
            is_alike = without_host(found) == without_host(manifest)
            alike += [found] if is_alike and found.generation != manifest.generation else []
    if one and len(alike) > 1:
        hosts = ", ".join(str(found.generation["model"].get("host")) for found in alike)
        raise ConfigError(
            f"--same-model: {manifest.model} has runs at {hosts}",
            hint="ask at one of these addresses, or choose another --out",
        )
    return max(alike, key=lambda run: run.started, default=None)


def _data_changes(old: RunManifest, new: RunManifest) -> list[str]:
    """Name what differs in the data of the tasks that both runs have."""
    return [
        line
        for name in sorted(old.tasks.keys() & new.tasks.keys())
        for key in ("source", "synthetic", "num_rows")
        for line in differences(
            getattr(old.tasks[name], key), getattr(new.tasks[name], key), at=f"tasks.{name}.{key}"
        )
    ]


def _continued(old: RunManifest, new: RunManifest, *, path: Path) -> RunManifest:
    """Join this invocation's tasks to those of the run, if they can stand in one run."""
    differ = differences(old.generation, new.generation)
    for name in sorted(old.tasks.keys() & new.tasks.keys()):
        before, now = old.tasks[name], new.tasks[name]
        for key in ("version", "digest"):
            differ += differences(getattr(before, key), getattr(now, key), at=f"tasks.{name}.{key}")
    data = _data_changes(old, new)
    if differ or data:
        hint = "choose another --out, or use the settings it was made with"
        if not differ:
            hint = "get the data it was made with; --accept-data-change starts another run"
        raise RunMismatch(
            f"{path} was made with other {'settings' if differ else 'data'}: "
            f"{'; '.join((differ + data)[:5])}",
            hint=hint,
        )
    tasks = {name: _joined(old.tasks.get(name, one), one) for name, one in new.tasks.items()}
    kept = {"started": old.started, "num_untold": old.num_untold, "served": old.served}
    return new.model_copy(update={"tasks": old.tasks | tasks, **kept})


def _joined(old: TaskEntry, new: TaskEntry) -> TaskEntry:
    """Return the larger entry, with the rows of both."""
    large, small = (new, old) if new.num_selected >= old.num_selected else (old, new)
    if large.rows is None or set(small.rows or ()) <= set(large.rows):
        return large
    rows = list(dict.fromkeys([*large.rows, *(small.rows or ())]))
    return large.model_copy(update={"rows": rows, "limit": len(rows)})


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep a second process out of this folder; the system frees the lock if we are killed."""
    with (path / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ConfigError(
                f"{path} is in use by process {lock.read().strip() or 'unknown'}",
                hint="wait for it to finish, or give another --out",
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def load_record(kind: type[_M], path: Path, *, hint: str = _RESTORE) -> _M:
    """Read a record from a JSON file. Raises `ConfigError` with this hint."""
    try:
        if path.stat().st_size > LONGEST:
            raise ConfigError(f"{path} is larger than {LONGEST >> 20} MiB", hint=hint)
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except ValidationError as error:
        raise ConfigError(f"{path} is damaged: {first_error(error)}", hint=hint) from error


def _parsed(kind: type[_M], row: dict[str, Any], *, file: Path, number: int) -> _M:
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        raise _damaged(file, number, error) from error


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


Record = TypeVar("Record", CompletionRecord, VerdictRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSample:
    """One sample of a finished run."""

    task: str
    """Name of its task, without the version."""
    completion: CompletionRecord
    verdict: VerdictRecord


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """One judging of one run."""

    folder: Path
    judged: Path
    place: Path
    """Where its scores are: the folder of the judging, or that of one selection."""
    manifest: RunManifest
    judging: JudgingManifest
    """Both know only what was selected."""
    scores: Scores

    @classmethod
    def of(cls, folder: Path, place: Path, what: Selection, score: Callable[..., Scores]) -> Self:
        """Return the run as if nothing but this selection had ever been asked for."""
        judged, whole = judging_at(place), load_run_manifest(folder)
        made = load_judging_manifest(judged)
        _refuse_edits(folder, whole)
        _refuse_edits(judged, made)
        manifest = whole.only(what)
        made = made.model_copy(update={"tasks": [*manifest.tasks]})
        return cls(folder, judged, place, manifest, made, score(manifest=manifest, judging=made))

    @property
    def control(self) -> str | None:
        """How its samples were perturbed, by the file that the digest is of; None: not at all."""
        return self.manifest.generation.get("control")

    @property
    def protocol(self) -> dict[str, str]:
        """The stamp of its protocol, as this version makes it."""
        return stamp_now(
            self.judging.protocol, generation=self.manifest.generation, judging=self.judging.judging
        )

    def absolute(self) -> Self:
        """Return the run, to be found wherever this process goes."""
        places = {name: getattr(self, name).absolute() for name in ("folder", "judged", "place")}
        return replace(self, **places)

    @property
    def label(self) -> str:
        """Where it lies in the folder of runs, such as `NAME/147e8bc8/judged/6abc11e8`."""
        return _label(self.scores, self.place, self.folder)

    def entry(self, task: str) -> TaskEntry:
        """Return what `run.json` says of a task."""
        return self.manifest.tasks[task]

    def samples(self) -> Iterator[JudgedSample]:
        """Yield every sample that belongs to the run and has a verdict, in the file's order.

        Only where the lines begin is kept in memory.
        """
        takes = {name: self.entry(name).takes() for name in self.judging.tasks}
        answered, judged = self.folder / "completions.jsonl", self.judged / "verdicts.jsonl"
        verdicts = newest_lines(judged)
        with answered.open("rb") as completions, judged.open("rb") as judgements:
            for key, at in newest_lines(answered).items():
                task = key[0].partition("@")[0]
                if task not in takes or key not in verdicts:
                    continue
                completion = record_at(CompletionRecord, completions, at)
                if takes[task](completion.row):
                    verdict = record_at(VerdictRecord, judgements, verdicts[key])
                    yield JudgedSample(task=task, completion=completion, verdict=verdict)


def record_at(kind: type[Record], file: BinaryIO, at: int) -> Record:
    """Read the line that begins at this byte."""
    file.seek(at)
    try:
        return kind.model_validate_json(file.readline())
    except ValidationError as error:
        raise _damaged(Path(file.name), f"at byte {at}", error) from error


def read_run(path: Path, *, judging: str | None = None) -> JudgedRun:
    """Read the run that a RUN argument names, as `find_judging` finds it.

    Raises `ConfigError` for a folder that is not a run, has no verdicts or no scores yet, or whose
    files are damaged.
    """
    folder, place = find_judging(path, judging=judging)
    hint = f"`medix-eval score {path}` writes it again"
    scores = load_scores(place, folder, hint=hint)
    what = read_selection(folder, place, scores)
    run = JudgedRun.of(folder, place, what, lambda **_: scores)
    ran = load_run_manifest(folder).tasks
    larger = [n for n, one in run.manifest.tasks.items() if ran[n].num_selected > one.num_selected]
    if larger and place == run.judged:
        said = "%s: scores of the largest complete selection; more samples were asked for of %s"
        _LOG.warning(said, place, ", ".join(larger))
    return run


def read_runs(paths: Iterable[Path], *, judging: str | None = None) -> list[JudgedRun]:
    """Read runs, as `read_run` does; one warning names those that other judging code has judged."""
    runs = [read_run(path, judging=judging) for path in paths]
    versions = {run.judged: run.judging.judging.get("version", JUDGING_VERSION) for run in runs}
    other = {run: version for run, version in versions.items() if version != JUDGING_VERSION}
    if other:
        which = f"{len(other)} runs, such as {min(other)}" if len(other) > 1 else min(other)
        numbers = ", ".join(sorted({str(version) for version in other.values()}))
        _LOG.warning("%s: judged by version %s: run `medix-eval judge RUN`", which, numbers)
    return runs
