"""From a recipe to what TRL, PEFT and transformers are told."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medix_eval.errors import ConfigError
from medix_eval.torchvision_cpu import declare_missing_operators
from medix_train.completions import MODALITIES
from medix_train.recipe import Batches, ModelSection, Recipe

if TYPE_CHECKING:
    from peft import LoraConfig
    from trl.trainer.grpo_config import GRPOConfig

_LOSS = {"tokens": "dapo", "completions": "grpo", "constant": "dr_grpo"}
_LONGEST_WAIT_S = 6 * 3600
"""Processes wait this long for each other: a checkpoint is evaluated by one of them."""


def num_processes() -> int:
    """Return how many processes train together, as their launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def grpo_config(
    recipe: Recipe, batches: Batches, *, out: Path, num_rollouts: int, image_token: int | None
) -> GRPOConfig:
    """Return TRL's settings. Raises `ConfigError`."""
    declare_missing_operators()
    import torch  # noqa: PLC0415
    from trl.trainer.grpo_config import GRPOConfig  # noqa: PLC0415

    algorithm, optimiser, rollout = recipe.algorithm, recipe.optimiser, recipe.rollout
    has_gpu = torch.cuda.is_available()
    decided: dict[str, Any] = {
        "output_dir": str(out),
        "seed": recipe.seed,
        "max_steps": num_rollouts * batches.updates_per_rollout,
        # rollout and update
        "num_generations": rollout.completions,
        "per_device_train_batch_size": optimiser.per_device,
        "gradient_accumulation_steps": batches.forwards_per_update,
        "steps_per_generation": batches.forwards_per_rollout,
        "max_completion_length": rollout.max_tokens,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "mask_truncated_completions": algorithm.drop_truncated,
        # loss
        "loss_type": _LOSS[algorithm.mean_over],
        "importance_sampling_level": algorithm.ratio,
        "scale_rewards": algorithm.scale,
        "epsilon": algorithm.clip[0],
        "epsilon_high": algorithm.clip[1],
        "delta": algorithm.dual_clip,
        "beta": algorithm.kl,
        "use_bias_correction_kl": False,  # the published KL term has no correction
        # optimiser
        "optim": optimiser.name,
        "learning_rate": optimiser.learning_rate,
        "lr_scheduler_type": optimiser.schedule,
        "warmup_steps": optimiser.warmup_updates,
        "weight_decay": optimiser.weight_decay,
        "max_grad_norm": optimiser.max_grad_norm,
        # machine
        "use_cpu": not has_gpu,
        "bf16": has_gpu,
        "gradient_checkpointing": recipe.model.gradient_checkpointing,
        "ddp_timeout": _LONGEST_WAIT_S,
        "ddp_find_unused_parameters": False,  # every row has an image: all weights are used
        # checkpoints and logs
        "save_strategy": "steps",
        "save_steps": recipe.checkpoints.every * batches.updates_per_rollout,
        "save_total_limit": recipe.checkpoints.keep,
        "logging_steps": batches.updates_per_rollout,
        "log_completions": True,
        "num_completions_to_print": 0,
        "disable_tqdm": True,  # a line for each rollout says more
        **_engine(recipe, image_token=image_token),
    }
    given = {"report_to": ["tensorboard"], **recipe.trl}
    known = {field.name for field in dataclasses.fields(GRPOConfig)}
    for name in recipe.trl:
        if name in decided:
            raise ConfigError(f"trl.{name} is decided by another key of the recipe", hint=_SECTIONS)
        if name not in known:
            close = get_close_matches(name, known - decided.keys(), n=1)
            hint = f"did you mean {close[0]!r}?" if close else _SECTIONS
            raise ConfigError(f"trl.{name} is no setting of TRL's GRPOConfig", hint=hint)
    try:
        return GRPOConfig(**decided, **given)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"recipe {recipe.name}: {' '.join(str(error).split())}") from error


_SECTIONS = "sections: model, data, rollout, algorithm, optimiser, length, checkpoints"


def lora_config(section: ModelSection) -> LoraConfig | None:
    """Return PEFT's settings, or none where the weights themselves are trained."""
    if section.lora is None:
        return None
    from peft import LoraConfig  # noqa: PLC0415

    targets = section.lora.targets
    return LoraConfig(
        r=section.lora.rank,
        lora_alpha=section.lora.alpha,
        lora_dropout=section.lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=None if section.train_vision else r".*\bvisual\b.*",
        task_type="CAUSAL_LM",
    )


@contextmanager
def loading(section: ModelSection) -> Iterator[None]:
    """Turn what goes wrong with a model's files into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"model.path {section.path} does not load: {said}") from error


def load_processor(section: ModelSection) -> Any:
    """Load tokenizer and image processor. Raises `ConfigError`, also for tags that would vanish."""
    declare_missing_operators()
    from transformers import AutoProcessor  # noqa: PLC0415

    with loading(section):
        processor = AutoProcessor.from_pretrained(section.path, revision=section.revision)
    if not hasattr(processor, "image_processor"):
        raise ConfigError(f"{section.path} cannot see, and every row of the data has an image")
    bounds = {"shortest_edge": section.min_pixels, "longest_edge": section.max_pixels}
    size = dict(processor.image_processor.size)
    size |= {edge: pixels for edge, pixels in bounds.items() if pixels is not None}
    processor.image_processor.size = size
    processor.tokenizer.padding_side = "left"
    tags = {"<thinking>", "</thinking>", "<answer>", "</answer>", *(f"<{m}>" for m in MODALITIES)}
    if vanishing := sorted(tags & set(processor.tokenizer.all_special_tokens)):
        raise ConfigError(
            f"{section.path} has {', '.join(vanishing)} as special tokens: decoded completions "
            "lose them, and no answer would be found",
            hint="make them ordinary tokens (special=False) in its tokenizer",
        )
    return processor


def load_model(section: ModelSection) -> Any:
    """Load the weights to train."""
    declare_missing_operators()
    import torch  # noqa: PLC0415
    from transformers import AutoModelForImageTextToText  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    how = {"attn_implementation": section.attention} if section.attention else {}
    with loading(section):
        model = AutoModelForImageTextToText.from_pretrained(
            section.path, revision=section.revision, dtype=getattr(torch, section.dtype), **how
        )
    if not section.train_vision:
        for name, weight in model.named_parameters():
            if ".visual." in f".{name}":
                weight.requires_grad = False
    return model


def _engine(recipe: Recipe, *, image_token: int | None) -> dict[str, Any]:
    """Return the settings of what writes completions.

    A sampled image token stands for no image. TRL forbids it where transformers generates; where
    vLLM does, it has to be told.
    """
    engine = recipe.rollout.engine
    if engine.kind == "transformers":
        return {"use_vllm": False}
    forbidden = {} if image_token is None else {"logit_bias": {image_token: -100.0}}
    common = {"use_vllm": True, "generation_kwargs": forbidden}
    if engine.kind == "vllm-server":
        return {**common, "vllm_mode": "server", "vllm_server_base_url": engine.url}
    return {
        **common,
        "vllm_mode": "colocate",
        "vllm_tensor_parallel_size": engine.tensor_parallel,
        "vllm_gpu_memory_utilization": engine.memory,
        "vllm_enable_sleep_mode": engine.sleep,
        "vllm_max_model_length": recipe.data.max_prompt_tokens + recipe.rollout.max_tokens,
    }
