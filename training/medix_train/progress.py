"""One line for each rollout, in place of everything that TRL knows; that stands in the logs."""

from __future__ import annotations

import logging
import time
from typing import Any

from medix_eval.torchvision_cpu import declare_missing_operators

declare_missing_operators()

from transformers import (  # noqa: E402  # needs the operators
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

__all__ = ["PrinterCallback", "RolloutLines"]

_LOG = logging.getLogger(__name__)
_SHOWN = {
    "reward": "reward",
    "reward_parts/judge": "judge",
    "reward_parts/format": "format",
    "completions/mean_length": "tokens",
    "evaluation/score": "evaluation",
}


class RolloutLines(TrainerCallback):
    """Logs how far a training is and what it earns."""

    def __init__(self, *, updates_per_rollout: int) -> None:
        self._updates = updates_per_rollout
        self._started = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Show the few numbers that say whether it goes well."""
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
