"""Check a submission: what can be recomputed is recomputed, and must come out the same.

Checksums prove nothing against a forger, who can compute them too. Verdicts are
recomputed from the raw replies, scores from the verdicts, ids from the dataset; a sample may be
judged again. What cannot be checked here is listed, never passed over. A board puts
runs side by side by their stamps, so a forged one would lay a run beside runs made in another way.
"""

from __future__ import annotations

import asyncio
import hashlib
import stat
import subprocess
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medix_eval.data.tasks import Catalogue, TaskFile
from medix_eval.errors import ConfigError, MedixError, full_disk, one_line
from medix_eval.evaluation.panel import JudgeChoice, ResolvedJudge, resolve_judges
from medix_eval.exchange.recorded import (
    ask_again,
    judged_by_other_code,
    problem_of_points,
    problem_of_replies,
    protocol_of,
    score_problems,
    unchecked_scores,
)
from medix_eval.exchange.submission import (
    MANIFEST,
    NAMESPACE,
    SIGNATURE,
    Submission,
    file_problems,
    line_problems,
    number_problems,
    read_submission,
)
from medix_eval.judging.protocol import (
    Protocol,
    RulesOnly,
    load_protocol,
    protocol_names,
    stamp_now,
)
from medix_eval.models.resolve import resolve_model
from medix_eval.records import CompletionRecord, Sample
from medix_eval.results.store import TaskEntry
from medix_eval.storage.digests import differences, digest, marked_name

if TYPE_CHECKING:
    from medix_eval.data.lm_task import MedixTask


_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """How far to go: data to compare with, a judge to ask again, signers to trust."""

    data_root: Path | None = None
    judge: JudgeChoice | None = None
    num_samples: int = 50
    seed: int | None = None
    """Of the samples that are judged again; None draws them unpredictably."""
    allowed_signers: Path | None = None
    allow_synthetic: bool = False


@dataclass(slots=True)
class Checked:
    """What was found."""

    model: str = ""
    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """What could not be checked here, and why."""
    done: list[str] = field(default_factory=list)
    """What was checked and held."""

    def add(self, what: str, found: Iterable[str]) -> None:
        """Take the result of one check; many defects of one kind are counted, not listed."""
        problems = [*found]
        more = len(problems) - _MOST_SHOWN
        self.problems += problems[:_MOST_SHOWN] + ([f"and {more} more such"] if more > 0 else [])
        if not problems:
            self.done.append(what)


def check_submission(path: Path, catalogue: Catalogue, doubts: Doubts) -> Checked:
    """Check a submission. Raises `ConfigError` where it cannot even be read as one."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    found = Checked()
    with tempfile.TemporaryDirectory() as scratch:
        unpack(path, Path(scratch))
        folders = [file.parent for file in Path(scratch).rglob(MANIFEST)]
        if len(folders) != 1:
            raise ConfigError(f"{path} is not a submission", hint=f"it needs one {MANIFEST}")
        given = read_submission(folders[0])
        found.model = given.listed.model
        judge = _resolved(doubts.judge, given)  # a wrong flag is told of before all else
        if given.listed.synthetic and not doubts.allow_synthetic:
            found.problems.append("it was made on synthetic data, which says nothing about a model")
        if (control := given.manifest.generation.get("control")) is not None:
            found.problems.append(f"it was made under --control {control}: not a score")
        found.add("files and checksums", file_problems(given))
        found.add("no sample twice", line_problems(given.folder))
        found.add("numbers in their range", number_problems(given))
        found.add("digests", digest_problems(given))
        if stale := judged_by_other_code(given.judging):
            found.problems.append(stale)
        else:
            found.add("the protocol's stamp", protocol_problems(given))
        found.add("tasks match their files", task_problems(given, catalogue))
        _signature(given, doubts, found)
        found.add("every sample is there", _coverage(given))
        found.add("scores from verdicts", score_problems(given, catalogue))
        found.unchecked += unchecked_scores(given)
        if not stale:  # what other code made of replies is no forgery
            _check_verdicts(given, found)
        _check_data(given, catalogue, doubts, found)
        if judge is not None:
            _ask_again(given, judge, doubts, found)
        elif doubts.judge is not None and not stale:
            found.unchecked.append("a sample judged again: its protocol has no language model")
    return found


def _resolved(choice: JudgeChoice | None, given: Submission) -> ResolvedJudge | None:
    """Return the judge to ask again, which may write as much as the submission's could."""
    try:
        spec = protocol_of(given.manifest, given.judging).judge
    except ConfigError:  # which the checks tell of
        return None
    if choice is None or choice.name is None or isinstance(spec, RulesOnly):
        return None
    source = resolve_model(choice.name, choice.flags, max_tokens=spec.sampling.max_tokens)
    (judge,) = resolve_judges([source])
    return judge


def _signature(given: Submission, doubts: Doubts, found: Checked) -> None:
    if not (given.folder / SIGNATURE).is_file():
        missing = found.unchecked if doubts.allowed_signers is None else found.problems
        missing.append("it is not signed")
        return
    if doubts.allowed_signers is None:
        found.unchecked.append("its signature: give --allowed-signers FILE")
        return
    base = ["ssh-keygen", "-Y"]
    signature, allowed = str(given.folder / SIGNATURE), str(doubts.allowed_signers)
    who = subprocess.run(  # noqa: S603
        [*base, "find-principals", "-s", signature, "-f", allowed],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    principal = who.stdout.strip()
    with (given.folder / MANIFEST).open("rb") as signed:
        verified = principal and subprocess.run(  # noqa: S603
            [*base, "verify", "-f", allowed, "-I", principal, "-n", NAMESPACE, "-s", signature],
            stdin=signed, capture_output=True, check=False,
        ).returncode == 0  # fmt: skip
    problem = f"the signature matches no key in {doubts.allowed_signers} or not this {MANIFEST}"
    found.add(f"signed by {principal}", [] if verified else [problem])


def _coverage(given: Submission) -> list[str]:
    """Compare the samples with the numbers in `run.json`, and completions with verdicts."""
    problems = [
        f"{task} {one} has a verdict without a completion, or a completion without a verdict"
        for task, one in given.completions.keys() ^ given.verdicts.keys()
    ]
    both = given.completions.keys() & given.verdicts.keys()
    rows = Counter(task.partition("@")[0] for task, _ in both)
    for name in given.judging.tasks:
        expected = given.manifest.tasks[name].num_selected
        if rows[name] != expected:
            problems.append(f"{name}: samples: {rows[name]}, but run.json states {expected}")
    return problems


def _check_verdicts(given: Submission, found: Checked) -> None:
    """Make every verdict again from its raw replies; of restricted samples from their points."""
    name = given.judging.protocol["name"]
    if name.removesuffix("+other-generation") not in protocol_names():
        found.unchecked.append(f"protocol {name!r} is not bundled: read it before you compare")
    try:
        protocol = protocol_of(given.manifest, given.judging)
    except ConfigError as error:
        found.unchecked.append(f"verdicts against their replies: {error}")
        return
    found.add("verdicts from raw replies", asyncio.run(_replayed(given, protocol)))
    if given.listed.restricted:
        listed = ", ".join(given.listed.restricted)
        found.unchecked.append(f"replies and answers of {listed}: restricted text is not in it")


async def _replayed(given: Submission, protocol: Protocol) -> list[str]:
    names = [judge["id"] for judge in given.judging.judges]
    problems = []
    for key, kept in given.verdicts.items():
        record = given.completions.get(key)
        if record is None:
            continue
        compare = problem_of_points if given.is_restricted(key) else problem_of_replies
        if problem := await compare(protocol, record, kept, judges=names):
            problems.append(f"{key[0]} {key[1]}: {problem}")
    return problems


def _check_data(given: Submission, catalogue: Catalogue, doubts: Doubts, found: Checked) -> None:
    """Compare ids, questions and references with the dataset, if it is available."""
    from medix_eval.data.lm_task import open_task  # noqa: PLC0415 (datasets: seconds)

    shut: dict[str, dict[str, MedixError]] = {}
    for name in given.judging.tasks:
        entry = given.manifest.tasks[name]
        file = catalogue.tasks.get(name)
        if file is None or file.version != entry.version:
            found.unchecked.append(f"{name}@{entry.version} against its data: not a bundled task")
            continue
        try:
            task = open_task(file, data_root=doubts.data_root)
        except MedixError as error:
            shut.setdefault(error.hint or "", {})[name] = error
            continue
        has_text = name not in given.listed.restricted
        theirs = given.completions
        problems = differences_from_data(
            task, entry, key=file.key, theirs=theirs, has_text=has_text
        )
        found.add(f"{name} against its data", list(problems))
    for hint, errors in shut.items():
        why = "; ".join(map(str, errors.values()))
        found.unchecked.append(f"{', '.join(errors)} against the data: {why}; {hint}")


def _ask_again(given: Submission, judge: ResolvedJudge, doubts: Doubts, found: Checked) -> None:
    if judge.name not in (stated := [one["id"] for one in given.judging.judges]):
        said = ", ".join(stated) or "no judge"
        found.unchecked.append(f"it was judged by {said}, but {judge.name} is asked here")
    try:
        asking = ask_again(given, judge, num_samples=doubts.num_samples, seed=doubts.seed)
        asked = asyncio.run(asking)
    except ConfigError as error:
        found.unchecked.append(f"a sample judged again: {error}")
        return
    found.unchecked += asked.within_tolerance
    found.add(asked.what, asked.problems)


_COMPARED = ("prompt", "reference", "options", "facts", "columns", "parser", "restricted")
"""All that a verdict or a slice comes from; without text only row and kind are compared."""


def differences_from_data(
    task: MedixTask,
    entry: TaskEntry,
    *,
    key: str,
    theirs: Mapping[tuple[str, str], CompletionRecord],
    has_text: bool,
) -> Iterator[str]:
    """Yield what differs, a line each; without text only ids are compared."""
    from medix_eval.data.samples import BadSample, read_samples, select_rows  # noqa: PLC0415 (seconds)

    yield from _unlike_source(task, entry)
    drawn = select_rows(
        task.slice_values(),
        limit=None if entry.rows is None else entry.limit,
        seed=entry.seed,
        task=task.name,
    )
    if entry.rows is not None and {*entry.rows} != {*(drawn or ())}:
        yield f"{task.name}: its rows are not those that --limit {entry.limit} draws"
    rows = list(range(len(task.rows))) if drawn is None else drawn
    left = dict.fromkeys(sample_id for name, sample_id in theirs if name == key)
    unmade = task.settings.derived.keys() - {*entry.slices}
    for read in read_samples(task, rows, key=key, done=frozenset(), taken=set()):
        sample_id = read.record.sample_id if isinstance(read, BadSample) else read.id
        if sample_id not in left:
            yield f"{task.name}: {sample_id} of the dataset is missing"
            continue
        left.pop(sample_id)
        mine = theirs[key, sample_id]
        if isinstance(read, Sample):
            known = {name: text for name, text in read.columns.items() if name not in unmade}
            for what in _unlike(mine, replace(read, columns=known), has_text=has_text):
                yield f"{task.name}: {sample_id} {what}"
        elif mine.failure is None:
            yield f"{task.name}: {sample_id} cannot be read, but has an answer"
    for sample_id in left:
        yield f"{task.name}: {sample_id} is not in the dataset"


def _unlike_source(task: MedixTask, entry: TaskEntry) -> Iterator[str]:
    """Compare what `run.json` says about the dataset with it."""
    if entry.synthetic != bool(task.mirror and task.mirror.synthetic):
        yield f"{task.name}: run.json and the data disagree on whether it is synthetic"
    files = entry.source.get("files")
    stated = files if isinstance(files, dict) else {}
    for name, sha256 in task.fingerprint().items():
        if stated.get(name, sha256) != sha256:
            yield f"{task.name}: run.json and the dataset have different hashes of {name}"
    if entry.num_rows != len(task.rows):
        yield f"{task.name}: rows by run.json: {entry.num_rows}, in the dataset: {len(task.rows)}"


def _unlike(mine: CompletionRecord, read: Sample, *, has_text: bool) -> Iterator[str]:
    if mine.failure is not None and mine.failure.error == "BadRow":
        yield "can be read, but was not asked"
    for what in ("row", "kind", *(_COMPARED if has_text else ())):
        if getattr(mine, what) != getattr(read, what):
            yield f"has another {what} than the dataset"
    if has_text and mine.image_sha256 != tuple(map(_sha256, read.images)):
        yield "has other images than the dataset"


def _sha256(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


_MOST_BYTES, _MOST_FILES = 8 << 30, 1000
_ALWAYS_FITS, _MOST_TIMES = 64 << 20, 200
"""Bytes that any zip may hold, and how many times its own size: of 50,000 reports with three votes
each a submission has 1.5 GB, which pack to a tenth."""
_PART = 1 << 20
_DAMAGES = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError)
_NOT_FOR_US = (RuntimeError,)
"""A zip with a password, or with compression that Python does not support."""


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip into a folder; what its headers state is not believed, bytes are counted.

    Raises `ConfigError` for a damaged one, for a link, for a file that would land outside of the
    folder or occurs twice, and for one that unpacks to more than 8 GiB, or to more than 64 MiB and
    200 times its size.
    """
    too_much = ConfigError(f"{path} unpacks to more than a submission may")
    try:
        left = min(_MOST_BYTES, max(_ALWAYS_FITS, _MOST_TIMES * path.stat().st_size))
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_FILES:
                raise too_much
            if len({entry.filename for entry in entries}) < len(entries):
                raise ConfigError(f"{path} has two files with the same name")
            targets = [_target(folder.resolve(), entry, path) for entry in entries]
            for entry, target in zip(entries, targets, strict=True):
                (target if entry.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
                if entry.is_dir():
                    continue
                with archive.open(entry) as packed, target.open("xb") as file:
                    while part := packed.read(_PART):
                        if (left := left - len(part)) < 0:
                            raise too_much
                        file.write(part)
    except _DAMAGES as error:
        if full_disk(error):
            raise
        raise ConfigError(f"{path} is damaged: {one_line(error)}") from error
    except _NOT_FOR_US as error:
        raise ConfigError(f"{path} cannot be unpacked: {one_line(error)}") from error


def _target(folder: Path, entry: zipfile.ZipInfo, path: Path) -> Path:
    target, named = (folder / entry.filename).resolve(), f"{path}: {entry.filename!r}"
    if not target.is_relative_to(folder):
        raise ConfigError(f"{named} would land outside its folder")
    if stat.S_IFMT(entry.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise ConfigError(f"{named} is a link or a device, not a file")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        # Python unpacks others in one piece, however large.
        raise ConfigError(f"{named} is packed in an unusual way", hint="pack it with deflate")
    return target


_OTHER_GENERATION = "+other-generation"
_FROM_THE_FILE = ("kind", "modality", "data_class", "cluster", "slices")


def digest_problems(given: Submission) -> Iterator[str]:
    """Compare digests with their contents, and names with each other."""
    manifest, judging = given.manifest, given.judging
    if digest(manifest.generation) != manifest.generation_digest:
        yield "run.json: the generation digest does not match its settings"
    if digest(judging.judging) != judging.judging_digest:
        yield "judging.json: the judging digest does not match its settings"
    if not given.listed.protocol == judging.protocol == given.scores.protocol:
        yield "the files name different protocols"
    stated = given.listed.model_dump()
    true = {
        "model": manifest.model,
        "generation_digest": manifest.generation_digest,
        "judging_digest": judging.judging_digest,
        "synthetic": any(task.synthetic for task in manifest.tasks.values()),
    }
    for key, value in true.items():
        if stated[key] != value:
            yield f"{MANIFEST}: {key} is {stated[key]!r}, but elsewhere {value!r}"
    identities = judging.judging.get("judges")
    known = identities if isinstance(identities, list) else []
    if [judge.get("digest") for judge in judging.judges] != [digest(one) for one in known]:
        yield "judging.json: its judges do not match their settings"
    names = [judge["id"] for judge in judging.judges]
    if len({*names}) < len(names):
        yield "judging.json: two judges have the same name"


def protocol_problems(given: Submission) -> Iterator[str]:
    """Recompute the protocol's stamp from its settings, so that no digest can be borrowed."""
    name = str(given.judging.protocol.get("name")).removesuffix(_OTHER_GENERATION)
    kept = given.manifest.generation
    stamp = stamp_now(given.judging.protocol, generation=kept, judging=given.judging.judging)
    if name in protocol_names():
        ours = load_protocol(name)
        made = {key: kept.get(key) for key in ours.generation_settings()}
        theirs = {key: given.judging.settings.get(key) for key in ours.judging_settings()}
        for line in differences(ours.judging_settings(), theirs)[:3]:
            yield f"judging.json names protocol {name}, but its settings differ: {line}"
        if ours.stamp(made) != stamp:
            yield f"judging.json: the stamp of protocol {name} does not match its settings"
        return
    try:
        protocol = protocol_of(given.manifest, given.judging)
    except ConfigError as error:
        yield f"judging.json: {error}"
        return
    made = {key: kept.get(key) for key in ("generation", "images", "prompt_template")}
    stamps = {_stamp(protocol, made, like=other) for other in (None, *protocol_names())}
    if stamp.get("digest") not in stamps:
        yield f"judging.json: the digest of protocol {name!r} does not match its settings"


def task_problems(given: Submission, catalogue: Catalogue) -> Iterator[str]:
    """Compare what is said about each task with its task file, and its samples with its rows."""
    entries = {name: given.manifest.tasks[name] for name in given.judging.tasks}
    keys = {f"{name}@{entry.version}" for name, entry in entries.items()}
    for key in sorted({task for task, _ in given.completions.keys() | given.verdicts.keys()}):
        if key not in keys:
            yield f"{key}: it has samples of a task that run.json does not list"
    restricted = {name for name, entry in entries.items() if entry.data_class == "dua"}
    for name in sorted({*given.listed.restricted} - restricted):
        yield f"{name}: its text is left out, but it is not restricted"
    for name, entry in entries.items():
        there = range(entry.num_rows)
        asked = there if entry.rows is None else frozenset(entry.rows)
        if len(asked) != entry.num_selected or not all(row in there for row in entry.rows or ()):
            yield f"{name}: run.json lists a row twice, or one that is not in the data"
        its = given.completions
        taken = [its[key].row for key in its if key[0].startswith(f"{name}@")]
        if len({*taken}) < len(taken) or not all(row in asked for row in taken):
            yield f"{name}: two samples are of the same row, or one is of a row that was not asked"
        file = catalogue.tasks.get(name)
        if file is not None and file.version == entry.version:
            if entry.source.get("path") != (file.dataset_path and marked_name(file.dataset_path)):
                yield f"{name}: run.json names another dataset than {file.dataset_path}"
            yield from _unlike_file(name, entry.model_dump(), file)


def _unlike_file(name: str, stated: dict[str, Any], file: TaskFile) -> Iterator[str]:
    settings = file.settings.model_dump(mode="json")
    settings["slices"] += [one for one in file.settings.derived if one in stated["slices"]]
    for key in _FROM_THE_FILE:
        if stated[key] != settings[key]:
            yield f"{name}: run.json says {key} {stated[key]!r}, its task file {settings[key]!r}"


def _stamp(protocol: Protocol, made: Mapping[str, object], *, like: str | None) -> str:
    """Return the digest that these settings have, with the embedding of a bundled protocol."""
    embedding = load_protocol(like).embedding if like else None
    return protocol.model_copy(update={"embedding": embedding}).stamp(made)["digest"]
