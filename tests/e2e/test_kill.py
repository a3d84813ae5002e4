from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from medix_eval.testing import Reply, ScriptedServer, prompt_text

HUB = Path(__file__).parents[1] / "fixtures" / "hub"
NUM_KILLS = 10


def answer(body: dict[str, Any]) -> Reply:
    """Answer by what is asked, so that an answer does not depend on when it was given."""
    letter = "ABCD"[len(prompt_text(body)) % 4]
    return Reply(text=f"The answer is {letter}.", delay_s=0.06)


def grade(body: dict[str, Any]) -> Reply:
    prompt = prompt_text(body)
    return Reply(text=json.dumps({"score": len(prompt) % 2}), delay_s=0.02)


def command(candidate: ScriptedServer, judge: ScriptedServer, out: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "medix_eval", "--tasks", "medix", "--data-root", str(HUB)),
        *("--model", "openai:scripted", "--base-url", candidate.url, "--concurrency", "8"),
        *("--judge", "openai:scripted", "--judge-base-url", judge.url, "--out", str(out)),
        "--json",
    ]


def lines_of(out: Path, name: str) -> list[str]:
    paths = list(out.rglob(name))
    return paths[0].read_text(encoding="utf-8").splitlines() if paths else []


def killed_at(argv: list[str], out: Path, num: int) -> int:
    """Start the run, kill it once `num` samples are answered, return how many were."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while len(lines_of(out, "completions.jsonl")) < num:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    return len(lines_of(out, "completions.jsonl"))


def finished(argv: list[str]) -> dict[str, Any]:
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    scores: dict[str, Any] = json.loads(done.stdout)
    for timed in (*scores["usage"].values(), *(t["ledger"] for t in scores["tasks"].values())):
        for key in [key for key in timed if key.endswith("seconds")]:
            del timed[key]
    del scores["run"]
    return scores


@pytest.mark.long
def test_ten_kills_lose_nothing_and_change_nothing(tmp_path: Path) -> None:
    with ScriptedServer(answer) as candidate, ScriptedServer(grade) as judge:
        undisturbed = finished(command(candidate, judge, tmp_path / "whole"))
        total = sum(task["n"] for task in undisturbed["tasks"].values())
        moments = random.Random(20261122).sample(  # noqa: S311 (no secret)
            range(round(0.06 * total), round(0.88 * total), 4), NUM_KILLS
        )
        out = tmp_path / "killed"
        argv = command(candidate, judge, out)
        reached = [killed_at(argv, out, num) for num in sorted(moments)]
        survived = finished(argv)

    assert all(0.05 < num / total < 0.95 for num in reached), (reached, total)
    assert survived == undisturbed
    for name in ("completions.jsonl", "verdicts.jsonl"):
        keys = Counter(
            (line["task"], line["sample_id"]) for line in map(json.loads, lines_of(out, name))
        )
        assert len(keys) == total
        assert set(keys.values()) == {1}


@pytest.mark.slow
def test_an_interrupt_ends_cleanly_and_can_be_resumed(tmp_path: Path) -> None:
    with ScriptedServer(answer) as candidate, ScriptedServer(grade) as judge:
        argv = command(candidate, judge, tmp_path)
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while len(lines_of(tmp_path, "completions.jsonl")) < 20:
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        kept = len(lines_of(tmp_path, "completions.jsonl"))
        scores = finished(argv)

    assert process.returncode == 130
    assert "Traceback" not in err.decode()
    assert err.decode().strip().splitlines()[-1] == (
        "interrupted: finished work is kept; run the same command again"
    )
    assert kept < sum(task["n"] for task in scores["tasks"].values())
    assert len(lines_of(tmp_path, "completions.jsonl")) == sum(
        task["n"] for task in scores["tasks"].values()
    )
