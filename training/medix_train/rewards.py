"""The same reward for others' trainers; a YAML file says which judge, edition and weights.

- TRL's command line: `reward_funcs: [medix_train.rewards.medix]`.
- EasyR1: `reward_function: …/medix_train/rewards.py:compute_score`. It has no way to leave a
  response out, so a judge that fails is waited for, and in the end stops the run.

A function that is named in a command takes no settings: `MEDIX_REWARD` names the file.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from functools import cache
from pathlib import Path
from typing import Any

from medix_train.reward import MedixReward, Scored
from medix_train.reward_settings import FailureBudget, RewardSettings, load_reward_settings

REWARD_NAME = "medix"
REWARD_TYPE = "batch"
"""What EasyR1 reads beside the function: it wants all responses in one call."""


async def medix(**batch: Any) -> list[float | None]:
    """Score a batch for TRL."""
    return await _for_trl()(**batch)


def compute_score(
    reward_inputs: list[dict[str, Any]], settings: str | None = None
) -> list[dict[str, float]]:
    """Score a batch for EasyR1; `settings` comes from its `reward_function_kwargs`.

    An input holds `response` and `ground_truth`, and may hold the `problem` that was asked.
    """
    reward, runner = for_easyr1(settings)
    scored = runner.run(
        reward.score(
            [str(one.get("problem", "")) for one in reward_inputs],
            [one["response"] for one in reward_inputs],
            solutions=[one["ground_truth"] for one in reward_inputs],
        )
    )
    return [_parts(one) for one in scored]


def _parts(scored: Scored) -> dict[str, float]:
    assert scored.total is not None  # noqa: S101 (no failure is tolerated)
    assert scored.judge is not None  # noqa: S101
    return {
        "overall": scored.total,
        "format": scored.format,
        "accuracy_llm": scored.judge,
        "accuracy_embedding": scored.embedding,
        "modality": scored.modality,
    }


@cache
def _for_trl() -> MedixReward:
    return MedixReward(settings=_settings(None))


@cache
def for_easyr1(path: str | None) -> tuple[MedixReward, asyncio.Runner]:
    """Return the reward and the loop that its session lives in."""
    settings = _settings(path)
    budget = FailureBudget(tolerated_share=0.0, patience_s=settings.failures.patience_s)
    reward = MedixReward(settings=settings.model_copy(update={"failures": budget}))
    runner = asyncio.Runner()
    atexit.register(lambda: runner.run(reward.close()))
    return reward, runner


def _settings(path: str | None) -> RewardSettings:
    found = path or os.environ.get("MEDIX_REWARD")
    return load_reward_settings(Path(found)) if found else RewardSettings()
