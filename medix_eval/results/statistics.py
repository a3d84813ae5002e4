"""How sure a score is, a difference of two runs, and a score corrected by people's labels.

Two questions on one picture are not two independent pieces of evidence: everything works on
clusters, the sum and the number of the scores in each, which is all that an average depends on.
Two runs that answered the same questions rise and fall together, so they are compared by their
differences per sample. A correction is prediction-powered inference: the judge's scores of all
answers, moved by how far people differ from it on a random draw of them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist, median
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medix_eval.records import SWAPPED, Frozen

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
    """A 95 % confidence interval, and the method that gave it."""

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
    """Return the interval of one task's score; None if it is undefined.

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

    A bootstrap is uninformative for a task whose samples all scored the same; there the closed form
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
    """Tell whether too many values differ for counting equal ones to save time."""
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
    """Probability of a difference as large if the runs were equal; null for a group."""
    test: str
    p_holm: float | None = None
    """The same, corrected for several tasks."""
    minimum_detectable: float | None
    """The true difference that this many samples would detect with 80 % power; null
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
    """Return how many samples have a different score: gains and losses do not cancel."""
    changed = clustered(np.asarray(differences) != 0, clusters)
    return Share(share=changed.mean, interval=limits_of(task_interval(changed)))


def task_difference(differences: Clusters) -> Difference:
    """Compare two runs on one task; `differences` are scores of one run minus the other's."""
    # Each cluster, such as a single sample, is won by one, lost by one or the same.
    if np.isin(differences.totals, (-1.0, 0.0, 1.0)).all():
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


def _flips(counts: NDArray[np.int64], rng: np.random.Generator, size: int) -> NDArray[np.integer]:
    """Return how many of each count fall on one side, `size` times."""
    shape = size, len(counts)
    if counts.size and counts.max() == 1:
        return rng.integers(0, 2, size=shape, dtype=np.int8)
    return rng.binomial(counts, 0.5, size=shape)


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


MIN_LABELS = 20
"""With fewer labels than this a task stays uncalibrated."""
_HOPELESS = 0.1
"""A judge whose hits and false alarms differ by less is uninformative."""


class Corrected(Frozen):
    """A score corrected for the judge's errors, by human labels on part of its answers."""

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
    """Whether labels speak for it; a sample without any text is wrong for certain."""
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


def correct_average(tasks: Sequence[Correction]) -> tuple[float, tuple[float, float]]:
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


_PAIR = 2


class Agreement(Frozen):
    """Agreement of raters; null where it is not defined, as when all gave the same to all."""

    raters: tuple[str, ...]
    n: int
    """Samples that every one of them rated."""
    agree: float | None
    """Share of these on which all agree; the rest is the flip rate."""
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


Said = tuple[str, str, float | None]
"""Judge, prompt and points of a vote."""


def judge_effects(samples: Iterable[tuple[Sequence[Said], float]]) -> dict[str, Difference]:
    """Return what order and wording of a prompt do to a vote, from the first two of each sample.

    Samples are their votes and the range of their scale; effects are shares of it.
    Which cells these are is drawn by the sample, so each effect is a mean of paired differences;
    of prompts that are not drawn there is none, for order and wording would go together.
    """
    gains: defaultdict[str, dict[tuple[int, str], float]] = defaultdict(dict)
    for number, (votes, points_range) in enumerate(samples):
        for judge in dict.fromkeys(one[0] for one in votes):
            pair = [(prompt.partition("#")[0], points) for who, prompt, points in votes
                    if who == judge][:_PAIR]  # fmt: skip
            valid = [(prompt, points) for prompt, points in pair if points is not None]
            if len(valid) < _PAIR:
                continue
            (first, one), (second, other) = valid
            gain = (one - other) / points_range
            at = number, judge
            if first.endswith(SWAPPED) != second.endswith(SWAPPED):
                gains["reference first"][at] = gain if second.endswith(SWAPPED) else -gain
            if (name := first.removesuffix(SWAPPED)) != (last := second.removesuffix(SWAPPED)):
                gains[name][at], gains[last][at] = gain, -gain
    is_drawn = "reference first" in gains
    return {
        name: task_difference(clustered([*of.values()], [str(number) for number, _ in of]))
        for name, of in sorted(gains.items())
        if is_drawn  # judges of one sample are no two samples
    }


def ratings(votes: Iterable[Said]) -> dict[str, float | None]:
    """Return what each rater said, from judge, prompt and points of each vote of one sample.

    The raters of a jury are its judges, those of one judge its prompts; or first and second vote,
    where a sample draws its prompts. A judge with several votes says what the middle one says, and
    nothing where they are split.
    """
    listed = list(votes)
    is_jury = len({judge for judge, _, _ in listed}) > 1
    is_drawn = any(SWAPPED in prompt for _, prompt, _ in listed)
    by_rater: dict[str, list[float]] = {}
    for number, (judge, prompt, points) in enumerate(listed, 1):
        rater = judge if is_jury else f"vote {number}" if is_drawn else prompt
        given = by_rater.setdefault(rater, [])
        given += [] if points is None else [points]
    return {rater: middle(given) for rater, given in by_rater.items()}


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


def middle(given: Sequence[float]) -> float | None:
    """Return what most of them say: the median, or None where that is none of them."""
    found = median(given) if given else None
    return found if found in given else None
