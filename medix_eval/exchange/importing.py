"""Results of elsewhere become a run folder, checked, scored again, and marked as claimed.

Nothing of them is believed beyond what their own lines add up to: scores are computed from the
samples, and a stated score that differs is reported. Their judge and settings are unknown, so they
never share a column with runs of ours.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from medix_eval.digests import digest
from medix_eval.errors import ConfigError
from medix_eval.evaluation import write_scores
from medix_eval.exchange.foreign import ForeignResults, ForeignSample
from medix_eval.exchange.official import is_official, read_official
from medix_eval.exchange.other_harnesses import (
    is_lm_eval,
    is_medevalkit,
    read_lm_eval,
    read_medevalkit,
)
from medix_eval.exchange.zips import unpack
from medix_eval.judging.outcomes import outcome_of
from medix_eval.records import (
    CompletionRecord,
    Failure,
    Kind,
    Outcome,
    VerdictRecord,
    Vote,
)
from medix_eval.scores import Scores
from medix_eval.store import JudgingManifest, RunManifest, TaskEntry, open_judging, open_run
from medix_eval.tasks import Catalogue

_LAYOUTS = (
    (is_official, read_official),
    (is_lm_eval, read_lm_eval),
    (is_medevalkit, read_medevalkit),
)
_ROUNDING = 0.0051
"""Claims are often given in percent with one or two digits."""
_CLAIMED = "as submitted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A run folder made of foreign results, and where they contradict themselves."""

    scores: Scores
    layout: str
    differences: tuple[str, ...]
    """Each a stated score that its own samples do not give."""


def import_results(path: Path, catalogue: Catalogue, *, out: Path, model: str | None) -> Imported:
    """Read a folder or a zip, check it, and write it as a run below `out`.

    Raises `ConfigError` for a layout that is none of the known ones, and `DatasetError` naming
    every defect (ids, duplicates, ranges) where there is one; then nothing is written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = _folder(path, Path(scratch))
        found = _read(folder)
        found.refuse_defects(path)
        name = model or found.model
        run, judging = _write(found, catalogue, out=out, model=name)
    scores = write_scores(run, judging, catalogue)
    return Imported(scores=scores, layout=found.layout, differences=_differences(found, scores))


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
        f"{folder} is in no known layout of results",
        hint="known: MODEL.jsonl with MODEL_eval.jsonl, lm-eval's results_*.json with samples, "
        "MedEvalKit's results.json with metrics.json",
    )


def _add_mmmu(folder: Path, found: ForeignResults) -> None:
    """Add the part of an official submission that MedEvalKit scored."""
    if not is_medevalkit(folder):
        found.problems.append(f"{folder.name} holds no results.json with metrics.json")
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
        for sample in found.samples:
            entry = entries[sample.task]
            record = _completion(sample, entry)
            if (record.task, record.sample_id) not in run.seen:
                run.append(record)
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
    present = _num_rows(found)[task]
    expected = found.num_rows.get(task) or (known.settings.num_samples if known else None)
    return TaskEntry(
        version=found.layout,
        digest=digest({"imported": task}),
        source={"path": found.layout, "revision": None, "files": found.files},
        synthetic=found.synthetic,
        num_rows=max(expected or 0, present),
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
        prompt=sample.question,
        reference=sample.reference,
        options=sample.options,
        completion=sample.response,
    )


def _verdict(sample: ForeignSample, record: CompletionRecord) -> VerdictRecord:
    failure = Failure(error="NotJudged", message=f"{sample.place} has no verdict beside it")
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
        answer=sample.response,
        votes=(vote,),
    )


def _differences(found: ForeignResults, scores: Scores) -> tuple[str, ...]:
    computed: Mapping[str, float | None] = {name: row.score for name, row in scores.tasks.items()}
    values = [score for score in computed.values() if score is not None]
    differ = []
    for name, stated in found.claimed.items():
        ours = sum(values) / len(values) if name == "overall" and values else computed.get(name)
        if ours is None:
            differ.append(f"{name}: {100 * stated:.2f} is stated, but there are no samples of it")
        elif abs(ours - stated) > _ROUNDING:
            differ.append(
                f"{name}: {100 * stated:.2f} is stated, its samples give {100 * ours:.2f}"
            )
    return tuple(differ)
