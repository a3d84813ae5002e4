"""Submissions bent by a forger, beside the dataset: whatever he changed of a sample is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_run import HUB, Submitted, edit_line, forged, rescored

from medix_eval.data.tasks import load_tasks
from medix_eval.exchange.checking import Doubts, check_submission
from medix_eval.storage.bundled import bundled


def drop_sample(folder: Path) -> None:
    for name in ("completions.jsonl", "verdicts.jsonl"):
        path = folder / name
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[1:]))
    path = folder / "run.json"
    run = json.loads(path.read_text())
    run["tasks"][min(run["tasks"])]["num_rows"] -= 1
    path.write_text(json.dumps(run))
    rescored(folder)


def change_reference(folder: Path) -> None:
    edit_line(folder / "completions.jsonl", lambda line: line.update(reference="second one"))


def change_kind(folder: Path) -> None:
    """A report is graded by other prompts."""
    edit_line(folder / "completions.jsonl", lambda line: line.update(kind="open"))


def move_cluster(folder: Path) -> None:
    """Samples of one image pass for independent ones, which narrows the interval."""
    edit_line(
        folder / "completions.jsonl",
        lambda line: line.update(columns={"image": "x"}),
        task="rad_vqa",
    )
    rescored(folder)


def swap_image(folder: Path) -> None:
    edit_line(
        folder / "completions.jsonl", lambda line: line.update(image_sha256=["0"]), task="rad_vqa"
    )


def skip_sample(folder: Path) -> None:
    """A wrong answer passes for a row that nobody could read."""
    failure = {"error": "BadRow", "message": "damaged image"}
    edit_line(folder / "completions.jsonl", lambda line: line.update(failure=failure))

    def skip(line: dict[str, Any]) -> None:
        task, sample_id = line["task"], line["sample_id"]
        line.clear()
        line |= {"task": task, "sample_id": sample_id, "outcome": "skipped", "score": None}
        line["reason"] = "damaged image"

    edit_line(folder / "verdicts.jsonl", skip)
    rescored(folder)


def change_hash(folder: Path) -> None:
    """A board tells states of the data apart by the hashes of their files."""
    run = json.loads((folder / "run.json").read_text())
    files = run["tasks"]["medqa"]["source"]["files"]
    files[min(files)] = "0" * 64
    (folder / "run.json").write_text(json.dumps(run))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (drop_sample, "of the dataset is missing"),
        (change_reference, "has another reference than the dataset"),
        (change_kind, "has another kind than the dataset"),
        (move_cluster, "has another columns than the dataset"),
        (swap_image, "has other images than the dataset"),
        (change_hash, "run.json and the dataset have different hashes of test.json"),
        (skip_sample, "can be read, but was not asked"),
    ],
)
def test_what_differs_from_the_data_is_named(
    submitted: Submitted, tmp_path: Path, edit: Callable[[Path], None], reason: str
) -> None:
    doubts = Doubts(allow_synthetic=True, data_root=HUB)
    found = check_submission(
        forged(submitted[0], tmp_path, edit), load_tasks([bundled("tasks")]), doubts
    )

    assert any(reason in problem for problem in found.problems), found.problems
