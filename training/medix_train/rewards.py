"""The same reward for others' trainers; `MEDIX_REWARD` names a YAML file of its settings.

- TRL's command line: `reward_funcs: [medix_train.rewards.medix]`.
- EasyR1: `reward_function: …/medix_train/rewards.py:compute_score`. It has no way to leave a
  response out, so a judge that fails is waited for, and in the end stops the run.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from functools import cache
from pathlib import Path
from typing import Any

from medix_train.recipe import RewardSettings, load_reward_settings
from medix_train.reward import MedixReward

REWARD_NAME = "medix"
REWARD_TYPE = "batch"  # what EasyR1 reads beside the function: all responses in one call


async def medix(**batch: Any) -> list[float | None]:
    """Score a batch for TRL."""
    return await _for_trl()(**batch)


def compute_score(
    reward_inputs: list[dict[str, Any]], settings: str | None = None
) -> list[dict[str, float | None]]:
    """Score `response`s to `problem`s for EasyR1; `settings` is from `reward_function_kwargs`."""
    reward, runner = for_easyr1(settings)
    questions = [str(one.get("problem", "")) for one in reward_inputs]
    completions = [one["response"] for one in reward_inputs]
    solutions = [one["ground_truth"] for one in reward_inputs]
    scored = runner.run(reward.score(questions, completions, solutions=solutions))
    shown = {"overall": "total", "format": "format", "accuracy_llm": "judge"}
    shown |= {"accuracy_embedding": "embedding", "modality": "modality"}
    return [{name: getattr(one, part) for name, part in shown.items()} for one in scored]


@cache
def _for_trl() -> MedixReward:
    return MedixReward(_settings(None))


@cache
def for_easyr1(path: str | None) -> tuple[MedixReward, asyncio.Runner]:
    """Return the reward and the loop that its session lives in."""
    settings = _settings(path)
    budget = settings.failures.model_copy(update={"tolerated_share": 0.0})
    reward = MedixReward(settings.model_copy(update={"failures": budget}))
    runner = asyncio.Runner()
    atexit.register(lambda: runner.run(reward.close()))
    return reward, runner


def _settings(path: str | None) -> RewardSettings:
    found = path or os.environ.get("MEDIX_REWARD")
    return load_reward_settings(Path(found)) if found else RewardSettings()
