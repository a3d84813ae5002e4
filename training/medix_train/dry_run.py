"""What a training would be: sizes, memory, steps, the first prompt, and what its references earn.

No weights are loaded and no judge is asked: a reference is right without asking anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from medix_train.checkpoints import harness_settings
from medix_train.completions import read_solution
from medix_train.data import TrainingData, load_training_data, rendered
from medix_train.recipe import ModelSection, Recipe
from medix_train.reward import MedixReward
from medix_train.settings import grpo_config, load_processor, loading, lora_config, num_processes
from medix_train.training import num_rollouts

_GIB = 2**30
_NUM_REFERENCES = 5
_NOWHERE = Path("dry-run")


def describe(recipe: Recipe) -> str:
    """Check everything that can be checked without weights, and say what would be done."""
    batches = recipe.batches(processes=num_processes())
    if recipe.evaluation:
        harness_settings(recipe, model=_NOWHERE, out=_NOWHERE)
    processor = load_processor(recipe.model)
    data = load_training_data(recipe.data, processor=processor)
    num_rows = None if data.stored is None else len(data.rows)
    rollouts = num_rollouts(recipe, num_rows=num_rows)
    grpo_config(recipe, batches, out=_NOWHERE, num_rollouts=rollouts, image_token=None)
    first = list(islice(iter(data.rows), _NUM_REFERENCES))
    rollout, engine = recipe.rollout, recipe.rollout.engine
    rows = "a stream" if num_rows is None else f"{num_rows} rows, {data.num_too_long} too long"
    lines = {
        "recipe": f"{recipe.name}: {recipe.summary}",
        "model": f"{recipe.model.path}, {'; '.join(_sizes(recipe))}",
        "data": f"{recipe.data.path} ({recipe.data.split}): {rows}",
        "rollout": (
            f"{rollout.prompts} prompts × {rollout.completions} completions of at most "
            f"{rollout.max_tokens} tokens, by {engine.kind}"
        ),
        "length": (
            f"{rollouts} rollouts × {batches.updates_per_rollout} updates = "
            f"{rollouts * batches.updates_per_rollout} updates"
        ),
        "a process": (
            f"1 of {num_processes()}: {batches.forwards_per_update} forward passes of "
            f"{recipe.optimiser.per_device} completions in an update"
        ),
        "first prompt": _first_prompt(processor, data, first),
        "references": "; ".join(_reference_rewards(recipe, first)),
    }
    return "\n".join(f"{name:13} {text}" for name, text in lines.items())


def _sizes(recipe: Recipe) -> Iterator[str]:
    """Yield what the model is and what a process needs, counted on a model without memory."""
    model = _without_memory(recipe.model)
    total = sum(weight.numel() for weight in model.parameters())
    vision = sum(w.numel() for name, w in model.named_parameters() if ".visual." in f".{name}")
    trained = total if recipe.model.train_vision else total - vision
    lora = lora_config(recipe.model)
    if lora is not None:
        from peft import get_peft_model  # noqa: PLC0415

        adapted: Any = get_peft_model(model, lora)
        trained = sum(w.numel() for w in adapted.parameters() if w.requires_grad)
    yield f"{total / 1e6:,.1f} M parameters, {trained / 1e6:,.1f} M trained"
    width = 4 if recipe.model.dtype == "float32" else 2
    # Weights, gradients and AdamW's two moments; with a KL term the first weights once more.
    kept = total * (2 if recipe.algorithm.kl and lora is None else 1)
    size = width * (kept + 3 * trained) / num_processes() / _GIB
    yield f"{size:,.2f} GiB a process, sharded, without activations"
    if recipe.rollout.engine.kind == "vllm-colocate":
        yield f"{recipe.rollout.engine.memory:.0%} of each GPU for vLLM"


def _without_memory(section: ModelSection) -> Any:
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForImageTextToText  # noqa: PLC0415

    with loading(section), torch.device("meta"):
        config = AutoConfig.from_pretrained(section.path, revision=section.revision)
        return AutoModelForImageTextToText.from_config(config)


def _first_prompt(processor: Any, data: TrainingData, rows: list[Any]) -> str:
    (row,) = data.with_images(rows[:1])
    sizes = ", ".join(f"{image.width}×{image.height}" for image in row["images"])
    text = rendered(processor, row["prompt"][0]["content"], num_images=len(row["images"]))
    return f"{row['tokens']} tokens, images {sizes}\n{text}"


def _reference_rewards(recipe: Recipe, rows: list[Any]) -> Iterator[str]:
    """Yield what a perfect completion earns; less than 1 shows data that cannot be learnt from."""
    reward = MedixReward(settings=recipe.reward)
    gold = [read_solution(row["solution"]) for row in rows]
    ideal = [
        f"{one.modality}<thinking>It shows.</thinking><answer>{one.reference}</answer>"
        for one in gold
    ]
    scored = asyncio.run(
        reward.score(
            [row["problem"] for row in rows],
            ideal,
            solutions=[row["solution"] for row in rows],
        )
    )
    for one, result in zip(gold, scored, strict=True):
        yield f"{one.reference[:40]!r} {result.total}"
