"""The images of a run, read again from their dataset: a run folder keeps only their hashes."""

from __future__ import annotations

import hashlib
import io
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import BadRow, ConfigError, DatasetError
from medix_eval.results.store import JudgedRun
from medix_eval.storage.images import as_sent, damage, data_url, opened, shown

_LOG = logging.getLogger(__name__)
_SIDES = (384, 384)
"""The largest width and height of a thumbnail."""
_SMALL = 16_384
"""Bytes up to which an image is embedded as the model got it."""
_QUALITY = 70
_AT_ONCE = 16
Size = Literal["none", "thumbnail", "original"]


def read_pictures(
    run: JudgedRun, catalogue: Catalogue, *, data_root: Path | None, size: Size
) -> dict[str, str]:
    """Return data URLs by the image's hash; restricted tasks are left out.

    An image is found by its row number and known by its hash, so one that is not what the model
    saw is never shown. An unavailable dataset is reported, and its images stay hashes.
    """
    if size == "none":
        return {}
    encoding = run.manifest.generation.get("images", {}).get("encoding", "stored")
    encode = partial(_shown, encoding=encoding, size=size)
    wanted: defaultdict[str, dict[int, frozenset[str]]] = defaultdict(dict)
    for sample in run.samples():
        if sample.completion.image_sha256 and run.entry(sample.task).data_class != "dua":
            hashes = frozenset(sample.completion.image_sha256)
            wanted[sample.task][sample.completion.row] = hashes
    found: dict[str, str] = {}
    for task, rows in wanted.items():
        try:
            found |= _of_task(task, rows, catalogue, data_root=data_root, encode=encode)
        except (ConfigError, DatasetError) as error:
            _LOG.warning("task %s: its images are not in the report: %s", task, error)
    return found


def _of_task(
    task: str,
    rows: dict[int, frozenset[str]],
    catalogue: Catalogue,
    *,
    data_root: Path | None,
    encode: Callable[[bytes], str],
) -> dict[str, str]:
    if task not in catalogue.tasks:
        raise ConfigError("no task file has that name; add its folder with --include-path")
    found: dict[str, str] = {}
    for row, images in _stored(catalogue, task, sorted(rows), data_root=data_root):
        for image in images:
            name = hashlib.sha256(image).hexdigest()
            if name in rows[row] and name not in found and not damage(image):
                found[name] = encode(image)
    if missing := len(frozenset().union(*rows.values()) - found.keys()):
        _LOG.warning("task %s: the data has changed; missing images: %d", task, missing)
    return found


def _stored(
    catalogue: Catalogue, task: str, rows: list[int], *, data_root: Path | None
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the stored images of some rows, read in blocks."""
    from medix_eval.data.lm_task import open_task  # noqa: PLC0415 (lm-eval and datasets: seconds)

    opened = open_task(catalogue.tasks[task], data_root=data_root, accept_change=True)
    rows = [row for row in rows if row < len(opened.rows)]
    for start in range(0, len(rows), _AT_ONCE):
        block = rows[start : start + _AT_ONCE]
        columns = opened.rows[block]
        for at, row in enumerate(block):
            fields = {name: values[at] for name, values in columns.items()}
            try:
                yield row, opened.stored_images(fields, row=row)
            except BadRow as error:
                _LOG.warning("%s", error)


def _shown(image: bytes, *, encoding: str, size: Size) -> str:
    """Return an image as the model got it, or smaller if that saves anything."""
    sent = as_sent(image, encoding=encoding)
    if size == "thumbnail" and len(sent) > _SMALL:
        out = io.BytesIO()
        with opened(sent) as picture:
            picture.draft("RGB", _SIDES)  # a JPEG is decoded at half its size or less
            small = shown(picture)
            small.thumbnail(_SIDES)
            small.save(out, format="JPEG", quality=_QUALITY)
        sent = out.getvalue()
    return data_url(sent).decode("ascii")
