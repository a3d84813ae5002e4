"""An append-only JSONL file that survives a kill at any byte."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from pydantic_core import from_json

from medix_eval.errors import ConfigError

_FSYNC_EVERY_S = 2.0
LONGEST = 32 << 20
"""Bytes of one line, or of one record: no prompt with its completion or votes is nearly as long."""
_KEY = re.compile(rb'\{"task":"([^"\\]+)","sample_id":"([^"\\]+)"')


@dataclass(slots=True)
class JsonLines:
    """One file, one writer; each line is written whole, in one call to the system."""

    path: Path
    _file: int = field(init=False, default=-1)
    _synced_at: float = field(init=False, default=0.0)

    def __enter__(self) -> Self:
        _repair(self.path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.fsync(self._file)
        os.close(self._file)

    def append(self, line: str) -> None:
        """Write one JSON line; it survives a kill at once, a power cut after two seconds.

        Raises `ConfigError` where somebody has deleted or replaced the file.
        """
        left = f"{line}\n".encode()
        now = time.monotonic()
        try:
            is_there = os.path.samestat(self.path.stat(), os.fstat(self._file))
            while is_there and (left := left[os.write(self._file, left) :]):
                pass  # a full disk takes a part and then says so
            if now - self._synced_at > _FSYNC_EVERY_S:
                os.fsync(self._file)
                self._synced_at = now
        except FileNotFoundError as error:
            raise _gone(self.path) from error
        except OSError as error:
            error.filename = str(self.path)  # a write that fails does not know it
            raise
        if not is_there:
            raise _gone(self.path)

    def restrict(self) -> None:
        """Make the file accessible only to its owner."""
        os.fchmod(self._file, 0o600)


def parsed(text: bytes) -> Any:
    r"""Parse JSON; half a character, which JSON can spell and no file can hold, becomes `?`.

    Raises `ValueError` or `RecursionError` for what is not JSON.

    >>> parsed(b'["\\ud83d"]')
    ['?']
    """
    try:
        return from_json(text)
    except ValueError:
        found = json.loads(text)
    # Not `from_json`, which refuses what is nested deeper than 200 times.
    return json.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))


def numbered(path: Path, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number. Raises `ConfigError` for one that memory is not made for."""
    for number, line in enumerate(iter(partial(file.readline, LONGEST), b""), 1):
        if len(line) >= LONGEST:
            raise ConfigError(
                f"{path}, line {number} is longer than {LONGEST >> 20} MiB",
                hint="a line holds one sample; write each on a line of its own",
            )
        yield number, line


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every line of a JSONL file, one at a time; an incomplete last line is left out.

    Raises `ConfigError` naming the line where a line in the middle is not JSON.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in numbered(path, file):
            try:
                row = parsed(line)
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    return
                raise ConfigError(
                    f"{path}, line {number} is not JSON",
                    hint="delete that line; its sample is then done again",
                ) from error
            if not isinstance(row, dict):
                raise ConfigError(f"{path}, line {number} is not a JSON object")
            yield row


def newest_lines(path: Path) -> dict[tuple[str, str], int]:
    """Return where the newest line of each sample begins, by task and sample id, in file order.

    Each line begins with these two keys, so it can be found without parsing.
    """
    found: dict[tuple[str, str], int] = {}
    if not path.exists():
        return found
    at = 0
    with path.open("rb") as file:
        for number, line in numbered(path, file):
            if line.endswith(b"\n"):
                key = _key(line, path=path, number=number)
                found.pop(key, None)
                found[key] = at
            at += len(line)
    return found


def _key(line: bytes, *, path: Path, number: int) -> tuple[str, str]:
    plain = _KEY.match(line)
    if plain:
        return sys.intern(plain[1].decode()), plain[2].decode()
    try:
        row = json.loads(line)
        return sys.intern(row["task"]), row["sample_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}, line {number} is damaged: {type(error).__name__} {error}",
            hint="delete that line; its sample is then done again",
        ) from error


def _repair(path: Path) -> None:
    """Cut off an incomplete last line, as left by a kill."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = keep = file.seek(0, os.SEEK_END)
        while keep:
            start = max(0, keep - 65536)
            file.seek(start)
            at = file.read(keep - start).rfind(b"\n")
            keep = start if at < 0 else start + at + 1
            if at >= 0:
                break
        if keep != end:
            file.truncate(keep)


def _gone(path: Path) -> ConfigError:
    what = path if path.parent.is_dir() else path.parent
    return ConfigError(
        f"{what} was deleted or moved while it was written to",
        hint="put it back, or do without it: the same command again starts what is not there",
    )


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write a text, or its parts, atomically. Raises `ConfigError` without its folder."""
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines((text,) if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} was not written: its folder is not there",
            hint="make it; the folder of a run that was deleted is made by the same command again",
        ) from error
    except OSError as error:
        error.filename = str(path)  # a write that fails does not know it
        raise
    finally:
        part.unlink(missing_ok=True)
