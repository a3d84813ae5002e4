"""The adapter of outside case runners reaches what it names."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CASES = Path(__file__).with_name("cases.py")


@pytest.fixture(scope="module")
def cases() -> ModuleType:
    """Load the file as an outside runner does: `tests` is no package."""
    spec = spec_from_file_location("cases", CASES)
    assert spec is not None
    assert spec.loader is not None
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize(
    ("case", "ended"),
    [
        ({"kind": "closed", "reference": "no", "completion": "No."}, ("correct", 1.0)),
        ({"kind": "closed", "reference": "no", "completion": "Yes."}, ("wrong", 0.0)),
        ({"kind": "open", "reference": "left lung", "completion": ""}, ("empty", 0.0)),
        (
            {"kind": "multiple_choice", "reference": "CT", "choices": ["MRI", "CT"],
             "completion": "B"},
            ("correct", 1.0),
        ),
        (
            {"kind": "open", "reference": "left lung", "completion": "The left", "question": "?",
             "finish_reason": "length"},
            ("truncated", 0.0),
        ),
        (
            {"kind": "report", "reference": "CT", "facts": {"modality": "CT"},
             "completion": "This looks fine to everybody."},
            ("wrong", 0.0),
        ),
    ],
)  # fmt: skip
def test_a_case_ends_under_rules_as_in_a_run(
    cases: ModuleType, case: dict[str, Any], ended: tuple[str, float]
) -> None:
    assert cases.rules_outcome(case) == ended


@pytest.mark.parametrize(
    ("text", "points"),
    [('{"score": 3}', 3), ('{"score": 9}', None), ("I would say three.", None)],
)
def test_a_reply_has_points_or_none(cases: ModuleType, text: str, points: int | None) -> None:
    assert cases.judge_reply(text, [0, 5], "Three nodules.") == points


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("left lung", 1.0), ('{"score": 1}', 0.0), ("the lung on the left", None)],
)
def test_a_reward_is_settled_or_left_to_the_judge(
    cases: ModuleType, answer: str, verdict: float | None
) -> None:
    assert cases.reward_settles(answer, "left lung") == verdict


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    look = "import cases, sys; print(any(name.startswith('medix_') for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=CASES.parent, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "False"


def read_cases(name: str) -> list[Any]:
    text = (Path(__file__).parent / "fixtures" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("case", read_cases("answers_read.jsonl"), ids=lambda case: case["fault"])
def test_an_answer_that_was_misread_ends_in_a_fair_outcome(
    cases: ModuleType, case: dict[str, Any]
) -> None:
    outcome, _ = cases.rules_outcome(case)

    assert outcome in case["right"]


@pytest.mark.parametrize(
    "case", read_cases("answers_rewarded.jsonl"), ids=lambda case: case["fault"]
)
def test_an_answer_that_was_paid_wrongly_is_paid_fairly(
    cases: ModuleType, case: dict[str, Any]
) -> None:
    assert cases.reward_settles(case["answer"], case["reference"]) in case["right"]
