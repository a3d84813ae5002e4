"""Results of other tools become a run folder, checked, scored again, and marked as claimed.

Nothing is trusted beyond what their own lines add up to: scores are computed from the
samples, and a stated score that differs is reported. Their judge and settings are unknown, so they
never share a column with runs made here.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import ConfigError
from medix_eval.evaluation.evaluation import write_scores
from medix_eval.exchange.checking import unpack
from medix_eval.exchange.other_harnesses import (
    ForeignResults,
    ForeignSample,
    is_lm_eval,
    is_medevalkit,
    is_official,
    read_lm_eval,
    read_medevalkit,
    read_official,
)
from medix_eval.judging.outcomes import outcome_of
from medix_eval.records import CompletionRecord, Failure, Kind, Outcome, VerdictRecord, Vote
from medix_eval.results.scores import Scores
from medix_eval.results.scoring import mean
from medix_eval.results.store import (
    JudgingManifest,
    RunManifest,
    TaskEntry,
    newest,
    open_judging,
    open_run,
)
from medix_eval.storage.digests import digest, shown_name

_LAYOUTS = (
    (is_official, read_official),
    (is_lm_eval, read_lm_eval),
    (is_medevalkit, read_medevalkit),
)
_CLAIMED = "as submitted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A run folder made from imported results, and where they contradict themselves."""

    scores: Scores
    layout: str
    differences: tuple[str, ...]
    """Stated scores that do not follow from the samples."""


def import_results(path: Path, catalogue: Catalogue, *, out: Path, model: str | None) -> Imported:
    """Read a folder or a zip, check it, and write it as a run below `out`.

    Raises `ConfigError` for an unknown layout, and `DatasetError` naming
    every defect (ids, duplicates, ranges) where there is one; then nothing is written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = _folder(path, Path(scratch))
        found = _read(folder)
        _find_rows_beyond(found, catalogue)
        found.refuse_defects(path)
        name = shown_name(model or found.model)
        if not name.isprintable():
            raise ConfigError(f"{name!r} is not a model name", hint="set one with --model")
        run, judging = _write(found, catalogue, out=out, model=name)
    scores = write_scores(run, judging, catalogue)
    differ = _differences(found, scores, catalogue)
    return Imported(scores=scores, layout=found.layout, differences=differ)


def _folder(path: Path, scratch: Path) -> Path:
    if path.is_dir():
        return path
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"{path} is neither a folder nor a zip")
    unpack(path, scratch)
    inside = [entry for entry in scratch.iterdir() if entry.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else scratch


def _read(folder: Path) -> ForeignResults:
    for matches, read in _LAYOUTS:
        if matches(folder):
            found = read(folder)
            for extra in sorted(folder.glob("*-MMMU-Medical-val")):
                _add_mmmu(extra, found)
            return found
    raise ConfigError(
        f"{folder} has no known results layout",
        hint="known: MODEL.jsonl with MODEL_eval.jsonl, lm-eval's results_*.json with samples, "
        "MedEvalKit's results.json with metrics.json",
    )


def _add_mmmu(folder: Path, found: ForeignResults) -> None:
    """Add the part of an official submission that MedEvalKit scored."""
    if not is_medevalkit(folder):
        found.problems.append(f"{folder.name} has no results.json with metrics.json")
        return
    extra = read_medevalkit(folder)
    found.samples += extra.samples
    found.files |= extra.files
    found.claimed |= extra.claimed
    found.num_rows |= extra.num_rows
    found.problems += extra.problems


def _write(
    found: ForeignResults, catalogue: Catalogue, *, out: Path, model: str
) -> tuple[Path, Path]:
    generation = {"imported": found.layout, "model": {"id": model}, "files": found.files}
    entries = {task: _entry(task, found, catalogue) for task in _num_rows(found)}
    manifest = RunManifest(
        model=model,
        generation_digest=digest(generation),
        generation=generation,
        tasks=entries,
        limits={},
        versions={"medix-eval": version("medix-eval")},
        hardware={},
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    judging = {"imported": found.layout, "files": found.files}
    described = JudgingManifest(
        protocol={
            "name": f"imported-{found.layout}",
            "digest": digest({"imported": found.layout}),
            "note": "imported: judge and settings are those of the submitter, unverified",
        },
        judges=[{"id": _CLAIMED, "revision": None, "digest": digest(_CLAIMED)}],
        judging_digest=digest(judging),
        judging=judging,
        tasks=list(entries),
    )
    with open_run(out, manifest) as run, open_judging(run, described) as open_judged:
        judged = newest(open_judged.lines.path, lambda _: None)  # an import may have been killed
        for sample in found.samples:
            record = _completion(sample, entries[sample.task])
            if (record.task, record.sample_id) not in run.seen:
                run.append(record)
            if (record.task, record.sample_id) not in judged:
                open_judged.append(_verdict(sample, record))
        return run.path, open_judged.path


def _num_rows(found: ForeignResults) -> dict[str, int]:
    """Return each task with how many rows are there at least."""
    last = Counter[str]()
    for sample in found.samples:
        last[sample.task] = max(last[sample.task], sample.row + 1)
    return dict(last)


def _entry(task: str, found: ForeignResults, catalogue: Catalogue) -> TaskEntry:
    known = catalogue.tasks.get(task)
    ours = known.settings.num_samples if known and not found.synthetic else None
    # Files that leave rows out may not also say how many there are.
    num_rows = max(ours or 0, found.num_rows.get(task, 0), _num_rows(found)[task])
    return TaskEntry(
        version=found.layout,
        digest=digest({"imported": task}),
        source={"path": found.layout, "revision": None, "files": found.files},
        synthetic=found.synthetic,
        num_rows=num_rows,
        data_class=known.settings.data_class if known else "public",
        modality=known.settings.modality if known else "text",
        kind=known.settings.kind if known else Kind.OPEN,
        limit=None,
        seed=0,
        rows=None,
    )


def _completion(sample: ForeignSample, entry: TaskEntry) -> CompletionRecord:
    return CompletionRecord(
        task=f"{sample.task}@{entry.version}",
        sample_id=f"{sample.task}_{sample.row}",
        row=sample.row,
        kind=Kind(entry.kind),
        prompt=_valid(sample.question),
        reference=_valid(sample.reference),
        options=tuple(map(_valid, sample.options)),
        completion=_valid(sample.response),
    )


def _verdict(sample: ForeignSample, record: CompletionRecord) -> VerdictRecord:
    failure = Failure(error="NotJudged", message=f"{sample.place} has no verdict")
    vote = Vote(
        judge=_CLAIMED,
        prompt="imported",
        key=digest([record.task, record.sample_id, sample.verdict]),
        points=sample.score,
        reply=sample.verdict,
        failure=failure if sample.score is None else None,
    )
    outcome = Outcome.JUDGE_FAILED if sample.score is None else outcome_of(sample.score)
    return VerdictRecord(
        task=record.task,
        sample_id=record.sample_id,
        outcome=outcome,
        score=sample.score,
        answer=record.completion,
        votes=(vote,),
    )


def _find_rows_beyond(found: ForeignResults, catalogue: Catalogue) -> None:
    """Note samples behind the last row of a task; other harnesses may cut theirs otherwise."""
    if found.layout != "official" or found.synthetic:
        return
    for sample in found.samples:
        known = catalogue.tasks.get(sample.task)
        last = known.settings.num_samples if known else None
        if last is not None and sample.row >= last:
            found.problems.append(f"{sample.place}: {sample.task} has {last} rows")


def _valid(text: str) -> str:
    """Return a text that can be written: JSON may hold halves of characters."""
    return text.encode(errors="replace").decode()


def _differences(found: ForeignResults, scores: Scores, catalogue: Catalogue) -> tuple[str, ...]:
    computed = {name: row.score for name, row in scores.tasks.items()}
    stated = [(name, claim, computed.get(name)) for name, claim in found.claimed.items()]
    if found.claimed_mean is not None:
        claim, tasks = found.claimed_mean
        values = [computed.get(task) for task in tasks or computed]
        known = [value for value in values if value is not None]
        stated.append(("overall", claim, mean(known) if len(known) == len(values) else None))
    differ = []
    for name, claim, ours in stated:
        task = catalogue.tasks.get(name)
        if ours is None and task is not None and task.settings.data_class == "dua":
            continue  # restricted samples are not included
        if ours is None:
            said = "it has no samples"
        elif not abs(ours - claim.value) <= claim.within + 1e-9:
            said = f"its samples give {100 * ours:.2f}"
        else:
            continue
        differ.append(f"{name}: {100 * claim.value:.2f} is stated, {said}")
    return tuple(differ)
