"""Where a row's images are stored, and how to get them out as they are: never decoded here."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub

from medix_eval.data.tasks import ImageSource
from medix_eval.errors import BadRow, DatasetError


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


def open_image_files(
    source: ImageSource, *, repository: str, folder: Path | None, revision: str | None
) -> ImageFiles:
    """Find a dataset's image files: in its local copy if there is one, else on the hub."""
    place = str(source.zip or source.folder)
    if folder:
        return ImageFiles(source, folder / place)
    try:
        downloaded = huggingface_hub.hf_hub_download(
            repository, place, repo_type="dataset", revision=revision
        )
    except OSError as error:  # all of its network and not-found errors are among these
        raise DatasetError(f"cannot get {place} of {repository}: {error}") from error
    return ImageFiles(source, Path(downloaded))


class ImageFiles:
    """The image files that a dataset keeps beside its table, in a zip or in a folder."""

    def __init__(self, source: ImageSource, place: Path) -> None:
        """`place` is the zip or the folder; that it is there is checked before any row is read."""
        self._source = source
        self._folder = place
        self._zip = None
        self._by_name: dict[str, str] = {}
        try:
            if source.zip:
                self._zip = zipfile.ZipFile(place)
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetError(f"cannot read the images in {place}: {error}") from error
        if source.folder and not place.is_dir():
            raise DatasetError(f"there is no folder of images {place}")

    def read(self, row: Mapping[str, Any]) -> bytes:
        """Return the encoded image of one row."""
        member = self._source.member.format_map(row)
        try:
            if self._zip:
                return self._zip.read(self._member(member))
            # The bare name only: a table must not reach files outside the folder.
            return (self._folder / Path(member).name).read_bytes()
        except (KeyError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise BadRow(f"no image {member} in {self._folder.name}: {error}") from error

    def missing(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the files that rows name and that are not there, each once."""
        members = dict.fromkeys(self._source.member.format_map(row) for row in rows)
        if self._zip:
            inside = set(self._zip.namelist())
            return [member for member in members if self._member(member) not in inside]
        present = {path.name for path in self._folder.iterdir()}
        return [name for name in (Path(member).name for member in members) if name not in present]

    def _member(self, member: str) -> str:
        """Return a member's full name; a bare name is looked for in all folders of the zip."""
        assert self._zip is not None  # noqa: S101 (asked of a zip only)
        if "/" in member:
            return member
        if not self._by_name:
            self._by_name = {Path(name).name: name for name in self._zip.namelist()}
        return self._by_name.get(member, member)


def _stored(image: Mapping[str, Any]) -> bytes:
    if image["bytes"] is not None:
        return bytes(image["bytes"])
    try:
        return Path(image["path"]).read_bytes()
    except (OSError, TypeError) as error:
        raise BadRow(f"no image {image['path']}: {error}") from error
