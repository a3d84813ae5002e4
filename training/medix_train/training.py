"""One training from its recipe to the exported model: everything is checked before it starts.

The same command goes on where it was stopped, from its last checkpoint. That one was written where
a rollout ends and holds every random state, so the curve is the one of an undisturbed run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medix_eval.digests import differences, digest
from medix_eval.errors import ConfigError, RunMismatch, ServerError
from medix_train.monitor import FILE
from medix_train.recipe import Overlong, Recipe
from medix_train.reward import MedixReward

_LOG = logging.getLogger(__name__)
_SMALL = 50_000_000
Reward = Callable[..., Awaitable[list[float | None]]]


def train(recipe: Recipe, *, out: Path) -> Path:
    """Train, or go on with it, and return the folder of the exported model.

    Raises `ConfigError`, `DatasetError` or `ServerError`, before a model is loaded where possible.
    """
    from medix_train.checkpoints import harness_settings  # noqa: PLC0415
    from medix_train.data import load_training_data  # noqa: PLC0415
    from medix_train.export import export  # noqa: PLC0415
    from medix_train.settings import load_processor, num_processes  # noqa: PLC0415

    batches = recipe.batches(processes=num_processes())
    if os.environ.get("RANK", "0") == "0":
        _open_folder(out, recipe)
    if recipe.rollout.engine.kind != "transformers" and find_spec("vllm") is None:
        raise ConfigError(
            f"rollout.engine.kind {recipe.rollout.engine.kind} needs vLLM, which is not installed",
            hint="rollout.engine={kind: transformers} does without, slowly",
        )
    if recipe.evaluation:
        harness_settings(recipe, model=Path(), out=out)  # here, not at the first checkpoint
    reward = MedixReward(settings=recipe.reward)
    asyncio.run(check_judge(reward))
    processor = load_processor(recipe.model)
    data = load_training_data(recipe.data, processor=processor)
    trainer, evaluations = build_trainer(
        recipe, batches=batches, out=out, reward=reward, processor=processor, data=data
    )
    try:
        trainer.train(resume_from_checkpoint=_last_checkpoint(out))
    finally:
        # In the loop that the reward was opened in, which is the trainer's own.
        asyncio.run_coroutine_threadsafe(reward.close(), trainer.async_loop).result()
    exported = out / "model"
    if trainer.accelerator.is_main_process:
        best = evaluations.best() if evaluations else None
        chosen = best.checkpoint if best else str(_last_checkpoint(out))
        export(Path(chosen), to=exported, recipe=recipe, evaluation=best)
        _LOG.info("exported %s to %s", Path(chosen).name, exported)
    trainer.accelerator.wait_for_everyone()
    return exported


def build_trainer(
    recipe: Recipe, *, batches: Any, out: Path, reward: Reward, processor: Any, data: Any
) -> tuple[Any, Any]:
    """Load the model and put everything together."""
    import torch  # noqa: PLC0415
    from transformers import PrinterCallback  # noqa: PLC0415

    from medix_train.checkpoints import Evaluations, HarnessEvaluation  # noqa: PLC0415
    from medix_train.policy_trainer import PolicyTrainer  # noqa: PLC0415
    from medix_train.settings import grpo_config, load_model, lora_config  # noqa: PLC0415
    from medix_train.watching import Watching  # noqa: PLC0415

    config = grpo_config(
        recipe,
        batches,
        out=out,
        num_rollouts=num_rollouts(recipe, num_rows=None if data.stored is None else len(data.rows)),
        image_token=getattr(processor, "image_token_id", None),
    )
    model = load_model(recipe.model)
    if model.num_parameters() < _SMALL:
        torch.set_num_threads(1)  # threads only wait for each other: five times slower
    overlong = recipe.algorithm.overlong
    try:
        trainer = PolicyTrainer(
            model=model,
            processing_class=processor,
            reward=Shaped(reward, overlong, cap=recipe.rollout.max_tokens) if overlong else reward,
            args=config,
            data=data,
            dynamic_sampling=recipe.algorithm.dynamic_sampling,
            peft_config=lora_config(recipe.model),
        )
    except ValueError as error:
        raise ConfigError(f"recipe {recipe.name}: {' '.join(str(error).split())}") from error
    trainer.remove_callback(PrinterCallback)
    updates = batches.updates_per_rollout
    trainer.add_callback(Watching(recipe.monitor, updates_per_rollout=updates))
    if recipe.evaluation is None:
        return trainer, None
    evaluations = Evaluations(out / "evaluations.jsonl")
    trainer.add_callback(
        HarnessEvaluation(recipe=recipe, out=out, evaluations=evaluations, log=trainer.log_scores)
    )
    return trainer, evaluations


def num_rollouts(recipe: Recipe, *, num_rows: int | None) -> int:
    """Return how many rollouts the recipe asks for. Raises `ConfigError` where there is none."""
    per_epoch = None if num_rows is None else num_rows // recipe.rollout.prompts
    if per_epoch == 0:
        raise ConfigError(
            f"{recipe.data.path} has {num_rows} usable rows, fewer than one rollout takes",
            hint=f"rollout.prompts is {recipe.rollout.prompts}",
        )
    if recipe.length.rollouts is not None or per_epoch is None:
        return recipe.length.rollouts or 0
    return max(1, int(per_epoch * (recipe.length.epochs or 0)))


async def check_judge(reward: MedixReward) -> None:
    """Connect to the judge before anything is loaded. Raises `ConfigError` or `ServerError`."""
    try:
        await reward.open()
    except ServerError as error:
        error.hint = "is the judge running? reward.judge.base_url says where"
        raise
    finally:
        await reward.close()


class Shaped:
    """A reward less what a completion loses for coming near the cap (DAPO's overlong shaping)."""

    def __init__(self, reward: Reward, shaping: Overlong, *, cap: int) -> None:
        self._reward = reward
        self._shaping = shaping
        self._cap = cap

    async def __call__(
        self, *, completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float | None]:
        """Score as the reward does; a missing reward stays missing."""
        totals = await self._reward(completion_ids=completion_ids, **columns)
        return [
            None if total is None else total - self.penalty(len(tokens))
            for total, tokens in zip(totals, completion_ids, strict=True)
        ]

    def penalty(self, num_tokens: int) -> float:
        """Grow linearly from nothing at the buffer's start to all of it at the cap."""
        into = num_tokens - (self._cap - self._shaping.buffer)
        return self._shaping.penalty * min(max(into / self._shaping.buffer, 0.0), 1.0)


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
