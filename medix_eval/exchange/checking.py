"""A submission, doubted: what can be made again is made again, and must come out the same.

Checksums prove nothing against whoever can compute them, so they are the least of it. Verdicts are
made again from the raw replies, scores from the verdicts, ids from the dataset; a sample may be
put before the judge again. What cannot be checked here is listed, never passed over.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import ConfigError, MedixError
from medix_eval.evaluation.panel import Appointed, JudgeChoice, appoint
from medix_eval.exchange.against_data import differences_from_data
from medix_eval.exchange.asked_again import ask_again
from medix_eval.exchange.recorded import (
    judged_by_other_code,
    problem_of_points,
    problem_of_replies,
    protocol_of,
)
from medix_eval.exchange.rescored import score_problems, unchecked_scores
from medix_eval.exchange.stamps import digest_problems, protocol_problems, task_problems
from medix_eval.exchange.submission import MANIFEST, NAMESPACE, SIGNATURE
from medix_eval.exchange.submitted import (
    Submission,
    file_problems,
    line_problems,
    number_problems,
    read_submission,
)
from medix_eval.exchange.zips import unpack
from medix_eval.judging.protocol import Protocol, RulesOnly, protocol_names
from medix_eval.models.resolve import resolve_model

_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """How far to go: data to compare with, a judge to ask again, signers to believe."""

    data_root: Path | None = None
    judge: JudgeChoice | None = None
    num_samples: int = 50
    seed: int | None = None
    """Of the samples that are judged again; None draws them so that nobody can foresee them."""
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
            raise ConfigError(f"{path} is no submission", hint=f"it must hold one {MANIFEST}")
        given = read_submission(folders[0])
        found.model = given.listed.model
        judge = _appointed(doubts.judge, given)  # a wrong flag is told of before all else
        if given.listed.synthetic and not doubts.allow_synthetic:
            found.problems.append("it was made on synthetic data, which says nothing of a model")
        if (control := given.manifest.generation.get("control")) is not None:
            found.problems.append(f"it was made under --control {control}: that is no score")
        found.add("files and checksums", file_problems(given))
        found.add("no sample twice", line_problems(given.folder))
        found.add("numbers in their range", number_problems(given))
        found.add("digests", digest_problems(given))
        if stale := judged_by_other_code(given.judging):
            found.problems.append(stale)
        else:
            found.add("the protocol's stamp", protocol_problems(given))
        found.add("tasks as their files say", task_problems(given, catalogue))
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


def _appointed(choice: JudgeChoice | None, given: Submission) -> Appointed | None:
    """Return the judge to ask again, which may write as much as the submission's could."""
    try:
        spec = protocol_of(given.manifest, given.judging).judge
    except ConfigError:  # which the checks tell of
        return None
    if choice is None or choice.name is None or isinstance(spec, RulesOnly):
        return None
    source = resolve_model(choice.name, choice.flags, max_tokens=spec.sampling.max_tokens)
    (judge,) = appoint([source])
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
    problem = f"the signature is of none of {doubts.allowed_signers}, or of another {MANIFEST}"
    found.add(f"signed by {principal}", [] if verified else [problem])


def _coverage(given: Submission) -> list[str]:
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


def _check_verdicts(given: Submission, found: Checked) -> None:
    """Make every verdict again from its raw replies; of restricted samples from their points."""
    name = given.judging.protocol["name"]
    if name.removesuffix("+other-generation") not in protocol_names():
        found.unchecked.append(f"protocol {name!r} is not one of ours: read it before you compare")
    try:
        protocol = protocol_of(given.manifest, given.judging)
    except ConfigError as error:
        found.unchecked.append(f"verdicts against their replies: {error}")
        return
    found.add("verdicts from raw replies", asyncio.run(_replayed(given, protocol)))
    if given.listed.restricted:
        listed = ", ".join(given.listed.restricted)
        found.unchecked.append(f"replies and answers of {listed}: restricted text stays at home")


async def _replayed(given: Submission, protocol: Protocol) -> list[str]:
    names = [judge["id"] for judge in given.judging.judges]
    problems = []
    for key, kept in given.verdicts.items():
        record = given.completions.get(key)
        if record is None:
            continue
        if given.is_restricted(key):
            problem = await problem_of_points(protocol, record, kept, judges=names)
        else:
            problem = await problem_of_replies(protocol, record, kept, judges=names)
        if problem:
            problems.append(f"{key[0]} {key[1]}: {problem}")
    return problems


def _check_data(given: Submission, catalogue: Catalogue, doubts: Doubts, found: Checked) -> None:
    """Compare ids, questions and references with the dataset, where it is at hand."""
    from medix_eval.data.opening import open_task  # noqa: PLC0415 (datasets: seconds)

    shut: dict[str, dict[str, MedixError]] = {}
    for name in given.judging.tasks:
        entry = given.manifest.tasks[name]
        file = catalogue.tasks.get(name)
        if file is None or file.version != entry.version:
            found.unchecked.append(f"{name}@{entry.version} against its data: not one of our tasks")
            continue
        try:
            task = open_task(file, data_root=doubts.data_root)
        except MedixError as error:
            shut.setdefault(error.hint or "", {})[name] = error
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
    for hint, errors in shut.items():
        why = "; ".join(map(str, errors.values()))
        found.unchecked.append(f"{', '.join(errors)} against the data: {why}; {hint}")


def _ask_again(given: Submission, judge: Appointed, doubts: Doubts, found: Checked) -> None:
    if judge.name not in (stated := [one["id"] for one in given.judging.judges]):
        said = ", ".join(stated) or "nobody"
        found.unchecked.append(f"it was judged by {said}, and {judge.name} is asked here")
    try:
        asked = asyncio.run(
            ask_again(given, judge, num_samples=doubts.num_samples, seed=doubts.seed)
        )
    except ConfigError as error:
        found.unchecked.append(f"a sample judged again: {error}")
        return
    found.unchecked += asked.within_tolerance
    found.add(asked.what, asked.problems)
