"""From a recipe to what TRL and PEFT are told, and to the model and its processor."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from medix_eval.errors import ConfigError, UnknownName
from medix_eval.models.torchvision_cpu import declare_missing_operators
from medix_train.completions import MODALITIES
from medix_train.recipe import ModelSection, Recipe

declare_missing_operators()

import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging
from trl.scripts.utils import TrlParser
from trl.trainer.grpo_config import GRPOConfig

_LONGEST_WAIT_S = 6 * 3600
"""Processes wait this long for each other: a checkpoint is evaluated by one of them."""
_CHOICES = {
    "loss_type": ("bnpo", "cispo", "dapo", "dr_grpo", "grpo", "luspo", "sapo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none"),
}
"""TRL looks at these only when the first completions are there."""


def num_processes() -> int:
    """Return how many processes train together, as their launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def grpo_config(recipe: Recipe, *, out: Path) -> GRPOConfig:
    """Return TRL's settings. Raises `ConfigError`."""
    has_gpu = torch.cuda.is_available()
    usual = {
        "report_to": ["tensorboard"],
        "disable_tqdm": True,  # a line for each rollout says more
        "use_cpu": not has_gpu,
        "bf16": has_gpu,
        "ddp_timeout": _LONGEST_WAIT_S,
        "ddp_find_unused_parameters": False,  # every row has an image: all weights are used
    }
    decided = {
        "output_dir": str(out),
        "log_completions": True,  # the monitor reads them
        "num_completions_to_print": 0,
        "logging_steps": recipe.updates_per_rollout,
        "save_strategy": "steps",
    }
    with refused(f"recipe {recipe.name}"):
        given = _as_trl_reads(usual | recipe.trl)
        decided |= recipe.batch_sizes(
            group=given["num_generations"],
            per_device=given["per_device_train_batch_size"],
            processes=num_processes(),
        )
        if taken := sorted(recipe.trl.keys() & decided.keys()):
            raise ConfigError(f"trl.{taken[0]} is decided by medix-train")
        config = GRPOConfig(**given | decided)
    if config.save_steps % recipe.updates_per_rollout:
        raise ConfigError(
            f"trl.save_steps {config.save_steps:g} ends within a rollout and cannot be resumed",
            hint=f"a rollout has {recipe.updates_per_rollout} updates: give a multiple",
        )
    return config


def _as_trl_reads(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of TRL's settings with their types, as its command line reads its own YAML."""
    parser: Any = TrlParser(cast("Any", GRPOConfig), exit_on_error=False)
    if unknown := parser.set_defaults_with_config(**settings):
        known = [action.dest for action in parser._actions]  # noqa: SLF001
        raise UnknownName("setting of TRL", unknown[0].removeprefix("--"), known)
    read: dict[str, Any] = vars(parser.parse_args([]))
    for name, choices in _CHOICES.items():
        if read[name] not in choices:
            raise ConfigError(f"trl.{name} {read[name]!r} is none of {', '.join(choices)}")
    return read


def forbid_image_token(config: Any, processor: Any) -> None:
    """Tell vLLM never to write an image token, as TRL tells transformers: no image stands there."""
    if config.use_vllm:
        bias = {"logit_bias": {processor.image_token_id: -100.0}}
        config.generation_kwargs = bias | (config.generation_kwargs or {})


def lora_config(recipe: Recipe) -> LoraConfig | None:
    """Return PEFT's settings, or none where the weights themselves are trained."""
    if recipe.lora is None:
        return None
    usual = {
        "task_type": "CAUSAL_LM",
        "target_modules": "all-linear",
        "exclude_modules": None if recipe.model.train_vision else r".*\bvisual\b.*",
    }
    with refused("lora"):
        return LoraConfig(**usual | recipe.lora)


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turn what a library says against a setting or a model's files into one line."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, argparse.ArgumentError) as error:
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"{what}: {said}") from error


def load_processor(section: ModelSection) -> Any:
    """Load tokenizer and image processor. Raises `ConfigError`, also for tags that would vanish."""
    with refused(f"model.path {section.path} does not load"):
        processor = AutoProcessor.from_pretrained(section.path, revision=section.revision)
    if not hasattr(processor, "image_processor"):
        raise ConfigError(f"{section.path} cannot see, and every row of the data has an image")
    bounds = {"shortest_edge": section.min_pixels, "longest_edge": section.max_pixels}
    given = {edge: pixels for edge, pixels in bounds.items() if pixels is not None}
    processor.image_processor.size = dict(processor.image_processor.size) | given
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
    logging.disable_progress_bar()
    with refused(f"model.path {section.path} does not load"):
        model = AutoModelForImageTextToText.from_pretrained(
            section.path,
            revision=section.revision,
            dtype=getattr(torch, section.dtype),
            attn_implementation=section.attn_implementation,
        )
    if not section.train_vision:
        for weight in vision_weights(model):
            weight.requires_grad = False
    return model


def model_without_memory(section: ModelSection) -> Any:
    """Return the model with its shapes and no weights, to be counted."""
    with refused(f"model.path {section.path} does not load"), torch.device("meta"):
        config = AutoConfig.from_pretrained(section.path, revision=section.revision)
        return AutoModelForImageTextToText.from_config(config)


def vision_weights(model: Any) -> list[Any]:
    """Return the weights that see."""
    return [weight for name, weight in model.named_parameters() if ".visual." in f".{name}"]
