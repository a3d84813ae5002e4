"""Several runs of one model on the same samples: luck apart from the choice of samples."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from medix_eval.statistics.intervals import Floats

FULL_MARK = 1.0


def between_runs(means: Sequence[float]) -> float:
    """Return the standard deviation of the scores of several runs: luck in drawing tokens."""
    return float(np.std(means, ddof=1))


def pass_at(k: int, scores: Floats) -> float:
    """Return how often at least one of `k` runs has the full mark (rows are runs).

    It is the mean over every choice of `k` of the runs, in closed form.

    >>> scores = np.array([[1.0, 0.0], [0.0, 0.0]])
    >>> pass_at(1, scores), pass_at(2, scores)
    (0.25, 0.5)
    """
    num_runs = len(scores)
    right = (scores >= FULL_MARK).sum(axis=0)
    none = [math.comb(num_runs - int(count), k) / math.comb(num_runs, k) for count in right]
    return 1.0 - math.fsum(none) / len(none)


def majority_at(k: int, scores: Floats, answers: Sequence[Sequence[Hashable | None]]) -> float:
    """Return the score of the answer that most of `k` runs give (rows are runs).

    Of answers that are equally frequent each counts in part; no answer (None) has no vote. The
    mean is over `K` choices of runs that follow each other, so that each run counts alike.

    >>> majority_at(3, np.array([[1.0], [0.0], [1.0]]), [["left"], ["right"], ["left"]])
    1.0
    """
    num_runs, num_samples = scores.shape
    found = [
        _winner([(answers[run][at], float(scores[run, at])) for run in chosen])
        for start in range(num_runs if k < num_runs else 1)
        for chosen in [[(start + step) % num_runs for step in range(k)]]
        for at in range(num_samples)
    ]
    return math.fsum(found) / len(found)


def _winner(given: Sequence[tuple[Hashable | None, float]]) -> float:
    votes: defaultdict[Hashable, list[float]] = defaultdict(list)
    for answer, score in given:
        if answer is not None:
            votes[answer].append(score)
    most = max(map(len, votes.values()), default=0)
    best = [math.fsum(one) / most for one in votes.values() if len(one) == most]
    return math.fsum(best) / len(best) if best else 0.0
