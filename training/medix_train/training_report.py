"""`training.html`: how a training went, every part of the reward and sign of hacking a curve.

The page is drawn from `monitor.jsonl` alone, so it can be made again, and while training goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medix_eval.errors import ConfigError
from medix_eval.report.chart import curve
from medix_eval.report.page import render
from medix_eval.storage.jsonl import write_text
from medix_train.monitor import SIGNS, read_steps

_CURVES = {
    "reward": "Reward",
    "reward_parts/judge": "Judge says YES",
    "reward_parts/embedding": "Embedding near enough",
    "reward_parts/similarity": "Similarity",
    "reward_parts/format": "Format",
    "reward_parts/modality": "Modality",
    "reward_std": "Spread of the reward",
    "frac_reward_zero_std": "Groups that teach nothing",
    "completions/mean_length": "Tokens a completion",
    "entropy": "Entropy",
    "loss": "Loss",
    "grad_norm": "Norm of the gradient",
    "reward_parts/seconds": "Seconds of a reward",
    "reward_parts/judge_calls": "Judge calls",
    "step_time": "Seconds of a step",
}


def write_training_report(out: Path) -> Path:
    """Write the page of a training's folder. Raises `ConfigError` where nothing was logged."""
    steps = read_steps(out)
    if not steps:
        raise ConfigError(f"{out} holds no training that logged a step")
    said = [(step["step"], alarm) for step in steps for alarm in step["alarms"]]
    first = {alarm.rsplit(" ", 1)[-1]: (step, alarm) for step, alarm in reversed(said)}
    page = render(
        "training.html.jinja",
        title=out.resolve().name,
        num_steps=steps[-1]["step"],
        parts=[_drawn(steps, name, title) for name, title in _CURVES.items()],
        signs=[_drawn(steps, one.name, one.meaning, one.limit) for one in SIGNS],
        alarms=sorted(first.values()),
    )
    path = out / "training.html"
    write_text(path, page)
    return path


def _drawn(
    steps: Sequence[Mapping[str, Any]], name: str, title: str, limit: float | None = None
) -> Mapping[str, Any] | None:
    """Draw one number, and say what it is now; None where no step has it."""
    seen = [(one["step"], one[name]) for one in steps if isinstance(one.get(name), int | float)]
    seen = [(step, value) for step, value in seen if math.isfinite(value)]
    if not seen:
        return None
    title, last = title[0].upper() + title[1:], f"{seen[-1][1]:.3g}"
    said = f"highest {max(value for _, value in seen):.3g}"
    said += "" if limit is None else f", limit {limit:g}"
    chart = curve(seen, title=f"{title}: now {last}, {said}", limit=limit)
    return {"name": name, "title": title, "chart": chart, "last": last, "said": said}
