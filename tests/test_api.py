"""The Python API: what the command line does, as functions that print nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_run import says
from scripted_servers import HUB, Serve, records

import medix_eval
from medix_eval.errors import ConfigError, NoJudge, RunMismatch, UnknownName
from medix_eval.models.requests import run_to_end

RULES: dict[str, Any] = {
    "model": "phantom",
    "tasks": "phantom_open",
    "protocol": "rules",
    "limit": 4,
}
Judged = Callable[..., medix_eval.Run]


@pytest.fixture
def judged(tmp_path: Path, serve: Serve) -> Judged:
    """Evaluate a scripted model with a scripted judge, on the fixture mirror."""
    model, judge = serve(lambda _: "The answer is B."), serve(says)

    def evaluate(**options: Any) -> medix_eval.Run:
        asked: dict[str, Any] = {
            "model": "openai:scripted",
            "base_url": model.url,
            "judge": "openai:scripted",
            "judge_base_url": judge.url,
            "tasks": "medqa,rad_vqa",
            "data_root": HUB,
            "out": tmp_path / "out",
        }
        return medix_eval.evaluate(**asked | options)

    return evaluate


def test_a_frame_holds_what_the_files_hold(judged: Judged) -> None:
    run = judged()
    lines = {line["sample_id"]: line for line in records(run.path, "verdicts.jsonl")}

    frame = run.to_pandas().set_index("sample_id")

    assert set(frame.index) == set(lines)
    for sample_id, line in lines.items():
        row = frame.loc[sample_id]
        said = row["score"] if not math.isnan(row["score"]) else None
        assert (row["task"], said) == (line["task"].partition("@")[0], line["score"])
        assert (row["outcome"], row["answer"]) == (line["outcome"], line.get("answer"))
        assert list(row["replies"]) == [vote.get("reply") for vote in line.get("votes", ())]


async def test_it_runs_beside_a_running_loop(judged: Judged) -> None:
    """As in a cell of a notebook."""
    run = judged()
    again = await asyncio.to_thread(medix_eval.judge, run, protocol="rules")

    assert asyncio.get_running_loop().is_running()
    assert run.scores.tasks["medqa"].n_scored > 0
    assert again.scores.protocol["name"] == "rules"


async def test_ctrl_c_in_a_notebook_cancels_the_work() -> None:
    ended = threading.Event()

    async def work() -> None:
        threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    # A notebook's kernel has Python's own handler; asyncio.run, around this test, has another.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_to_end(work())
    finally:
        signal.signal(signal.SIGINT, before)

    assert ended.is_set()


def test_it_runs_in_a_thread(judged: Judged) -> None:
    found: list[medix_eval.Run] = []
    thread = threading.Thread(target=lambda: found.append(judged()))
    thread.start()
    thread.join()

    assert found[0].scores.tasks["rad_vqa"].n_scored > 0


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = medix_eval.evaluate(**RULES, out=tmp_path)
    medix_eval.score(run)
    medix_eval.judge(run, protocol="rules", overrides=["answer.refusals=[]"])
    run.report()

    assert capfd.readouterr() == ("", "")


def test_the_command_line_prints_the_scores_of_the_api(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    flags = ("--model", "phantom", "--tasks", "phantom_open", "--protocol", "rules")
    _, out, _ = run(*flags, "--limit", "4", "--out", tmp_path / "a", "--json")
    scores = medix_eval.evaluate(**RULES, out=tmp_path / "b").scores

    printed = json.loads(out)["tasks"]["phantom_open"] | {"ledger": None}  # it holds times
    found = json.loads(scores.model_dump_json())["tasks"]["phantom_open"] | {"ledger": None}
    assert printed == found


def test_a_run_is_judged_again_and_compared(judged: Judged, serve: Serve) -> None:
    run = judged()
    other = serve(lambda _: '{"score": 1}')
    again = medix_eval.judge(run, judge="openai:scripted", judge_base_url=other.url)

    assert again.path != run.path
    assert again.scores.tasks["medqa"].score == 1.0
    with pytest.raises(RunMismatch):
        medix_eval.compare(run, again)
    forced = medix_eval.compare(run, again, force=True)
    assert forced.tasks["medqa"].scores[1] == 1.0


def test_repetitions_stand_beside_the_first_run(tmp_path: Path) -> None:
    run = medix_eval.evaluate(
        **RULES, repeat=2, overrides=["generation.temperature=0.7"], out=tmp_path
    )

    assert run.repeats is not None
    assert run.repeats.seeds == (0, 1)
    assert Path(run.repeats.runs[0]) == run.path
    assert medix_eval.evaluate(**RULES, out=tmp_path).repeats is None


def test_samples_come_one_by_one_with_their_verdicts(tmp_path: Path) -> None:
    run = medix_eval.evaluate(**RULES, out=tmp_path)

    samples = list(medix_eval.load_run(run.path).samples())

    assert len(samples) == 4
    assert {one.completion.sample_id for one in samples} == {
        one.verdict.sample_id for one in samples
    }


def test_a_plan_says_what_would_be_sent_and_sends_nothing(judged: Judged, tmp_path: Path) -> None:
    said = medix_eval.plan(**RULES, out=tmp_path / "planned")

    assert "requests 4" in said
    assert not (tmp_path / "planned").exists()


def test_every_task_and_group_is_listed() -> None:
    catalogue = medix_eval.tasks()

    assert len(catalogue.groups["medix"]) == 17
    assert "medqa" in catalogue.tasks


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        pytest.param({"tasks": "medqaa"}, UnknownName, "medqaa", id="task"),
        pytest.param({"protocol": "medixx"}, UnknownName, "medixx", id="protocol"),
        pytest.param({"base_urll": "http://x"}, UnknownName, "base_urll", id="option"),
        pytest.param({"limit": 0}, ConfigError, "limit", id="limit"),
        pytest.param({"concurrency": 0}, ConfigError, "concurrency", id="concurrency"),
        pytest.param({"request_timeout": 0.0}, ConfigError, "request-timeout", id="seconds"),
        pytest.param({"limit": 4.5}, ConfigError, "4.5 is not a whole number", id="half-a-limit"),
        pytest.param({"seed": "x"}, ConfigError, "'x' is not a whole number", id="seed"),
        pytest.param({"request_timeout": "soon"}, ConfigError, "'soon' is not a number", id="soon"),
        pytest.param({"backend": "vlm"}, UnknownName, "vlm", id="backend"),
        pytest.param({"data_root": "not/here"}, ConfigError, "not/here", id="folder"),
        pytest.param({"judge": "openai:x", "judge_base_url": "http://127.0.0.1:9/v1",
                      "protocol": "medix"}, NoJudge, "127.0.0.1:9", id="judge"),
    ],
)  # fmt: skip
def test_errors_are_those_of_the_package(
    options: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {**RULES, "out": tmp_path, **options}

    with pytest.raises(error, match=says):
        medix_eval.evaluate(**asked)


@pytest.mark.parametrize(
    "wrong",
    [{"repeat": 0}, {"repeat": 2}, {"control": "shuffle-options"}, {"limit": "x"}],
    ids=str,
)
def test_a_plan_refuses_what_an_evaluation_refuses(wrong: dict[str, Any], tmp_path: Path) -> None:
    asked: dict[str, Any] = {**RULES, "out": tmp_path, **wrong}
    said = []
    for call in (medix_eval.plan, medix_eval.evaluate):
        with pytest.raises(ConfigError) as error:
            call(**asked)
        said.append(str(error.value))

    assert said[0] == said[1]
    assert not any(tmp_path.iterdir())


def test_numbers_of_a_sweep_and_single_overrides_are_taken(tmp_path: Path) -> None:
    asked: dict[str, Any] = {**RULES, "limit": np.int64(2), "seed": np.int64(1)}
    run = medix_eval.evaluate(**asked, overrides="generation.max_tokens=64", out=tmp_path)

    assert run.scores.tasks["phantom_open"].n == 2
    assert run.scores.protocol["name"] == "rules+generation.max_tokens=64"


def test_two_models_are_loaded_in_two_threads(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        runs = threads.map(
            lambda name: medix_eval.evaluate(**RULES, out=tmp_path / name), ("a", "b")
        )
        scores = [run.scores.tasks["phantom_open"].score for run in runs]

    assert scores[0] == scores[1] is not None


def test_one_run_is_scored_and_shown_in_several_threads(tmp_path: Path) -> None:
    run = medix_eval.evaluate(**RULES, out=tmp_path)
    with ThreadPoolExecutor(4) as threads:
        pages = list(threads.map(lambda _: medix_eval.score(run).report(), range(8)))

    assert {page.name for page in pages} == {"report.html"}
    assert not list(run.path.glob(".report*"))


def test_an_option_that_a_plan_does_not_know_is_named() -> None:
    with pytest.raises(ConfigError, match="limitt"):
        medix_eval.plan(**RULES, limitt=3)


def test_who_asks_for_warnings_gets_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="medix_eval"):
        medix_eval.evaluate(**RULES, control="no-image", out=tmp_path)

    assert "the same samples without the control" in caplog.text


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, medix_eval; print(*(m for m in sys.modules if 'medix_eval' in m))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set(found.stdout.split()) == {
        "medix_eval", "medix_eval.storage", "medix_eval.storage.version",
    }  # fmt: skip


def test_the_example_runs(tmp_path: Path, repository: Path) -> None:
    script = repository / "examples" / "two_models.py"
    done = subprocess.run(
        [sys.executable, script, "--out", tmp_path, "--limit", "40"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert "with images is clearly better" in done.stdout
