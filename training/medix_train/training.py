"""One training from its recipe to the exported model: everything is checked before it starts.

The same command goes on where it was stopped, from its last checkpoint. That one was written where
a rollout ends and holds every random state, so the curve is the one of an undisturbed run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from medix_eval.errors import ConfigError, RunMismatch, ServerError
from medix_eval.storage.digests import differences, digest
from medix_train.checkpoints import HarnessEvaluation, best_evaluation, run_harness
from medix_train.data import load_training_data
from medix_train.export import export
from medix_train.monitor import FILE
from medix_train.policy_trainer import PolicyTrainer
from medix_train.recipe import Recipe
from medix_train.reward import MedixReward
from medix_train.settings import (
    forbid_image_token,
    grpo_config,
    load_model,
    load_processor,
    lora_config,
    refused,
)

_LOG = logging.getLogger(__name__)
_SMALL = 50_000_000


def train(recipe: Recipe, *, out: Path) -> Path:
    """Train, or go on with it, and return the folder of the exported model.

    Raises `ConfigError`, `DatasetError` or `ServerError`, before a model is loaded where possible.
    """
    if os.environ.get("RANK", "0") == "0":
        _open_folder(out, recipe)
    reward = MedixReward(settings=recipe.reward)
    trainer = build_trainer(recipe, out=out, reward=reward)
    try:
        trainer.train(resume_from_checkpoint=_last_checkpoint(out))
    finally:
        # In the loop that the reward was opened in, which is the trainer's own.
        asyncio.run_coroutine_threadsafe(reward.close(), trainer.async_loop).result()
    exported = out / "model"
    if trainer.accelerator.is_main_process:
        best = best_evaluation(out)
        chosen = Path(best.checkpoint if best else str(_last_checkpoint(out)))
        export(chosen, to=exported, recipe=recipe, evaluation=best)
        _LOG.info("exported %s to %s", chosen.name, exported)
    trainer.accelerator.wait_for_everyone()
    return exported


def build_trainer(recipe: Recipe, *, out: Path, reward: MedixReward) -> PolicyTrainer:
    """Check settings, judge and data, then load the model and put everything together."""
    config = grpo_config(recipe, out=out)
    if config.use_vllm and find_spec("vllm") is None:
        raise ConfigError(
            "trl.use_vllm needs vLLM, which is not installed",
            hint="trl.use_vllm=false does without, slowly",
        )
    if recipe.evaluation:  # here, not at the first checkpoint
        run_harness(recipe, model=recipe.model.path, out=out, dry_run=True)
    asyncio.run(_check_judge(reward))
    processor = load_processor(recipe.model)
    data = load_training_data(recipe.data, processor=processor)
    if data.stored is not None:
        num_updates(recipe, config, num_rows=len(data.rows))
    forbid_image_token(config, processor)
    model = load_model(recipe.model)
    if model.num_parameters() < _SMALL:
        torch.set_num_threads(1)  # threads only wait for each other: five times slower
    with refused(f"recipe {recipe.name}"):
        trainer = PolicyTrainer(
            recipe,
            data=data,
            reward=reward,
            model=model,
            processing_class=processor,
            args=config,
            peft_config=lora_config(recipe),
        )
    if recipe.evaluation:
        trainer.add_callback(HarnessEvaluation(recipe, out=out, log=trainer.log_scores))
    return trainer


def num_updates(recipe: Recipe, config: Any, *, num_rows: int) -> int:
    """Return how many updates TRL will do. Raises `ConfigError` where there is not one rollout."""
    per_epoch = num_rows // recipe.prompts_per_rollout * recipe.updates_per_rollout
    if not per_epoch:
        raise ConfigError(
            f"{recipe.data.path} has {num_rows} usable rows, fewer than one rollout takes",
            hint=f"prompts_per_rollout is {recipe.prompts_per_rollout}",
        )
    return config.max_steps if config.max_steps > 0 else int(per_epoch * config.num_train_epochs)


async def _check_judge(reward: MedixReward) -> None:
    """Connect to the judge before anything is loaded. Raises `ConfigError` or `ServerError`."""
    try:
        await reward.open()
    except ServerError as error:
        error.hint = "is the judge running? reward.judge.base_url says where"
        raise
    finally:
        await reward.close()


def _open_folder(out: Path, recipe: Recipe) -> None:
    """Begin a folder, or see that the same recipe has trained in it."""
    file = out / "recipe.json"
    resolved = recipe.model_dump(mode="json")
    if file.exists() and (out / FILE).exists():
        before = json.loads(file.read_text(encoding="utf-8"))["recipe"]
        if changed := differences(before, resolved):
            raise RunMismatch(
                f"{out} was trained by another recipe: {'; '.join(changed[:3])}",
                hint="name another folder with --out, or undo the change to resume",
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = {"digest": digest(resolved), "recipe": resolved}
        file.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written to: {error.strerror}") from error


def _last_checkpoint(out: Path) -> str | None:
    """Return the newest whole checkpoint: its state is the last file that is written."""
    found = [path for path in out.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return str(max(found, key=lambda path: int(path.name.split("-")[1]))) if found else None
