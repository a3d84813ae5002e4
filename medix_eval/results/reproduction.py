"""Compare a run with published numbers: what agrees, what does not, which setting differs.

Only figures that were scored the published way (an LLM judge over the same tasks) can agree or
disagree. Others of the same model were scored in other ways; they are shown and never counted.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from medix_eval.errors import ConfigError, first_error
from medix_eval.judging.protocol import Protocol
from medix_eval.records import Frozen
from medix_eval.results.store import JudgedRun
from medix_eval.storage.digests import differences

_PUBLISHED_WAY = "LLM judge"
"""How the metric of a figure begins or is qualified that the published evaluation gave."""
_OVERALL = "Overall-17"
_NAMES = {
    _OVERALL: "medix",
    "USMLE-SA": "usmle_sa",
    "MedQA": "medqa",
    "MedMCQA": "medmcqa",
    "PubMedQA": "pubmedqa",
    "MMLU-Med": "mmlu_medical",
    "VQA-RAD": "rad_vqa",
    "VQA-RAD (all)": "rad_vqa",
    "SLAKE": "slake_vqa",
    "SLAKE (all)": "slake_vqa",
    "PathVQA": "path_vqa",
    "PMC-VQA": "pmc_vqa",
}
"""Our task or group for a published benchmark, where there is one."""
State = Literal["agrees", "differs", "scored otherwise", "not measured"]


class Figure(Frozen):
    """One line of `published_results.csv`."""

    model: str
    params: str
    benchmark: str
    metric: str
    score: str
    """As printed; how many digits it has says how far it was rounded."""
    source: str

    @property
    def name(self) -> str:
        """Model and size."""
        return f"{self.model} {self.params}"

    @property
    def value(self) -> float:
        """The score, in [0, 1]."""
        return float(self.score) / 100

    @property
    def rounding(self) -> float:
        """Half of the last digit, in [0, 1]."""
        return float(0.5 * 10.0 ** -len(self.score.partition(".")[2])) / 100


class Finding(Frozen):
    """One published figure and the measured one."""

    figure: Figure
    ours: str | None
    """Our task or group."""
    measured: float | None
    interval: tuple[float, float] | None
    state: State


class Reproduction(Frozen):
    """What `reproduce --json` prints."""

    schema_version: int = 1
    model: str
    run: str
    synthetic: bool
    findings: tuple[Finding, ...]
    settings: tuple[str, ...]
    """Known differences from the published evaluation."""

    @property
    def is_reproduced(self) -> bool:
        """Whether something could be compared and all of it agrees."""
        states = {finding.state for finding in self.findings}
        return "agrees" in states and "differs" not in states and not self.synthetic


def load_figures(path: Path) -> list[Figure]:
    """Read the published figures that are shares."""
    return [figure for figure in load_published(path) if "%" in figure.metric]


def load_published(path: Path) -> list[Figure]:
    """Read the table of published figures. Raises `ConfigError` naming the column at fault."""
    with path.open(encoding="utf-8", newline="") as file:
        try:
            return [Figure.model_validate(row) for row in csv.DictReader(file)]
        except ValidationError as error:
            raise ConfigError(f"{path}: {first_error(error)}") from error


def figures_of(figures: Sequence[Figure], model: str) -> list[Figure]:
    """Return what is published of a model, by its published or its hub name.

    >>> from medix_eval.storage.bundled import bundled
    >>> figures = load_figures(bundled("leaderboard") / "published_results.csv")
    >>> {one.name for one in figures_of(figures, "MBZUAI/MediX-R1-8B@0a1b2c3")}
    {'MediX-R1 8B'}
    """
    wanted = _plain(model.rpartition("/")[2].partition("@")[0])
    found = [figure for figure in figures if _plain(figure.name) == wanted]
    if not found:
        ways = dict.fromkeys(one.name for one in figures if _PUBLISHED_WAY in one.metric)
        hint = f"the published evaluation has numbers of {', '.join(ways)}; choose one with --as"
        raise ConfigError(f"no published numbers for {model!r}", hint=hint)
    return found


def reproduce(figures: Sequence[Figure], run: JudgedRun, published: Protocol) -> Reproduction:
    """Compare a run with the published figures of one model."""
    findings = tuple(_finding(figure, run) for figure in figures)
    return Reproduction(
        model=figures[0].name,
        run=str(run.place),
        synthetic=run.scores.is_synthetic(*(one.ours for one in findings if one.ours)),
        findings=findings,
        settings=tuple(_settings(run, published)),
    )


def _finding(figure: Figure, run: JudgedRun) -> Finding:
    name = _NAMES.get(figure.benchmark)
    twin = f"{name}_compat"
    name = twin if twin in run.scores.tasks else name
    part = run.scores.tasks.get(name or "") or run.scores.groups.get(name or "")
    measured, interval = (part.score, part.interval) if part else (None, None)
    return Finding(
        figure=figure,
        ours=name,
        measured=measured,
        interval=interval,
        state=_state(figure, measured, interval),
    )


def _state(figure: Figure, measured: float | None, interval: tuple[float, float] | None) -> State:
    if _PUBLISHED_WAY not in figure.metric:
        return "scored otherwise"
    if measured is None or interval is None:
        return "not measured"
    low, high = interval[0] - figure.rounding, interval[1] + figure.rounding
    return "agrees" if low <= figure.value <= high else "differs"


def _settings(run: JudgedRun, published: Protocol) -> list[str]:
    """Name what differs from the published evaluation; how ours is said after `now`."""
    generation = {key: run.manifest.generation.get(key) for key in published.generation_settings()}
    found = differences(published.generation_settings(), generation)
    judging = run.judging.settings
    for key, value in published.judging_settings().items():
        found += differences(value, judging.get(key), at=f"judging.{key}")
    judges = [str(judge["id"]) for judge in run.scores.judges]
    wanted = getattr(published.judge, "model", None)
    if not any(str(wanted) in judge for judge in judges):
        found.append(f"judge: {wanted}, now {', '.join(judges) or 'rules alone'}")
    prompts = set(published.judging_settings()["prompts"].values())
    if prompts & set(judging.get("prompts", {}).values()):
        found.append("the judge's prompts: the published ones, now medix-eval's own")
    for name, task in run.scores.tasks.items():
        if task.limit is not None:
            found.append(f"{name}: the complete task, now {task.n} of its samples")
    unpinned = [n for n in run.judging.tasks if not run.entry(n).source.get("revision")]
    if unpinned:
        found.append(f"dataset commits: unknown for {', '.join(unpinned)}")
    return found


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
