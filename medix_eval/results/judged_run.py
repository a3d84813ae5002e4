"""A finished run, read: its manifests, its scores and every sample with its verdict.

Reports, comparisons, boards and submissions all read runs through this, and only through this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import ValidationError

from medix_eval.errors import ConfigError
from medix_eval.records import CompletionRecord, VerdictRecord
from medix_eval.results.scores import Scores
from medix_eval.results.store import (
    JudgingManifest,
    RunManifest,
    TaskEntry,
    find_run,
    load_judging_manifest,
    load_run_manifest,
    newest,
)
from medix_eval.storage.jsonl import newest_lines

_Line = TypeVar("_Line", CompletionRecord, VerdictRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSample:
    """One sample of a finished run."""

    task: str
    """Name of its task, without the version."""
    completion: CompletionRecord
    verdict: VerdictRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRun:
    """One judging of one run."""

    folder: Path
    judged: Path
    manifest: RunManifest
    judging: JudgingManifest
    scores: Scores

    @property
    def control(self) -> str | None:
        """How its samples were disturbed, by the file that the digest is of; None: not at all."""
        return self.manifest.generation.get("control")

    def entry(self, task: str) -> TaskEntry:
        """Return what `run.json` says of a task."""
        return self.manifest.tasks[task]

    def samples(self) -> Iterator[JudgedSample]:
        """Yield every sample that belongs to the run and has a verdict, in the file's order.

        Only where the lines begin is kept in memory.
        """
        rows = {
            name: None if self.entry(name).rows is None else frozenset(self.entry(name).rows or ())
            for name in self.judging.tasks
        }
        answered, judged = self.folder / "completions.jsonl", self.judged / "verdicts.jsonl"
        verdicts = newest_lines(judged)
        with answered.open("rb") as completions, judged.open("rb") as judgements:
            for key, at in newest_lines(answered).items():
                task = key[0].partition("@")[0]
                if task not in rows or key not in verdicts:
                    continue
                completion = _record(CompletionRecord, completions, at)
                wanted = rows[task]
                if wanted is None or completion.row in wanted:
                    verdict = _record(VerdictRecord, judgements, verdicts[key])
                    yield JudgedSample(task=task, completion=completion, verdict=verdict)

    def verdicts(self) -> dict[tuple[str, str], VerdictRecord]:
        """Return the newest verdict of each sample, by task (with version) and sample id."""
        return newest(self.judged / "verdicts.jsonl", VerdictRecord.model_validate)


def _record(kind: type[_Line], file: BinaryIO, at: int) -> _Line:
    file.seek(at)
    try:
        return kind.model_validate_json(file.readline())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]["msg"]
        raise ConfigError(
            f"{file.name}, byte {at}: the line is damaged: {first}",
            hint="delete that line; its sample is then done again",
        ) from error


def read_run(path: Path) -> JudgedRun:
    """Read the run that a RUN argument names; of a run folder its newest judging.

    Raises `ConfigError` for a folder that is no run, has no verdicts or no scores yet, or whose
    files are damaged.
    """
    folder, judged = find_run(path)
    if judged is None:
        raise ConfigError(f"{path} has no verdicts yet", hint="run the evaluation to its end first")
    file = judged / "scores.json"
    try:
        scores = Scores.model_validate_json(file.read_bytes())
    except OSError as error:
        hint = f"`medix-eval score {path}` writes it"
        raise ConfigError(f"{file} cannot be read: {error.strerror}", hint=hint) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]["msg"]
        hint = f"`medix-eval score {path}` writes it anew"
        raise ConfigError(f"{file} is damaged: {first}", hint=hint) from error
    return JudgedRun(
        folder=folder,
        judged=judged,
        manifest=load_run_manifest(folder),
        judging=load_judging_manifest(judged),
        scores=scores,
    )
