from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, to_table
from statsmodels.stats.inter_rater import fleiss_kappa as fleiss_of_statsmodels

from medix_eval.results.statistics import Floats, agreement, cohen_kappa, fleiss_kappa, ratings

RANDOM = np.random.default_rng(3)
RIGHT = RANDOM.integers(0, 2, 300).astype(float)
GRADES = RANDOM.integers(0, 6, 300).astype(float)


def flipped(values: Floats) -> Floats:
    return np.where(RANDOM.random(len(values)) < 0.8, values, 1 - values)


def test_cohens_kappa_is_statsmodels() -> None:
    other = flipped(RIGHT)
    expected = cohens_kappa(to_table(np.stack([RIGHT, other], 1).astype(int))[0]).kappa

    assert cohen_kappa(RIGHT, other) == pytest.approx(expected, abs=1e-9)


def test_graded_ratings_are_weighted_by_squared_distance() -> None:
    other = np.clip(GRADES + RANDOM.choice([-1.0, 0.0, 1.0], 300), 0.0, 5.0)
    table = to_table(np.stack([GRADES, other], 1).astype(int))[0]
    expected = cohens_kappa(table, wt="quadratic").kappa

    assert cohen_kappa(GRADES, other, graded=True) == pytest.approx(expected, abs=1e-9)


def test_fleiss_kappa_is_statsmodels() -> None:
    table = np.stack([RIGHT, flipped(RIGHT), flipped(RIGHT)], axis=1)
    expected = fleiss_of_statsmodels(aggregate_raters(table.astype(int))[0])

    assert fleiss_kappa(table) == pytest.approx(expected, abs=1e-9)


def test_alpha_uses_samples_that_lack_a_rating() -> None:
    table = np.stack([RIGHT, flipped(RIGHT), flipped(RIGHT)], axis=1)
    table[:50, 1] = np.nan
    names = ("a", "b", "c")
    samples = [
        {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(names, row, strict=True)
        }
        for row in table
    ]

    found = agreement(samples, graded=False)

    assert found is not None
    assert found.n == 250
    assert found.krippendorff_alpha == pytest.approx(
        krippendorff.alpha(table.T, level_of_measurement="nominal"), abs=1e-9
    )


def test_a_tie_breaker_is_not_a_rater() -> None:
    agreed = [{"first": 1.0, "second": 1.0}] * 8 + [{"first": 0.0, "second": 0.0}] * 8
    split = [{"first": 1.0, "second": 0.0, "third": 0.0}] * 4

    found = agreement([*agreed, *split], graded=False)

    assert found is not None
    assert found.raters == ("first", "second")
    assert found.agree == 0.8


def test_raters_who_say_the_same_of_everything_have_no_kappa() -> None:
    found = agreement([{"first": 1.0, "second": 1.0}] * 9, graded=False)

    assert found is not None
    assert found.agree == 1.0
    assert found.cohen_kappa is found.fleiss_kappa is found.krippendorff_alpha is None


@pytest.mark.parametrize("samples", [[], [{}], [{"only": 1.0}] * 3])
def test_one_rater_alone_agrees_with_nobody(samples: list[dict[str, float | None]]) -> None:
    assert agreement(samples, graded=False) is None


def test_votes_of_one_judge_are_told_apart_by_prompt_and_of_a_jury_by_judge() -> None:
    assert ratings([("j", "q1", 1.0), ("j", "q2", None)]) == {"q1": 1.0, "q2": None}
    votes = [("j", "q1", 1.0), ("j", "q2", 1.0), ("j", "q3", 0.0), ("k", "q1", 0.0)]
    assert ratings(votes) == {"j": 1.0, "k": 0.0}
    assert ratings([("j", "q1", 1.0), ("j", "q2", 0.0), ("k", "q1", 0.0)])["j"] is None
