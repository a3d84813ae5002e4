from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.metrics import mean_stderr
from statsmodels.api import OLS
from statsmodels.stats.proportion import proportion_confint

from medix_eval.results.statistics import (
    average_interval,
    average_stderr,
    bootstrap_interval,
    clustered,
    group_interval,
    task_interval,
)

RANDOM = np.random.default_rng(7)
BINARY = RANDOM.integers(0, 2, 451).astype(float)
GRADED = RANDOM.integers(0, 16, 451) / 15
IMAGES = [str(image) for image in RANDOM.integers(0, 203, 451)]


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (1, 1), (317, 451), (450, 451)])
def test_right_or_wrong_scores_get_wilsons_interval_as_in_statsmodels(right: int, n: int) -> None:
    found = task_interval(clustered([1.0] * right + [0.0] * (n - right)))

    assert found is not None
    expected = proportion_confint(right, n, method="wilson")
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)
    assert found.method == "Wilson"


@pytest.mark.parametrize("scores", [BINARY, GRADED])
def test_the_standard_error_without_clusters_is_lm_evals(scores: list[float]) -> None:
    assert clustered(scores).stderr == pytest.approx(mean_stderr(list(scores)), abs=1e-9)


@pytest.mark.parametrize("scores", [BINARY, GRADED])
def test_the_standard_error_with_clusters_is_statsmodels(scores: list[float]) -> None:
    model = OLS(np.asarray(scores), np.ones(len(scores)))
    fitted = model.fit(cov_type="cluster", cov_kwds={"groups": np.asarray(IMAGES, int)})

    assert clustered(scores, IMAGES).stderr == pytest.approx(fitted.bse[0], abs=1e-9)


def test_samples_of_one_image_that_share_their_fate_count_once() -> None:
    half = [1.0, 0.0] * 50
    alone = task_interval(clustered(half))
    fourfold = task_interval(clustered(half * 4, [str(at) for at in range(100)] * 4))

    assert alone is not None
    assert fourfold is not None
    assert fourfold.high - fourfold.low == pytest.approx(alone.high - alone.low, rel=0.02)


def test_clusters_of_one_change_nothing() -> None:
    apart = clustered(BINARY, [str(at) for at in range(len(BINARY))])

    assert task_interval(apart) == task_interval(clustered(BINARY))


@pytest.mark.parametrize("scores", [[], [0.4], [0.5] * 1])
def test_nothing_can_be_said_of_less_than_two_graded_scores(scores: list[float]) -> None:
    assert task_interval(clustered(scores)) is None


def test_nothing_can_be_said_of_one_image() -> None:
    assert task_interval(clustered([1.0, 0.0, 1.0], ["a", "a", "a"])) is None


def test_equal_graded_scores_do_not_claim_certainty() -> None:
    found = task_interval(clustered([0.6] * 20))

    assert found is not None
    assert found.low < 0.5
    assert found.high > 0.7


def test_rounding_is_no_variation() -> None:
    alike = clustered([0.6 - 0.4, 0.8 - 0.6, 1 - 0.8] * 7)

    assert len(np.unique(alike.totals)) > 1
    assert alike.stderr == 0


@pytest.mark.parametrize("clusters", [None, [str(at // 2) for at in range(30_000)]])
def test_thirty_thousand_scores_that_all_differ_take_seconds_and_little_memory(
    clusters: list[str] | None,
) -> None:
    task = clustered(np.random.default_rng(3).random(30_000), clusters)

    tracemalloc.start()
    found = task_interval(task)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most < 300e6
    assert found is not None
    assert task.stderr is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * task.stderr, rel=0.05)


def test_the_bootstrap_agrees_with_the_standard_error() -> None:
    task = clustered(GRADED, IMAGES)
    found = bootstrap_interval([task], within=(0.0, 1.0))

    assert found is not None
    assert task.stderr is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.97 * task.stderr, rel=0.05)


def test_a_groups_bootstrap_and_closed_form_agree() -> None:
    tasks = [clustered(BINARY, IMAGES), clustered(GRADED), clustered(BINARY[:100])]
    drawn, closed, stderr = group_interval(tasks), average_interval(tasks), average_stderr(tasks)

    assert drawn is not None
    assert closed is not None
    assert stderr is not None
    assert (drawn.low, drawn.high) == pytest.approx((closed.low, closed.high), abs=0.006)
    assert (closed.high - closed.low) / 2 == pytest.approx(1.96 * stderr, rel=0.03)


def test_a_task_without_variation_does_not_make_a_group_certain() -> None:
    found = group_interval([clustered([1.0] * 20), clustered([1.0] * 30)])

    assert found is not None
    assert found.method == "closed form"
    assert found.low < 0.95


SAMPLES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 1 / 3, 1.0]), st.sampled_from("abcde")), max_size=30
)


@given(samples=SAMPLES, seed=st.integers(0, 9))
def test_an_interval_holds_the_mean_and_forgets_the_order(
    samples: list[tuple[float, str]], seed: int
) -> None:
    mixed = [samples[at] for at in np.random.default_rng(seed).permutation(len(samples))]
    one, other = (
        clustered([score for score, _ in some], [name for _, name in some])
        for some in (samples, mixed)
    )
    found = task_interval(one)

    assert found == task_interval(other)
    if found is not None:
        assert 0 <= found.low <= one.mean + 1e-12
        assert one.mean - 1e-12 <= found.high <= 1
