from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HUB = Path(__file__).parent / "fixtures" / "hub"
HEAVY = ("torch", "transformers", "datasets", "lm_eval", "pandas", "openai", "vllm")
Run = Callable[..., tuple[int, str, str]]


def error_of(result: tuple[int, str, str], code: int) -> str:
    """Check that a command failed in one line with a hint, and return both lines."""
    found, out, err = result
    assert out == ""
    lines = err.strip().splitlines()
    assert [line.split(":")[0] for line in lines if line[:6] != "report"] == ["error", "hint"], err
    assert found == code, err
    return err


def test_tasks_lists_the_seventeen_names_and_the_groups(run: Run) -> None:
    code, out, _ = run("tasks", "--json")

    listing = json.loads(out)
    groups = {name: len(members) for name, members in listing["groups"].items()}
    assert code == 0
    assert groups["medix"] == 17
    assert [groups[n] for n in ("llm", "vlm", "medvqa", "mmlu_medical", "mimic_cxr")] == [
        11, 6, 5, 6, 2,
    ]  # fmt: skip
    names = {task["name"] for task in listing["tasks"]}
    assert {*listing["groups"]["medix"], "pubmedqa_compat"} <= names
    medqa = next(task for task in listing["tasks"] if task["name"] == "medqa")
    assert set(medqa["groups"]) == {"llm", "medix"}


def test_tasks_path_is_a_folder_of_task_files(run: Run) -> None:
    _, out, _ = run("tasks", "--path")

    assert any(Path(out.strip()).rglob("medqa.yaml"))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--tasks", "medqx"], "did you mean 'medqa'?"),
        (["--tasks", "medvq"], "did you mean 'medvqa'?"),
        (["--tasks", ""], "no task is named"),
        (["--tasks", "medqa", "--limit", "0"], "--limit 0 is too small"),
        (["--tasks", "medqa", "--limit", "-3"], "--limit -3 is too small"),
        (["--tasks", "medqa", "--protocol", "medx"], "did you mean 'medix'?"),
        (["--tasks", "medqa", "--set", "generation.tokens=1"], "unknown key 'generation.tokens'"),
        (["--tasks", "medqa", "--concurrency", "0"], "--concurrency 0 is too small"),
        (["--tasks", "medqa", "--request-timeout", "0"], "--request-timeout 0.0 must be positive"),
        (["--tasks", "medqa", "--data-root", "nowhere"], "nowhere is not a folder"),
        (["--tasks", "medqa", "--modle", "x"], "No such option: --modle"),
        (["--tasks", "medqa", "--protocol", "rules", "--judge", "openai:x"], "uses no judge"),
        (["--tasks", "medqa", "--base-url", "http://x/v1"], "did you mean openai:phantom?"),
    ],
)
def test_a_wrong_flag_is_one_line_a_hint_and_exit_code_2(
    run: Run, argv: list[str], said: str
) -> None:
    assert said in error_of(run("--model", "phantom", *argv), 2)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("", "--model is missing"),
        ("nonsense", "is not a model"),
        ("gpt:4", "is not a model"),
        ("openai:gpt", "needs --base-url"),
        ("replay:nowhere.jsonl", "does not exist"),
        ("./nowhere/at-all", "is not a model"),
    ],
)
def test_a_wrong_model_is_one_line(run: Run, tmp_path: Path, model: str, said: str) -> None:
    argv = ["--tasks", "medqa", "--protocol", "rules", "--data-root", HUB, "--out", tmp_path]

    found = run("--model", model, *argv)

    assert said in found[2]
    assert found[0] == 2


def test_a_folder_that_is_not_a_run_is_named(run: Run, tmp_path: Path) -> None:
    assert "is not a run" in error_of(run("score", tmp_path), 2)


def test_a_misspelt_field_in_a_task_file_is_named(run: Run, tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "tasks" / "text" / "medmcqa.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(
        text.replace("task: medmcqa", "task: mine")
        .replace("include: ../", f"include: {Path(__file__).parents[1]}/tasks/")
        .replace("licence:", "license:")
    )

    err = error_of(run("tasks", "--include-path", tmp_path), 2)

    assert "mine.yaml: metadata.medix.license" in err
    assert "did you mean 'licence'?" in err


@pytest.mark.slow
@pytest.mark.parametrize("argv", [["--help"], ["tasks"], ["tasks", "--json"], ["score", "--help"]])
def test_light_commands_import_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import sys; from medix_eval.cli.app import main\n"
        f"try: main({argv!r})\n"
        "except SystemExit: pass\n"
        f"sys.stderr.write(repr([name for name in {HEAVY!r} if name in sys.modules]))"
    )

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stderr == "[]"
