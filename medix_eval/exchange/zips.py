"""Zips from strangers: unpacked only if small, flat of tricks, and where they belong."""

from __future__ import annotations

import zipfile
from pathlib import Path

from medix_eval.errors import ConfigError

_MOST_BYTES = 8 * 1024**3
_MOST_FILES = 10_000


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip into a folder.

    Raises `ConfigError` for a damaged one, for a file that would land outside of the folder, and
    for one that unpacks to more than 8 GiB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_FILES or sum(e.file_size for e in entries) > _MOST_BYTES:
                raise ConfigError(f"{path} unpacks to more than any submission should")
            for entry in entries:
                target = (folder / entry.filename).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise ConfigError(f"{path}: {entry.filename!r} would land outside its folder")
                archive.extract(entry, folder)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
