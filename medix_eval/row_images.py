"""Where a row's images are stored, and how to get them out as they are: never decoded here."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets

from medix_eval.errors import DatasetError
from medix_eval.tasks import ImageSource


def undecoded(rows: datasets.Dataset) -> datasets.Dataset:
    """Make every image column give stored bytes in place of decoded images."""
    for column, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            rows = rows.cast_column(column, datasets.List(datasets.Image(decode=False)))
    return rows


def column_images(value: Any) -> list[bytes]:
    """Return the encoded images of one image column: none, one, or a list of them."""
    images = value if isinstance(value, list) else [value]
    return [_stored(image) for image in images if image is not None]


class ImageFiles:
    """The image files that a dataset keeps beside its table, in a zip or in a folder."""

    def __init__(self, source: ImageSource, *, locate: Callable[[str], Path]) -> None:
        """`locate` gives the path of a file or folder of the dataset's repository."""
        self._source = source
        self._locate = locate

    def read(self, row: Mapping[str, Any]) -> bytes:
        """Return the encoded image of one row."""
        member = self._source.member.format_map(row)
        try:
            if self._source.zip:
                return self._zip.read(member)
            # The bare name only: a table must not reach files outside the folder.
            return (self._locate(str(self._source.folder)) / Path(member).name).read_bytes()
        except (KeyError, OSError, zipfile.BadZipFile) as error:
            place = self._source.zip or self._source.folder
            raise DatasetError(f"no image {member} in {place}: {error}") from error

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self._locate(str(self._source.zip)))


def _stored(image: Mapping[str, Any]) -> bytes:
    if image["bytes"] is not None:
        return bytes(image["bytes"])
    try:
        return Path(image["path"]).read_bytes()
    except (OSError, TypeError) as error:
        raise DatasetError(f"no image {image['path']}: {error}") from error
