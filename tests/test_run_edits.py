"""A run folder whose manifests were edited by hand is refused, and the key named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_servers import candidate

import medix_eval
from medix_eval.cli.app import main
from medix_eval.testing import ScriptedServer

Run = Callable[..., tuple[int, str, str]]
FIXTURES = Path(__file__).parent / "fixtures" / "v0_1" / "runs"


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def task_of(run: dict[str, Any]) -> dict[str, Any]:
    (task,) = run["tasks"].values()
    assert isinstance(task, dict)
    return task


EDITS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("run.json", lambda run: task_of(run).update(rows=[0, 1, 2, 3]), "tasks."),
    ("run.json", lambda run: task_of(run)["rows"].pop(), "tasks."),
    ("run.json", lambda run: task_of(run).update(rows=None), "tasks."),
    ("run.json", lambda run: task_of(run)["rows"].append(task_of(run)["rows"][0]), ".rows"),
    ("run.json", lambda run: task_of(run)["rows"].append(10**9), ".rows"),
    ("run.json", lambda run: task_of(run)["rows"].append(-1), ".rows"),
    ("run.json", lambda run: task_of(run).update(limit=99), "tasks."),
    ("run.json", lambda run: task_of(run).update(seed=7), "tasks."),
    ("run.json", lambda run: task_of(run).update(kind="open"), "tasks."),
    ("run.json", lambda run: run["generation"].update(control="always-normal"), ""),
    ("judging.json", lambda judging: judging["judges"].append({"id": "gpt"}), "judges"),
    ("judging.json", lambda judging: judging["protocol"].update(name="medix"), "protocol"),
    ("judging.json", lambda judging: judging["judging"].update(twins="x"), "judging"),
    ("judging.json", lambda judging: judging.update(judging_digest="0" * 64), "judging_digest"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """Make a limited run; return its judging, and the command that resumes it."""
    out, hub = tmp_path_factory.mktemp("made"), Path(__file__).parent / "fixtures" / "hub"
    with ScriptedServer(lambda _: "A") as answering:
        argv = [*candidate(answering), "--tasks", "medqa", "--limit", "3", "--protocol", "rules"]
        argv = [*map(str, argv), "--data-root", str(hub)]
        with pytest.raises(SystemExit):
            main([*argv, "--out", str(out)])
        (run,) = out.glob("*/*/run.json")
        yield run.parent, argv


@pytest.fixture
def copied(made: tuple[Path, list[str]], tmp_path: Path) -> tuple[Path, list[str]]:
    shutil.copytree(made[0], tmp_path / made[0].parent.name / made[0].name)
    return tmp_path / made[0].parent.name / made[0].name, [*made[1], "--out", str(tmp_path)]


@pytest.mark.parametrize(("name", "change", "key"), EDITS)
def test_scoring_refuses_a_run_that_was_edited_and_names_the_key(
    copied: tuple[Path, list[str]], run: Run, name: str, change: Any, key: str
) -> None:
    folder, _ = copied
    (file,) = folder.rglob(name)
    edit(file, change)

    code, _, err = run("score", folder)

    assert code == 2
    assert f"was edited after it was written: {name}: " in err
    assert key in err.splitlines()[0]


@pytest.mark.parametrize(("name", "change", "key"), EDITS)
def test_a_run_that_was_edited_is_not_resumed(
    copied: tuple[Path, list[str]], run: Run, name: str, change: Any, key: str
) -> None:
    folder, argv = copied
    (file,) = folder.rglob(name)
    edit(file, change)
    before = (folder / "completions.jsonl").read_bytes()

    code, _, err = run(*argv)

    assert (code, (folder / "completions.jsonl").read_bytes()) == (2, before)
    assert key.strip(".") in err.splitlines()[0]


def test_a_run_that_nobody_edited_is_resumed_scored_and_grown(
    copied: tuple[Path, list[str]], run: Run
) -> None:
    folder, argv = copied
    grown = [("5" if one == "3" else one) for one in argv]
    other = [*argv, "--seed", "3"]

    codes = [run(*one)[0] for one in (argv, grown, argv, other, ["score", str(folder)])]

    assert codes == [0] * 5


@pytest.mark.parametrize("rows", [[0, 0], [0, 10**6], [-1]])
def test_rows_that_no_version_draws_are_refused_in_a_run_of_0_1_too(
    tmp_path: Path, run: Run, rows: list[int]
) -> None:
    shutil.copytree(FIXTURES / "rules", tmp_path / "rules")
    (file,) = tmp_path.rglob("run.json")
    edit(file, lambda its: its["tasks"]["medqa"].update(rows=rows, limit=len(rows)))

    code, _, err = run("score", file.parent)

    assert code == 2
    assert "run.json: tasks.medqa.rows" in err


def test_a_judge_that_its_settings_do_not_know_is_refused_in_a_run_of_0_1_too(
    tmp_path: Path, run: Run
) -> None:
    shutil.copytree(FIXTURES / "medix", tmp_path / "medix")
    (file,) = tmp_path.rglob("judging.json")
    edit(file, lambda its: its["judges"][0].update(digest="0" * 64))

    code, _, err = run("score", file.parents[2])

    assert code == 2
    assert "judging.json: judges" in err


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*/*/*")), ids=lambda path: path.parts[-3])
def test_runs_of_0_1_are_still_read(path: Path) -> None:
    assert medix_eval.load_run(path).scores.tasks
