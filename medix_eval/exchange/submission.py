"""A run as one zip that others can check: every verdict with its raw reply, and checksums.

Restricted tasks keep ids and scores, but no text. Machine names, flags and time-outs are left out:
they do not affect a score.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal

from pydantic import BaseModel

from medix_eval.errors import ConfigError
from medix_eval.exchange.other_harnesses import write_official
from medix_eval.records import CompletionRecord, Frozen, VerdictRecord
from medix_eval.results.scores import Scores
from medix_eval.results.store import (
    JudgedRun,
    JudgedSample,
    JudgingManifest,
    Record,
    RunManifest,
    load_judging_manifest,
    load_record,
    load_run_manifest,
    newest,
    record_at,
    slug,
)
from medix_eval.storage.digests import ShownName
from medix_eval.storage.jsonl import newest_lines, numbered
from medix_eval.storage.mirror import sha256_of

MANIFEST, SIGNATURE, NAMESPACE = "submission.json", "submission.json.sig", "medix-eval"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every file inside: the same run gives the same zip."""


class SubmissionManifest(Frozen):
    """`submission.json`: what is in the zip."""

    schema_version: Literal[1] = 1
    model: ShownName
    protocol: dict[str, str]
    generation_digest: str
    judging_digest: str
    synthetic: bool
    restricted: tuple[str, ...]
    """Tasks whose text is left out."""
    sha256: dict[str, str]
    """Of every other file."""


def write_submission(
    run: JudgedRun, out: Path, *, official: bool, allow_synthetic: bool, key: Path | None
) -> Path:
    """Write the zip into `out` and return its path.

    Raises `ConfigError` for a control, for a run on synthetic stand-ins, unless that is allowed and
    then marked, and for a signing key that does not sign.
    """
    if run.control:
        raise ConfigError(
            f"{run.judged} was made under --control {run.control}",
            hint="submit the plain run: a control is not a score of a model",
        )
    if run.scores.synthetic and not allow_synthetic:
        raise ConfigError(
            f"{run.judged} was made on synthetic data, which says nothing about the benchmarks",
            hint="--allow-synthetic writes it marked; or name a selection of real tasks alone",
        )
    digests = (run.scores.generation_digest, run.scores.judging_digest)
    name = "-".join([slug(run.scores.model), *(one[:8] for one in digests)])
    path = out / f"{name}-{'official' if official else 'submission'}.zip"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            files = write_official(run, folder) if official else _write(run, folder)
            if key is not None:
                files.append(_sign(folder / MANIFEST if not official else files[-1], key=key))
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in files:
                    entry = zipfile.ZipInfo(f"{name}/{file.name}", date_time=_EPOCH)
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    archive.writestr(entry, file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return path


def _write(run: JudgedRun, folder: Path) -> list[Path]:
    restricted = tuple(sorted(t for t in run.judging.tasks if run.entry(t).data_class == "dua"))
    texts = {
        "run.json": _plain(run.manifest, limits={}, hardware={}),
        "judging.json": _plain(run.judging),
        "scores.json": _plain(run.scores, run=""),
    }
    files = []
    for name, text in texts.items():
        files.append(folder / name)
        files[-1].write_text(text, encoding="utf-8")
    completions, verdicts = folder / "completions.jsonl", folder / "verdicts.jsonl"
    with (
        completions.open("w", encoding="utf-8") as said,
        verdicts.open("w", encoding="utf-8") as judged,
    ):
        for completion, verdict in _ordered(run, restricted):
            said.write(completion.model_dump_json(exclude_defaults=True) + "\n")
            judged.write(verdict.model_dump_json(exclude_defaults=True) + "\n")
    files += [completions, verdicts]
    manifest = SubmissionManifest(
        model=run.scores.model,
        protocol=run.scores.protocol,
        generation_digest=run.scores.generation_digest,
        judging_digest=run.scores.judging_digest,
        synthetic=run.scores.synthetic,
        restricted=restricted,
        sha256={file.name: sha256_of(file) for file in files},
    )
    files.append(folder / MANIFEST)
    files[-1].write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return files


def _plain(record: BaseModel, **changed: Any) -> str:
    fields = record.model_dump(mode="json") | changed
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"


def _ordered(
    run: JudgedRun, restricted: tuple[str, ...]
) -> Iterator[tuple[CompletionRecord, VerdictRecord]]:
    """Yield the samples by task and row, so that the order of arrival does not matter."""
    samples = sorted(run.samples(), key=lambda sample: (sample.task, sample.completion.row))
    for sample in samples:
        if sample.task in restricted:
            yield _without_text(sample)
        else:
            yield sample.completion, sample.verdict


_OF_ALL = "task sample_id row kind finish_reason prompt_tokens completion_tokens requests seconds"
_OF_A_VERDICT = "task sample_id outcome score rule error_tags"
"""What a restricted sample keeps besides its votes."""


def _without_text(sample: JudgedSample) -> tuple[CompletionRecord, VerdictRecord]:
    """Leave of a restricted sample its id, its outcome and the points of its votes."""
    completion, verdict = sample.completion, sample.verdict
    said = hashlib.sha256((completion.completion or "").encode()).hexdigest()
    return (
        CompletionRecord(
            prompt="",
            reference="",
            completion=f"sha256:{said}",
            **{name: getattr(completion, name) for name in _OF_ALL.split()},
        ),
        VerdictRecord(
            votes=tuple(
                vote.model_copy(update={"reply": None, "failure": None}) for vote in verdict.votes
            ),
            **{name: getattr(verdict, name) for name in _OF_A_VERDICT.split()},
        ),
    )


def _sign(file: Path, *, key: Path) -> Path:
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(key), str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError as error:
        raise ConfigError("--sign needs ssh-keygen", hint="install OpenSSH") from error
    if done.returncode:
        raise ConfigError(f"--sign {key}: {' '.join(done.stderr.split())}")
    return file.with_name(file.name + ".sig")


_FILES = ("run.json", "judging.json", "scores.json", "completions.jsonl", "verdicts.jsonl")
_LINES = ("completions.jsonl", "verdicts.jsonl")


class _Records(Mapping[tuple[str, str], Record], Generic[Record]):
    """The newest line of each sample: checked once, and read again where it is asked for.

    So a check needs memory for one line, whatever a stranger's file holds.
    """

    def __init__(self, path: Path, kind: type[Record]) -> None:
        newest(path, lambda line: bool(kind.model_validate(line)))
        self._path, self._at = path, newest_lines(path)
        self._kind: type[Record] = kind

    def __getitem__(self, key: tuple[str, str]) -> Record:
        with self._path.open("rb") as file:
            return record_at(self._kind, file, self._at[key])

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
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


def read_submission(folder: Path) -> Submission:
    """Read the files. Raises `ConfigError` naming the one that is missing or damaged."""
    missing = [name for name in (*_FILES, MANIFEST) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"the submission lacks {', '.join(missing)}")
    given = Submission(
        folder=folder,
        listed=load_record(SubmissionManifest, folder / MANIFEST),
        manifest=load_run_manifest(folder),
        judging=load_judging_manifest(folder),
        scores=load_record(Scores, folder / "scores.json"),
        completions=_Records(folder / "completions.jsonl", CompletionRecord),
        verdicts=_Records(folder / "verdicts.jsonl", VerdictRecord),
    )
    if not isinstance(given.manifest.generation.get("model"), dict):
        raise ConfigError("run.json does not name its model")
    if unknown := [name for name in given.judging.tasks if name not in given.manifest.tasks]:
        raise ConfigError(f"judging.json lists {', '.join(unknown)}, which run.json does not list")
    return given


def file_problems(given: Submission) -> list[str]:
    """Compare the files with the list of them."""
    there = {path.relative_to(given.folder).as_posix() for path in given.folder.rglob("*")}
    listed = given.listed.sha256
    extra = there - {*_FILES, MANIFEST, SIGNATURE}
    return [
        *(f"{name}: is not a submission file" for name in sorted({*extra, *listed} - {*_FILES})),
        *(f"{name}: not in {MANIFEST}" for name in sorted({*_FILES} - {*listed})),
        *(
            f"{name}: its checksum is not the one in {MANIFEST}"
            for name in _FILES
            if name in listed and sha256_of(given.folder / name) != listed[name]
        ),
    ]


def line_problems(folder: Path) -> list[str]:
    """Name the samples and keys that occur twice: one reader takes the first, one the last."""
    problems = []
    for name in _LINES:
        seen = Counter[tuple[str, str]]()
        with (folder / name).open("rb") as file:
            for number, line in numbered(folder / name, file):
                repeated: list[str] = []
                row = json.loads(line, object_pairs_hook=partial(_row, repeated=repeated))
                seen[row["task"], row["sample_id"]] += 1
                problems += [f"{name}, line {number}: {key!r} occurs twice" for key in repeated]
                if not line.endswith(b"\n"):
                    problems.append(f"{name}, line {number}: the line is incomplete")
        problems += [
            f"{name}: {task} {sample_id} occurs {num} times"
            for (task, sample_id), num in seen.items()
            if num > 1
        ]
    return problems


def number_problems(given: Submission) -> Iterator[str]:
    """Yield the samples with an impossible number; a score has its own checks."""
    for (task, sample_id), one in given.completions.items():
        spent = (one.row, one.seconds, one.prompt_tokens, one.completion_tokens, one.requests)
        if not all(number is None or 0 <= number < math.inf for number in spent):
            yield f"{task} {sample_id}: its completion has an impossible number"
    for (task, sample_id), verdict in given.verdicts.items():
        calls = [number for vote in verdict.votes for number in (vote.calls, vote.seconds)]
        if not all(0 <= number < math.inf for number in calls):
            yield f"{task} {sample_id}: its verdict has an impossible number"
        if verdict.outcome.is_scored != (verdict.score is not None):
            yield f"{task} {sample_id}: {verdict.outcome} with the score {verdict.score}"


def _row(pairs: list[tuple[str, Any]], repeated: list[str]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        repeated += [key for key, num in Counter(key for key, _ in pairs).items() if num > 1]
    return row
