"""Servers that `--keep-server` left running, so that the next run starts at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptServer:
    """One server that is still there."""

    key: str
    """Digest of the model, the engine and all its arguments: only the same run may use it."""
    name: str
    pid: int
    """Its supervisor: a SIGTERM to it ends the server."""
    port: int
    id: str
    """The random name that it serves the model under."""

    @property
    def is_alive(self) -> bool:
        """Whether there is a process of this number; who it is, the server's id will tell."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def kept_servers(folder: Path) -> Iterator[KeptServer]:
    """Yield the servers that are remembered and alive."""
    for path in sorted(folder.glob("*.json")):
        try:
            kept = KeptServer(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if kept.is_alive:
            yield kept


def find_kept(folder: Path, key: str) -> KeptServer | None:
    """Return the server that was kept for this very model, engine and arguments."""
    return next((kept for kept in kept_servers(folder) if kept.key == key), None)


def remember(folder: Path, kept: KeptServer) -> None:
    """Write down that a server is left running."""
    folder.mkdir(parents=True, exist_ok=True)
    _path(folder, kept).write_text(json.dumps(asdict(kept), indent=2) + "\n", encoding="utf-8")


def forget(folder: Path, kept: KeptServer) -> None:
    """Strike out a server that does not answer any more."""
    _path(folder, kept).unlink(missing_ok=True)


def _path(folder: Path, kept: KeptServer) -> Path:
    return folder / f"{kept.key[:8]}-{kept.pid}.json"
