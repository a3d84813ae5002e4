from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from medix_eval.data.samples import select_rows

SLICES = st.lists(st.tuples(st.sampled_from(["CT", "MRI", "X-Ray"])), min_size=1, max_size=200)


def chosen(slices: list[tuple[str, ...]], limit: int, *, seed: int = 0) -> list[int]:
    rows = select_rows(slices, limit=limit, seed=seed, task="t")
    return list(range(len(slices))) if rows is None else rows


@given(slices=SLICES, small=st.integers(1, 200), more=st.integers(0, 200))
def test_a_small_limit_is_part_of_a_larger_one(
    slices: list[tuple[str, ...]], small: int, more: int
) -> None:
    assert set(chosen(slices, small)) <= set(chosen(slices, small + more))


@given(slices=SLICES, limit=st.integers(1, 200))
def test_every_stratum_gets_its_share(slices: list[tuple[str, ...]], limit: int) -> None:
    rows = chosen(slices, limit)

    assert len(rows) == len(set(rows)) == min(limit, len(slices))
    taken = Counter(slices[row] for row in rows)
    for values, size in Counter(slices).items():
        assert abs(taken[values] - size * len(rows) / len(slices)) <= len(set(slices))


def test_the_subset_is_not_the_first_rows_and_depends_on_the_seed() -> None:
    slices: list[tuple[str, ...]] = [()] * 1000

    assert sorted(chosen(slices, 50)) != list(range(50))
    assert chosen(slices, 50) == chosen(slices, 50)
    assert chosen(slices, 50) != chosen(slices, 50, seed=1)


def test_no_limit_and_a_limit_above_the_size_mean_all_rows() -> None:
    assert select_rows([()] * 5, limit=None, seed=0, task="t") is None
    assert select_rows([()] * 5, limit=5, seed=0, task="t") is None
