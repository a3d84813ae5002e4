"""A submission's samples beside the dataset: the same ids, the same questions and references."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from medix_eval.records import CompletionRecord, Sample
from medix_eval.results.store import TaskEntry

if TYPE_CHECKING:
    from medix_eval.data.lm_task import MedixTask

_COMPARED = ("prompt", "reference", "options", "facts", "columns", "parser", "restricted")
"""All that a verdict or a slice comes from; without text only row and kind are compared."""


def differences_from_data(
    task: MedixTask,
    entry: TaskEntry,
    *,
    key: str,
    theirs: Mapping[str, CompletionRecord],
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
    left = dict(theirs)
    for read in read_samples(task, rows, key=key, done=frozenset(), taken=set()):
        sample_id = read.record.sample_id if isinstance(read, BadSample) else read.id
        mine = left.pop(sample_id, None)
        if mine is None:
            yield f"{task.name}: {sample_id} of the dataset is missing"
        elif isinstance(read, Sample):
            for what in _unlike(mine, read, has_text=has_text):
                yield f"{task.name}: {sample_id} {what}"
        elif mine.failure is None:
            yield f"{task.name}: {sample_id} cannot be read, and has an answer"
    for sample_id in left:
        yield f"{task.name}: {sample_id} is not in the dataset"


def _unlike_source(task: MedixTask, entry: TaskEntry) -> Iterator[str]:
    """Hold what `run.json` says of the dataset against it."""
    if entry.synthetic != bool(task.mirror and task.mirror.synthetic):
        yield f"{task.name}: run.json says otherwise than the data whether it is synthetic"
    files = entry.source.get("files")
    stated = files if isinstance(files, dict) else {}
    for name, sha256 in task.fingerprint().items():
        if stated.get(name, sha256) != sha256:
            yield f"{task.name}: run.json gives another hash of {name} than the dataset has"
    if entry.num_rows != len(task.rows):
        yield f"{task.name}: run.json says {entry.num_rows} rows, the dataset has {len(task.rows)}"


def _unlike(mine: CompletionRecord, read: Sample, *, has_text: bool) -> Iterator[str]:
    if mine.failure is not None and mine.failure.error == "BadRow":
        yield "can be read, and was not asked"
    for what in ("row", "kind", *(_COMPARED if has_text else ())):
        if getattr(mine, what) != getattr(read, what):
            yield f"has another {what} than the dataset"
    if has_text and mine.image_sha256 != tuple(map(_sha256, read.images)):
        yield "has other images than the dataset"


def _sha256(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()
