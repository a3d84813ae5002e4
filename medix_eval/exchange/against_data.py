"""A submission's samples beside the dataset: the same ids, the same questions and references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from medix_eval.records import CompletionRecord, Sample
from medix_eval.store import TaskEntry

if TYPE_CHECKING:
    from medix_eval.lm_task import MedixTask

_COMPARED = ("prompt", "reference", "options", "row")


def differences_from_data(
    task: MedixTask,
    entry: TaskEntry,
    *,
    key: str,
    theirs: Mapping[str, CompletionRecord],
    has_text: bool,
) -> Iterator[str]:
    """Yield what differs, a line each; without text only ids are compared."""
    from medix_eval.samples import BadSample, read_samples, select_rows  # noqa: PLC0415 (seconds)

    if entry.num_rows != len(task.rows):
        yield f"{task.name}: run.json says {entry.num_rows} rows, the dataset has {len(task.rows)}"
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
        elif isinstance(read, Sample) and has_text:
            for what in _COMPARED:
                if getattr(mine, what) != getattr(read, what):
                    yield f"{task.name}: {sample_id} has another {what} than the dataset"
    for sample_id in left:
        yield f"{task.name}: {sample_id} is not in the dataset"
