"""A run as one zip that a stranger can check: every verdict with its raw reply, and checksums.

Restricted tasks leave ids and scores, and no text. Machine names, flags and time-outs stay at home:
they move no score.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from medix_eval.errors import ConfigError
from medix_eval.exchange.official import write_official
from medix_eval.records import CompletionRecord, VerdictRecord
from medix_eval.results.store import JudgedRun, JudgedSample, slug
from medix_eval.storage.mirror import sha256_of

MANIFEST, SIGNATURE, NAMESPACE = "submission.json", "submission.json.sig", "medix-eval"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every file inside: the same run gives the same zip."""


class SubmissionManifest(BaseModel):
    """`submission.json`: what is in the zip."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    model: str
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
            hint="submit the plain run: a control is no score of a model",
        )
    if run.scores.synthetic and not allow_synthetic:
        raise ConfigError(
            f"{run.judged} was made on synthetic data, which says nothing of the benchmarks",
            hint="--allow-synthetic writes it all the same, marked so",
        )
    name = f"{slug(run.scores.model)}-{run.scores.judging_digest[:8]}"
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


def _without_text(sample: JudgedSample) -> tuple[CompletionRecord, VerdictRecord]:
    """Leave of a restricted sample its id, its outcome and the points of its votes."""
    completion, verdict = sample.completion, sample.verdict
    said = hashlib.sha256((completion.completion or "").encode()).hexdigest()
    return (
        CompletionRecord(
            task=completion.task,
            sample_id=completion.sample_id,
            row=completion.row,
            kind=completion.kind,
            prompt="",
            reference="",
            completion=f"sha256:{said}",
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            requests=completion.requests,
            seconds=completion.seconds,
        ),
        VerdictRecord(
            task=verdict.task,
            sample_id=verdict.sample_id,
            outcome=verdict.outcome,
            score=verdict.score,
            rule=verdict.rule,
            error_tags=verdict.error_tags,
            votes=tuple(
                vote.model_copy(update={"reply": None, "failure": None}) for vote in verdict.votes
            ),
        ),
    )


def _sign(file: Path, *, key: Path) -> Path:
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(key), str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError as error:
        raise ConfigError("--sign needs ssh-keygen", hint="it comes with OpenSSH") from error
    if done.returncode:
        raise ConfigError(f"--sign {key}: {' '.join(done.stderr.split())}")
    return file.with_name(file.name + ".sig")
