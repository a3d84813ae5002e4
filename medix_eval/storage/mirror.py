"""A local copy of a dataset and its manifest: what was copied, from where, and whether it is real.

The manifest distinguishes synthetic rows from real ones, so a score on a stand-in can be marked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, ValidationError

from medix_eval.errors import DatasetError
from medix_eval.records import Frozen

MIRROR_FILE = "medix-mirror.json"


class MirrorFile(Frozen):
    """One file of a mirror."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: NonNegativeInt

    @classmethod
    def of(cls, path: Path) -> Self:
        """Describe a file on disk."""
        return cls(sha256=sha256_of(path), bytes=path.stat().st_size)


class Mirror(Frozen):
    """The manifest of a local copy of a dataset."""

    source: str
    """Where the copy was made from, such as `ORG/NAME`."""
    revision: str | None
    """The commit that was copied; None for rows that were made, not copied."""
    files: dict[str, MirrorFile]
    rows: dict[str, NonNegativeInt]
    """Number of rows by `CONFIG/SPLIT` (`default/…` where there are no configs), or by file."""
    synthetic: bool
    """Whether the rows only stand in for the real ones."""

    def write(self, folder: Path) -> None:
        """Write the manifest atomically."""
        part = folder / f".{MIRROR_FILE}.{os.getpid()}"
        part.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        part.replace(folder / MIRROR_FILE)


def load_manifest(folder: Path) -> Mirror | None:
    """Return a mirror's manifest, or None for a folder that has none; no file is looked at."""
    path = folder / MIRROR_FILE
    if not path.is_file():
        return None
    try:
        return Mirror.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DatasetError(f"{path}: {field}: {first['msg']}") from None


def read_mirror(folder: Path) -> Mirror | None:
    """Return a mirror's manifest, or None for a folder that has none.

    The files are compared by size only: hashing gigabytes would slow down opening a task.
    """
    mirror = load_manifest(folder)
    for name, listed in mirror.files.items() if mirror else ():
        copied = folder / name
        if not copied.is_file() or copied.stat().st_size != listed.bytes:
            found = f"{copied.stat().st_size} B" if copied.is_file() else "missing"
            raise DatasetError(
                f"{copied}: {found}, but the manifest lists {listed.bytes} B",
                hint="copy the dataset again",
            )
    return mirror


def rows_key(config: str | None, split: str, options: Mapping[str, Any]) -> str:
    """Return what a manifest counts the rows of a split under: its own file, or its config.

    >>> rows_key(None, "test", {"data_files": {"test": "test_2.csv"}})
    'test_2.csv'
    """
    files = options.get("data_files")
    if isinstance(files, Mapping) and split in files:
        return str(files[split])
    return f"{config or 'default'}/{split}"


def sha256_of(path: Path) -> str:
    """Hash a file of any size without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
