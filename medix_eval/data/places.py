"""Where the data of each task is: in a mirror, in the hub's cache, or nowhere yet.

Only folders and manifests are looked at, so listing all tasks takes no time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medix_eval.data.tasks import TaskFile
from medix_eval.storage.mirror import load_manifest, rows_key

Where = Literal["mirror", "cache", "drawn", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a task's data is."""

    where: Where
    revision: str | None = None
    synthetic: bool = False
    num_bytes: int | None = None
    """Size of the files there; of a mirror all files of the dataset's folder."""


def place_of(file: TaskFile, *, data_root: Path | None) -> Place:
    """Find out where a task's data is; with a mirror only the mirror counts."""
    if not file.dataset_path:
        return Place(where="drawn")
    if data_root is not None:
        return _in_mirror(file, data_root / file.dataset_path)
    name = f"datasets--{file.dataset_path.replace('/', '--')}"
    snapshots = hub_cache() / name / "snapshots"
    for folder in sorted(snapshots.glob("*"), key=lambda one: one.stat().st_mtime, reverse=True):
        inside = [path for path in folder.rglob("*") if path.is_file()]
        of_config = any(path.parent.name == file.dataset_name for path in inside)
        if file.dataset_name is None or of_config:
            num_bytes = sum(path.stat().st_size for path in inside)
            return Place(where="cache", revision=folder.name, num_bytes=num_bytes)
    return Place(where="missing")


def hub_cache() -> Path:
    """Return the folder of the hub's cache, without importing its client."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    return Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()


def _in_mirror(file: TaskFile, folder: Path) -> Place:
    if not folder.is_dir():
        return Place(where="missing")
    mirror = load_manifest(folder)
    if mirror is None:
        return Place(where="mirror")
    if rows_key(file.dataset_name, file.split, file.dataset_kwargs) not in mirror.rows:
        return Place(where="missing", revision=mirror.revision)
    return Place(
        where="mirror",
        revision=mirror.revision,
        synthetic=mirror.synthetic,
        num_bytes=sum(listed.bytes for listed in mirror.files.values()),
    )
