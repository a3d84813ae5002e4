"""What a training would be: sizes, memory, steps, the first prompt, and what its references earn.

No weights are loaded and no judge is asked: a reference is right without asking anybody.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path
from typing import Any

from medix_train.checkpoints import run_harness
from medix_train.completions import read_solution
from medix_train.data import TrainingData, load_training_data, rendered
from medix_train.recipe import Recipe
from medix_train.reward import MedixReward
from medix_train.settings import (
    grpo_config,
    load_processor,
    lora_config,
    model_without_memory,
    num_processes,
    vision_weights,
)
from medix_train.training import num_updates

_GIB = 2**30
_NUM_REFERENCES = 5
_NOWHERE = Path("dry-run")


def describe(recipe: Recipe) -> str:
    """Check everything that can be checked without weights, and say what would be done."""
    config = grpo_config(recipe, out=_NOWHERE)
    if recipe.evaluation:
        run_harness(recipe, model=recipe.model.path, out=_NOWHERE, dry_run=True)
    processor = load_processor(recipe.model)
    data = load_training_data(recipe.data, processor=processor)
    rows, updates = "a stream", config.max_steps
    if data.stored is not None:
        rows = f"{len(data.rows)} rows, {data.num_too_long} too long"
        updates = num_updates(recipe, config, num_rows=len(data.rows))
    each = recipe.updates_per_rollout
    first = list(islice(iter(data.rows), _NUM_REFERENCES))
    lines = {
        "recipe": f"{recipe.name}: {recipe.summary}",
        "model": f"{recipe.model.path}, {_sizes(recipe, config)}",
        "data": f"{recipe.data.path} ({recipe.data.split}): {rows}",
        "rollout": (
            f"{recipe.prompts_per_rollout} prompts × {config.num_generations} completions of at "
            f"most {config.max_completion_length} tokens, by "
            f"{'vLLM' if config.use_vllm else 'transformers'}"
        ),
        "length": f"{updates // each} rollouts × {each} updates = {updates} updates",
        "a process": (
            f"1 of {num_processes()}: {config.gradient_accumulation_steps} forward passes of "
            f"{config.per_device_train_batch_size} completions in an update"
        ),
        "first prompt": _first_prompt(processor, data, first),
        "references": _reference_rewards(recipe, first),
    }
    return "\n".join(f"{name:13} {text}" for name, text in lines.items())


def _sizes(recipe: Recipe, config: Any) -> str:
    """Say what the model is and what a process needs, counted on a model without memory."""
    section = recipe.model
    model = model_without_memory(section)
    total = sum(weight.numel() for weight in model.parameters())
    frozen = [] if section.train_vision else vision_weights(model)
    trained = total - sum(weight.numel() for weight in frozen)
    lora = lora_config(recipe)
    if lora is not None:
        from peft import get_peft_model  # noqa: PLC0415 (seconds)

        trained, _ = get_peft_model(model, lora).get_nb_trainable_parameters()
    # Weights, gradients and AdamW's two moments; with a KL term the first weights once more.
    kept = total * (2 if config.beta and lora is None else 1)
    width = 4 if section.dtype == "float32" else 2
    size = width * (kept + 3 * trained) / num_processes() / _GIB
    memory = f"{size:,.2f} GiB a process, sharded, without activations"
    if config.use_vllm and config.vllm_mode == "colocate":
        memory += f"; {config.vllm_gpu_memory_utilization:.0%} of each GPU for vLLM"
    return f"{total / 1e6:,.1f} M parameters, {trained / 1e6:,.1f} M trained; {memory}"


def _first_prompt(processor: Any, data: TrainingData, rows: list[Any]) -> str:
    (row,) = data.with_images(rows[:1])
    sizes = ", ".join(f"{image.width}×{image.height}" for image in row["images"])
    text = rendered(processor, row["prompt"][0]["content"], num_images=len(row["images"]))
    return f"{row['tokens']} tokens, images {sizes}\n{text}"


def _reference_rewards(recipe: Recipe, rows: list[Any]) -> str:
    """Say what a perfect completion earns; less than 1 shows data that cannot be learnt from."""
    gold = [read_solution(row["solution"]) for row in rows]
    scored = asyncio.run(
        MedixReward(settings=recipe.reward).score(
            [row["problem"] for row in rows],
            [
                f"{one.modality}<thinking>It shows.</thinking><answer>{one.reference}</answer>"
                for one in gold
            ],
            solutions=[row["solution"] for row in rows],
        )
    )
    return "; ".join(f"{one.reference[:40]!r} {one.total}" for one in scored)
