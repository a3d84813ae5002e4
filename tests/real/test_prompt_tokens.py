"""What a judge is sent stays as short as it was measured, and begins with what servers keep."""

from __future__ import annotations

from pathlib import Path

import pytest
from prompt_tokens import prompt_tokens

MOST = {
    "medmcqa": (770, 0.45),
    "mmlu_anatomy": (790, 0.45),
    "mmlu_professional_medicine": (1040, 0.0),
    "medqa": (1110, 0.0),
    "pubmedqa": (720, 0.45),
}
"""Tokens of both votes on a sample at most, and the share at least that all samples begin with."""


@pytest.mark.slow
@pytest.mark.parametrize("task", MOST)
def test_prompts_of_a_judge_are_short_and_begin_alike(
    task: str, real_rows: Path, real_model: Path
) -> None:
    most, shared = MOST[task]
    found = prompt_tokens(task, real_rows, real_model)

    assert found.a_sample <= most
    assert found.all_share >= shared
    assert found.models_share >= 0.6
