from __future__ import annotations

import json
from pathlib import Path

import pytest

from medix_eval.evaluation.panel import kinship_warnings


@pytest.mark.parametrize(
    ("candidate", "judge", "said"),
    [
        ("MBZUAI/MediX-R1-8B", "Qwen/Qwen3-14B", "both are of the Qwen family"),
        ("google/medgemma-4b-it", "openai:gemma-3-27b", "both are of the Gemma family"),
        ("openai:gpt-5-mini", "openai:gpt-4.1", "both are of the GPT family"),
        ("MBZUAI/MediX-R1-8B", "openai:qwen3-4b-instruct-2507", "trained to please this judge"),
        ("org/unknown-model", "Qwen/Qwen3-14B", None),
        ("google/medgemma-4b-it", "Qwen/Qwen3-14B", None),
        ("openai:scripted", "openai:scripted", None),
    ],
)
def test_a_judge_that_is_not_neutral_is_named(candidate: str, judge: str, said: str | None) -> None:
    found = kinship_warnings(candidate, [judge])

    assert len(found) == (said is not None)
    assert all(said is not None and said in line for line in found)


def test_a_folder_is_known_by_its_config_and_by_the_recipe_that_made_it(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoint-5"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen3_vl"}')
    before = kinship_warnings(str(folder), ["Qwen/Qwen3-14B", "org/teacher"])
    reward = {"protocol": "reward", "judge": {"model": "org/teacher"}}
    (folder.parent / "recipe.json").write_text(json.dumps({"recipe": {"reward": reward}}))

    after = kinship_warnings(str(folder), ["Qwen/Qwen3-14B", "org/teacher"])

    assert len(before) == 1
    assert "Qwen family" in before[0]
    assert "trained to please" in after[1]
