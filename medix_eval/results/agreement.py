"""How far several raters of the same answers agree, beyond what chance would give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import median
from typing import Literal

import numpy as np

from medix_eval.records import Frozen
from medix_eval.results.statistics import Floats

_PAIR = 2


class Agreement(Frozen):
    """Agreement of raters; null where it is not defined, as when all gave the same to all."""

    raters: tuple[str, ...]
    n: int
    """Samples that every one of them rated."""
    agree: float | None
    """Share of these on which all say the same; the rest is the flip rate."""
    cohen_kappa: float | None
    """Mean over the pairs of raters; graded ratings with squared distances as weights."""
    fleiss_kappa: float | None
    krippendorff_alpha: float | None
    """Over all samples with two ratings or more."""


def agreement(samples: Iterable[Mapping[str, float | None]], *, graded: bool) -> Agreement | None:
    """Compare ratings by rater; None where fewer than two raters were asked about every sample.

    A tie-breaker that is asked only where others disagree would make any agreement look worse
    than it is, so raters that were not asked about every sample are left out.
    """
    rated = [sample for sample in samples if sample]
    raters = tuple(sorted(set.intersection(*(set(one) for one in rated)))) if rated else ()
    if len(raters) < _PAIR:
        return None
    table = np.array([[_number(one[rater]) for rater in raters] for one in rated])
    whole = table[~np.isnan(table).any(axis=1)]
    pairs = [
        cohen_kappa(whole[:, first], whole[:, second], graded=graded)
        for first, second in combinations(range(len(raters)), _PAIR)
    ]
    known = [pair for pair in pairs if pair is not None]
    return Agreement(
        raters=raters,
        n=len(whole),
        agree=float((whole == whole[:, :1]).all(axis=1).mean()) if len(whole) else None,
        cohen_kappa=float(np.mean(known)) if len(known) == len(pairs) else None,
        fleiss_kappa=fleiss_kappa(whole),
        krippendorff_alpha=krippendorff_alpha(table, graded=graded),
    )


def ratings(votes: Iterable[tuple[str, str, float | None]]) -> dict[str, float | None]:
    """Return what each rater said, from judge, prompt and points of each vote of one sample.

    The raters of a jury are its judges, those of one judge its prompts. A judge with several votes
    says what the middle one says, and nothing where they are split.
    """
    listed = list(votes)
    is_jury = len({judge for judge, _, _ in listed}) > 1
    by_rater: dict[str, list[float]] = {}
    for judge, prompt, points in listed:
        given = by_rater.setdefault(judge if is_jury else prompt, [])
        given += [] if points is None else [points]
    return {rater: _middle(given) for rater, given in by_rater.items()}


def cohen_kappa(first: Floats, second: Floats, *, graded: bool = False) -> float | None:
    """Return Cohen's kappa of two raters, weighted by squared distance if the scale is graded."""
    values = np.unique(np.concatenate((first, second)))
    if len(values) < _PAIR:
        return None
    far = np.abs(values[:, None] - values[None, :])
    weights = far**2 if graded else (far > 0).astype(np.float64)
    shares = np.stack([(first == value).mean() for value in values])
    others = np.stack([(second == value).mean() for value in values])
    distance = (first - second) ** 2 if graded else first != second
    by_chance = float(shares @ weights @ others)
    return 1 - float(distance.mean()) / by_chance if by_chance > 0 else None


def fleiss_kappa(table: Floats) -> float | None:
    """Return Fleiss' kappa; a row per sample, a column per rater, none missing."""
    values = np.unique(table)
    if len(values) < _PAIR:
        return None
    counts = np.stack([(table == value).sum(axis=1) for value in values], axis=1)
    raters = table.shape[1]
    agree = ((counts**2).sum(axis=1) - raters) / (raters * (raters - 1))
    by_chance = float((counts.mean(axis=0) ** 2).sum() / raters**2)
    return (float(agree.mean()) - by_chance) / (1 - by_chance)


def krippendorff_alpha(table: Floats, *, graded: bool) -> float | None:
    """Return Krippendorff's alpha; a missing rating is NaN."""
    import krippendorff  # noqa: PLC0415 (only where several raters are compared)

    usable = table[(~np.isnan(table)).sum(axis=1) >= _PAIR]
    if len(np.unique(usable[~np.isnan(usable)])) < _PAIR:
        return None
    level: Literal["interval", "nominal"] = "interval" if graded else "nominal"
    return float(krippendorff.alpha(reliability_data=usable.T, level_of_measurement=level))


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _middle(given: Sequence[float]) -> float | None:
    """Return the median if one of them is it."""
    middle = median(given) if given else None
    return middle if middle in given else None
