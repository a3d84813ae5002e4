"""Runs with managed servers: what one leaves behind, and how two models share the machine."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fake_servers import Habits, journal, running, wait_until
from scripted_servers import HUB, Run

from medix_eval.phantom.dataset import model_folder

pytestmark = pytest.mark.usefixtures("fake_vllm")


def command(out: Path, *more: str) -> list[str]:
    """An evaluation of a few samples whose candidate the stand-in serves."""
    common = ["--model", "phantom", "--backend", "vllm", "--tasks", "rad_vqa", "--out", str(out)]
    return [*common, "--data-root", str(HUB), "--protocol", "rules", *more]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_outlives_its_run(
    fake_vllm: Habits, tmp_path: Path, number: signal.Signals
) -> None:
    fake_vllm("deaf parent")
    argv = [sys.executable, "-m", "medix_eval", *command(tmp_path)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as harness:
        wait_until(lambda: len(running(tmp_path)) == 5)  # with supervisor and two grandchildren
        try:
            harness.send_signal(number)
            harness.wait(timeout=20)
        finally:
            harness.kill()  # or leaving this block would wait for ever

    wait_until(lambda: running(tmp_path) == [], seconds=10)


@pytest.mark.slow
def test_a_run_whose_server_dies_goes_on_after_a_restart(
    fake_vllm: Habits, run: Run, tmp_path: Path
) -> None:
    fake_vllm("mortal")
    died, _, error = run(*command(tmp_path / "out", "--concurrency", "2"))
    fake_vllm("")
    finished, _, _ = run(*command(tmp_path / "out"))

    (path,) = (tmp_path / "out").rglob("completions.jsonl")
    answered = Counter(json.loads(line)["sample_id"] for line in path.read_text().splitlines())
    assert (died, finished) == (4, 0)
    assert "the engine fell over" in error
    assert set(answered.values()) == {1}


@pytest.mark.slow
def test_a_server_that_stops_answering_ends_the_run(
    fake_vllm: Habits, run: Run, tmp_path: Path
) -> None:
    fake_vllm("deaf")

    code, _, _ = run(*command(tmp_path / "out", "--request-timeout", "1", "--patience", "1"))

    assert code == 4
    assert running(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "life"),
    [
        ([], ["model starts", "model ends", "judge starts", "judge ends"]),
        (
            ["--gpus", "0", "--judge-gpus", "1"],
            ["judge starts", "model starts", "model ends", "judge ends"],
        ),
    ],
    ids=["one-device", "two-devices"],
)
def test_two_models_take_turns_unless_each_has_its_own_gpus(
    run: Run, tmp_path: Path, flags: list[str], life: list[str]
) -> None:
    judge = ["--protocol", "medix", "--judge", "phantom", "--judge-backend", "vllm", "--no-cache"]

    code, _, _ = run(*command(tmp_path / "out", *judge, *flags))

    assert code == 0
    assert journal(tmp_path) == life


def test_servers_that_need_the_same_device_cannot_both_be_kept(run: Run, tmp_path: Path) -> None:
    judge = ["--protocol", "medix", "--judge", "phantom", "--judge-backend", "vllm"]

    code, _, err = run(*command(tmp_path / "out", *judge, "--keep-server"))

    assert code == 2
    assert "--keep-server" in err


@pytest.fixture
def blind(tmp_path: Path) -> Path:
    """A checkpoint whose config knows no images."""
    folder = shutil.copytree(model_folder(), tmp_path / "blind")
    config = json.loads((folder / "config.json").read_text())["text_config"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_that_cannot_see_is_refused_for_images(
    blind: Path, run: Run, tmp_path: Path
) -> None:
    code, _, err = run(*command(tmp_path / "out", "--model", str(blind)))

    assert code == 2
    assert "is text-only, but images are asked about in rad_vqa" in err
    assert not (tmp_path / "journal").exists()


@pytest.mark.slow
def test_a_model_that_cannot_see_can_be_asked_without_the_images_and_is_marked(
    blind: Path, run: Run, tmp_path: Path
) -> None:
    argv = command(tmp_path / "out", "--model", str(blind), "--allow-text-only", "--json")

    code, out, _ = run(*argv)

    scores = json.loads(out)
    completions = next((tmp_path / "out").rglob("completions.jsonl")).read_text()
    assert code == 0
    assert scores["text_only"] is True
    assert "image_url" not in completions
    assert "TEXT ONLY" in next((tmp_path / "out").rglob("report.md")).read_text()
