"""Models are loaded, evaluated at checkpoints by `medix-eval` on held-out questions, and exported.

`evaluations.jsonl` keeps what was found, so a resumed training knows what was best before it.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jinja2 import Environment

from medix_eval.errors import ConfigError
from medix_eval.evaluation.api import evaluate, plan
from medix_eval.judging.protocol import RulesOnly, load_protocol
from medix_eval.models.checkpoint import refused
from medix_eval.models.torch_cpu import declare_missing_operators
from medix_eval.records import Frozen, Outcome
from medix_eval.storage.bundled import bundled
from medix_eval.storage.digests import digest, shown_name
from medix_eval.storage.jsonl import JsonLines, read_lines
from medix_eval.storage.version import __version__
from medix_train.reading import MODALITIES, SHAPE
from medix_train.recipe import ModelSection, Recipe
from medix_train.trainer import PolicyTrainer, random_states

declare_missing_operators()

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from transformers.utils.logging import disable_progress_bar

_LOG = logging.getLogger(__name__)
_FILE = "evaluations.jsonl"
_TRAINER_STATE = (
    "optimizer*", "scheduler*", "rng_state*", "scaler*", "trainer_state.json", "training_args.bin",
    "global_step*", "pytorch_model_fsdp*", "README.md",
)  # fmt: skip


class Evaluation(Frozen):
    """One checkpoint and what it scored."""

    update: int
    checkpoint: str
    score: float | None  # the mean of the tasks that have a score
    tasks: dict[str, float | None]
    failed: int = 0  # samples that were skipped, or whose request or judge failed
    protocol: str
    run: str  # its run folder, for `medix-eval compare`

    @property
    def is_whole(self) -> bool:
        """Whether no sample failed and every task has a score; no other can be the best."""
        return not self.failed and None not in self.tasks.values()


def read_evaluations(out: Path) -> list[Evaluation]:
    """Return the newest evaluation of each checkpoint of a training."""
    read = [Evaluation.model_validate(line) for line in read_lines(out / _FILE)]
    return list({one.update: one for one in read}.values())


def best_evaluation(out: Path) -> Evaluation | None:
    """Return the best whole one whose checkpoint is still there; of equals the earliest."""
    whole = [one for one in read_evaluations(out) if one.is_whole and Path(one.checkpoint).is_dir()]
    return max(whole, key=lambda one: (one.score, -one.update), default=None)


class HarnessEvaluation(TrainerCallback):
    """Runs the harness after each checkpoint, in one process; the others wait."""

    def __init__(self, recipe: Recipe, trainer: PolicyTrainer) -> None:
        self._recipe, self._out = recipe, Path(str(trainer.args.output_dir))
        self._log = trainer.log_scores

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep what was best before an interruption, which may have cut an evaluation short."""
        done = {one.update for one in read_evaluations(self._out) if one.is_whole}
        if state.global_step and state.global_step not in done:
            self.on_save(args, state, control)
        self._protect(state)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate what was just saved."""
        if state.is_world_process_zero:
            self._evaluate(state.global_step)
        args.distributed_state.wait_for_everyone()
        self._protect(state)

    def _evaluate(self, update: int) -> None:
        checkpoint = self._out / f"checkpoint-{update}"
        go_back = random_states()  # an evaluation must not change the training
        model = merged(checkpoint, recipe=self._recipe, to=self._out / "merged")
        options = _options(self._recipe, model=str(model), out=self._out / "evaluations")
        scores = evaluate(**options).scores
        go_back()
        tasks = {name: task.score for name, task in scores.tasks.items()}
        scored = {f"evaluation/{name}": one for name, one in tasks.items() if one is not None}
        score = fmean(scored.values()) if scored else None
        found = {"score": score, "tasks": tasks, "failed": scores.num_failures, "run": scores.run}
        found |= {"checkpoint": str(checkpoint), "protocol": scores.protocol["name"]}
        one = Evaluation(update=update, **found)
        with JsonLines(self._out / _FILE) as file:
            file.append(one.model_dump_json())
        if not one.is_whole:
            _LOG.warning("%s cannot be the best: %s", checkpoint.name, _missing(scores))
        if score is not None:
            self._log({"evaluation/score": score, **scored})

    def _protect(self, state: Any) -> None:
        """Name the best to the trainer, which then never deletes it."""
        if (best := best_evaluation(self._out)) is not None:
            state.best_model_checkpoint, state.best_metric = best.checkpoint, best.score


def _missing(scores: Any) -> str:
    """Say of each task how many samples failed in which way, and whether it has no score."""
    said = []
    for name, task in scores.tasks.items():
        lost = {one: task.outcomes[one] for one in Outcome if one.is_failure}
        said += [f"{name}: {num} of {task.n} {one}" for one, num in lost.items() if num]
        said += [f"{name}: no score"] * (task.score is None)
    return "; ".join(said)


def check_evaluation(recipe: Recipe, *, out: Path) -> None:
    """Raise all that an evaluation of checkpoints can be refused for before it begins."""
    if not recipe.evaluation:
        return
    try:
        with refused("a value"):
            plan(**_options(recipe, model=recipe.model.path, out=out))
    except ConfigError as error:
        hint = "; ".join(filter(None, ["its keys are flags of medix-eval", error.hint]))
        raise ConfigError(f"evaluation: {error}", hint=hint) from error


def _options(recipe: Recipe, *, model: str, out: Path) -> dict[str, Any]:
    """Return the recipe's flags for the harness; what it leaves out is as in training."""
    flags = {"backend": "hf", "protocol": "rules", **(recipe.evaluation or {})}
    changes = flags.pop("set", [])
    changes = [changes] if isinstance(changes, str) else list(changes)
    if recipe.data.template:
        changes.append(f"prompt.template={recipe.data.template}")
    judge = recipe.reward.judge
    if "judge" not in flags and not isinstance(load_protocol(flags["protocol"]).judge, RulesOnly):
        own = {"": judge.model, "-base-url": judge.base_url, "-api-key-env": judge.key_env}
        flags = {f"judge{name}": value for name, value in own.items() if value} | flags
    options = {name.replace("-", "_"): value for name, value in flags.items()}
    ours = {"overrides": changes, "model": model, "out": out, "progress": True}
    if taken := sorted(ours.keys() & options.keys()):
        raise ConfigError(f"{taken[0]} is decided by medix-train")
    return options | ours


def load_processor(section: ModelSection) -> Any:
    """Load tokenizer and image processor. Raises `ConfigError`, also for tags that would vanish."""
    with refused(f"model.path {section.path} does not load"):
        processor = AutoProcessor.from_pretrained(section.path, revision=section.revision)
    if not hasattr(processor, "image_processor"):
        raise ConfigError(f"{section.path} is text-only, but every row of the data has an image")
    bounds = {"shortest_edge": section.min_pixels, "longest_edge": section.max_pixels}
    given = {edge: pixels for edge, pixels in bounds.items() if pixels is not None}
    processor.image_processor.size = dict(processor.image_processor.size) | given
    processor.tokenizer.padding_side = "left"
    tags = {*SHAPE, *(f"<{modality}>" for modality in MODALITIES)}
    if vanishing := sorted(tags & set(processor.tokenizer.all_special_tokens)):
        said = f"{section.path} has {', '.join(vanishing)} as special tokens: decoded completions"
        hint = "make them ordinary tokens (special=False) in its tokenizer"
        raise ConfigError(f"{said} lose them, and no answer would be found", hint=hint)
    return processor


def load_model(section: ModelSection, *, weights: bool = True) -> Any:
    """Load the model to train; without its `weights` it takes no memory, and can be counted."""
    disable_progress_bar()
    how = {"revision": section.revision, "attn_implementation": section.attn_implementation}
    kind, dtype = AutoModelForImageTextToText, getattr(torch, section.dtype)
    with refused(f"model.path {section.path} does not load"):
        if weights:
            model = kind.from_pretrained(section.path, dtype=dtype, **how)
        else:
            config = AutoConfig.from_pretrained(section.path, revision=section.revision)
            with torch.device("meta"):
                model = kind.from_config(config)
    if not section.train_vision:
        for name, weight in model.named_parameters():
            weight.requires_grad = ".visual." not in f".{name}"
    return model


def merged(checkpoint: Path, *, recipe: Recipe, to: Path) -> Path:
    """Return a folder that can be loaded: the checkpoint, or its adapter merged, in `to`."""
    if not (checkpoint / "adapter_config.json").exists():
        return checkpoint
    from peft import PeftModel  # noqa: PLC0415 (seconds)

    shutil.rmtree(to, ignore_errors=True)
    adapted: Any = PeftModel.from_pretrained(load_model(recipe.model), str(checkpoint))
    adapted.merge_and_unload().save_pretrained(to)
    load_processor(recipe.model).save_pretrained(to)
    return to


def export(checkpoint: Path, *, to: Path, recipe: Recipe, evaluation: Evaluation | None) -> None:
    """Write what `medix-eval --model` and everything else can load, with a card."""
    shutil.rmtree(to, ignore_errors=True)
    if merged(checkpoint, recipe=recipe, to=to) == checkpoint:
        shutil.copytree(checkpoint, to, ignore=shutil.ignore_patterns(*_TRAINER_STATE))
    environment = Environment(trim_blocks=True, keep_trailing_newline=True)  # noqa: S701 (Markdown)
    card = environment.from_string((bundled("recipes") / "card.md.jinja").read_text("utf-8"))
    weights = (f"{name} {value:g}" for name, value in recipe.reward.weights)
    base, data = map(shown_name, (recipe.model.path, recipe.data.path))
    shown = {"base": json.dumps(base), "data": data, "weights": ", ".join(weights)}
    shown |= {"version": __version__, "digest": digest(recipe.model_dump(mode="json"))[:8]}
    text = card.render(recipe=recipe, evaluation=evaluation, **shown)
    (to / "README.md").write_text(text, encoding="utf-8")
