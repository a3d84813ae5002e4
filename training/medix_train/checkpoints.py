"""Each checkpoint is evaluated by `medix-eval` on held-out questions; the best one is kept.

What came out stands in `evaluations.jsonl`, so a resumed training knows what was best before it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from medix_eval.cli.app import UsageError, app
from medix_eval.errors import ConfigError, DatasetError
from medix_eval.judging.protocol import RulesOnly, load_protocol
from medix_eval.models.torchvision_cpu import declare_missing_operators
from medix_eval.results.scores import Scores
from medix_eval.storage.jsonl import JsonLines, read_lines
from medix_train.export import merged
from medix_train.policy_trainer import random_states
from medix_train.recipe import Recipe

declare_missing_operators()

from transformers import TrainerCallback, TrainerControl, TrainerState


class Evaluation(BaseModel):
    """One checkpoint and what it scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    update: int
    checkpoint: str
    score: float
    """Mean of the tasks."""
    tasks: dict[str, float]
    protocol: str
    run: str
    """Its run folder, for `medix-eval compare`."""


def read_evaluations(out: Path) -> list[Evaluation]:
    """Return the newest evaluation of each checkpoint of a training."""
    read = [Evaluation.model_validate(line) for line in read_lines(out / "evaluations.jsonl")]
    return list({one.update: one for one in read}.values())


def best_evaluation(out: Path) -> Evaluation | None:
    """Return the best whose checkpoint is still there; of equals the earliest."""
    there = [one for one in read_evaluations(out) if Path(one.checkpoint).is_dir()]
    return max(there, key=lambda one: (one.score, -one.update), default=None)


class HarnessEvaluation(TrainerCallback):
    """Runs the harness after each checkpoint, in one process; the others wait."""

    def __init__(
        self, recipe: Recipe, *, out: Path, log: Callable[[Mapping[str, float]], None]
    ) -> None:
        self._recipe = recipe
        self._out = out
        self._log = log

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep what was best before an interruption, which may have cut an evaluation short."""
        done = {one.update for one in read_evaluations(self._out)}
        if state.global_step and state.global_step not in done:
            self.on_save(args, state, control)
        self._protect(state)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate what was just saved."""
        if state.is_world_process_zero:
            self._evaluate(state.global_step)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        self._protect(state)

    def _evaluate(self, update: int) -> None:
        checkpoint = self._out / f"checkpoint-{update}"
        go_back = random_states()  # an evaluation must not change the training
        model = merged(checkpoint, recipe=self._recipe, to=self._out / "merged")
        printed = run_harness(self._recipe, model=str(model), out=self._out / "evaluations")
        go_back()
        scores = Scores.model_validate_json(printed)
        tasks = {name: task.score for name, task in scores.tasks.items() if task.score is not None}
        if not tasks:
            raise DatasetError(f"no sample of {', '.join(scores.tasks)} could be scored")
        evaluation = Evaluation(
            update=update,
            checkpoint=str(checkpoint),
            score=fmean(tasks.values()),
            tasks=tasks,
            protocol=scores.protocol["name"],
            run=scores.run,
        )
        with JsonLines(self._out / "evaluations.jsonl") as file:
            file.append(evaluation.model_dump_json())
        shown = {f"evaluation/{name}": score for name, score in tasks.items()}
        self._log({"evaluation/score": evaluation.score, **shown})

    def _protect(self, state: TrainerState) -> None:
        """Name the best to the trainer, which then never deletes it."""
        best = best_evaluation(self._out)
        if best is not None:
            state.best_model_checkpoint = best.checkpoint
            state.best_metric = best.score


def run_harness(recipe: Recipe, *, model: str, out: Path, dry_run: bool = False) -> str:
    """Run `medix-eval` by the recipe's flags and return what it prints."""
    argv = [f"--model={model}", f"--out={out}", "--json", *(["--dry-run"] if dry_run else [])]
    for name, values in _flags(recipe).items():
        listed = values if isinstance(values, list | tuple) else [values]
        argv += [f"--{name}" if value is True else f"--{name}={value}" for value in listed]
    with redirect_stdout(io.StringIO()) as printed:
        try:
            app(argv, standalone_mode=False)
        except UsageError as error:
            raise ConfigError(
                f"evaluation: {error.format_message()}", hint="its keys are flags of medix-eval"
            ) from error
    return printed.getvalue()


def _flags(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's flags; what it leaves out is as in training: template, judge."""
    flags = {"backend": "hf", "protocol": "rules", **(recipe.evaluation or {})}
    if recipe.data.template:
        flags["set"] = [*flags.get("set", ()), f"prompt.template={recipe.data.template}"]
    judge = recipe.reward.judge
    if "judge" in flags or isinstance(load_protocol(flags["protocol"]).judge, RulesOnly):
        return flags
    if judge.model:
        flags["judge"] = judge.model
    return {"judge-base-url": judge.base_url, "judge-api-key-env": judge.key_env or (), **flags}
