"""Check a mirror against its manifest and its task files, down to every row and image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medix_eval.data.lm_task import MedixTask, open_task
from medix_eval.data.samples import BadSample, read_samples
from medix_eval.data.tasks import TaskFile
from medix_eval.errors import MedixError
from medix_eval.storage.mirror import MIRROR_FILE, load_manifest, sha256_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One problem that was found."""

    where: str
    """A task, or the folder of a dataset."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCheck:
    """What was looked at of one task."""

    num_rows: int
    num_images: int
    fingerprint: dict[str, str]


def check_mirror(
    files: Iterable[TaskFile], root: Path
) -> tuple[dict[str, TaskCheck], dict[str, Any], list[Fault]]:
    """Return what was checked of tasks and of datasets, and every fault."""
    files = list(files)
    tasks: dict[str, TaskCheck] = {}
    datasets: dict[str, Any] = {}
    faults: list[Fault] = []
    for name in dict.fromkeys(file.dataset_path for file in files if file.dataset_path):
        about, found = _check_dataset(name, root / name)
        datasets[name] = about
        faults += found
    for file in files:
        try:
            task = open_task(file, data_root=root)
        except MedixError as error:
            message = f"{error} ({error.hint})".removesuffix(" ()")
            faults.append(Fault(where=file.name, message=message))
            continue
        messages, num_images = _row_faults(task, file)
        faults += [Fault(where=file.name, message=message) for message in messages]
        tasks[file.name] = TaskCheck(
            num_rows=len(task.rows), num_images=num_images, fingerprint=task.fingerprint()
        )
    return tasks, datasets, faults


def _check_dataset(name: str, folder: Path) -> tuple[dict[str, Any], list[Fault]]:
    """Hash every file that the manifest lists."""
    if not folder.is_dir():
        return {}, [Fault(where=name, message=f"there is no folder {folder}")]
    try:
        mirror = load_manifest(folder)
    except MedixError as error:
        return {}, [Fault(where=name, message=str(error))]
    if mirror is None:
        message = f"{MIRROR_FILE} is missing, so the source of this copy is unknown"
        return {}, [Fault(where=name, message=message)]
    faults = []
    for file, listed in mirror.files.items():
        path = folder / file
        if not path.is_file():
            faults.append(Fault(where=name, message=f"{file} is missing"))
        elif path.stat().st_size != listed.bytes:
            message = f"{file}: {path.stat().st_size} B, but the manifest lists {listed.bytes} B"
            faults.append(Fault(where=name, message=message))
        elif (found := sha256_of(path)) != listed.sha256:
            message = f"{file}: SHA-256 {found}, but the manifest lists {listed.sha256}"
            faults.append(Fault(where=name, message=message))
    about = {
        "revision": mirror.revision,
        "synthetic": mirror.synthetic,
        "num_files": len(mirror.files),
    }
    return about, faults


def _row_faults(task: MedixTask, file: TaskFile) -> tuple[list[str], int]:
    """Read every row as an evaluation does, pictures too; return the number of these."""
    faults: list[str] = []
    seen: set[bytes] = set()
    rows = range(len(task.rows))
    for sample in read_samples(task, rows, key=file.key, done=frozenset(), taken=set()):
        if isinstance(sample, BadSample):
            assert sample.record.failure is not None  # noqa: S101 (why the row is bad)
            faults.append(sample.record.failure.message)
            continue
        seen.update(hashlib.sha256(image).digest() for image in sample.images)
    return faults, len(seen)
