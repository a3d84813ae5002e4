"""From the rows of an open task to samples: read one at a time, in the order they are sent."""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medix_eval.errors import BadRow
from medix_eval.records import IMAGE_MARK, CompletionRecord, Failure, Kind, Sample
from medix_eval.storage.digests import canonical
from medix_eval.storage.images import damage

if TYPE_CHECKING:
    from medix_eval.data.lm_task import MedixTask

_ID_DIGITS = 16
_TEXTS_AT_ONCE = 64
_IMAGES_AT_ONCE = 8
_RELEASE_EVERY = 64
"""Blocks."""
_MAPS = Path("/proc/self/maps")
_MADV_DONTNEED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BadSample:
    """A row that cannot be asked, as the record that says so."""

    record: CompletionRecord


def select_rows(
    slices: Sequence[tuple[str, ...]], *, limit: int | None, seed: int, task: str
) -> list[int] | None:
    """Return the rows of a limited run, or None for all of them.

    Within each stratum (rows of equal slice values) the order is a seeded permutation; the strata
    are merged in proportion to their size. So every prefix is stratified, and the first 50 are
    among the first 100: a limited run can grow without generating again.
    """
    if limit is None or limit >= len(slices):
        return None
    strata: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, values in enumerate(slices):
        strata[values].append(row)
    placed: list[tuple[float, int]] = []
    for values, rows in sorted(strata.items()):
        shuffled = random.Random(canonical([seed, task, list(values)]))  # noqa: S311 (no secret)
        shuffled.shuffle(rows)
        offset = shuffled.random()
        placed += [((rank + offset) / len(rows), row) for rank, row in enumerate(rows)]
    return [row for _, row in sorted(placed)[:limit]]


def side_by_side(rows: Sequence[int], clusters: Sequence[str] | None) -> list[int]:
    """Put rows of one cluster next to each other: a server still has their image in its cache."""
    if clusters is None:
        return list(rows)
    first: dict[str, int] = {}
    for at, row in enumerate(rows):
        first.setdefault(clusters[row], at)
    return sorted(rows, key=lambda row: first[clusters[row]])


def read_samples(
    task: MedixTask, rows: Sequence[int], *, key: str, done: AbstractSet[int], taken: set[str]
) -> Iterator[Sample | BadSample]:
    """Yield the samples of these rows that are not done; a done row is not even read.

    `taken` holds the ids that are in use, and grows: a true duplicate gets `#2` behind its id.
    """
    for row, fields in _read(task, [row for row in rows if row not in done]):
        try:
            sample = _sample(task, fields, row=row, key=key, taken=taken)
        except BadRow as error:
            record = CompletionRecord(
                task=key,
                sample_id=_unique(_sample_id(task.name, fields, images=()), taken),
                row=row,
                kind=Kind.OPEN,
                prompt="",
                reference="",
                restricted=task.is_restricted,
                failure=Failure(error=type(error).__name__, message=str(error)),
            )
            yield BadSample(record=record)
        else:
            yield sample


def _read(task: MedixTask, rows: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read rows in blocks: one by one costs five times as much."""
    mapped = [file["filename"] for file in task.rows.cache_files]
    size = _IMAGES_AT_ONCE if task.settings.modality == "image" else _TEXTS_AT_ONCE
    for number, start in enumerate(range(0, len(rows), size)):
        if number % _RELEASE_EVERY == 0:
            _release(mapped)
        block = rows[start : start + size]
        columns = task.rows[block]
        for at, row in enumerate(block):
            yield row, {name: values[at] for name, values in columns.items()}


def _sample(
    task: MedixTask, fields: Mapping[str, Any], *, row: int, key: str, taken: set[str]
) -> Sample:
    prompt = task.prompt_text(fields, row=row)
    options = task.options(fields, row=row)
    reference = task.reference(fields, row=row, options=options)
    images = tuple(task.stored_images(fields, row=row))
    for image in images:
        if problem := damage(image):
            raise BadRow(f"task {task.name}, row {row}: {problem}")
    num_marks = prompt.count(IMAGE_MARK)
    # A question may quote the mark; only where texts name images does each mark stand for one.
    if num_marks < len(images) or (task.settings.image_order and num_marks > len(images)):
        raise BadRow(
            f"task {task.name}, row {row}: images: {len(images)}, "
            f"but {IMAGE_MARK} marks in the prompt: {num_marks}"
        )
    return Sample(
        id=_unique(_sample_id(task.name, fields, images=images), taken),
        task=key,
        row=row,
        kind=task.kind(fields, row=row),
        prompt=prompt,
        question_at=_question_at(task, fields, prompt=prompt, row=row),
        reference=reference,
        options=options,
        images=images,
        facts=task.facts(fields, row=row),
        columns=task.columns(fields, row=row),
        option_prefix=task.option_prefix,
        parser=task.settings.parser if task.option_prefix is None else "log_likelihood",
        restricted=task.is_restricted,
    )


def _question_at(task: MedixTask, fields: Mapping[str, Any], *, prompt: str, row: int) -> int:
    """Return where a judge begins to read: at the line of the question, the last one if several."""
    if (column := task.settings.question) is None:
        return 0
    line = rf"(?m)^(?:{IMAGE_MARK})?{re.escape(str(fields[column]).strip())}[^\S\n]*$"
    if not (found := [one.start() for one in re.finditer(line, prompt)]):
        raise BadRow(f"task {task.name}, row {row}: column {column!r} is no line of the prompt")
    return found[-1]


def _sample_id(task: str, fields: Mapping[str, Any], *, images: Sequence[bytes]) -> str:
    """Hash what the sample is: its task, its text fields and its stored images."""
    parts = [task.encode()]
    for name in sorted(fields):
        value = fields[name]
        if isinstance(value, str) or not _holds_image(value):
            text = f"{name}\0{value}".encode(errors="replace")
            parts += b"%d:" % len(text), text
    parts += (hashlib.sha256(image).digest() for image in images)
    return hashlib.sha256(b"".join(parts)).hexdigest()[:_ID_DIGITS]


def _holds_image(value: object) -> bool:
    if isinstance(value, list):
        return any(_holds_image(item) for item in value)
    return isinstance(value, Mapping) and "bytes" in value


def _unique(sample_id: str, taken: set[str]) -> str:
    number, found = 1, sample_id
    while found in taken:
        number += 1
        found = f"{sample_id}#{number}"
    taken.add(found)
    return found


def _release(paths: Collection[str]) -> None:
    """Drop the pages of these mapped files; they are read again from the file where needed.

    Only mappings that `/proc/self/maps` shows to be of these very files are touched; on systems
    without it nothing happens.
    """
    if not paths or not _MAPS.exists():
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    wanted = {os.path.realpath(path) for path in paths}
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        span, permissions, *_, path = line.split(maxsplit=5)
        # A mapping that may be written to can hold changes of its own; leave it alone.
        if path in wanted and "w" not in permissions:
            start, end = (int(address, 16) for address in span.split("-"))
            madvise(start, end - start, _MADV_DONTNEED)
