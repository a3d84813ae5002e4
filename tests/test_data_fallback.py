"""Datasets that are gone: nothing takes their place in silence, or in their column."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_servers import Run

from medix_eval.data.tasks import load_tasks
from medix_eval.storage.bundled import bundled

HUB = Path(__file__).parent / "fixtures" / "hub"
CATALOGUE = load_tasks([bundled("tasks")])
Evaluate = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def evaluate(run: Run, tmp_path: Path) -> Evaluate:
    """Evaluate on a mirror that has lost the sets of the published evaluation."""
    shutil.copytree(HUB, tmp_path / "mirror")
    shutil.rmtree(tmp_path / "mirror" / "sahalshajim")
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"task": "x", "sample_id": "none", "completion": "A"}\n')

    def call(*argv: str) -> tuple[int, dict[str, Any], str]:
        model = ("--model", f"replay:{answers}", "--protocol", "rules", "--json")
        where = ("--data-root", tmp_path / "mirror", "--out", tmp_path / "out")
        code, out, err = run(*model, *where, *argv)
        return code, json.loads(out or "{}"), err

    return call


def test_a_fallback_is_named_and_never_taken_by_itself(evaluate: Evaluate) -> None:
    code, _, err = evaluate("--tasks", "pubmedqa")

    assert code == 3
    assert "task pubmedqa: there is no folder" in err
    assert "--allow-fallback uses pubmedqa[fallback=qiaojin]" in err


def test_an_allowed_fallback_is_a_benchmark_of_its_own(
    evaluate: Evaluate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, scores, _ = evaluate("--tasks", "pubmedqa,medqa", "--allow-fallback")

    (path,) = tmp_path.glob("out/*/*/run.json")
    source = json.loads(path.read_text())["tasks"]["pubmedqa[fallback=qiaojin]"]["source"]
    assert set(scores["tasks"]) == {"pubmedqa[fallback=qiaojin]", "medqa"}
    assert scores["tasks"]["pubmedqa[fallback=qiaojin]"]["n"] == 4
    assert scores["groups"]["llm"]["complete"] is False
    assert source["path"] == "qiaojin/PubMedQA"
    assert "using pubmedqa[fallback=qiaojin] instead" in caplog.text


def test_what_has_no_fallback_stays_an_error(evaluate: Evaluate) -> None:
    tasks = "pmc_vqa,pmc_vqa_hard,mimic_cxr_report_summarization"

    code, _, err = evaluate("--tasks", tasks, "--allow-fallback")

    assert code == 3
    assert err.splitlines()[-2].startswith("error: task mimic_cxr_report_summarization:")


def test_fallbacks_that_failed_too_are_told_and_offered_no_more(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "mirror" / "qiaojin")

    code, _, err = evaluate("--tasks", "pubmedqa", "--allow-fallback")

    assert code == 3
    assert "task pubmedqa: there is no folder" in err
    assert "task pubmedqa[fallback=qiaojin]: there is no folder" in err
    assert "--allow-fallback uses" not in err


def test_every_fallback_is_a_task_named_for_what_it_replaces() -> None:
    named = {
        fallback: name
        for name, file in CATALOGUE.tasks.items()
        for fallback in file.settings.fallbacks
    }

    assert set(named) == {name for name in CATALOGUE.tasks if "[fallback=" in name}
    assert all(fallback.startswith(f"{name}[fallback=") for fallback, name in named.items())
    assert not any("[fallback=" in task for tasks in CATALOGUE.groups.values() for task in tasks)
