"""One training from its recipe to the exported model: everything is checked before it starts.

The same command resumes from its last checkpoint. That one was written where
a rollout ends and has every random state, so the curve is that of an uninterrupted run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from medix_eval.errors import ConfigError, RunMismatch
from medix_eval.models.checkpoint import refused
from medix_eval.models.torch_cpu import threads_for
from medix_eval.storage.digests import differences, digest
from medix_train.checkpoints import (
    HarnessEvaluation,
    best_evaluation,
    check_evaluation,
    export,
    load_model,
    load_processor,
)
from medix_train.data import TrainingData, load_training_data, rendered
from medix_train.monitor import FILE
from medix_train.reading import read_solution
from medix_train.recipe import Recipe
from medix_train.reward import MedixReward
from medix_train.trainer import NUM_PROCESSES, PolicyTrainer, grpo_config, lora_config

_LOG = logging.getLogger(__name__)
_NUM_REFERENCES = 5


def train(recipe: Recipe, *, out: Path) -> Path:
    """Train or resume, and return the folder of the exported model.

    Raises `ConfigError`, `DatasetError` or `ServerError`, if possible before a model is loaded.
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
        if recipe.evaluation and best is None:
            _LOG.warning("no evaluation was whole, so no checkpoint is best: the last is exported")
        chosen = Path(best.checkpoint if best else str(_last_checkpoint(out)))
        export(chosen, to=exported, recipe=recipe, evaluation=best)
        _LOG.info("exported %s to %s", chosen.name, exported)
    trainer.accelerator.wait_for_everyone()
    return exported


def build_trainer(recipe: Recipe, *, out: Path, reward: MedixReward) -> PolicyTrainer:
    """Check settings, judge and data, then load the model and build the trainer."""
    config, processor, data, _ = _prepared(recipe, out=out, reward=reward)
    model, peft_config = load_model(recipe.model), lora_config(recipe)
    torch.set_num_threads(threads_for(model.num_parameters()))
    models: Any = {"model": model, "peft_config": peft_config, "processing_class": processor}
    with refused(f"recipe {recipe.name}"):
        trainer = PolicyTrainer(recipe, data=data, reward=reward, args=config, **models)
    if recipe.evaluation:
        trainer.add_callback(HarnessEvaluation(recipe, trainer))
    return trainer


def _prepared(
    recipe: Recipe, *, out: Path, reward: MedixReward | None
) -> tuple[Any, Any, TrainingData, int]:
    """Return TRL's settings, processor, data and number of updates; check the reward, if given."""
    config = grpo_config(recipe, out=out)
    if reward and config.use_vllm and find_spec("vllm") is None:
        hint = "trl.use_vllm=false does without, slowly"
        raise ConfigError("trl.use_vllm needs vLLM, which is not installed", hint=hint)
    check_evaluation(recipe, out=out)  # here, not at the first checkpoint
    if reward:
        asyncio.run(reward.check())
    processor = load_processor(recipe.model)
    forbid_image_token(config, processor)
    data, updates = load_training_data(recipe.data, processor=processor), config.max_steps
    if data.stored is not None:
        updates = num_updates(recipe, config, num_rows=len(data.rows))
    return config, processor, data, updates


def num_updates(recipe: Recipe, config: Any, *, num_rows: int) -> int:
    """Return how many updates TRL will do. Raises `ConfigError` where there is not one rollout."""
    per_epoch = num_rows // recipe.prompts_per_rollout * recipe.updates_per_rollout
    if not per_epoch:
        said = f"usable rows of {recipe.data.path}: {num_rows}, fewer than one rollout takes"
        raise ConfigError(said, hint=f"prompts_per_rollout is {recipe.prompts_per_rollout}")
    return config.max_steps if config.max_steps > 0 else int(per_epoch * config.num_train_epochs)


def forbid_image_token(config: Any, processor: Any) -> None:
    """Tell vLLM never to write an image token, as TRL tells transformers: no image stands there."""
    if config.use_vllm:
        bias = {"logit_bias": {processor.image_token_id: -100.0}}
        config.generation_kwargs = bias | (config.generation_kwargs or {})


def _open_folder(out: Path, recipe: Recipe) -> None:
    """Begin a folder, or see that the same recipe has trained in it."""
    file, resolved = out / "recipe.json", recipe.model_dump(mode="json")
    if file.exists() and (out / FILE).exists():
        before = json.loads(file.read_text(encoding="utf-8"))["recipe"]
        if changed := differences(before, resolved):
            said = f"{out} was trained with another recipe: {'; '.join(changed[:3])}"
            hint = "name another folder with --out, or undo the change to resume"
            raise RunMismatch(said, hint=hint)
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


def describe(recipe: Recipe) -> str:
    """Say what a training would be, after every check that needs neither weights nor a judge."""
    config, processor, data, updates = _prepared(recipe, out=Path("dry-run"), reward=None)
    rows, each = "a stream", recipe.updates_per_rollout
    if data.stored is not None:
        rows = f"rows {len(data.rows)}, too long {data.num_too_long}"
    first = list(islice(iter(data.rows), _NUM_REFERENCES))
    (row,) = data.with_images(first[:1])
    images = ", ".join(f"{image.width}×{image.height}" for image in row["images"])
    text = rendered(processor, row["prompt"][0]["content"], num_images=len(row["images"]))
    # A reference is right without asking any judge; less than 1 shows what cannot be learnt from.
    shape = "{0.modality}<thinking>It shows.</thinking><answer>{0.answer}</answer>"
    perfect = [shape.format(read_solution(row["solution"])) for row in first]
    questions, solutions = ([row[name] for row in first] for name in ("problem", "solution"))
    scored = asyncio.run(MedixReward(recipe.reward).score(questions, perfect, solutions=solutions))
    lines = {
        "recipe": f"{recipe.name}: {recipe.summary}",
        "model": f"{recipe.model.path}, {_sizes(recipe, config)}",
        "data": f"{recipe.data.path} ({recipe.data.split}): {rows}",
        "rollout": f"prompts {recipe.prompts_per_rollout} × completions {config.num_generations} "
        f"of at most {config.max_completion_length} tokens, by "
        f"{'vLLM' if config.use_vllm else 'transformers'}",
        "length": f"rollouts {updates // each} × updates {each} = {updates}",
        "a process": f"1 of {NUM_PROCESSES}: forward passes {config.gradient_accumulation_steps} × "
        f"completions {config.per_device_train_batch_size} = an update",
        "first prompt": f"{row['tokens']} tokens, images {images}\n{text}",
        "references": "; ".join(f"{one.reference[:40]!r} {one.total}" for one in scored),
    }
    return "\n".join(f"{name:13} {said}" for name, said in lines.items())


def _sizes(recipe: Recipe, config: Any) -> str:
    """Say what the model is and what a process needs, counted on a model without memory."""
    model, lora = load_model(recipe.model, weights=False), lora_config(recipe)
    total = sum(weight.numel() for weight in model.parameters())
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    if lora is not None:
        from peft import get_peft_model  # noqa: PLC0415 (seconds)

        trained, _ = get_peft_model(model, lora).get_nb_trainable_parameters()
    # Weights, gradients and AdamW's two moments; with a KL term the first weights once more.
    kept = total * (2 if config.beta and lora is None else 1)
    width = 4 if recipe.model.dtype == "float32" else 2
    size = width * (kept + 3 * trained) / NUM_PROCESSES / 2**30
    memory = f"{size:,.2f} GiB per process, sharded, without activations"
    if config.use_vllm and config.vllm_mode == "colocate":
        memory += f"; {config.vllm_gpu_memory_utilization:.0%} of each GPU for vLLM"
    return f"{total / 1e6:,.1f} M parameters, {trained / 1e6:,.1f} M trained; {memory}"
