"""TRL's GRPO trainer as a recipe describes it, with images read late and with dynamic sampling.

TRL loads a rollout's rows once for each forward pass and uses them once; decoding images there
would take longer than training. So its rows hold texts and a number, and images are added here.

Dynamic sampling (DAPO) replaces prompts whose group teaches nothing. A process holds whole groups
and decides alone which of its own to replace. But generating and gathering wait for every process:
as long as one has a group to replace, all draw as many as it lacks.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from medix_eval.errors import ConfigError, ServerError, UnknownName
from medix_eval.models.checkpoint import refused
from medix_eval.models.torch_cpu import declare_missing_operators

declare_missing_operators()

from peft import LoraConfig
from transformers import PrinterCallback, Trainer
from trl.data_utils import prepare_multimodal_messages
from trl.rewards.other_rewards import get_soft_overlong_punishment
from trl.scripts.utils import TrlParser
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from medix_train.data import TrainingData
from medix_train.monitor import Monitor, write_training_report
from medix_train.recipe import DynamicSampling, Recipe

_LOG = logging.getLogger(__name__)
_SHOWN = {
    "reward": "reward", "reward_parts/judge": "judge", "reward_parts/format": "format",
    "completions/mean_length": "tokens", "evaluation/score": "evaluation",
}  # fmt: skip
_LONGEST_WAIT_S = 6 * 3600  # of processes for each other: one of them evaluates a checkpoint
_CHOICES = {
    "loss_type": ("bnpo", "cispo", "dapo", "dr_grpo", "grpo", "luspo", "sapo", "vespo"),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none"),
}
"""TRL checks these only after the first completions."""
_PUBLISHED_MEAN = (0.01, 0.99)
_PER_ROW = (0, 1, 2, 3, 4, 6)
"""Of what TRL's `_generate` returns: prompt ids, completion ids, tool mask, completions, logprobs
and images have an entry for each row; the others are empty without tools."""
NUM_PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))  # as their launcher says
Rows = list[dict[str, Any]]


def grpo_config(recipe: Recipe, *, out: Path) -> GRPOConfig:
    """Return TRL's settings. Raises `ConfigError`."""
    has_gpu, each = torch.cuda.is_available(), recipe.updates_per_rollout
    usual = {
        "use_cpu": not has_gpu, "bf16": has_gpu, "report_to": ["tensorboard"],
        "disable_tqdm": True,  # a line for each rollout says more
        "ddp_timeout": _LONGEST_WAIT_S,
        "ddp_find_unused_parameters": False,  # every row has an image: all weights are used
    }  # fmt: skip
    decided = {
        "output_dir": str(out), "save_strategy": "steps", "logging_steps": each,
        "log_completions": True, "num_completions_to_print": 0,  # the monitor reads them
    }  # fmt: skip
    with refused(f"recipe {recipe.name}"):
        given = _as_trl_reads(usual | recipe.trl)
        group, per_device = given["num_generations"], given["per_device_train_batch_size"]
        decided |= recipe.batch_sizes(group=group, per_device=per_device, processes=NUM_PROCESSES)
        if taken := sorted(recipe.trl.keys() & decided.keys()):
            raise ConfigError(f"trl.{taken[0]} is set by medix-train")
        config = GRPOConfig(**given | decided)
    if config.save_steps % each:
        said = f"trl.save_steps {config.save_steps:g} ends within a rollout and cannot be resumed"
        raise ConfigError(said, hint=f"a rollout has {each} updates: use a multiple")
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
            raise ConfigError(f"trl.{name} {read[name]!r} is not one of {', '.join(choices)}")
    return read


def lora_config(recipe: Recipe) -> LoraConfig | None:
    """Return PEFT's settings, or none where the weights themselves are trained."""
    if recipe.lora is None:
        return None
    frozen = None if recipe.model.train_vision else r".*\bvisual\b.*"
    usual = {"task_type": "CAUSAL_LM", "target_modules": "all-linear", "exclude_modules": frozen}
    with refused("lora"):
        return LoraConfig(**usual | recipe.lora)


class PolicyTrainer(GRPOTrainer):
    """GRPO as a recipe describes it; `reward` is awaited like TRL's own reward functions."""

    def __init__(
        self, recipe: Recipe, *, data: TrainingData, reward: Callable[..., Any], **trl: Any
    ) -> None:
        args: Any = trl["args"]
        self._recipe, self._data, self._reward = recipe, data, reward
        self._out = Path(args.output_dir)
        self._group, self._cap = args.num_generations, args.max_completion_length
        self._monitor = Monitor(self._out, recipe.monitor)
        self._failure: Exception | None = None
        self._rollout: Rollout | None = None
        self._back_to_start: Callable[[], None] = random_states()
        self._started = time.monotonic()
        trl["reward_funcs"] = self.composite
        super().__init__(train_dataset=data.rows, **trl)
        self.remove_callback(PrinterCallback)  # `_show` says more

    async def composite(self, **columns: Any) -> list[float | None]:
        """Score a batch; a failure is kept until every process knows of it."""
        try:
            totals: list[float | None] = await self._reward(**columns)
        except Exception as error:  # noqa: BLE001 (raised by `_calculate_rewards`)
            self._failure = error
            return [None] * len(columns["completions"])
        if self._recipe.overlong_buffer is None:
            return totals
        # No function beside this one: where the judge failed, it would be all of the reward.
        punish = get_soft_overlong_punishment(self._cap, self._recipe.overlong_buffer)
        punished = zip(totals, punish(columns["completion_ids"]), strict=True)
        return [None if total is None else total + loss for total, loss in punished]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, show and watch a step; at a sign of hacking all processes stop, if they should."""
        super().log(logs, start_time)  # which writes the step's completions
        if "reward" not in logs:
            return
        must_stop = False
        if self.accelerator.is_main_process:
            self._show(logs)
            must_stop = self._monitor.watch(self.state.global_step, logs)
            write_training_report(self._out)
        if self._gathered(must_stop).any():
            self.control.should_training_stop = self.control.should_save = True

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Log numbers as they are, past what TRL adds to a step of its own."""
        Trainer.log(self, dict(scores))
        self._show(scores)

    def _show(self, logs: Mapping[str, float]) -> None:
        done, of = self.state.global_step, self.state.max_steps
        each, seconds = self._recipe.updates_per_rollout, time.monotonic() - self._started
        shown = (f"{name} {logs[key]:.3g}" for key, name in _SHOWN.items() if key in logs)
        said = "rollout %d of %d, %.0f s: %s"
        _LOG.info(said, done // each, of // each, seconds, ", ".join(shown))

    def _generate_and_score_completions(self, inputs: Rows) -> dict[str, torch.Tensor | Any]:
        self._back_to_start = random_states()
        rows = self._data.with_images(inputs)
        if self._recipe.dynamic_sampling is None:
            return super()._generate_and_score_completions(rows)
        self._rollout = self._informative_rollout(rows, rule=self._recipe.dynamic_sampling)
        self._pending_extra_logs.update(self._rollout.logged)
        try:
            return super()._generate_and_score_completions(self._rollout.rows)
        finally:
            self._rollout = None

    def _generate(self, prompts: list[Any]) -> Any:
        return tuple(self._rollout.generated) if self._rollout else super()._generate(prompts)

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        if self._rollout is not None:
            return torch.as_tensor(self.accelerator.gather(self._rollout.rewards))
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if not self._gathered(self._failure is not None).any():
            return torch.as_tensor(rewards)
        if self.state.global_step:  # save where this rollout began, in every process
            self._back_to_start()
            self._save_checkpoint(self.model, trial=None)  # type: ignore[no-untyped-call]
        said = "another process could not score its completions"
        raise self._failure or ServerError(said, hint="see the output of that process")

    def _informative_rollout(self, rows: Rows, *, rule: DynamicSampling) -> Rollout:
        """Complete the rows, and draw others for the groups that teach nothing."""
        kept = self._complete(rows)
        as_drawn = float(self.accelerator.gather(kept.rewards).sum(dim=1).nanmean())
        metrics = self._metrics["train"]
        # What else is logged of completions stays that of the first round: the policy as it is.
        lengths = {name: len(values) for name, values in metrics.items()}
        lacking = [at for at, is_useful in enumerate(kept.informative(rule)) if not is_useful]
        num_groups, num_drawn = len(rows) / self._group, 0
        lacking_first = self._gathered(len(lacking) / num_groups).mean()
        for turn in range(rule.rounds):
            most = int(self._gathered(len(lacking)).max())
            if not most:
                break
            fresh = self._complete(self._drawn(most, turn=turn))
            num_drawn += most
            sources = [at for at, is_useful in enumerate(fresh.informative(rule)) if is_useful]
            for slot, source in zip(lacking, sources, strict=False):
                kept.replace(slot, by=fresh, source=source)
            lacking = lacking[len(sources) :]
        for name, values in metrics.items():
            del values[lengths.get(name, 0) :]
        lacking_last = self._gathered(len(lacking) / num_groups).mean()
        metrics["dynamic_sampling/uninformative_first"].append(float(lacking_first))
        metrics["dynamic_sampling/uninformative_kept"].append(float(lacking_last))
        metrics["dynamic_sampling/drawn"].append(float(num_drawn))
        metrics["dynamic_sampling/reward_as_drawn"].append(as_drawn)
        return kept

    def _complete(self, rows: Rows) -> Rollout:
        """Write and reward a completion of each row, in every process at the same time."""
        prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
        generated = list(super()._generate(prompts))
        self._pending_extra_logs.clear()
        everywhere = self._calculate_rewards(rows, prompts, generated[3], generated[1])
        own = everywhere[len(rows) * self.accelerator.process_index :][: len(rows)].clone()
        logged = {name: list(values) for name, values in self._pending_extra_logs.items()}
        self._pending_extra_logs.clear()
        return Rollout(rows, generated, own, logged, self._group)

    def _drawn(self, count: int, *, turn: int) -> Rows:
        """Draw rows by nothing but the place in the training: a resumed one draws the same."""
        rows: Any = self._data.rows
        where = (self.args.seed, self.state.global_step, turn, self.accelerator.process_index)
        chosen = random.Random(repr(where))  # noqa: S311 (training, not secrets)
        drawn = [rows[chosen.randrange(len(rows))] for _ in range(count)]
        return self._data.with_images([row for row in drawn for _ in range(self._group)])

    def _gathered(self, value: float) -> torch.Tensor:
        own = torch.tensor([float(value)], device=self.accelerator.device)
        return torch.as_tensor(self.accelerator.gather(own))


def random_states() -> Callable[[], None]:
    """Record the random states; the returned function restores them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the trainer's own)
    cpu, gpus = torch.get_rng_state(), torch.cuda.get_rng_state_all()

    def go_back() -> None:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        torch.cuda.set_rng_state_all(gpus)

    return go_back


@dataclass(slots=True)
class Rollout:
    """Rows with their completions and rewards, the rows of a group side by side."""

    rows: Rows
    generated: list[Any]  # what TRL's `_generate` returned
    rewards: torch.Tensor  # a row each, a column a reward function; NaN where it has no reward
    logged: dict[str, list[Any]]  # what the reward logged of each row
    group: int  # completions of one prompt

    def informative(self, rule: DynamicSampling) -> list[bool]:
        """Say of each group whether it can teach anything, by the rule."""
        rewards, judged = self.rewards.sum(dim=1).tolist(), self.logged["judge"]
        groups = (slice(at, at + self.group) for at in range(0, len(self.rows), self.group))
        return [is_informative(rule, accuracies=judged[g], rewards=rewards[g]) for g in groups]

    def replace(self, slot: int, *, by: Rollout, source: int) -> None:
        """Put a group of another rollout in the place of one of this."""
        here, there = (slice(at * self.group, (at + 1) * self.group) for at in (slot, source))
        self.rows[here] = by.rows[there]
        self.rewards[here] = by.rewards[there]
        for at in _PER_ROW:
            if self.generated[at] is not None:
                self.generated[at][here] = by.generated[at][there]
        for name, values in self.logged.items():
            values[here] = by.logged[name][there]


def is_informative(
    rule: DynamicSampling, *, accuracies: Sequence[float | None], rewards: Sequence[float]
) -> bool:
    """Say whether a group can teach anything: all wrong in good form, it cannot."""
    if rule.keep == "published_mean":
        known = [reward for reward in rewards if reward == reward]  # noqa: PLR0124 (not NaN)
        low, high = _PUBLISHED_MEAN
        return bool(known) and low < sum(known) / len(known) < high
    return len({accuracy for accuracy in accuracies if accuracy is not None}) > 1
