"""`training.html`: how a training went, every part of the reward and sign of hacking a curve.

The page is drawn from `monitor.jsonl` alone, so it can be made again, and while training goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medix_eval.errors import ConfigError
from medix_eval.report.page import render
from medix_eval.storage.jsonl import write_text
from medix_train.monitor import SIGNS, read_steps

_WIDTH, _HEIGHT = 300.0, 90.0
_MOST_POINTS = 300
_PARTS = "reward_parts/"
_CURVES = (
    ("reward", "Reward"),
    (f"{_PARTS}judge", "Judge says YES"),
    (f"{_PARTS}embedding", "Embedding near enough"),
    (f"{_PARTS}similarity", "Similarity"),
    (f"{_PARTS}format", "Format"),
    (f"{_PARTS}modality", "Modality"),
    ("reward_std", "Spread of the reward"),
    ("frac_reward_zero_std", "Groups that teach nothing"),
    ("completions/mean_length", "Tokens a completion"),
    ("entropy", "Entropy"),
    ("loss", "Loss"),
    ("grad_norm", "Norm of the gradient"),
    (f"{_PARTS}seconds", "Seconds of a reward"),
    (f"{_PARTS}judge_calls", "Judge calls"),
    ("step_time", "Seconds of a step"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One number over the steps, drawn."""

    title: str
    name: str
    points: str
    lowest: float
    highest: float
    """Of the values; the limit may stand above."""
    last: float
    limit_y: float | None = None
    limit: float | None = None


def write_training_report(out: Path) -> Path:
    """Write the page of a training's folder. Raises `ConfigError` where nothing was logged."""
    steps = read_steps(out)
    if not steps:
        raise ConfigError(f"{out} holds no training that logged a step")
    parts = [curve(steps, name, title=title) for name, title in _CURVES]
    signs = [curve(steps, sign.name, title=sign.meaning, limit=sign.limit) for sign in SIGNS]
    said = [(step["step"], alarm) for step in steps for alarm in step["alarms"]]
    first = {alarm.rsplit(" ", 1)[-1]: (step, alarm) for step, alarm in reversed(said)}
    page = render(
        "training.html.jinja",
        title=out.resolve().name,
        num_steps=steps[-1]["step"],
        parts=[drawn for drawn in parts if drawn],
        signs=[drawn for drawn in signs if drawn],
        alarms=sorted(first.values()),
        width=_WIDTH,
        height=_HEIGHT,
    )
    path = out / "training.html"
    write_text(path, page)
    return path


def curve(
    steps: Sequence[Mapping[str, Any]], name: str, *, title: str, limit: float | None = None
) -> Curve | None:
    """Draw one number; None where no step has it."""
    seen = [(step["step"], step[name]) for step in steps if _is_number(step.get(name))]
    if not seen:
        return None
    values = [value for _, value in seen]
    lowest, top = min(0.0, *values), max(*values, limit or 0.0, 1e-9)
    first, last = seen[0][0], seen[-1][0]

    def y(value: float) -> float:
        return float(_HEIGHT * (1 - (value - lowest) / (top - lowest)))

    shown = seen[:: math.ceil(len(seen) / _MOST_POINTS)]
    points = [f"{_WIDTH * (at - first) / max(last - first, 1):.1f},{y(v):.1f}" for at, v in shown]
    return Curve(
        title=title[0].upper() + title[1:],
        name=name,
        points=" ".join(points),
        lowest=lowest,
        highest=max(values),
        last=values[-1],
        limit=limit,
        limit_y=None if limit is None else y(limit),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
