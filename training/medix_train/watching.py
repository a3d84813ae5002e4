"""What is said of a training while it runs: a line for each rollout, and the monitor's look.

What else TRL knows of a step stands in the logs.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from medix_eval.torchvision_cpu import declare_missing_operators
from medix_train.monitor import Monitor, MonitorSettings
from medix_train.training_report import write_training_report

declare_missing_operators()

from accelerate.utils import (  # type: ignore[import-untyped]  # noqa: E402  # needs the operators
    broadcast_object_list,
)
from transformers import TrainerCallback, TrainerControl, TrainerState  # noqa: E402

_LOG = logging.getLogger(__name__)
_SHOWN = {
    "reward": "reward",
    "reward_parts/judge": "judge",
    "reward_parts/format": "format",
    "completions/mean_length": "tokens",
    "evaluation/score": "evaluation",
}


class Watching(TrainerCallback):
    """Shows each log, and looks at a step once its completions are on disk, which is later.

    Every process stops at the same step.
    """

    def __init__(self, settings: MonitorSettings, *, updates_per_rollout: int = 1) -> None:
        self._settings = settings
        self._updates = updates_per_rollout
        self._started = time.monotonic()
        self._monitor: Monitor | None = None
        self._logged: dict[int, dict[str, Any]] = {}

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Show the few numbers that say whether it goes well, and keep what a step logged."""
        logged = logs or {}
        shown = [f"{name} {logged[key]:.3g}" for key, name in _SHOWN.items() if key in logged]
        if shown and state.is_world_process_zero:
            _LOG.info(
                "rollout %d of %d, %.0f s: %s",
                state.global_step // self._updates,
                state.max_steps // self._updates,
                time.monotonic() - self._started,
                ", ".join(shown),
            )
        if "reward" in logged:  # numbers of an evaluation belong to no completions
            self._logged[state.global_step] = dict(logged)

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Look at what has been logged since; a stop saves a checkpoint first."""
        if not self._logged:
            return
        must_stop = False
        if state.is_world_process_zero:
            out = Path(args.output_dir)
            self._monitor = self._monitor or Monitor(out, self._settings)
            found = [self._monitor.watch(step, logs) for step, logs in self._logged.items()]
            must_stop = any(found)
            write_training_report(out)
        self._logged.clear()
        if broadcast_object_list([must_stop])[0]:
            control.should_training_stop = control.should_save = True

    on_train_end = on_step_begin
