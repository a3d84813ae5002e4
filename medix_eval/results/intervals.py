"""How sure an average is: 95 % intervals that keep the samples of one image or patient together.

Two questions on one picture are not two independent pieces of evidence. Everything here works on
clusters: the sum and the number of the scores in each, which is all that an average depends on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
DRAWS = 5000
SEED = 0
_NOTHING = 1e-12
"""Scores that differ by less than this differ by how floats are rounded."""
_MANY = 500
_AT_ONCE = 4_000_000
"""Numbers drawn at once: memory does not grow with the samples."""

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Where the true value lies with 95 % confidence, and how that was worked out."""

    low: float
    high: float
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """What an average is made of, per cluster; a sample without a cluster is one of its own.

    Sorted, so that nothing depends on the order in which samples came.
    """

    totals: Floats
    sizes: Floats
    is_binary: bool
    """Whether each score is 0 or 1."""

    @property
    def num_samples(self) -> int:
        """How many scores there are."""
        return int(self.sizes.sum())

    @property
    def num_clusters(self) -> int:
        """How many of them are independent of each other."""
        return len(self.sizes)

    @property
    def is_clustered(self) -> bool:
        """Whether any two samples belong together."""
        return self.num_clusters < self.num_samples

    @property
    def mean(self) -> float:
        """The average over samples."""
        return math.fsum(self.totals) / self.num_samples

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean, robust to clusters; None below two clusters.

        Without clusters it is the textbook one (and lm-eval's): sample deviation over root n.
        """
        if self.num_clusters < 2:  # noqa: PLR2004
            return None
        squares = math.fsum((self.totals - self.mean * self.sizes) ** 2)
        correction = self.num_clusters / (self.num_clusters - 1)
        error = math.sqrt(correction * squares) / self.num_samples
        return error if error > _NOTHING else 0.0


def clustered(
    scores: Sequence[float] | Floats, clusters: Sequence[str] | Numbers | None = None
) -> Clusters:
    """Sum the scores of each cluster, which are names or numbers, one a sample.

    The result does not depend on the order of the samples.
    """
    values = np.asarray(scores, dtype=np.float64)
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    if clusters is None:
        return Clusters(totals=np.sort(values), sizes=np.ones_like(values), is_binary=binary)
    codes = clusters if isinstance(clusters, np.ndarray) else numbered(clusters)
    order = np.lexsort((values, codes))
    totals = np.bincount(codes[order], weights=values[order]).astype(np.float64)
    sizes = np.bincount(codes).astype(np.float64)
    order = np.lexsort((totals, sizes))[np.count_nonzero(sizes == 0) :]
    return Clusters(totals=totals[order], sizes=sizes[order], is_binary=binary)


def numbered(names: Sequence[str]) -> Numbers:
    """Return the number of each name in the order of the alphabet.

    >>> numbered(["b", "a", "b"]).tolist()
    [1, 0, 1]
    """
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], dtype=np.intp)


def task_interval(scores: Clusters) -> Interval | None:
    """Return the interval of one task's score; None where nothing can be said.

    Right-or-wrong scores get Wilson's interval, with the number of independent samples that the
    clusters are worth; graded ones a bootstrap over clusters.
    """
    if not scores.is_clustered and scores.is_binary and scores.num_samples:
        return _wilson(scores.mean, scores.num_samples, normal_quantile(), method="Wilson")
    stderr = scores.stderr if scores.num_clusters else None
    if stderr is None:
        return None
    if not scores.is_binary and stderr > 0:
        return bootstrap_interval([scores], within=(0.0, 1.0))
    # Bounded scores vary no more than right-or-wrong ones of the same mean, so this is safe too
    # where graded scores are all equal and a bootstrap would claim to know the value exactly.
    worth = _effective_size(scores, stderr)
    quantile = t_quantile(scores.num_clusters - 1)
    method = "Wilson, clustered" if scores.is_clustered else "Wilson"
    return _wilson(scores.mean, worth, quantile, method=method)


def bootstrap_interval(
    tasks: Sequence[Clusters], *, within: tuple[float, float]
) -> Interval | None:
    """Return the interval of the unweighted mean of task averages, from resampled clusters.

    Clusters are drawn within each task. The percentiles are those that are exact for a normal
    mean: a plain percentile interval is too narrow when there are few clusters.
    """
    errors = [task.stderr for task in tasks if task.num_clusters]
    known = [error for error in errors if error is not None]
    if not tasks or len(known) < len(tasks):
        return None
    from scipy.special import ndtr  # noqa: PLC0415 (a third of a second, and not for every run)

    random = np.random.default_rng(SEED)
    means = np.zeros(DRAWS)
    for task in tasks:
        correction = math.sqrt(task.num_clusters / (task.num_clusters - 1))
        means += task.mean + correction * (resampled_means(task, random) - task.mean)
    tail = float(ndtr(-t_quantile(degrees_of_freedom(tasks, known))))
    low, high = np.clip(np.quantile(means / len(tasks), (tail, 1 - tail)), *within)
    kind = "cluster bootstrap" if any(task.is_clustered for task in tasks) else "bootstrap"
    method = f"{kind}, {DRAWS} draws, seed {SEED}"
    return Interval(low=float(low), high=float(high), method=method)


def average_interval(tasks: Sequence[Clusters]) -> Interval | None:
    """Return the closed form of a group's interval, made of the intervals of its tasks.

    The distances of the tasks' limits from their means add up as standard errors do (Zou and
    Donner's MOVER). It stays wide where every answer of a task is right.
    """
    found = [task_interval(task) for task in tasks]
    known = [one for one in found if one is not None]
    if not tasks or len(known) < len(tasks):
        return None
    means = [task.mean for task in tasks]
    below = math.hypot(*(mean - one.low for mean, one in zip(means, known, strict=True)))
    above = math.hypot(*(one.high - mean for mean, one in zip(means, known, strict=True)))
    centre = math.fsum(means)
    return Interval(
        low=max(0.0, (centre - below) / len(tasks)),
        high=min(1.0, (centre + above) / len(tasks)),
        method="closed form",
    )


def group_interval(tasks: Sequence[Clusters]) -> Interval | None:
    """Return the interval of a group's average.

    A bootstrap knows nothing of a task whose samples all scored the same; there the closed form
    stands in.
    """
    if any(task.stderr == 0 for task in tasks if task.num_clusters):
        return average_interval(tasks)
    return bootstrap_interval(tasks, within=(0.0, 1.0))


def average_stderr(tasks: Sequence[Clusters]) -> float | None:
    """Return the standard error of the unweighted mean of task averages."""
    errors = [task.stderr if task.num_clusters else None for task in tasks]
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(tasks) if tasks and len(known) == len(tasks) else None


def limits_of(interval: Interval | None) -> tuple[float, float] | None:
    """Return both ends as results keep them."""
    return (interval.low, interval.high) if interval else None


def resampled_means(scores: Clusters, random: np.random.Generator) -> Floats:
    """Return `DRAWS` averages of as many clusters, drawn with replacement.

    Clusters of equal sum and size are the same to an average, so it is enough to draw how often
    each distinct one turns up: the same distribution in a fraction of the time.
    """
    pairs = np.stack((scores.totals, scores.sizes), axis=1)
    is_first = np.append([True], np.any(pairs[1:] != pairs[:-1], axis=1))  # they are sorted
    distinct = pairs[is_first]
    counts = np.diff(np.append(np.flatnonzero(is_first), len(pairs)))
    num, shares = scores.num_clusters, counts / scores.num_clusters
    each = is_varied(len(distinct), num)  # then drawing each one is faster
    parts = []
    for size in draws_at_once(num if each else len(distinct), DRAWS):
        if each:
            drawn = random.integers(num, size=(size, num))
            totals, sizes = scores.totals[drawn].sum(axis=1), scores.sizes[drawn].sum(axis=1)
        else:
            totals, sizes = (random.multinomial(num, shares, size=size) @ distinct).T
        parts.append(totals / sizes)
    return np.concatenate(parts)


def is_varied(num_distinct: int, num: int) -> bool:
    """Tell whether so many of the values differ that to count equal ones saves nothing."""
    return num_distinct > max(_MANY, num / 25)


def draws_at_once(width: int, num: int) -> list[int]:
    """Split `num` draws of so many numbers each into parts that fit into memory."""
    most = max(1, _AT_ONCE // width)
    return [min(most, num - done) for done in range(0, num, most)]


def normal_quantile(level: float = LEVEL) -> float:
    """Return how many standard errors a two-sided interval reaches."""
    return NormalDist().inv_cdf((1 + level) / 2)


def t_quantile(degrees: float, level: float = LEVEL) -> float:
    """Return the same where the standard error itself comes from few clusters."""
    from scipy.special import stdtrit  # noqa: PLC0415 (a third of a second, and rarely needed)

    return float(stdtrit(degrees, (1 + level) / 2))


def degrees_of_freedom(tasks: Sequence[Clusters], errors: Sequence[float]) -> float:
    """Return Welch and Satterthwaite's degrees of freedom of a sum of means."""
    total = math.fsum(error**2 for error in errors) ** 2
    parts = (e**4 / (task.num_clusters - 1) for task, e in zip(tasks, errors, strict=True))
    below = math.fsum(parts)
    return total / below if below > 0 else math.inf


def _effective_size(scores: Clusters, stderr: float) -> float:
    """Return how many independent samples would be as sure of the mean; at most all of them."""
    spread = scores.mean * (1 - scores.mean)
    if spread <= 0:
        return scores.num_clusters  # nothing shows how alike a cluster's samples are
    return min(scores.num_samples, spread / stderr**2) if stderr > 0 else scores.num_samples


def _wilson(mean: float, size: float, quantile: float, *, method: str) -> Interval:
    square = quantile**2 / size
    centre = (mean + square / 2) / (1 + square)
    half = math.sqrt(mean * (1 - mean) * square + square**2 / 4) / (1 + square)
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half), method=method)
