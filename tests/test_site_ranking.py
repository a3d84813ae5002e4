"""Who gets a rank, who ties with the best, and why a rank is withheld."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invented_boards import RULES, VQA, boards_of, measured, right
from invented_runs import InventedRuns

from medix_eval.data.tasks import Catalogue
from medix_eval.exchange.importing import import_results
from medix_eval.judge_check.check import MeasuredJudge, make_scorecard
from medix_eval.results.comparison import compare_runs
from medix_eval.results.store import read_run
from medix_eval.site.boards import Rules, Standing
from medix_eval.site.measured import measure
from medix_eval.storage.digests import digest


def test_two_checkpoints_of_one_name_are_two_models(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    paths = [
        runs.make("a", right(0.5), weights="w1"),
        runs.make("A", right(0.6), weights="w2", started="2026-06-01T00:00:00+00:00"),
    ]

    ranked = measured(paths, catalogue).ranked

    assert len({one.slug.casefold() for one in ranked}) == 2


def test_ranks_follow_the_average_and_equal_averages_share_one(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    paths = [
        runs.make("low", right(0.2)),
        runs.make("high", right(0.9)),
        runs.make("same", right(0.2)),
    ]

    ranked = measured(paths, catalogue).ranked

    assert [(one.entry.name, one.rank) for one in ranked] == [("high", 1), ("low", 2), ("same", 2)]


def test_a_model_ties_with_the_best_where_the_paired_difference_is_not_clear(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    best = [float(row % 10 < 7) for row in range(200)]
    # Unpaired, both others would seem to tie: ten samples of 200 are well within the noise.
    near = [0.0 if row in {0, 3} else 1.0 if row == 7 else score for row, score in enumerate(best)]
    below = [0.0 if row % 20 == 0 else score for row, score in enumerate(best)]
    paths = [
        runs.make(name, {"medqa": scores}, groups={"only": ("medqa",)})
        for name, scores in (("best", best), ("near", near), ("below", below))
    ]

    ties = {one.entry.name: one.ties_with_best for one in measured(paths, catalogue).ranked}

    assert ties == {"best": None, "near": True, "below": False}


@pytest.mark.parametrize(
    ("task", "best", "other"),
    [
        pytest.param("medqa", [1, 0, 1], [0, 0, 0], id="three-samples"),
        pytest.param(
            "slake_vqa", [1, 1, 1, 1, 0, 0, 1, 1, 0, 1], [0, 0, 1, 0, 0, 0, 0, 1, 0, 1], id="images"
        ),
        pytest.param("slake_vqa", [1, 1], [0, 0], id="one-image"),
        pytest.param("medqa", [1] * 80, [0] * 20 + [1] * 60, id="eighty-samples"),
    ],
)
def test_the_site_and_compare_agree_on_who_ties_with_the_best(
    runs: InventedRuns, catalogue: Catalogue, task: str, best: list[float], other: list[float]
) -> None:
    paths = [
        runs.make(name, {task: scores}, groups={"only": (task,)})
        for name, scores in (("best", best), ("other", other))
    ]

    compared = compare_runs([read_run(path) for path in paths]).groups["only"]
    ranked = measured(paths, catalogue).ranked

    assert [one.entry.name for one in ranked] == ["best", "other"]
    assert ranked[1].ties_with_best == (1 in compared.ties_with_best)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        pytest.param({"tasks": VQA[:4]}, "1 of 5 benchmarks not run", id="coverage"),
        pytest.param({"limit": 40}, "only part of the samples", id="limit"),
    ],
)
def test_an_incomplete_model_gets_no_rank_and_the_reason_is_given(
    runs: InventedRuns, catalogue: Catalogue, other: dict[str, object], reason: str
) -> None:
    limit = other.get("limit")
    answers = right(0.9, tasks=other.get("tasks", VQA))  # type: ignore[arg-type]
    paths = [
        runs.make("whole", right(0.5), groups={"medvqa": VQA}),
        runs.make("part", answers, limit=limit, groups={"medvqa": VQA}),  # type: ignore[arg-type]
    ]

    whole, part = measured(paths, catalogue).ranked

    assert (whole.rank, part.rank) == (1, None)
    assert reason in part.withheld[0]


def test_too_many_unscored_samples_cost_the_rank(runs: InventedRuns, catalogue: Catalogue) -> None:
    answers = {**right(1.0), "slake_vqa": [1.0] * 20 + [None] * 20}
    path = runs.make("a", answers, groups={"medvqa": VQA})

    (strict,) = measured([path], catalogue).ranked
    (lenient,) = measured([path], catalogue, Rules(max_unscored=0.2)).ranked

    assert strict.withheld == ("10.0 % of the samples have no score",)
    assert lenient.rank == 1


def test_a_board_can_demand_that_its_judge_was_measured(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    path = runs.make("a", right(0.5), groups={"medvqa": VQA})
    rules = Rules(needs_scorecard=True)

    (unmeasured,) = measured([path], catalogue, rules).ranked
    for protocol in ("other", "medix"):
        who = MeasuredJudge(
            name="Qwen/Qwen3-14B",
            identity_digest=digest("Qwen/Qwen3-14B"),
            protocol={"name": protocol, "digest": digest(protocol)},
            judging={"protocol": protocol},
        )
        card = make_scorecard([], who, labels={}, seconds=0.0)
        file = runs.out / "judges" / "Qwen__Qwen3-14B" / card.digest[:8] / "scorecard.json"
        file.parent.mkdir(parents=True)
        file.write_text(card.model_dump_json())
        (ranked,) = measured([path], catalogue, rules).ranked
        assert (ranked.rank == 1) == (protocol == "medix")

    assert unmeasured.withheld == ("the judge has no scorecard",)


def test_imported_runs_share_a_board_of_their_own_without_ranks(
    runs: InventedRuns, tmp_path: Path, catalogue: Catalogue
) -> None:
    for name in ("theirs", "others"):
        folder = tmp_path / name
        folder.mkdir()
        line = {"id": "medqa_0", "question": "q", "answer": "a", "response": name}
        (folder / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
        judged = json.dumps(line | {"evaluation": {"score": 1}})
        (folder / f"{name}_eval.jsonl").write_text(judged + "\n")
        import_results(folder, catalogue, out=runs.out, model=None)
    runs.make("ours", right(0.5))

    real, imported = boards_of([runs.out], catalogue)

    assert [entry.name for entry in real.entries] == ["ours"]
    assert sorted(entry.name for entry in imported.entries) == ["others", "theirs"]
    assert imported.standing is Standing.IMPORTED
    ranked = measure(imported, catalogue, rules=RULES).ranked
    assert {one.rank for one in ranked} == {None}
    assert all("submitter" in one.withheld[0] for one in ranked)
