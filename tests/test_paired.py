from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests

from medix_eval.results import statistics
from medix_eval.results.statistics import (
    Floats,
    clustered,
    group_difference,
    holm,
    is_clear,
    mcnemar,
    minimum_detectable,
    sign_flip,
    task_difference,
)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (6, 0), (3, 9), (40, 22), (300, 250)])
def test_mcnemars_p_is_statsmodels(won: int, lost: int) -> None:
    expected = mcnemar_of_statsmodels([[5, won], [lost, 5]], exact=True).pvalue

    assert mcnemar(won, lost) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("ps", [[0.2], [0.01, 0.04, 0.03, 0.01], [0.9, 0.5, 1.0, 0.0, 0.02]])
def test_holms_p_values_are_statsmodels(ps: list[float]) -> None:
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1], abs=1e-9)


@pytest.mark.parametrize(("won", "lost"), [(9, 2), (30, 30), (25, 12)])
def test_sign_flips_of_single_samples_are_mcnemars_test(won: int, lost: int) -> None:
    differences = clustered([1.0] * won + [-1.0] * lost + [0.0] * 50)

    assert sign_flip(differences) == pytest.approx(mcnemar(won, lost), abs=0.015)


def test_samples_of_one_image_that_flip_together_are_weak_evidence() -> None:
    flips = [1.0] * 12 + [0.0] * 30
    alone = task_difference(clustered(flips))
    together = task_difference(clustered(flips, ["a"] * 6 + ["b"] * 6 + list(map(str, range(30)))))

    assert alone.test == "McNemar, exact"
    assert alone.p is not None
    assert alone.p < 0.001
    assert together.p is not None
    assert together.p > 0.2


def test_equal_differences_that_rounding_sets_apart_do_not_claim_certainty() -> None:
    found = task_difference(clustered([0.6 - 0.4, 0.8 - 0.6, 1 - 0.8] * 7))

    assert found.interval is not None
    assert found.interval == pytest.approx((0.045, 0.355), abs=0.01)


def test_sign_flips_of_graded_scores_that_all_differ_are_those_of_scipy() -> None:
    scores = np.random.default_rng(3).normal(0.1, 1.0, 600)
    found = task_difference(clustered(scores))

    assert found.p == pytest.approx(ttest_1samp(scores, 0).pvalue, abs=0.01)


def test_equal_runs_do_not_differ_but_may() -> None:
    found = task_difference(clustered([0.0] * 20))

    assert (found.p, found.difference, found.minimum_detectable) == (1.0, 0.0, None)
    assert found.interval == pytest.approx((-0.161, 0.161), abs=0.001)
    assert not found.is_clear


def test_a_detectable_difference_is_one_that_is_detected_four_times_in_five() -> None:
    random = np.random.default_rng(5)
    stderr = 0.02
    true = minimum_detectable(stderr)
    z = random.normal(true, stderr, 20000) / stderr

    assert (np.abs(z) > 1.959964).mean() == pytest.approx(0.8, abs=0.01)


def pairs(random: np.random.Generator, *, images: int) -> tuple[Floats, Floats, list[str]]:
    """Two runs that are equally good; on one image each tends to fail in its own way."""
    sizes = random.integers(1, 8, images)
    image = np.repeat(np.arange(images), sizes)
    hard = random.beta(2, 1, images)
    runs = [
        random.random(len(image)) < np.clip(hard + random.choice([-0.3, 0.3], images), 0, 1)[image]
        for _ in range(2)
    ]
    return runs[0].astype(np.float64), runs[1].astype(np.float64), [str(one) for one in image]


@pytest.mark.slow
def test_mcnemar_holds_its_level() -> None:
    random = np.random.default_rng(11)
    hits = 0
    for _ in range(2000):
        first, second = random.random((2, 150)) < random.beta(2, 1, 150)
        hits += mcnemar(int((first & ~second).sum()), int((second & ~first).sum())) < 0.05

    assert 0.02 <= hits / 2000 <= 0.05 + 0.01


@pytest.mark.slow
def test_the_paired_bootstrap_and_the_sign_flips_hold_their_level_with_clusters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 500)
    monkeypatch.setattr(statistics, "_FLIPS", 999)
    random = np.random.default_rng(12)
    clear = swapped = naive = 0
    for _ in range(2000):
        first, second, images = pairs(random, images=40)
        found = task_difference(clustered(second - first, images))
        clear += found.is_clear
        swapped += found.p is not None and found.p < 0.05
        won, lost = int((second > first).sum()), int((second < first).sum())
        naive += mcnemar(won, lost) < 0.05

    assert 0.03 <= clear / 2000 <= 0.07
    assert 0.03 <= swapped / 2000 <= 0.07
    assert naive / 2000 > 0.1  # what a test does that takes each question as independent


def test_a_groups_difference_is_the_mean_of_its_tasks() -> None:
    found = group_difference([clustered([1.0, 0.0, 0.0, 1.0]), clustered([0.0, 0.0])])

    assert found.difference == 0.25
    assert found.p is None


def _skewed(random: np.random.Generator, *, n: int) -> list[float]:
    """Differences that few samples decide: what resampling reads otherwise than a t test."""
    few = int(random.integers(1, min(n, 9)))
    side = random.choice([-1.0, 1.0])
    rest = -side * random.uniform(-0.02, 0.3) * few / n
    return [side] * few + [float(rest)] * (n - few)


def test_resampling_is_spared_only_where_it_would_say_the_same() -> None:
    random = np.random.default_rng(7)
    cases = [
        [clustered(_skewed(random, n=max(3, 40 // num_tasks))) for _ in range(num_tasks)]
        for num_tasks in (1, 2, 5, 12) * 60
    ]

    assert [is_clear(tasks) for tasks in cases] == [
        group_difference(tasks).is_clear for tasks in cases
    ]


def test_a_task_of_one_image_makes_no_difference_clear_however_many_tasks_there_are() -> None:
    alone = clustered([1.0, 1.0], ["a", "a"])

    assert not is_clear([alone, *[clustered([1.0, 1.0, 0.0] * 20)] * 40])
