"""Two runs on the same samples: what differs, whether chance explains it, and what could be seen.

Both models answered the same questions, so their scores rise and fall together. A comparison of
two separate intervals throws that away; the differences per sample keep it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from medix_eval.records import Frozen
from medix_eval.results.intervals import (
    LEVEL,
    SEED,
    Clusters,
    Floats,
    Numbers,
    average_stderr,
    bootstrap_interval,
    clustered,
    degrees_of_freedom,
    draws_at_once,
    is_varied,
    limits_of,
    normal_quantile,
    t_quantile,
    task_interval,
)

_POWER = 0.8
_FLIPS = 9999
_LITTLE = 1 / 30
"""What part of an average a single cluster may be, to be of little weight."""
_SURELY_NOT, _SURELY = 0.9, 1.5
"""Standard errors below which, and reaches of a t interval above which, resampling would say the
same: it changed its mind between 1.0 and 1.2 in a search for skewed differences."""


class Difference(Frozen):
    """How much one run scores above another on the samples that both have."""

    n: int
    difference: float
    interval: tuple[float, float] | None
    """95 %, from resampled clusters; null below two clusters."""
    p: float | None
    """Chance of a difference as large if the runs were equally good; null for a group."""
    test: str
    p_holm: float | None = None
    """The same, for having looked at several tasks."""
    minimum_detectable: float | None
    """The true difference that this many samples would show in four comparisons of five; null
    where the samples do not vary."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


class Share(Frozen):
    """Part of the samples."""

    share: float
    interval: tuple[float, float] | None


def changed_share(differences: Sequence[float] | Floats, clusters: Numbers | None) -> Share:
    """Return how many samples score otherwise, up or down: gains and losses do not cancel."""
    changed = clustered(np.asarray(differences) != 0, clusters)
    return Share(share=changed.mean, interval=limits_of(task_interval(changed)))


def task_difference(differences: Clusters) -> Difference:
    """Compare two runs on one task; `differences` are scores of one run minus the other's."""
    if _are_flips(differences):
        won, lost = ((differences.totals == sign).sum() for sign in (1, -1))
        p, test = mcnemar(int(won), int(lost)), "McNemar, exact"
    else:
        p, test = sign_flip(differences), "sign flips by cluster"
    return _difference([differences], p=p, test=test)


def group_difference(tasks: Sequence[Clusters]) -> Difference:
    """Compare two runs on the average of several tasks."""
    return _difference(tasks, p=None, test="")


def is_clear(tasks: Sequence[Clusters]) -> bool:
    """Tell whether the interval of `group_difference` leaves out zero.

    Where no cluster has much weight, resampling is spared far from the limit: no skew moves a
    percentile by as much.
    """
    errors = [error for task in tasks if (error := task.stderr) is not None]
    if len(errors) < len(tasks):
        return False
    most = max(task.sizes.max() / task.num_samples for task in tasks) / len(tasks)
    if any(errors) and most <= _LITTLE:
        distance = abs(math.fsum(task.mean for task in tasks)) / math.hypot(*errors)
        reach = t_quantile(degrees_of_freedom(tasks, errors))
        if not _SURELY_NOT < distance < _SURELY * reach:
            return distance > reach
    return group_difference(tasks).is_clear


def mcnemar(won: int, lost: int) -> float:
    """Return the exact two-sided p of McNemar's test: how well a fair coin explains the wins."""
    from scipy.special import bdtr  # noqa: PLC0415 (a third of a second)

    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def sign_flip(differences: Clusters) -> float:
    """Return the p of a test that swaps the two runs in whole clusters, at random.

    It is McNemar's test where each sample stands alone, and needs no more than that here: right
    for graded scores and for few clusters. Clusters of equal size of difference are swapped
    together, as only their number counts.
    """
    totals = np.abs(differences.totals.round(12))
    totals = totals[totals > 0]
    sizes, counts = np.unique(totals, return_counts=True)
    if is_varied(len(sizes), len(totals)):  # then swapping each one is faster
        sizes, counts = totals, np.ones_like(totals, dtype=np.int64)
    random = np.random.default_rng(SEED)
    found = abs(math.fsum(differences.totals))
    as_large = 0
    for size in draws_at_once(len(counts) or 1, _FLIPS):
        swapped = 2.0 * _flips(counts, random, size) - counts
        as_large += int((np.abs(swapped @ sizes) >= found - 1e-9).sum())
    return (as_large + 1) / (_FLIPS + 1)


def _flips(
    counts: NDArray[np.int64], random: np.random.Generator, size: int
) -> NDArray[np.integer]:
    """Return how many of each count fall on one side, `size` times."""
    shape = size, len(counts)
    if counts.size and counts.max() == 1:
        return random.integers(0, 2, size=shape, dtype=np.int8)
    return random.binomial(counts, 0.5, size=shape)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values that hold for all tests together (Holm's step-down)."""
    order = np.argsort(ps, kind="stable")
    steps = np.asarray(ps, dtype=np.float64)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in adjusted]


def minimum_detectable(stderr: float) -> float:
    """Return the difference that is found with 80 % power at 5 %."""
    return (normal_quantile(LEVEL) + NormalDist().inv_cdf(_POWER)) * stderr


def _difference(tasks: Sequence[Clusters], *, p: float | None, test: str) -> Difference:
    difference, stderr = math.fsum(task.mean for task in tasks) / len(tasks), average_stderr(tasks)
    if stderr == 0:
        limits: tuple[float, float] | None = _without_variation(difference, tasks)
    else:
        limits = limits_of(bootstrap_interval(tasks, within=(-1.0, 1.0)))
    return Difference(
        n=sum(task.num_samples for task in tasks),
        difference=difference,
        interval=limits,
        p=p,
        test=test,
        minimum_detectable=minimum_detectable(stderr) if stderr else None,
    )


def _without_variation(difference: float, tasks: Sequence[Clusters]) -> tuple[float, float]:
    """Return the interval where all samples differ alike, most often not at all.

    A bootstrap would claim certainty. As many samples as were seen may still hide an exception as
    frequent as Wilson's limit for none seen.
    """
    unseen = [task_interval(clustered([0.0] * task.num_clusters)) for task in tasks]
    half = math.hypot(*(one.high for one in unseen if one)) / len(tasks)
    return max(-1.0, difference - half), min(1.0, difference + half)


def _are_flips(differences: Clusters) -> bool:
    """Whether each cluster, such as a single sample, is won by one, lost by one or the same."""
    return bool(np.isin(differences.totals, (-1.0, 0.0, 1.0)).all())
