"""The monitor as transformers calls it; every process stops at the same step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medix_eval.torchvision_cpu import declare_missing_operators
from medix_train.monitor import Monitor, MonitorSettings
from medix_train.training_report import write_training_report

declare_missing_operators()

from accelerate.utils import (  # type: ignore[import-untyped]  # noqa: E402  # needs the operators
    broadcast_object_list,
)
from transformers import (  # noqa: E402
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)


class Watching(TrainerCallback):
    """Looks at each step once its completions are on disk, which is after its log."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._monitor: Monitor | None = None
        self._logged: dict[int, dict[str, Any]] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Keep what a step logged; numbers of an evaluation belong to no completions."""
        if logs and "reward" in logs:
            self._logged[state.global_step] = dict(logs)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Look at what has been logged since; a stop saves a checkpoint first."""
        if not self._logged:
            return
        must_stop = False
        if state.is_world_process_zero:
            out = Path(args.output_dir or ".")
            self._monitor = self._monitor or Monitor(out, self._settings)
            found = [self._monitor.watch(step, logs) for step, logs in self._logged.items()]
            must_stop = any(found)
            write_training_report(out)
        self._logged.clear()
        if broadcast_object_list([must_stop])[0]:
            control.should_training_stop = control.should_save = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Look at the last step."""
        self.on_step_begin(args, state, control)
