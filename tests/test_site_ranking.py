"""Who gets a rank, who ties with the best, and why a rank is withheld."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from invented_boards import RULES, VQA, boards_of, built, measured, right
from invented_runs import InventedRuns
from rich.console import Console
from scripted_servers import Run

from medix_eval.data.tasks import Catalogue
from medix_eval.exchange.importing import import_results
from medix_eval.judge_check.biases import JudgedAnswer
from medix_eval.judge_check.check import MeasuredJudge, make_scorecard, write_scorecard
from medix_eval.judge_check.probes import load_probes
from medix_eval.records import Failure, Outcome, VerdictRecord, Vote
from medix_eval.report.tables import as_markdown, scores_table
from medix_eval.results.comparison import compare_runs
from medix_eval.results.store import read_run
from medix_eval.site.boards import NeededScorecard, Rules, Standing
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

    assert strict.withheld == ("10.0 % of the samples have no score: rules undecided 20",)
    assert lenient.rank == 1


def test_a_share_of_lost_samples_at_the_limit_does_not_cost_the_rank(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    answers = {"medqa": [1.0] * 38 + [None] * 2}  # 1 - 38/40 is above 0.05 as a float
    path = runs.make("a", answers, groups={"only": ("medqa",)})

    (ranked,) = measured([path], catalogue).ranked

    assert ranked.withheld == ()


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("request_failed", "20 samples failed; without a score: server failed 20"),
        ("judge_failed", "20 samples failed; without a score: judge failed 20"),
        ("skipped", "20 samples failed; without a score: not asked 20"),
    ],
)
def test_a_withheld_rank_says_whose_the_lost_samples_are(
    outcome: str, reason: str, runs: InventedRuns, catalogue: Catalogue
) -> None:
    answers = {**right(1.0), "slake_vqa": [1.0] * 20 + [outcome] * 20}

    (ranked,) = measured([runs.make("a", answers, groups={"medvqa": VQA})], catalogue).ranked

    lost = reason.partition("without a score: ")[2]
    assert ranked.withheld == (reason, f"10.0 % of the samples have no score: {lost}")


@pytest.mark.parametrize(("num", "is_ranked"), [(1, True), (2, True), (3, False), (50, False)])
def test_more_than_two_percent_rejected_cost_the_rank_and_mark_the_average(
    num: int,
    is_ranked: bool,  # noqa: FBT001 (a case)
    runs: InventedRuns,
    catalogue: Catalogue,
) -> None:
    answers = {**right(1.0, n=100), "slake_vqa": [1.0] * (100 - num) + ["rejected"] * num}
    paths = [
        runs.make("a", answers, groups={"medvqa": VQA}),
        runs.make("b", right(0.5, n=100), groups={"medvqa": VQA}),
    ]

    board = measured(paths, catalogue)

    one = next(one for one in board.ranked if one.entry.name == "a")
    assert (one.rank is not None) == is_ranked
    assert is_ranked or one.withheld == (
        f"the server rejected {num}.0 % of the samples of slake_vqa",
    )
    at = board.ranked.index(one)
    cells = {column.key: column.cells[at] for column in board.columns}
    for name in ("medvqa", "slake_vqa"):
        assert cells[name].text.endswith("†") != is_ranked
        assert cells[name].is_best == is_ranked
    assert cells["rad_vqa"].text == "100.0"


def test_the_dagger_of_rejected_samples_is_explained_wherever_it_stands(
    runs: InventedRuns, catalogue: Catalogue, tmp_path: Path, visit: Any, run: Run
) -> None:
    answers = {**right(1.0, n=40), "slake_vqa": [1.0] * 38 + ["rejected"] * 2}
    folder = runs.make("a", answers, groups={"medvqa": VQA})
    site = built([folder], tmp_path / "site", catalogue)
    scores = read_run(folder).scores
    console = Console(width=120, no_color=True)
    with console.capture() as shown:
        console.print(scores_table(scores))
    run("report", folder)
    (page,) = folder.rglob("report.html")

    note = "or the server rejected more than 2 % of the samples, which count as wrong."
    for text in (shown.get(), as_markdown(scores)):
        lines = [line for line in text.splitlines() if "slake_vqa@1" in line or "medvqa" in line]
        assert note in " ".join(text.split())
        assert ["†" in line for line in lines] == [True, True]
        assert "rejected by the server 2" in lines[0]
    for width in (390, 1440):
        report = visit(page, width=width)
        assert note in report.page.locator("#scores caption").inner_text()
        assert "99.0†" in report.page.locator(".headline").inner_text()
        assert report.is_clean
        assert report.violations() == []
        front = visit(site.front, width=width)
        assert "99.0 †" in " ".join(front.page.locator("#ranks tbody").inner_text().split())
        keys = front.page.locator(".keys").inner_text()
        assert (
            "some samples have no score, only some were asked, or the server rejected more than"
            in keys
        )
        assert "or the server rejected more than 2 % of a benchmark" in keys
        assert front.is_clean
        model = visit(next((tmp_path / "site").rglob("models/a.html")), width=width)
        (lost,) = [one for one in model.page.locator("td.lost").all() if one.inner_text() != ""]
        assert lost.inner_text() == "counted wrong: rejected by the server 2"
        assert lost.evaluate("cell => cell.offsetWidth") >= 200
        assert front.violations() == []
        model = visit(next(site.front.parent.rglob("models/*.html")), width=width)
        told = model.page.locator("main").inner_text()
        assert "No rank: the server rejected 5.0 % of the samples of slake_vqa." in told
        assert "rejected by the server 2" in told
        assert "99.0†" in told.replace("\n", "")
        assert model.violations() == []


MEASURED = {"wrong": (450, 25), "right": (20, 250)}
"""Of the wrong and of the right answers, how many were rejected and how many accepted."""


@pytest.mark.parametrize(
    ("answers", "rules", "reason"),
    [
        pytest.param(MEASURED, {}, "", id="good"),
        pytest.param({"wrong": (0, 1), "right": (1, 0)}, {},
                     "the judge's scorecard has 2 labels, 100 are needed", id="two-kappa-minus-1"),
        pytest.param({"wrong": (1, 0), "right": (0, 0)}, {},
                     "the judge's scorecard has 1 label, 100 are needed", id="one"),
        pytest.param({"wrong": (49, 0), "right": (0, 50)}, {},
                     "the judge's scorecard has 99 labels, 100 are needed", id="one-too-few"),
        pytest.param({"wrong": (0, 500), "right": (500, 0)}, {},
                     "the judge's kappa may be -1.00, 0.60 is needed", id="all-the-wrong-way"),
        pytest.param({"wrong": (400, 80), "right": (10, 300)}, {},
                     "the judge's false accept is 16.7 %, 10.0 % is allowed", id="too-kind"),
        pytest.param({"wrong": (400, 10), "right": (80, 300)}, {},
                     "the judge's false reject is 21.1 %, 10.0 % is allowed", id="too-strict"),
        pytest.param({"wrong": (500, 0), "right": (0, 0)}, {},
                     "the judge's false reject is not known, 10.0 % is allowed", id="only-wrong"),
        pytest.param(MEASURED, {"labels": 746},
                     "the judge's scorecard has 745 labels, 746 are needed", id="own-number"),
        pytest.param(MEASURED, {"kappa": 0.9},
                     "the judge's kappa may be 0.83, 0.90 is needed", id="own-kappa"),
        pytest.param(MEASURED, {"unreadable": 0.0},
                     "the judge's share of unreadable votes is 0.7 %, 0.0 % is allowed",
                     id="own-unreadable"),
    ],
)  # fmt: skip
def test_a_board_can_demand_a_judge_that_did_well(
    answers: dict[str, tuple[int, int]],
    rules: dict[str, float],
    reason: str,
    runs: InventedRuns,
    catalogue: Catalogue,
) -> None:
    path = runs.make("a", right(0.5), groups={"medvqa": VQA})
    wanted = Rules(needs_scorecard=True, scorecard=NeededScorecard.model_validate(rules))

    (before,) = measured([path], catalogue, wanted).ranked
    write_card(runs, answers, protocol="other")
    (other,) = measured([path], catalogue, wanted).ranked
    write_card(runs, answers, protocol="medix")
    (after,) = measured([path], catalogue, wanted).ranked

    assert before.withheld == other.withheld == ("the judge has no scorecard",)
    assert (after.rank == 1) == (reason == "")
    assert reason in "; ".join(after.withheld)


def test_of_several_scorecards_the_one_with_the_most_labels_counts(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    path = runs.make("a", right(0.5), groups={"medvqa": VQA})
    for answers in (MEASURED, {"wrong": (0, 1), "right": (1, 0)}):
        write_card(runs, answers, protocol="medix")

    (ranked,) = measured([path], catalogue, Rules(needs_scorecard=True)).ranked

    assert ranked.rank == 1


def test_a_board_of_rules_alone_needs_no_scorecard(
    runs: InventedRuns, catalogue: Catalogue
) -> None:
    path = runs.make("a", right(0.5), judge=None, groups={"medvqa": VQA})

    (ranked,) = measured([path], catalogue, Rules(needs_scorecard=True)).ranked

    assert ranked.rank == 1


def test_a_board_is_configured_by_a_file_and_flags_stand_above_it(
    run: Run, runs: InventedRuns, tmp_path: Path, repository: Path
) -> None:
    runs.make("a", {"medqa": [1.0] * 36 + [None] * 4}, groups={"only": ("medqa",)})
    file = tmp_path / "board.yaml"
    file.write_text("max_unscored: 0.2\nneeds_scorecard: true\nscorecard: {labels: 250}\n")
    argv = ["leaderboard", runs.out, "--out", tmp_path / "site"]
    shown = tmp_path / "site" / "index.html"

    run(*argv, "--rules", file)
    by_file = shown.read_text()
    run(*argv, "--rules", file, "--max-unscored", "0")
    by_flag = shown.read_text()

    assert 'title="the judge has no scorecard"' in by_file
    assert "more than 20 % of the samples have no score" in by_file
    assert "labels 250, kappa 0.6, false accept 0.1, false reject 0.1, unreadable 0.05" in by_file
    assert (
        "10.0 % of the samples have no score: rules undecided 4; the judge has no scorecard"
        in by_flag
    )
    text = (repository / "leaderboard" / "README.md").read_text()
    example = text.partition("```yaml\n")[2].partition("```")[0]
    assert Rules.model_validate(yaml.safe_load(example)) == Rules()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_unscord: 0.1", "unknown key 'max_unscord'"),
        ("max_rejected: 2", "max_rejected"),
        ("scorecard: {kappa: 60}", "scorecard.kappa"),
        ("- a", "not a leaderboard"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(
    text: str, said: str, run: Run, runs: InventedRuns, tmp_path: Path
) -> None:
    file = tmp_path / "board.yaml"
    file.write_text(text)

    code, _, err = run("leaderboard", runs.out, "--out", tmp_path / "site", "--rules", file)

    assert code == 2
    assert said in err


def write_card(runs: InventedRuns, answers: dict[str, tuple[int, int]], *, protocol: str) -> None:
    """Write the scorecard of the runs' judge; five votes more could not be read."""
    item = load_probes("held_out").items[0]
    judged = [
        JudgedAnswer(
            item=replace(item, is_correct=name == "right"),
            verdict=VerdictRecord(
                task="probe@1",
                sample_id="x",
                outcome=Outcome.CORRECT if accepted else Outcome.WRONG,
                score=float(accepted),
                votes=(Vote(judge="j", prompt="p", key="k", points=float(accepted)),),
            ),
        )
        for name, counts in answers.items()
        for accepted, num in zip((False, True), counts, strict=True)
        for _ in range(num)
    ]
    unread = Failure(error="ReplyUnusable", message="no score")
    votes = tuple(Vote(judge="j", prompt="p", key="k", failure=unread) for _ in range(5))
    outcome = {"outcome": Outcome.JUDGE_FAILED, "score": None, "votes": votes}
    if len(judged) > 100:
        verdict = judged[0].verdict.model_copy(update=outcome)
        judged.append(JudgedAnswer(item=item, verdict=verdict))
    who = MeasuredJudge(
        name="Qwen/Qwen3-14B",
        identity_digest=digest("Qwen/Qwen3-14B"),
        protocol={"name": protocol, "digest": digest(protocol)},
        judging={"protocol": protocol},
    )
    card = make_scorecard(judged, who, labels={"file": f"{len(judged)}.csv"}, seconds=0.0)
    write_scorecard(card, runs.out)


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
