"""Repetitions: what luck does to a score, and what K answers to one question are worth."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_servers import HUB, Run

from medix_eval.evaluation.repeats import majority_at, pass_at
from medix_eval.testing import ScriptedServer

WARM = ("--set", "generation.temperature=0.7")

marks = st.sampled_from([0.0, 0.5, 1.0])


@given(rows=st.lists(st.lists(marks, min_size=3, max_size=3), min_size=2, max_size=5), k=st.data())
def test_pass_at_k_is_the_mean_over_every_choice_of_k_runs(rows: Any, k: st.DataObject) -> None:
    number = k.draw(st.integers(1, len(rows)))
    found = pass_at(number, np.array(rows))

    choices = list(itertools.combinations(np.array(rows), number))
    passed = [np.max(chosen, axis=0) == 1.0 for chosen in choices]
    assert found == pytest.approx(float(np.mean(passed)))


@pytest.mark.parametrize(
    ("answers", "scores", "expected"),
    [
        pytest.param(["b", "a", "a"], [1, 0, 0], 0.0, id="most-are-wrong"),
        pytest.param(["b", "a", "b"], [1, 0, 1], 1.0, id="most-are-right"),
        pytest.param(["a", "b", "c"], [1, 0, 0], 1 / 3, id="a-tie-counts-in-part"),
        pytest.param(["a", None, None], [1, 0, 0], 1.0, id="no-answer-has-no-vote"),
        pytest.param([None, None, None], [0, 0, 0], 0.0, id="no-answer-at-all"),
        pytest.param(["a", "a", "b"], [1, 0, 0], 0.5, id="a-judge-of-two-minds"),
    ],
)
def test_the_majority_counts_answers_and_not_verdicts(
    answers: list[str | None], scores: list[float], expected: float
) -> None:
    column = np.array([[score] for score in scores], dtype=np.float64)

    found = majority_at(3, column, [[answer] for answer in answers])

    assert found == pytest.approx(expected)


def test_a_majority_of_one_is_the_mean_score() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])

    assert majority_at(1, scores, [["a", "b"]] * 3) == pytest.approx(0.5)


@pytest.fixture
def call(run: Run, tmp_path: Path) -> Run:
    def called(*argv: str) -> tuple[int, str, str]:
        return run(
            *argv, "--tasks", "medqa", "--protocol", "rules", "--data-root", HUB, "--out", tmp_path
        )

    return called


def script(body: dict[str, Any]) -> str:
    """Another letter with each seed."""
    return "ABCD"[body["seed"]]


def test_each_repetition_is_a_run_with_a_seed_of_its_own(call: Run, tmp_path: Path) -> None:
    with ScriptedServer(script) as server:
        model = ("--model", "openai:scripted", "--base-url", server.url, *WARM)
        code, out, _ = call(*model, "--repeat", "4", "--json")
        num_asked = len(server.requests)
        again = call(*model, "--repeat", "4", "--json")[1]
        plain = json.loads(call(*model, "--json")[1])
        seeds = {body["seed"] for body in server.requests}
        assert len(server.requests) == num_asked

    found = json.loads(out)
    task = found["tasks"]["medqa"]
    assert code == 0
    assert again == out
    assert found["seeds"] == sorted(seeds) == [0, 1, 2, 3]
    assert len(list(tmp_path.glob("*/*/run.json"))) == 4
    assert plain["run"] == found["runs"][0]
    assert plain["tasks"]["medqa"]["score"] == task["scores"][0]
    kept = json.loads((Path(found["runs"][0]) / "repeats.json").read_text())
    assert [str(tmp_path / label) for label in kept.pop("runs")] == found.pop("runs")
    assert kept == found


def test_what_four_letters_are_worth(call: Run) -> None:
    with ScriptedServer(script) as server:
        model = ("--model", "openai:scripted", "--base-url", server.url, *WARM)
        _, out, _ = call(*model, "--repeat", "4", "--json")
        _, shown, _ = call(*model, "--repeat", "4")

    task = json.loads(out)["tasks"]["medqa"]
    assert task["mean"] == pytest.approx(0.25)
    assert task["pass_at"]["1"] == pytest.approx(0.25)
    assert task["pass_at"]["4"] == 1.0
    assert task["majority_at"]["4"] == pytest.approx(0.25)
    assert task["between_runs"] == pytest.approx(np.std(task["scores"], ddof=1))
    assert task["stderr"] == pytest.approx(0.0)
    assert task["sampling"] > 0
    assert "pass@4" in shown
    assert "majority@4" in shown


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        pytest.param(["--repeat", "3"], "temperature 0", id="cold"),
        pytest.param(["--repeat", "1", *WARM], "--repeat 1 is too small", id="once"),
        pytest.param(
            ["--repeat", "2", *WARM, "--control", "shuffle-options"],
            "cannot be combined",
            id="control",
        ),
        pytest.param(
            ["--repeat", "2", *WARM, "--tasks", "medqa_ll"], "medqa_ll: likelihoods", id="weighed"
        ),
        pytest.param(
            ["--repeat", "2", *WARM, "--tasks", "medqa_ll", "--dry-run"],
            "medqa_ll: likelihoods",
            id="weighed, planned",
        ),
    ],
)
def test_repetitions_that_cannot_differ_are_refused(call: Run, argv: list[str], why: str) -> None:
    with ScriptedServer(script) as server:
        code, _, err = call("--model", "openai:scripted", "--base-url", server.url, *argv)

    assert code == 2
    assert why in err
    assert "hint:" in err
    assert server.requests == []


def test_a_replay_is_not_repeated(call: Run, tmp_path: Path) -> None:
    code, _, err = call("--model", f"replay:{tmp_path}/x.jsonl", "--repeat", "2", *WARM)

    assert code == 2
    assert "a replay has one per sample" in err
