"""TRL's GRPO trainer, with images read when their row is used and with dynamic sampling.

TRL loads a rollout's rows once for each forward pass of it and uses them once; reading and decoding
images there would take longer than training. So its rows hold texts and a number, and the images
are added here.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medix_eval.errors import ServerError
from medix_eval.models.torchvision_cpu import declare_missing_operators

declare_missing_operators()

from transformers import PrinterCallback, Trainer
from trl.data_utils import prepare_multimodal_messages
from trl.rewards.other_rewards import get_soft_overlong_punishment
from trl.trainer.grpo_trainer import GRPOTrainer

from medix_train.data import TrainingData
from medix_train.dynamic_sampling import Rollout
from medix_train.monitor import Monitor
from medix_train.recipe import DynamicSampling, Recipe
from medix_train.training_report import write_training_report

_LOG = logging.getLogger(__name__)
_SHOWN = {
    "reward": "reward",
    "reward_parts/judge": "judge",
    "reward_parts/format": "format",
    "completions/mean_length": "tokens",
    "evaluation/score": "evaluation",
}
Reward = Callable[..., Awaitable[list[float | None]]]


class PolicyTrainer(GRPOTrainer):
    """GRPO as a recipe describes it."""

    def __init__(self, recipe: Recipe, *, data: TrainingData, reward: Reward, **trl: Any) -> None:
        args: Any = trl["args"]
        self._recipe = recipe
        self._data = data
        self._reward = reward
        self._failure: Exception | None = None
        self._back_to_start: Callable[[], None] = random_states()
        self._rollout: Rollout | None = None
        self._out = Path(args.output_dir)
        self._monitor = Monitor(self._out, recipe.monitor)
        self._group: int = args.num_generations
        self._cap: int = args.max_completion_length
        self._started = time.monotonic()
        trl["reward_funcs"] = self.composite
        super().__init__(train_dataset=data.rows, **trl)
        self.remove_callback(PrinterCallback)  # `_show` says more

    async def composite(self, **columns: Any) -> list[float | None]:
        """Score a batch; a failure is kept until every process knows of it.

        TRL's overlong punishment is no function beside this one: where the judge failed, it would
        be all of the reward.
        """
        try:
            totals = await self._reward(**columns)
        except Exception as error:  # noqa: BLE001 (raised by `_calculate_rewards`)
            self._failure = error
            return [None] * len(columns["completions"])
        if self._recipe.overlong_buffer is None:
            return totals
        punish = get_soft_overlong_punishment(self._cap, self._recipe.overlong_buffer)
        punished = zip(totals, punish(columns["completion_ids"]), strict=True)
        return [None if total is None else total + loss for total, loss in punished]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step, show and watch it; at a sign of hacking all processes stop, if they should.

        TRL has written the step's completions by then, and a stop saves a checkpoint first.
        """
        super().log(logs, start_time)
        if "reward" not in logs:
            return
        must_stop = False
        if self.accelerator.is_main_process:
            self._show(logs)
            must_stop = self._monitor.watch(self.state.global_step, logs)
            write_training_report(self._out)
        if self._gathered(float(must_stop)).any():
            self.control.should_training_stop = self.control.should_save = True

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Log numbers as they are, past what TRL adds to a step of its own."""
        Trainer.log(self, dict(scores))
        self._show(scores)

    def _show(self, logs: Mapping[str, float]) -> None:
        _LOG.info(
            "rollout %d of %d, %.0f s: %s",
            self.state.global_step // self._recipe.updates_per_rollout,
            self.state.max_steps // self._recipe.updates_per_rollout,
            time.monotonic() - self._started,
            ", ".join(f"{name} {logs[key]:.3g}" for key, name in _SHOWN.items() if key in logs),
        )

    def _generate_and_score_completions(
        self, inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor | Any]:
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
        if self._rollout is None:
            return super()._generate(prompts)
        return tuple(self._rollout.generated)

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        if self._rollout is not None:
            return torch.as_tensor(self.accelerator.gather(self._rollout.rewards))
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._gathered(float(self._failure is not None)).any():
            self._stop()
        return torch.as_tensor(rewards)

    def _stop(self) -> None:
        """Save where this rollout began, in every process, and raise."""
        if self.state.global_step:
            self._back_to_start()
            self._save_checkpoint(self.model, trial=None)  # type: ignore[no-untyped-call]
        raise self._failure or ServerError(
            "another process could not score its completions", hint="see what that process says"
        )

    def _informative_rollout(self, rows: list[dict[str, Any]], *, rule: DynamicSampling) -> Rollout:
        """Complete the rows, and draw others for the groups that teach nothing."""
        kept = self._complete(rows)
        as_drawn = float(self.accelerator.gather(kept.rewards).sum(dim=1).nanmean())
        metrics = self._metrics["train"]
        # What else is logged of completions stays that of the first round: the policy as it is.
        lengths = {name: len(values) for name, values in metrics.items()}
        useful = kept.informative(rule)
        lacking = [at for at, is_useful in enumerate(useful) if not is_useful]
        share_first, num_drawn = self._gathered(len(lacking) / len(useful)), 0
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
        for name, value in {
            "uninformative_first": float(share_first.mean()),
            "uninformative_kept": float(self._gathered(len(lacking) / len(useful)).mean()),
            "drawn": float(num_drawn),
            "reward_as_drawn": as_drawn,
        }.items():
            metrics[f"dynamic_sampling/{name}"].append(value)
        return kept

    def _complete(self, rows: list[dict[str, Any]]) -> Rollout:
        """Write and reward a completion of each row, in every process at the same time."""
        prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
        generated = list(super()._generate(prompts))
        self._pending_extra_logs.clear()
        everywhere = self._calculate_rewards(rows, prompts, generated[3], generated[1])
        own = slice(*(len(rows) * (self.accelerator.process_index + end) for end in (0, 1)))
        logged = {name: list(values) for name, values in self._pending_extra_logs.items()}
        self._pending_extra_logs.clear()
        return Rollout(
            rows=rows,
            generated=generated,
            rewards=everywhere[own].clone(),
            logged=logged,
            group=self._group,
        )

    def _drawn(self, count: int, *, turn: int) -> list[dict[str, Any]]:
        """Draw rows by nothing but the place in the training: a resumed one draws the same."""
        rows: Any = self._data.rows
        where = (self.args.seed, self.state.global_step, turn, self.accelerator.process_index)
        chosen = random.Random(repr(where))  # noqa: S311 (training, not secrets)
        drawn = [rows[chosen.randrange(len(rows))] for _ in range(count)]
        return self._data.with_images([row for row in drawn for _ in range(self._group)])

    def _gathered(self, value: float) -> torch.Tensor:
        return torch.as_tensor(
            self.accelerator.gather(torch.tensor([value], device=self.accelerator.device))
        )


def random_states() -> Callable[[], None]:
    """Note the random states; what is returned goes back to them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the trainer's own)
    cpu, gpus = torch.get_rng_state(), torch.cuda.get_rng_state_all()

    def go_back() -> None:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        torch.cuda.set_rng_state_all(gpus)

    return go_back
