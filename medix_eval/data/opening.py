"""Open the data of tasks before anything is sent, and say at once all that is missing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from datasets.config import HF_DATASETS_CACHE
from lm_eval.tasks import TaskManager

from medix_eval.data.hub import offline_if_out_of_reach
from medix_eval.data.lm_task import MedixTask
from medix_eval.data.rows import changes_since_pinned, quiet
from medix_eval.data.tasks import Catalogue, TaskFile
from medix_eval.errors import ConfigError, DatasetError, full_disk, one_line

_LOG = logging.getLogger(__name__)
_NAMED = 3


def open_task(
    task_file: TaskFile, *, data_root: Path | None = None, accept_change: bool = False
) -> MedixTask:
    """Load a task's dataset, from a local mirror if `data_root` is given.

    Every way in which the data can be wrong is a `DatasetError` that names the task. Data that is
    not what the file pins is one of these, unless the change is accepted: then the task keeps it.
    """
    override: dict[str, Any] = {"task": task_file.name}
    dataset = task_file.dataset_path
    from_hub = data_root is None and dataset and not Path(dataset).exists()
    if data_root is not None and dataset:
        folder = data_root.absolute() / dataset
        if not folder.is_dir():
            raise DatasetError(
                f"task {task_file.name}: there is no folder {folder}",
                hint=f"--data-root holds each dataset as ORG/NAME, here {dataset}",
            )
        override["dataset_path"] = str(folder)
    if accept_change:
        settings = task_file.settings.model_dump(mode="json", exclude_unset=True)
        settings |= {"num_samples": None}
        override["metadata"] = {"version": task_file.version, "medix": settings}
    reached = offline_if_out_of_reach(task_file.name, str(dataset)) if from_hub else nullcontext()
    with quiet(), reached:
        manager = TaskManager(include_path=str(task_file.path.parent), include_defaults=False)
        try:
            # Only a group's member may override single fields of a task that a file defines.
            loaded = manager.load({"group": "opened", "task": [override]})
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{task_file.path}: {one_line(error)}") from error
        except DatasetError as error:
            if not full_disk(error):
                raise
            raise ConfigError(
                f"the disk is full: {dataset} does not fit into {HF_DATASETS_CACHE}",
                hint="make room there, or name another place in HF_HOME",
            ) from error
    task = loaded["tasks"][task_file.name]
    if not isinstance(task, MedixTask):
        raise ConfigError(f"{task_file.path}: class: name medix_eval.lm_task.MedixTask")
    task.changes = changes_since_pinned(
        task_file,
        mirror=task.mirror,
        num_rows=len(task.rows),
        revision=task.revision,
        fingerprint=task.fingerprint() if task_file.settings.files else {},
    )
    if task.changes and not accept_change:
        raise DatasetError(
            f"task {task_file.name}: the data is not what its file pins: {'; '.join(task.changes)}",
            hint="get the pinned data, or record the change with --accept-data-change",
        )
    return task


def open_all(
    names: Iterable[str],
    catalogue: Catalogue,
    *,
    data_root: Path | None,
    accept_change: bool = False,
    allow_fallback: bool = False,
) -> list[tuple[TaskFile, MedixTask]]:
    """Open these tasks, or raise one `DatasetError` that lists every one that cannot start.

    Another place that holds a benchmark is taken only with `allow_fallback`; it is a task of its
    own, so its score never stands in the column of the benchmark it replaces.
    """
    opened: list[tuple[TaskFile, MedixTask]] = []
    faults: dict[str, DatasetError] = {}
    for name in names:
        file = catalogue.tasks[name]
        others = file.settings.fallbacks if allow_fallback else ()
        for place in (name, *others):
            if place not in catalogue.tasks:
                raise ConfigError(f"{file.path}: fallbacks: no task is named {place!r}")
            try:
                task = _complete(catalogue.tasks[place], data_root, accept_change=accept_change)
            except DatasetError as error:
                faults.setdefault(name, error)
                continue
            if place != name:
                _LOG.warning("%s; %s takes its place", faults.pop(name), place)
            opened.append((catalogue.tasks[place], task))
            break
    if faults:
        raise _all_of(faults, catalogue)
    return opened


def _complete(file: TaskFile, data_root: Path | None, *, accept_change: bool) -> MedixTask:
    task = open_task(file, data_root=data_root, accept_change=accept_change)
    if missing := task.missing_images():
        rest = len(missing) - _NAMED
        named = ", ".join(missing[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
        raise DatasetError(
            f"task {file.name}: {len(missing)} images are missing: {named}",
            hint=f"`medix-eval data pull --tasks {file.name} --to DIR` fetches them",
        )
    return task


def _all_of(faults: dict[str, DatasetError], catalogue: Catalogue) -> DatasetError:
    """Put several faults under one another; a single one stays as it is."""
    hints = dict.fromkeys(error.hint for error in faults.values() if error.hint)
    others = [place for name in faults for place in catalogue.tasks[name].settings.fallbacks]
    if others:
        hints[f"--allow-fallback takes {', '.join(others)}, which counts as another benchmark"] = (
            None
        )
    if len(faults) == 1:
        (message,) = map(str, faults.values())
    else:
        listed = "\n".join(f"  {error}" for error in faults.values())
        message = f"the data of {len(faults)} tasks cannot be used:\n{listed}"
    return DatasetError(message, hint="; ".join(hints))
