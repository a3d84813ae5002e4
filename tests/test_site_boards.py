"""Which runs share a board, and which are on none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from invented_boards import VQA, boards_of, built, right
from invented_runs import InventedRuns

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import ConfigError
from medix_eval.site.boards import Standing


def test_runs_of_one_protocol_judge_and_data_share_a_board(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    paths = [runs.make("a", right(0.5)), runs.make("b", right(0.6, tasks=VQA[:2]))]

    (board,) = boards_of(paths, catalogue)

    assert [entry.name for entry in board.entries] == ["a", "b"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"protocol": "cascade"}, id="protocol"),
        pytest.param({"judge": "other/judge"}, id="judge"),
        pytest.param({"judge": None}, id="no-judge"),
        pytest.param({"revision": "r2"}, id="data"),
        pytest.param({"condition": {"prompt_template": "Be brief."}}, id="prompt"),
    ],
)
def test_what_could_move_a_score_opens_another_board(
    runs: InventedRuns, catalogue: Catalogue, other: dict[str, str]
) -> None:
    paths = [runs.make("a", right(0.5)), runs.make("b", right(0.6), **other)]  # type: ignore[arg-type]

    boards = boards_of(paths, catalogue)

    assert len(boards) == 2
    assert len({board.slug for board in boards}) == 2


def test_boards_do_not_depend_on_the_order_of_the_arguments(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    paths = [
        runs.make("a", right(0.5)),
        runs.make("b", right(0.5), revision="r2"),
        runs.make("c", right(0.5, tasks=VQA[:1])),
    ]

    def layout(order: Sequence[Path]) -> list[tuple[str, list[str]]]:
        found = boards_of(order, catalogue)
        return [(board.slug, sorted(entry.name for entry in board.entries)) for board in found]

    assert layout(paths) == layout(paths[::-1])


def test_synthetic_data_is_refused_unless_it_is_asked_for(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    path = runs.make("a", right(0.5), synthetic=True)

    with pytest.raises(ConfigError, match="synthetic data: slake_vqa"):
        boards_of([path], catalogue)
    (board,) = boards_of([path], catalogue, allow_synthetic=True)
    assert board.standing is Standing.SYNTHETIC


def test_the_demo_never_stands_beside_real_benchmarks(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    answers = {**right(0.5), **right(0.9, tasks=catalogue.groups["phantom"])}

    boards = boards_of([runs.make("a", answers)], catalogue)

    assert [board.standing for board in boards] == [Standing.REAL, Standing.DEMO]
    assert not boards[0].fingerprints.keys() & boards[1].fingerprints.keys()


def test_the_newest_run_of_a_model_stands_and_the_older_is_history(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    old = runs.make("a", right(0.5), started="2026-01-01T00:00:00+00:00")
    new = runs.make("a", right(0.7), started="2026-02-01T00:00:00+00:00")

    (board,) = boards_of([new, old], catalogue)

    assert [entry.date for entry in board.entries] == ["2026-02-01"]
    assert [entry.date for entry in board.earlier] == ["2026-01-01"]


def seeded(runs: InventedRuns, seed: int, share: float, *, warm: float = 0.7) -> Path:
    """Make a run as `--repeat` does; its protocol is named for the seed, unless that is 0."""
    name = f"medix+generation.temperature={warm}" + (f"+generation.seed={seed}" if seed else "")
    sampling = {"max_tokens": 2048, "temperature": warm, "seed": seed}
    return runs.make("a", right(share), protocol=name, condition={"generation": sampling})


def test_repetitions_are_one_row_of_which_luck_cannot_choose(
    runs: InventedRuns, catalogue: Catalogue, tmp_path: Path
) -> None:
    paths = [seeded(runs, seed, share) for seed, share in ((2, 0.9), (0, 0.5), (1, 0.7))]

    (board,) = boards_of(paths, catalogue)
    built(paths, tmp_path / "site", catalogue)

    (page,) = (tmp_path / "site").glob("boards/*/models/a.html")
    assert [(entry.seed, entry.score("rad_vqa").score) for entry in board.entries] == [(0, 0.5)]
    assert board.protocol["name"] == "medix+generation.temperature=0.7"
    assert board.earlier == []
    assert "50.0 with seed 0, shown here; 70.0 with seed 1, 90.0 with seed 2" in page.read_text()


def test_another_seed_does_not_hide_another_setting(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    paths = [seeded(runs, 0, 0.5), seeded(runs, 1, 0.5, warm=1.0)]

    assert len(boards_of(paths, catalogue)) == 2


@pytest.mark.parametrize("name", ["../../../escaped", "/absolute", "..", "a/b", "a\\b", "<b>", ""])
def test_a_benchmark_named_like_a_path_is_refused(
    runs: InventedRuns, catalogue: Catalogue, name: str
) -> None:
    path = runs.make("a", {name: [1.0, 0.0]})

    with pytest.raises(ConfigError, match="is not a benchmark name"):
        boards_of([path], catalogue)
