"""A submission, doubted: what can be made again is made again, and must come out the same.

Checksums prove nothing against whoever can compute them, so they are the least of it. Verdicts are
made again from the raw replies, scores from the verdicts, ids from the dataset; a sample may be
put before the judge again. What cannot be checked here is listed, never passed over.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from medix_eval.digests import digest
from medix_eval.errors import ConfigError, MedixError
from medix_eval.exchange.against_data import differences_from_data
from medix_eval.exchange.recorded import protocol_of, verdict_again
from medix_eval.exchange.submission import MANIFEST, NAMESPACE, SIGNATURE, SubmissionManifest
from medix_eval.exchange.zips import unpack
from medix_eval.jsonl import read_lines
from medix_eval.judging.outcomes import Scorer
from medix_eval.judging_stage import Appointed, grader_for, open_judges
from medix_eval.mirror import sha256_of
from medix_eval.protocol import Protocol, load_protocol, protocol_names
from medix_eval.records import CompletionRecord, VerdictRecord
from medix_eval.retrying import RetryPolicy
from medix_eval.scores import Scores
from medix_eval.scoring import score_run
from medix_eval.store import (
    JudgingManifest,
    RunManifest,
    load_judging_manifest,
    load_run_manifest,
    newest,
)
from medix_eval.tasks import Catalogue

_FILES = ("run.json", "judging.json", "scores.json", "completions.jsonl", "verdicts.jsonl")
_MOST_SHOWN = 20
_MAY_DIFFER = 0.02
"""Share of the sample in which a judge may say something else: servers are not bit-exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """How far to go: data to compare with, a judge to ask again, signers to believe."""

    data_root: Path | None = None
    judge: Appointed | None = None
    num_samples: int = 50
    seed: int = 0
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

    def add(self, what: str, problems: list[str]) -> None:
        """Take the result of one check; many defects of one kind are counted, not listed."""
        more = len(problems) - _MOST_SHOWN
        self.problems += problems[:_MOST_SHOWN] + ([f"and {more} more such"] if more > 0 else [])
        if not problems:
            self.done.append(what)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Submission:
    """The files of one zip, read."""

    folder: Path
    listed: SubmissionManifest
    manifest: RunManifest
    judging: JudgingManifest
    scores: Scores
    completions: Mapping[tuple[str, str], CompletionRecord]
    verdicts: Mapping[tuple[str, str], VerdictRecord]

    def is_restricted(self, key: tuple[str, str]) -> bool:
        """Tell whether the text of a sample was left out."""
        return key[0].partition("@")[0] in self.listed.restricted


def check_submission(path: Path, catalogue: Catalogue, doubts: Doubts) -> Checked:
    """Check a submission. Raises `ConfigError` where it cannot even be read as one."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    found = Checked()
    with tempfile.TemporaryDirectory() as scratch:
        unpack(path, Path(scratch))
        folders = [file.parent for file in Path(scratch).rglob(MANIFEST)]
        if len(folders) != 1:
            raise ConfigError(f"{path} is no submission", hint=f"it holds no {MANIFEST}")
        given = _read(folders[0])
        found.model = given.listed.model
        if given.listed.synthetic and not doubts.allow_synthetic:
            found.problems.append("it was made on synthetic data, which says nothing of a model")
        found.add("checksums", _checksums(given))
        found.add("no sample twice", _doubled(given.folder))
        found.add("digests", _digests(given, found))
        found.add("what is restricted", _restrictions(given, catalogue))
        _signature(given, doubts, found)
        found.add("scores from verdicts", _scores(given, catalogue))
        found.add("every sample is there", _coverage(given))
        _check_verdicts(given, found)
        _check_data(given, catalogue, doubts, found)
        if doubts.judge is not None:
            asyncio.run(_ask_again(given, doubts, found))
    return found


def _read(folder: Path) -> _Submission:
    missing = [name for name in (*_FILES, MANIFEST) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"the submission lacks {', '.join(missing)}")
    try:
        return _Submission(
            folder=folder,
            listed=SubmissionManifest.model_validate_json((folder / MANIFEST).read_bytes()),
            manifest=load_run_manifest(folder),
            judging=load_judging_manifest(folder),
            scores=Scores.model_validate_json((folder / "scores.json").read_bytes()),
            completions=newest(folder / "completions.jsonl", CompletionRecord.model_validate),
            verdicts=newest(folder / "verdicts.jsonl", VerdictRecord.model_validate),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(
            f"the submission is damaged: {error.title} {'.'.join(map(str, first['loc']))}: "
            f"{first['msg']}"
        ) from error


def _checksums(given: _Submission) -> list[str]:
    problems = [
        f"{name}: its checksum is not the one in {MANIFEST}"
        for name, listed in given.listed.sha256.items()
        if (given.folder / name).name != name or sha256_of(given.folder / name) != listed
    ]
    return problems + [f"{name}: not in {MANIFEST}" for name in {*_FILES} - {*given.listed.sha256}]


def _doubled(folder: Path) -> list[str]:
    """Name the samples that stand twice: a later line would silently replace the first."""
    problems = []
    for name in ("completions.jsonl", "verdicts.jsonl"):
        seen = Counter((line["task"], line["sample_id"]) for line in read_lines(folder / name))
        problems += [
            f"{name}: {task} {sample_id} stands {num} times"
            for (task, sample_id), num in seen.items()
            if num > 1
        ]
    return problems


def _digests(given: _Submission, found: Checked) -> list[str]:
    """Hold digests against what they are of, and a bundled protocol's name against its digest."""
    problems = []
    if digest(given.manifest.generation) != given.manifest.generation_digest:
        problems.append("run.json: the generation digest is of other settings")
    if digest(given.judging.judging) != given.judging.judging_digest:
        problems.append("judging.json: the judging digest is of other settings")
    stamps = (given.listed.protocol, given.judging.protocol, given.scores.protocol)
    if any(stamp != stamps[0] for stamp in stamps):
        problems.append("the files name different protocols")
    if given.listed.synthetic != any(task.synthetic for task in given.manifest.tasks.values()):
        problems.append(f"{MANIFEST} says something else than run.json of synthetic data")
    name = given.judging.protocol["name"]
    if name in protocol_names():
        ours = load_protocol(name)
        theirs = given.judging.judging
        if any(theirs.get(key) != value for key, value in ours.judging_settings().items()):
            problems.append(f"judging.json names protocol {name}, but its settings are others")
    else:
        found.unchecked.append(f"protocol {name!r} is not one of ours: read it before you compare")
    return problems


def _restrictions(given: _Submission, catalogue: Catalogue) -> list[str]:
    """Nobody may leave out the text of a task that is not restricted, and so escape the checks."""
    restricted = {n for n in given.judging.tasks if given.manifest.tasks[n].data_class == "dua"}
    problems = [
        f"{name}: its text is left out, but it is not restricted"
        for name in {*given.listed.restricted} - restricted
    ]
    return problems + [
        f"{name}: run.json calls its data {given.manifest.tasks[name].data_class}, its task file "
        f"{catalogue.tasks[name].settings.data_class}"
        for name in given.judging.tasks
        if name in catalogue.tasks
        and given.manifest.tasks[name].data_class != catalogue.tasks[name].settings.data_class
    ]


def _signature(given: _Submission, doubts: Doubts, found: Checked) -> None:
    if not (given.folder / SIGNATURE).is_file():
        found.unchecked.append("it is not signed")
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
    problem = f"the signature is of none of {doubts.allowed_signers}, or of another {MANIFEST}"
    found.add(f"signed by {principal}", [] if verified else [problem])


def _scores(given: _Submission, catalogue: Catalogue) -> list[str]:
    """Compute the scores again from the verdicts."""
    again = score_run(
        given.folder,
        given.folder,
        manifest=given.manifest,
        judging=given.judging,
        groups=catalogue.groups,
    )
    problems = []
    for name, task in again.tasks.items():
        stated = given.scores.tasks.get(name)
        if stated is None or (stated.score, stated.n, stated.outcomes) != (
            task.score,
            task.n,
            task.outcomes,
        ):
            said = "nothing" if stated is None or stated.score is None else f"{stated.score:.6f}"
            ours = "none" if task.score is None else f"{task.score:.6f}"
            problems.append(f"scores.json: {name} states {said}, its verdicts give {ours}")
    problems += [
        f"scores.json: {name} has no verdicts"
        for name in given.scores.tasks.keys() - again.tasks.keys()
    ]
    problems += [
        f"scores.json: the mean of {name} is not that of its tasks"
        for name, group in again.groups.items()
        if (stated_group := given.scores.groups.get(name)) is None
        or (stated_group.score, stated_group.complete) != (group.score, group.complete)
    ]
    return problems


def _coverage(given: _Submission) -> list[str]:
    """Compare the samples with the numbers in `run.json`, and completions with verdicts."""
    problems = [
        f"{task} {one} has a verdict without a completion, or a completion without a verdict"
        for task, one in given.completions.keys() ^ given.verdicts.keys()
    ]
    rows = Counter(
        task.partition("@")[0] for task, _ in given.completions.keys() & given.verdicts.keys()
    )
    for name in given.judging.tasks:
        expected = given.manifest.tasks[name].num_selected
        if rows[name] != expected:
            problems.append(f"{name}: {rows[name]} samples of the {expected} that run.json says")
    return problems


def _check_verdicts(given: _Submission, found: Checked) -> None:
    """Make every verdict again from its raw replies."""
    try:
        protocol = protocol_of(given.manifest, given.judging)
    except ConfigError as error:
        found.unchecked.append(f"verdicts against their replies: {error}")
        return
    names = [judge["id"] for judge in given.judging.judges]
    problems = asyncio.run(_replayed(given, protocol, names))
    found.add("verdicts from raw replies", problems)
    if given.listed.restricted:
        listed = ", ".join(given.listed.restricted)
        found.unchecked.append(f"verdicts of {listed}: restricted text is not in a submission")


async def _replayed(given: _Submission, protocol: Protocol, names: list[str]) -> list[str]:
    problems = []
    for key, kept in given.verdicts.items():
        record = given.completions.get(key)
        if record is None or given.is_restricted(key):
            continue
        again = await verdict_again(protocol, record, kept, judges=names)
        if (again.outcome, again.score, again.answer) != (kept.outcome, kept.score, kept.answer):
            problems.append(
                f"{key[0]} {key[1]}: {kept.outcome} is stated, its replies give {again.outcome}"
            )
        elif [vote.points for vote in again.votes] != [vote.points for vote in kept.votes]:
            problems.append(f"{key[0]} {key[1]}: a vote's points are not those of its reply")
    return problems


def _check_data(given: _Submission, catalogue: Catalogue, doubts: Doubts, found: Checked) -> None:
    """Compare ids, questions and references with the dataset, where it is at hand."""
    from medix_eval.data.opening import open_task  # noqa: PLC0415 (datasets: seconds)

    for name in given.judging.tasks:
        entry = given.manifest.tasks[name]
        file = catalogue.tasks.get(name)
        if file is None or file.version != entry.version:
            found.unchecked.append(f"{name}@{entry.version} against its data: not one of our tasks")
            continue
        try:
            task = open_task(file, data_root=doubts.data_root)
        except MedixError as error:
            found.unchecked.append(f"{name} against its data: {error}")
            continue
        theirs = {key[1]: it for key, it in given.completions.items() if key[0] == file.key}
        problems = differences_from_data(
            task,
            entry,
            key=file.key,
            theirs=theirs,
            has_text=name not in given.listed.restricted,
        )
        found.add(f"{name} against its data", list(problems))


async def _ask_again(given: _Submission, doubts: Doubts, found: Checked) -> None:
    """Put a seeded sample of the completions before the judge again."""
    assert doubts.judge is not None  # noqa: S101 (asked for)
    protocol = protocol_of(given.manifest, given.judging)
    judged = sorted(
        key
        for key, verdict in given.verdicts.items()
        if verdict.votes and key in given.completions and not given.is_restricted(key)
    )
    drawn = random.Random(doubts.seed).sample(judged, min(doubts.num_samples, len(judged)))  # noqa: S311
    problems = []
    async with AsyncExitStack() as stack:
        models = await open_judges([doubts.judge], stack=stack, logs=given.folder)
        grader = grader_for(
            doubts.judge,
            models[doubts.judge.name],
            protocol=protocol,
            policy=RetryPolicy(),
            cache=None,
        )
        scorer = Scorer(protocol, grader)
        again = await asyncio.gather(*(scorer.score(given.completions[key]) for key in drawn))
    for key, verdict in zip(drawn, again, strict=True):
        if verdict.outcome != given.verdicts[key].outcome:
            stated = given.verdicts[key].outcome
            problems.append(
                f"{key[0]} {key[1]}: {stated} is stated, {doubts.judge.name} says {verdict.outcome}"
            )
    what = f"{len(drawn)} samples judged again by {doubts.judge.name}"
    if problems and len(problems) <= _MAY_DIFFER * len(drawn):
        found.unchecked += problems
        problems = []
    found.add(what, problems)
