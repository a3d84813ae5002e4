"""A run of three tasks (one restricted) with a scripted judge, and a forger who knows our code."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_servers import asked_question

from medix_eval.cli.app import main
from medix_eval.data.tasks import load_tasks
from medix_eval.exchange.checking import Checked, Doubts, check_submission
from medix_eval.exchange.submission import write_submission
from medix_eval.results.scoring import score_run
from medix_eval.results.store import load_judging_manifest, load_run_manifest, read_run
from medix_eval.storage.bundled import bundled
from medix_eval.storage.digests import digest
from medix_eval.testing import ScriptedServer, prompt_text

HUB = Path(__file__).parents[1] / "fixtures" / "hub"
Submitted = tuple[Path, ScriptedServer]
"""A submission, and the judge of its run."""


def says(body: dict[str, Any]) -> str:
    """A judge that finds every other answer right, by its question."""
    digit = int(hashlib.sha256(asked_question(prompt_text(body)).encode()).hexdigest(), 16)
    return f'Looked at it. {{"score": {digit % 2}}}'


@contextmanager
def scripted_run(out: Path) -> Iterator[tuple[Path, ScriptedServer]]:
    """Make the run; its judge still answers as long as this is open."""
    with ScriptedServer(lambda _: "It is the second one.") as model, ScriptedServer(says) as judge:
        with pytest.raises(SystemExit):
            main([
                *("--model", "openai:scripted", "--base-url", model.url),
                *("--judge", "openai:scripted", "--judge-base-url", judge.url),
                *("--tasks", "medqa,rad_vqa,mimic_cxr_report_summarization"),
                *("--data-root", str(HUB), "--out", str(out), "--no-cache"),
            ])  # fmt: skip
        (run,) = out.glob("*/*/run.json")
        yield run.parent, judge


@contextmanager
def submission(out: Path) -> Iterator[Submitted]:
    """Make the run and a submission of it; the judge still answers as long as this is open."""
    with scripted_run(out) as (run, judge):
        judged = read_run(run)
        yield write_submission(judged, out, official=False, allow_synthetic=True, key=None), judge


def forged(zipped: Path, tmp_path: Path, edit: Callable[[Path], None]) -> Path:
    """Unpack, edit, compute every checksum anew as a forger would, and pack again."""
    folder = tmp_path / "forged"
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(folder)
    (inside,) = folder.iterdir()
    edit(inside)
    manifest = json.loads((inside / "submission.json").read_text())
    manifest["sha256"] = {
        name: hashlib.sha256((inside / name).read_bytes()).hexdigest()
        for name in manifest["sha256"]
    }
    (inside / "submission.json").write_text(json.dumps(manifest))
    return Path(shutil.make_archive(str(tmp_path / "forged"), "zip", folder))


def edit_line(path: Path, edit: Callable[[dict[str, Any]], None], *, task: str = "medqa") -> None:
    """Edit the first line of a task."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    edit(next(line for line in lines if line["task"].startswith(task)))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def rescored(folder: Path) -> None:
    """State the scores that the edited verdicts give."""
    scores = score_run(
        folder,
        folder,
        manifest=load_run_manifest(folder),
        judging=load_judging_manifest(folder),
        groups=load_tasks([bundled("tasks")]).groups,
    )
    (folder / "scores.json").write_text(scores.model_copy(update={"run": ""}).model_dump_json())


def check(zipped: Path, *, data_root: Path | None = None, **doubts: Any) -> Checked:
    known = Doubts(allow_synthetic=True, data_root=data_root, **doubts)
    return check_submission(zipped, load_tasks([bundled("tasks")]), known)


def edit_json(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def restamped(folder: Path) -> None:
    """Make digests and scores of edited settings anew, as a forger would."""
    run, judging = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("run", "judging")
    )
    run["generation_digest"] = digest(run["generation"])
    judging["judging_digest"] = digest(judging["judging"])
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "judging.json").write_text(json.dumps(judging))
    stamp = {
        "generation_digest": run["generation_digest"],
        "judging_digest": judging["judging_digest"],
        "protocol": judging["protocol"],
    }
    edit_json(folder / "submission.json", lambda listed: listed.update(stamp))
    rescored(folder)


def flip_verdict(folder: Path) -> None:
    def flip(line: dict[str, Any]) -> None:
        right = line["outcome"] == "correct"
        line |= {"outcome": "wrong" if right else "correct", "score": 0.0 if right else 1.0}

    edit_line(folder / "verdicts.jsonl", flip)
    rescored(folder)
