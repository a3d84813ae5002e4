"""Each checkpoint is evaluated by the harness on a held-out group; the best one is kept.

What came out stands in `evaluations.jsonl`, so a resumed training knows what was best before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from medix_eval.appointing import JudgeChoice
from medix_eval.bundled import bundled
from medix_eval.errors import DatasetError
from medix_eval.evaluation import Settings
from medix_eval.evaluation import evaluate as run_harness
from medix_eval.jsonl import JsonLines, read_lines
from medix_eval.models.resolve import ModelFlags
from medix_eval.protocol import load_protocol
from medix_eval.tasks import Catalogue, load_tasks
from medix_eval.torchvision_cpu import declare_missing_operators
from medix_train.export import merged
from medix_train.policy_trainer import random_states
from medix_train.recipe import EvaluationSection, Recipe

declare_missing_operators()

from transformers import (  # noqa: E402  # needs the operators
    TrainerCallback,
    TrainerControl,
    TrainerState,
)


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


class Evaluations:
    """The file of all evaluations of a training."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, evaluation: Evaluation) -> None:
        """Append one line."""
        with JsonLines(self._path) as file:
            file.append(evaluation.model_dump_json())

    def all(self) -> list[Evaluation]:
        """Return the newest evaluation of each checkpoint."""
        read = [Evaluation.model_validate(line) for line in read_lines(self._path)]
        return list({one.update: one for one in read}.values())

    def best(self) -> Evaluation | None:
        """Return the best whose checkpoint is still there; of equals the earliest."""
        there = [one for one in self.all() if Path(one.checkpoint).is_dir()]
        return max(there, key=lambda one: (one.score, -one.update), default=None)


class HarnessEvaluation(TrainerCallback):
    """Runs the harness after each checkpoint, in one process; the others wait."""

    def __init__(
        self,
        *,
        recipe: Recipe,
        out: Path,
        evaluations: Evaluations,
        log: Callable[[Mapping[str, float]], None],
    ) -> None:
        self._recipe = recipe
        self._out = out
        self._evaluations = evaluations
        self._log = log

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep what was best before an interruption, which may have cut an evaluation short."""
        done = {one.update for one in self._evaluations.all()}
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
        evaluation = evaluate_checkpoint(
            checkpoint, recipe=self._recipe, out=self._out, update=update
        )
        go_back()
        self._evaluations.add(evaluation)
        shown = {f"evaluation/{name}": score for name, score in evaluation.tasks.items()}
        self._log({"evaluation/score": evaluation.score, **shown})

    def _protect(self, state: TrainerState) -> None:
        """Name the best to the trainer, which then never deletes it."""
        best = self._evaluations.best()
        if best is not None:
            state.best_model_checkpoint = best.checkpoint
            state.best_metric = best.score


def evaluate_checkpoint(checkpoint: Path, *, recipe: Recipe, out: Path, update: int) -> Evaluation:
    """Run the harness on one checkpoint. Raises where nothing could be scored."""
    model = merged(checkpoint, recipe=recipe, to=out / "merged")
    settings, catalogue = harness_settings(recipe, model=model, out=out / "evaluations")
    scores = run_harness(settings, catalogue)
    tasks = {name: task.score for name, task in scores.tasks.items() if task.score is not None}
    if not tasks:
        raise DatasetError(f"no sample of {', '.join(settings.tasks)} could be scored")
    return Evaluation(
        update=update,
        checkpoint=str(checkpoint),
        score=fmean(tasks.values()),
        tasks=tasks,
        protocol=scores.protocol["name"],
        run=scores.run,
    )


def harness_settings(recipe: Recipe, *, model: Path, out: Path) -> tuple[Settings, Catalogue]:
    """Return what `medix-eval` would make of the same flags; `ConfigError` where they are wrong."""
    section = recipe.evaluation or EvaluationSection(tasks=())
    folders = [bundled("tasks"), *([Path(section.include)] if section.include else [])]
    catalogue = load_tasks(folders)
    template = recipe.data.template
    changes = [*section.set, *([f"prompt.template={template}"] if template else [])]
    protocol = load_protocol(section.protocol, overrides=changes)
    asked = recipe.reward.judge
    has_judge = protocol.judge.scorer != "rules"
    settings = Settings(
        model=str(model),
        model_flags=ModelFlags(role="model", backend=section.backend, gpus=section.gpus),
        tasks=catalogue.select(list(section.tasks)),
        protocol=protocol,
        judges=(
            JudgeChoice(
                name=(section.judge or asked.model) if has_judge else None,
                flags=ModelFlags(
                    role="judge",
                    base_urls=(section.judge_base_url or asked.base_url) if has_judge else (),
                    key_env=asked.key_env,
                ),
            ),
        ),
        limit=section.limit,
        seed=0,
        out=out,
        data_root=None,
        use_cache=True,
        allow_partial=False,
    )
    return settings, catalogue
