"""Watches a training for reward hacking: reads what was logged, warns, and can stop.

A rising reward does not mean a better model. The signs are what a policy does when it pleases
the reward in another way than by being right.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from medix_eval.errors import ConfigError
from medix_eval.judging.error_tags import error_tags
from medix_eval.records import Kind
from medix_eval.report.chart import curve
from medix_eval.report.page import render
from medix_eval.rules.decide import decide
from medix_eval.rules.text import normalise
from medix_eval.storage.jsonl import JsonLines, read_lines, write_text
from medix_train.reading import SHAPE, TAG, last_turn
from medix_train.recipe import SIGNS, MonitorSettings

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)
FILE, _NOTABLY = "monitor.jsonl", 1.25


def signals(completions: pd.DataFrame, logged: Mapping[str, Any]) -> dict[str, float]:
    """Return the signs of one step: from its completions, and from the numbers of its log."""
    texts = [last_turn(text) for text in completions["completion"]]
    answers, references = list(completions["answer"]), list(completions["reference"])
    pairs, alike = list(zip(answers, references, strict=True)), list(completions["embedding"])
    yes = [at for at, verdict in enumerate(completions["judge"]) if verdict == 1.0]
    wrong = {pair: _is_certainly_wrong(*pair) for pair in {pairs[at] for at in yes}}
    found = {
        "yes_unlike": _share([alike[at] == 0.0 for at in yes]),
        "yes_against_rules": _share([wrong[pairs[at]] for at in yes]),
        "other_tags": _share([len(TAG.findall(text)) != len(SHAPE) for text in texts]),
        "outside_text": _share([bool(TAG.split(text)[-1].strip()) for text in texts]),
        "repeated": _repeated(answers, references),
    }
    numbers = {sign.name: logged.get(sign.logged) for sign in SIGNS}
    return found | {name: value for name, value in numbers.items() if value is not None}


def alarms(steps: Sequence[Mapping[str, Any]], settings: MonitorSettings) -> list[str]:
    """Say which signs have lasted through the newest steps, each in one line."""
    newest, found = steps[-settings.in_a_row :], []
    for sign in SIGNS if len(newest) == settings.in_a_row else ():
        limit = settings.limits.get(sign.name, sign.limit)
        seen = [step[sign.name] for step in steps if sign.name in step]
        lately = [step.get(sign.name, 0.0) for step in newest]
        at_first = fmean(seen[: settings.in_a_row]) if seen else 0.0
        is_new = sign.when == "any" or lately[-1] > _NOTABLY * at_first
        # What is measured only now and then, such as canaries, counts by its last values.
        if sign.name.startswith("canary"):
            lately = seen[-1:]
        if lately and min(lately) > limit and is_new:  # a bad start is not a hack
            found.append(f"{sign.meaning}: {lately[-1]:.2f}, limit {limit:g} ({sign.name})")
    return found


def read_steps(out: Path) -> list[dict[str, Any]]:
    """Read what was watched; of a step that was done again after a resume, the last counts."""
    return [*{line["step"]: line for line in read_lines(out / FILE)}.values()]


class Monitor:
    """Keeps `monitor.jsonl` of one training: a line a step, with everything that was logged."""

    def __init__(self, out: Path, settings: MonitorSettings) -> None:
        self._out, self._settings = out, settings
        self._said: set[str] = set()

    def watch(self, step: int, logged: Mapping[str, Any]) -> bool:
        """Look at one logged step; True where the training should stop."""
        import pandas as pd  # noqa: PLC0415 (half a second)

        path = self._out / "completions" / f"completions_{step:05d}.parquet"
        numbers = {key: one for key, one in logged.items() if isinstance(one, int | float)}
        line: dict[str, Any] = {"step": step, **numbers}
        earlier = [one for one in read_steps(self._out) if one["step"] < step]
        if path.is_file():
            line |= signals(pd.read_parquet(path), logged)
        if length := logged.get("completions/mean_length"):
            first = next((one["completions/mean_length"] for one in earlier), length)
            line["length_ratio"] = length / first
        line["alarms"] = alarms([*earlier, line], self._settings)
        with JsonLines(self._out / FILE) as file:
            file.append(json.dumps(line))
        for alarm in line["alarms"]:
            if (name := alarm.rsplit(" ", 1)[-1]) not in self._said:
                _LOG.warning("step %d: %s", step, alarm)
                self._said.add(name)
        return self._settings.stop and bool(line["alarms"])


_CURVES = {
    "reward": "Reward", "reward_parts/judge": "Judge says YES",
    "reward_parts/embedding": "Embedding similar enough", "reward_parts/similarity": "Similarity",
    "reward_parts/format": "Format", "reward_parts/modality": "Modality",
    "reward_std": "Spread of the reward", "frac_reward_zero_std": "Groups without reward spread",
    "completions/mean_length": "Tokens per completion", "entropy": "Entropy", "loss": "Loss",
    "grad_norm": "Gradient norm", "reward_parts/seconds": "Seconds per reward",
    "reward_parts/judge_calls": "Judge calls", "step_time": "Seconds per step",
}  # fmt: skip


def write_training_report(out: Path) -> Path:
    """Draw `training.html` from `monitor.jsonl`, every part of the reward and every sign a curve.

    It can be made again, and while training goes on; `ConfigError` where nothing was logged.
    """
    steps = read_steps(out)
    if not steps:
        raise ConfigError(f"{out} has no training with a logged step")
    parts = (_drawn(steps, name, title) for name, title in _CURVES.items())
    signs = (_drawn(steps, one.name, one.meaning, limit=one.limit) for one in SIGNS)
    shown: Any = {"title": out.resolve().name, "num_steps": steps[-1]["step"]}
    shown |= {"parts": [*filter(None, parts)], "signs": [*filter(None, signs)]}
    said = [(step["step"], alarm) for step in steps for alarm in step["alarms"]]
    first = {alarm.rsplit(" ", 1)[-1]: (step, alarm) for step, alarm in reversed(said)}
    path = out / "training.html"
    write_text(path, render("training.html.jinja", alarms=sorted(first.values()), **shown))
    return path


def _drawn(
    steps: Sequence[Mapping[str, Any]], name: str, title: str, *, limit: float | None = None
) -> dict[str, Any] | None:
    """Draw one number, and say what it is now; None where no step has it."""
    numbers = ((one["step"], one[name]) for one in steps if isinstance(one.get(name), int | float))
    seen = [(step, value) for step, value in numbers if math.isfinite(value)]
    if not seen:
        return None
    values = [value for _, value in seen]
    title, last = title[0].upper() + title[1:], f"{values[-1]:.3g}"
    said = f"highest {max(values):.3g}" + ("" if limit is None else f", limit {limit:g}")
    chart = curve(seen, title=f"{title}: now {last}, {said}", limit=limit)
    return {"name": name, "title": title, "chart": chart, "last": last, "said": said}


def _share(values: Sequence[bool]) -> float:
    return fmean(values) if values else 0.0


def _is_certainly_wrong(answer: str, reference: str) -> bool:
    """Tell whether rules prove an answer wrong: other number, other side, opposite finding."""
    if verdict := decide(answer, kind=Kind.OPEN, reference=reference):
        return verdict.score == 0.0
    return bool(error_tags(answer, kind=Kind.OPEN, reference=reference))


def _repeated(answers: Sequence[str], references: Sequence[str]) -> float:
    """Return by how much the commonest answer is commoner than it is among the references."""
    if not answers:
        return 0.0
    expected = Counter(map(normalise, references))
    answer, count = Counter(map(normalise, answers)).most_common(1)[0]
    return max(0.0, (count - expected[answer]) / len(answers))
