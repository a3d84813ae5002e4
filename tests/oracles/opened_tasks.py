"""Open tasks to ask: those of the fixture mirror, and one made for rows of a test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import yaml
from datasets import Features

from medix_eval.data.lm_task import MedixTask, open_task
from medix_eval.data.tasks import load_tasks
from medix_eval.storage.bundled import bundled

CATALOGUE = load_tasks([bundled("tasks")])
HUB = Path(__file__).parents[1] / "fixtures" / "hub"
CHOICE: dict[str, Any] = {"doc_to_choice": "choices", "doc_to_target": "index"}

Open = Callable[..., MedixTask]


def open_fixture(name: str) -> MedixTask:
    return open_task(CATALOGUE.tasks[name], data_root=HUB)


def open_rows(
    folder: Path,
    rows: list[dict[str, Any]],
    *,
    features: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    **fields: Any,
) -> MedixTask:
    """Write the rows to `folder/hub`, a task file about them to `folder/tasks`, and open it."""
    data = folder / "hub" / "org" / "name" / "data"
    data.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_list(rows, features=features and Features(features))
    table.to_parquet(data / "test-00000-of-00001.parquet")
    write_task(folder / "tasks", settings=settings, **fields)
    return open_task(load_tasks([folder / "tasks"]).tasks["mine"], data_root=folder / "hub")


def write_task(folder: Path, *, settings: dict[str, Any] | None = None, **fields: Any) -> None:
    """Write the file of a task `mine` on the dataset `org/name`."""
    medix = {
        "kind": "multiple_choice" if "doc_to_choice" in fields else "open",
        "modality": "image" if "doc_to_image" in fields else "text",
        "data_class": "public",
        "licence": "mit",
        "num_samples": None,
        **(settings or {}),
    }
    task = {
        "task": "mine",
        "include": str(bundled("tasks") / "_free_text.yaml"),
        "dataset_path": "org/name",
        "test_split": "test",
        "doc_to_text": "{{ question }}",
        "doc_to_target": "answer",
        "metadata": {"version": 1, "medix": medix},
        **fields,
    }
    head = "class: !function medix_eval.lm_task.MedixTask\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(head + yaml.safe_dump(task))
