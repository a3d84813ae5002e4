"""A submission's files, read as strictly as strangers' files must be.

Everything that two readers could read in two ways is refused here: a file beside those that are
listed, a key or a sample that stands twice, a last line without an end.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medix_eval.errors import ConfigError
from medix_eval.exchange.submission import MANIFEST, SIGNATURE, SubmissionManifest
from medix_eval.records import CompletionRecord, VerdictRecord
from medix_eval.results.scores import Scores
from medix_eval.results.store import (
    JudgingManifest,
    RunManifest,
    load_judging_manifest,
    load_run_manifest,
    newest,
)
from medix_eval.storage.mirror import sha256_of

_FILES = ("run.json", "judging.json", "scores.json", "completions.jsonl", "verdicts.jsonl")
_LINES = ("completions.jsonl", "verdicts.jsonl")


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
    try:
        given = Submission(
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
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"the submission is damaged: {error.title} {where}: {first['msg']}"
        ) from error
    if not {"name", "digest"} <= given.judging.protocol.keys():
        raise ConfigError("judging.json names no protocol with its digest")
    if not all(isinstance(judge.get("id"), str) for judge in given.judging.judges):
        raise ConfigError("judging.json has a judge without a name")
    if not isinstance(given.manifest.generation.get("model"), dict):
        raise ConfigError("run.json does not say of which model it is")
    if unknown := [name for name in given.judging.tasks if name not in given.manifest.tasks]:
        raise ConfigError(f"judging.json lists {', '.join(unknown)}, which run.json does not know")
    return given


def file_problems(given: Submission) -> list[str]:
    """Hold the files against the list of them."""
    there = {path.relative_to(given.folder).as_posix() for path in given.folder.rglob("*")}
    listed = given.listed.sha256
    extra = there - {*_FILES, MANIFEST, SIGNATURE}
    return [
        *(f"{name}: is no file of a submission" for name in sorted({*extra, *listed} - {*_FILES})),
        *(f"{name}: not in {MANIFEST}" for name in sorted({*_FILES} - {*listed})),
        *(
            f"{name}: its checksum is not the one in {MANIFEST}"
            for name in _FILES
            if name in listed and sha256_of(given.folder / name) != listed[name]
        ),
    ]


def line_problems(folder: Path) -> list[str]:
    """Name the samples and keys that stand twice: one reader takes the first, one the last."""
    problems = []
    for name in _LINES:
        seen = Counter[tuple[str, str]]()
        with (folder / name).open("rb") as file:
            for number, line in enumerate(file, 1):
                repeated: list[str] = []
                row = json.loads(line, object_pairs_hook=partial(_row, repeated=repeated))
                seen[row["task"], row["sample_id"]] += 1
                problems += [f"{name}, line {number}: {key!r} stands twice" for key in repeated]
                if not line.endswith(b"\n"):
                    problems.append(f"{name}, line {number}: the line is torn")
        problems += [
            f"{name}: {task} {sample_id} stands {num} times"
            for (task, sample_id), num in seen.items()
            if num > 1
        ]
    return problems


def number_problems(given: Submission) -> Iterator[str]:
    """Yield the samples with a number that no run comes to; a score has its own checks."""
    for (task, sample_id), one in given.completions.items():
        spent = (one.row, one.seconds, one.prompt_tokens, one.completion_tokens, one.requests)
        if not all(number is None or 0 <= number < math.inf for number in spent):
            yield f"{task} {sample_id}: its completion holds a number that no run comes to"
    for (task, sample_id), verdict in given.verdicts.items():
        calls = [number for vote in verdict.votes for number in (vote.calls, vote.seconds)]
        if not all(0 <= number < math.inf for number in calls):
            yield f"{task} {sample_id}: its verdict holds a number that no run comes to"
        if verdict.outcome.is_scored != (verdict.score is not None):
            yield f"{task} {sample_id}: {verdict.outcome} with the score {verdict.score}"


def _row(pairs: list[tuple[str, Any]], repeated: list[str]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        repeated += [key for key, num in Counter(key for key, _ in pairs).items() if num > 1]
    return row
