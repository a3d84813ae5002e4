from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from medix_eval.results.statistics import (
    MIN_LABELS,
    LabelledScore,
    clustered,
    correct,
    correct_average,
    task_interval,
)


def draw(
    random: np.random.Generator,
    *,
    n: int = 600,
    right: float = 0.7,
    false_alarms: float = 0.12,
    misses: float = 0.06,
    num_labels: int = 100,
    per_image: int = 1,
    empty: float = 0.0,
) -> list[LabelledScore]:
    """Simulate a run: the truth, a judge with known error rates, labels on a random part.

    Questions of one image share their difficulty.
    """
    images = np.repeat(np.arange(n // per_image), per_image)
    hard = random.choice([-0.25, 0.25], len(images))[images] if per_image > 1 else 0.0
    truth = random.random(len(images)) < right + hard
    is_wrong = random.random(len(images)) < np.where(truth, misses, false_alarms)
    is_empty = random.random(len(images)) < empty
    read = np.flatnonzero(~is_empty)
    labelled = set(random.choice(read, num_labels, replace=False).tolist())
    return [
        LabelledScore(
            score=0.0 if is_empty[at] else float(truth[at] != is_wrong[at]),
            label=float(truth[at]) if at in labelled else None,
            is_read=not is_empty[at],
            cluster=str(images[at]),
        )
        for at in range(len(images))
    ]


def test_a_perfect_judge_is_left_as_it_is() -> None:
    samples = draw(np.random.default_rng(1), false_alarms=0, misses=0)
    found = correct(samples)

    assert found is not None
    assert found.corrected.score == pytest.approx(np.mean([one.score for one in samples]))
    assert found.corrected.judge_accuracy == 1.0


def test_with_every_answer_labelled_the_score_is_the_labels_mean() -> None:
    samples = draw(np.random.default_rng(2), n=100, num_labels=100)
    found = correct(samples)

    assert found is not None
    labels = [one.label for one in samples if one.label is not None]
    assert found.corrected.score == pytest.approx(np.mean(labels))
    assert found.parts.stderr == pytest.approx(clustered(labels).stderr)


def test_a_judge_who_calls_everything_right_is_not_believed() -> None:
    samples = draw(np.random.default_rng(3), right=0.4, false_alarms=1, misses=0)
    found = correct(samples)

    assert found is not None
    low, high = found.corrected.interval
    assert low < 0.4 < high < 0.6
    assert found.corrected.rogan_gladen is None


def test_an_empty_answer_is_wrong_without_any_label() -> None:
    samples = draw(np.random.default_rng(4), empty=0.5, right=1.0, misses=0.4)
    found = correct(samples)

    assert found is not None
    assert found.corrected.score == pytest.approx(0.5, abs=0.06)


def test_a_few_labels_correct_nothing() -> None:
    assert correct(draw(np.random.default_rng(5), num_labels=MIN_LABELS - 1)) is None


def test_labels_without_a_disagreement_do_not_prove_a_perfect_judge() -> None:
    samples = draw(np.random.default_rng(6), n=2000, false_alarms=0, misses=0, num_labels=25)
    found = correct(samples)
    naive = task_interval(clustered([one.score for one in samples]))

    assert found is not None
    assert naive is not None
    low, high = found.corrected.interval
    assert high - low > 2 * (naive.high - naive.low)


def test_the_interval_is_as_wide_as_theory_says() -> None:
    samples = draw(np.random.default_rng(7), n=20000, false_alarms=0.3, misses=0.2, num_labels=400)
    found = correct(samples)

    assert found is not None
    # Almost all of it is the labels' part: the spread of truth minus trust times judge.
    pairs = [(one.score, one.label) for one in samples if one.label is not None]
    score, label = np.array(pairs).T
    trust = np.cov(score, label, bias=True)[0, 1] / np.var(score)
    expected = np.std(label - trust * score) / 400**0.5
    low, high = found.corrected.interval
    assert (high - low) / 2 / 1.966 == pytest.approx(expected, rel=0.03)


CASES = [
    pytest.param({"false_alarms": 0.3, "misses": 0.2}, 0.7, id="a-poor-judge"),
    pytest.param({"per_image": 3}, 0.7, id="several-questions-per-image"),
    pytest.param({"empty": 0.3}, 0.49, id="some-empty-answers"),
]


def share_covered(settings: dict[str, Any], *, truth: float) -> dict[str, float]:
    """Return how often each interval holds the truth."""
    random = np.random.default_rng(2025)
    hits = Counter[str]()
    for _ in range(2000):
        samples = draw(random, n=300, **settings)
        found = correct(samples)
        assert found is not None
        judged = clustered([one.score for one in samples], [one.cluster for one in samples])
        plain = task_interval(judged)
        assert plain is not None
        intervals = {
            "corrected": found.corrected.interval,
            "simple": found.corrected.rogan_gladen_interval or (0.0, 1.0),
            "judge": (plain.low, plain.high),
        }
        hits.update(name for name, (low, high) in intervals.items() if low <= truth <= high)
    return {name: count / 2000 for name, count in hits.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "truth"), CASES)
def test_a_corrected_scores_interval_covers_the_truth(
    settings: dict[str, Any], truth: float
) -> None:
    share = share_covered(settings, truth=truth)

    assert 0.93 <= share["corrected"] <= 0.97
    assert share["simple"] >= 0.93
    if "misses" in settings:
        assert share["judge"] < 0.6  # what believing a poor judge comes to


@pytest.mark.slow
def test_a_corrected_averages_interval_covers_the_truth() -> None:
    random = np.random.default_rng(2026)
    hits = 0
    for _ in range(2000):
        tasks = [
            correct(draw(random, n=150, num_labels=50)),
            correct(draw(random, n=150, num_labels=50, right=0.5, per_image=3)),
        ]
        _, (low, high) = correct_average([task for task in tasks if task is not None])
        hits += low <= 0.6 <= high

    assert 0.93 <= hits / 2000 <= 0.97
