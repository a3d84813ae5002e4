"""Zips from strangers: unpacked only if small, flat of tricks, and where they belong."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path

from medix_eval.errors import ConfigError

_MOST_BYTES = 8 * 1024**3
_MOST_FILES = 10_000
_DAMAGES = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)
_NOT_FOR_US = (RuntimeError,)
"""A zip with a password, or packed in a way that Python does not know."""


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip into a folder.

    Raises `ConfigError` for a damaged one, for a file that would land outside of the folder or
    stands twice, and for one that unpacks to more than 8 GiB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_FILES or sum(e.file_size for e in entries) > _MOST_BYTES:
                raise ConfigError(f"{path} unpacks to more than any submission should")
            if len({entry.filename for entry in entries}) < len(entries):
                raise ConfigError(f"{path} holds two files of one name")
            for entry in entries:
                target = (folder / entry.filename).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise ConfigError(f"{path}: {entry.filename!r} would land outside its folder")
                archive.extract(entry, folder)
    except _DAMAGES as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    except _NOT_FOR_US as error:
        raise ConfigError(f"{path} cannot be unpacked: {error}") from error
