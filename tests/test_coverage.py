"""Do the intervals hold what they promise? Simulated: the truth is known, 2,000 draws each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from medix_eval.results import statistics as intervals
from medix_eval.results.statistics import (
    Floats,
    Interval,
    average_interval,
    clustered,
    group_interval,
    task_interval,
)

DRAWS = 2000
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer resamples keep two thousand intervals under half a minute."""
    monkeypatch.setattr(intervals, "DRAWS", 600)


def by_image(
    random: np.random.Generator, *, images: int, mean: float, alike: float
) -> tuple[Floats, list[str]]:
    """Draw right-or-wrong scores; the questions of one image share their difficulty.

    `alike` is the correlation of two questions of one image.
    """
    sizes = random.integers(1, 8, images)
    total = (1 - alike) / alike
    chances = random.beta(mean * total, (1 - mean) * total, images)
    image = np.repeat(np.arange(images), sizes)
    scores = (random.random(len(image)) < chances[image]).astype(np.float64)
    return scores, [str(one) for one in image]


def graded_by_image(
    random: np.random.Generator, *, images: int, mean: float
) -> tuple[Floats, list[str]]:
    """Draw grades out of five, good ones and bad ones."""
    good, image = by_image(random, images=images, mean=mean, alike=0.3)
    return random.binomial(5, np.where(good > 0, 0.75, 0.25)) / 5, image


def covered(draw: Callable[[np.random.Generator], Interval | None], *, truth: float) -> float:
    random = np.random.default_rng(2024)
    found = [draw(random) for _ in range(DRAWS)]
    return float(np.mean([one is not None and one.low <= truth <= one.high for one in found]))


@pytest.mark.parametrize(("n", "mean"), [(100, 0.7), (451, 0.7), (300, 0.92)])
def test_a_tasks_interval_covers_the_truth(n: int, mean: float) -> None:
    share = covered(
        lambda random: task_interval(clustered((random.random(n) < mean).astype(np.float64))),
        truth=mean,
    )

    assert 0.93 <= share <= 0.97


@pytest.mark.parametrize(("images", "mean"), [(60, 0.6), (200, 0.7), (200, 0.88)])
def test_a_tasks_interval_covers_the_truth_with_several_questions_per_image(
    images: int, mean: float
) -> None:
    share = covered(
        lambda random: task_interval(
            clustered(*by_image(random, images=images, mean=mean, alike=0.3))
        ),
        truth=mean,
    )

    assert 0.93 <= share <= 0.97


def test_an_interval_that_takes_each_question_as_independent_does_not() -> None:
    share = covered(
        lambda random: task_interval(
            clustered(by_image(random, images=200, mean=0.7, alike=0.3)[0])
        ),
        truth=0.7,
    )

    assert share < 0.9


@pytest.mark.long
def test_a_graded_tasks_interval_covers_the_truth() -> None:
    share = covered(
        lambda random: task_interval(clustered(*graded_by_image(random, images=60, mean=0.6))),
        truth=0.6 * 0.75 + 0.4 * 0.25,
    )

    assert 0.93 <= share <= 0.97


def group(random: np.random.Generator) -> list[tuple[Floats, list[str] | None]]:
    return [
        by_image(random, images=30, mean=0.6, alike=0.4),
        by_image(random, images=40, mean=0.8, alike=0.3),
        ((random.random(100) < 0.7).astype(np.float64), None),
    ]


@pytest.mark.long
def test_a_groups_interval_covers_the_truth() -> None:
    def draw(random: np.random.Generator) -> Interval | None:
        graded = graded_by_image(random, images=20, mean=0.6)
        return group_interval([clustered(*task) for task in [*group(random)[1:], graded]])

    share = covered(draw, truth=(0.8 + 0.7 + 0.55) / 3)

    assert 0.93 <= share <= 0.97


def test_a_groups_closed_form_covers_the_truth() -> None:
    share = covered(
        lambda random: average_interval([clustered(*task) for task in group(random)]), truth=0.7
    )

    assert 0.93 <= share <= 0.97


def test_a_groups_interval_that_takes_each_question_as_independent_does_not() -> None:
    share = covered(
        lambda random: average_interval([clustered(scores) for scores, _ in group(random)]),
        truth=0.7,
    )

    assert share < 0.9
