"""Scores with the judge's errors taken out, by people's labels on some of the run's own answers.

Prediction-powered inference: the judge's scores of all answers, moved by how far people differ
from it on the labelled ones. The labels must be a random draw, as `judge-check --sheet` makes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from medix_eval.records import Frozen
from medix_eval.results.intervals import (
    Clusters,
    Floats,
    average_stderr,
    clustered,
    normal_quantile,
    t_quantile,
)

MIN_LABELS = 20
"""With fewer labels than this a task stays uncalibrated."""
_HOPELESS = 0.1
"""A judge whose hits and false alarms differ by less tells next to nothing."""


class Corrected(Frozen):
    """A score with the judge's errors taken out, by people's labels on part of its answers."""

    score: float
    interval: tuple[float, float]
    """Holds the error of sampling and the error of the judge."""
    method: str
    n_labels: int
    judge_accuracy: float | None
    """Share of the labelled answers on which the judge says the same; null if graded."""
    rogan_gladen: float | None = None
    """The simple form: the score that fits the judge's two error rates; null if graded."""
    rogan_gladen_interval: tuple[float, float] | None = None


class LabelledScore(NamedTuple):
    """One scored sample, as a correction sees it."""

    score: float
    label: float | None
    is_read: bool
    """Whether a judge had to read it; an empty answer is wrong without any judge."""
    cluster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A corrected score, and what an average over several tasks needs of it."""

    corrected: Corrected
    parts: Clusters
    """What each sample adds to the corrected score."""
    unseen: float
    """Variance for the errors that so few labels may have missed."""


def correct(samples: Sequence[LabelledScore]) -> Correction | None:
    """Correct one task's score; None where there are too few labels."""
    scores = np.array([one.score for one in samples])
    is_read = np.array([one.is_read for one in samples], dtype=bool)
    labels = np.array(
        [np.nan if one.label is None or not one.is_read else one.label for one in samples]
    )
    known = ~np.isnan(labels)
    if known.sum() < MIN_LABELS:
        return None
    share = known.sum() / is_read.sum()
    trust = _trust(scores[known], labels[known])
    errors = labels[known] - trust * scores[known]
    parts = np.where(is_read, trust * scores + errors.mean(), 0.0)
    parts[known] += (errors - errors.mean()) / share
    clusters = clustered(parts, [one.cluster for one in samples])
    # One error more than was seen: twenty labels without one do not prove a perfect judge.
    unseen = (float(is_read.mean()) / known.sum()) ** 2 if share < 1 else 0.0
    stderr = math.sqrt((clusters.stderr or 0.0) ** 2 + unseen)
    labelled = {one.cluster for one, has in zip(samples, known, strict=True) if has}
    half = t_quantile(max(len(labelled) - 1, 1)) * stderr
    is_binary = bool(np.isin(np.concatenate((scores[is_read], labels[known])), (0.0, 1.0)).all())
    simple = _rogan_gladen(samples, labels) if is_binary else None
    agree = float((scores[known] == labels[known]).mean())
    return Correction(
        corrected=Corrected(
            score=_clipped(clusters.mean),
            interval=(_clipped(clusters.mean - half), _clipped(clusters.mean + half)),
            method="prediction-powered inference",
            n_labels=int(known.sum()),
            judge_accuracy=agree if is_binary else None,
            rogan_gladen=_clipped(simple[0]) if simple else None,
            rogan_gladen_interval=_around(*simple) if simple else None,
        ),
        parts=clusters,
        unseen=unseen,
    )


def correct_average(
    tasks: Sequence[Correction],
) -> tuple[float, tuple[float, float]]:
    """Return the corrected average of several tasks and its interval."""
    mean = math.fsum(task.parts.mean for task in tasks) / len(tasks)
    unseen = math.fsum(task.unseen for task in tasks) / len(tasks) ** 2
    stderr = average_stderr([task.parts for task in tasks]) or 0.0
    return _clipped(mean), _around(mean, math.sqrt(stderr**2 + unseen))


def _trust(scores: Floats, labels: Floats) -> float:
    """Return how much weight the judge's scores deserve: none, if they say nothing of the labels.

    The slope of labels on scores makes the estimate as sure as it can be (PPI++).
    """
    spread = float(np.var(scores))
    if spread == 0:
        return 1.0
    slope = float(np.mean((scores - scores.mean()) * (labels - labels.mean()))) / spread
    return min(1.0, max(0.0, slope))


def _rogan_gladen(samples: Sequence[LabelledScore], labels: Floats) -> tuple[float, float] | None:
    """Return the score that fits the judge's two error rates, and its standard error."""
    read = [(one, label) for one, label in zip(samples, labels, strict=True) if one.is_read]
    given = [(one.score, float(label)) for one, label in read if not math.isnan(label)]
    hits = [score for score, label in given if label == 1]
    alarms = [score for score, label in given if label == 0]
    if not hits or not alarms:
        return None
    hit, alarm = np.mean(hits), np.mean(alarms)
    power = float(hit - alarm)
    if power < _HOPELESS:
        return None
    judged = clustered([one.score for one, _ in read], [one.cluster for one, _ in read])
    right = (judged.mean - float(alarm)) / power
    variance = (
        (judged.stderr or 0.0) ** 2
        + right**2 * float(hit * (1 - hit)) / len(hits)
        + (1 - right) ** 2 * float(alarm * (1 - alarm)) / len(alarms)
    ) / power**2
    share = len(read) / len(samples)
    return share * right, share * math.sqrt(variance)


def _around(centre: float, stderr: float) -> tuple[float, float]:
    half = normal_quantile() * stderr
    return _clipped(centre - half), _clipped(centre + half)


def _clipped(value: float) -> float:
    return min(1.0, max(0.0, value))
