"""Published numbers are held against a run: only figures scored the same way can agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted_servers import Run

from medix_eval.cli.app import main
from medix_eval.data.tasks import load_tasks
from medix_eval.records import CompletionRecord, Kind, Outcome, VerdictRecord, Vote
from medix_eval.results.reproduction import Figure, load_figures
from medix_eval.storage.bundled import bundled
from medix_eval.testing import write_run

JUDGE = "Qwen/Qwen3-14B"


def test_a_run_near_the_published_number_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = measured(tmp_path, right=688)

    code, found = reproduced(capsys, "MBZUAI/MediX-R1-8B", run)

    (overall,) = [one for one in found["findings"] if one["figure"]["benchmark"] == "Overall-17"]
    assert overall["state"] == "agrees"
    assert overall["measured"] == pytest.approx(42 / 60)
    assert code == 0


def test_a_run_far_from_it_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = measured(tmp_path, right=560)

    code, found = reproduced(capsys, "MBZUAI/MediX-R1-8B", run)

    (overall,) = [one for one in found["findings"] if one["figure"]["benchmark"] == "Overall-17"]
    assert overall["state"] == "differs"
    assert code == 5


def test_figures_scored_otherwise_are_shown_and_never_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = reproduced(capsys, "MediX-R1 8B", measured(tmp_path, right=688))

    states = {one["figure"]["source"]: one["state"] for one in found["findings"]}
    assert {state for source, state in states.items() if "third party" in source} == {
        "scored otherwise"
    }


def test_a_task_that_was_not_run_is_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = measured(tmp_path, right=688, tasks=("medqa",))

    code, found = reproduced(capsys, "MediX-R1 30B", run)

    assert {one["state"] for one in found["findings"]} == {"not measured", "scored otherwise"}
    assert code == 5


def test_synthetic_rows_reproduce_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = measured(tmp_path, right=688, synthetic=True)

    code, _ = reproduced(capsys, "MediX-R1 8B", run)

    assert code == 5


def test_settings_that_differ_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = measured(tmp_path, right=688, judge="other-judge")

    _, found = reproduced(capsys, "MediX-R1 8B", run)

    said = "\n".join(found["settings"])
    assert f"judge: {JUDGE}, now other-judge" in said
    assert "generation.temperature" in said
    assert "dataset commits: unknown" in said


def test_a_model_nobody_published_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "phantom"])

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "no published numbers for 'phantom'" in said
    assert "MediX-R1 30B" in said


@pytest.mark.slow
def test_without_a_run_the_model_is_evaluated_first(tmp_path: Path, repository: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"sample_id": "x", "task": "rad_vqa", "completion": "yes"}\n')
    command = [sys.executable, "-m", "medix_eval", "reproduce", f"replay:{answers}"]
    command += ["--as", "MediX-R1 8B", "--out", str(tmp_path), "--json", "--tasks", "rad_vqa"]
    command += ["--protocol", "rules", "--limit", "3"]
    command += ["--data-root", str(repository / "tests" / "fixtures" / "hub")]

    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=repository)

    assert ended.returncode == 5, ended.stderr
    found = json.loads(ended.stdout)
    assert "judge: Qwen/Qwen3-14B, now rules alone" in found["settings"]
    assert Path(found["run"]).is_relative_to(tmp_path)


def test_rounding_is_half_of_the_last_digit() -> None:
    figure = Figure(model="m", params="", benchmark="b", metric="%", score="68.8", source="s")

    assert figure.value == pytest.approx(0.688)
    assert figure.rounding == pytest.approx(0.0005)


def test_every_published_figure_can_be_read() -> None:
    figures = load_figures(bundled("leaderboard") / "published_results.csv")

    assert len(figures) > 200
    assert all(0 < figure.value <= 1 for figure in figures)


def measured(
    folder: Path,
    *,
    right: int,
    judge: str = JUDGE,
    tasks: tuple[str, ...] | None = None,
    synthetic: bool = False,
) -> Path:
    """Write a run of a thousand samples, spread over the seventeen tasks or some of them."""
    members = load_tasks([bundled("tasks")]).groups["medix"]
    names = tasks or members
    samples = [
        sample(task, row, right=row * 1000 // 60 < right, judge=judge)
        for task in names
        for row in range(60)
    ]
    return write_run(folder, samples, groups={"medix": members}, synthetic=synthetic)


def sample(
    task: str, row: int, *, right: bool, judge: str
) -> tuple[CompletionRecord, VerdictRecord]:
    points = float(right)
    return (
        CompletionRecord(
            task=f"{task}@1",
            sample_id=f"{task}-{row}",
            row=row,
            kind=Kind.OPEN,
            prompt="Which?",
            reference="B",
            completion="B",
            finish_reason="stop",
        ),
        VerdictRecord(
            task=f"{task}@1",
            sample_id=f"{task}-{row}",
            outcome=Outcome.CORRECT if right else Outcome.WRONG,
            score=points,
            judge_score=points,
            answer="B",
            votes=(Vote(judge=judge, prompt="p", key="k", points=points),),
        ),
    )


@pytest.mark.parametrize(
    ("behind", "code", "said"),
    [
        pytest.param(["--tasks=phantom_open", "--dry-run"], 0, "", id="nothing-is-sent"),
        pytest.param(
            ["--tasks", "phantom_open", "phantom_closed"], 2, "'phantom_closed'", id="left"
        ),
    ],
)
def test_what_stands_behind_the_model_is_read_as_flags_and_nothing_else(
    run: Run, tmp_path: Path, behind: list[str], code: int, said: str
) -> None:
    named = ("phantom", "--as", "MediX-R1 8B", "--protocol", "rules", "--limit", "2")
    ended, out, err = run("reproduce", *named, "--out", tmp_path / "out", *behind)

    assert ended == code, err
    assert not (tmp_path / "out").exists()
    if code:
        assert said in err
    else:
        assert [line.split()[0] for line in out.splitlines() if " requests" in line] == [
            "phantom_open", "model",
        ]  # fmt: skip


def reproduced(capsys: pytest.CaptureFixture[str], model: str, run: Path) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", model, "--run", str(run), "--json"])
    return int(str(ended.value.code)), json.loads(capsys.readouterr().out)
