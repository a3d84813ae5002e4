"""Dynamic sampling keeps whole groups that teach something, also where two processes train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from medix_train.recipe import DynamicSampling
from medix_train.trainer import Rollout, is_informative

SPREAD = DynamicSampling()
PUBLISHED = DynamicSampling(keep="published_mean")
TWO_PROCESSES = Path(__file__).parent / "fixtures" / "two_processes.py"


def a_rollout(prefix: str, accuracies: list[float | None]) -> Rollout:
    names = [f"{prefix}{at}" for at in range(len(accuracies))]
    rewards = [[float("nan") if value is None else value] for value in accuracies]
    return Rollout(
        rows=[{"id": name} for name in names],
        generated=[[[name] for name in names], list(names), None, list(names), None, {}, None, []],
        rewards=torch.tensor(rewards),
        logged={"judge": list(accuracies), "answer": list(names)},
        group=2,
    )


@pytest.mark.parametrize(
    ("accuracies", "rewards", "by_spread", "by_mean"),
    [
        pytest.param([1, 0], [1.0, 0.145], True, True, id="of-two-minds"),
        pytest.param([0, 0], [0.145, 0.145], False, True, id="all-wrong-in-form"),
        pytest.param([1, 1], [0.955, 0.955], False, True, id="all-right-with-a-wrong-tag"),
        pytest.param([1, 1], [1.0, 1.0], False, False, id="all-right"),
        pytest.param([0, 0], [0.0, 0.0], False, False, id="all-wrong"),
        pytest.param([1, None], [1.0, float("nan")], False, False, id="one-judged"),
        pytest.param([1, None, 0], [1.0, float("nan"), 0.1], True, True, id="one-not-judged"),
        pytest.param([None], [float("nan")], False, False, id="none-judged"),
    ],
)
def test_a_group_is_kept_by_the_rule(
    accuracies: list[float | None], rewards: list[float], *, by_spread: bool, by_mean: bool
) -> None:
    found = [
        is_informative(rule, accuracies=accuracies, rewards=rewards) for rule in (SPREAD, PUBLISHED)
    ]

    assert found == [by_spread, by_mean]


def test_a_whole_group_is_replaced_with_all_that_belongs_to_it() -> None:
    kept, fresh = a_rollout("old", [0, 0, 1, 0]), a_rollout("new", [1, 1, 0, 1])
    kept.replace(0, by=fresh, source=1)

    assert [row["id"] for row in kept.rows] == ["new2", "new3", "old2", "old3"]
    assert kept.generated[0] == [["new2"], ["new3"], ["old2"], ["old3"]]
    assert kept.generated[3] == ["new2", "new3", "old2", "old3"]
    assert kept.rewards.flatten().tolist() == [0, 1, 1, 0]
    assert kept.logged == {"judge": [0, 1, 1, 0], "answer": ["new2", "new3", "old2", "old3"]}
    assert kept.informative(SPREAD) == [True, True]


def launched(out: Path, *words: str) -> tuple[int, str]:
    """Run two processes and return the exit code of their launcher, and what it said."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    process = subprocess.Popen(
        [*launch, "--nproc-per-node", "2", str(TWO_PROCESSES), str(out), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, said = process.communicate(timeout=150)
    except subprocess.TimeoutExpired:
        process.terminate()  # not killed: it ends its two processes first
        process.communicate(timeout=60)
        raise
    return process.returncode, said


def in_two_processes(out: Path, *words: str) -> list[dict[str, Any]]:
    code, said = launched(out, *words)
    assert code == 0, said[-3000:]
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_two_processes_keep_whole_groups_and_none_that_teaches_nothing(tmp_path: Path) -> None:
    """One process finds most of its groups useless, the other none: they must not part."""
    seen = [process["seen"] for process in in_two_processes(tmp_path)]

    assert len(seen[0]) == len(seen[1]) == 2
    for rollouts in seen:
        for groups in rollouts:
            assert len(groups) == 4
            assert all(len(set(group["ids"])) == 1 for group in groups)
            assert all(len(set(group["judge"])) == 2 for group in groups)
    assert {group["ids"][0] for group in seen[0][0]} != {group["ids"][0] for group in seen[1][0]}


@pytest.mark.slow
def test_a_judge_that_one_process_loses_stops_both_with_a_checkpoint(tmp_path: Path) -> None:
    said = [process["said"] for process in in_two_processes(tmp_path, "fail")]

    assert said == ["another process could not score its completions", "the judge is lost"]
    assert {path.name for path in (tmp_path / "checkpoint-1").glob("*state*")} == {
        "rng_state_0.pth", "rng_state_1.pth", "trainer_state.json"}  # fmt: skip


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_ends_both(tmp_path: Path) -> None:
    code, said = launched(tmp_path, "unreadable")

    assert code == 1
    assert "this image does not decode" in said
    assert "Signal 15 (SIGTERM)" in said  # the other was waiting
