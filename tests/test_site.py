"""Which runs share a board, who gets a rank, and what is refused."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medix_eval.bundled import bundled
from medix_eval.cli import main
from medix_eval.digests import digest
from medix_eval.errors import ConfigError
from medix_eval.exchange.importing import import_results
from medix_eval.invented_runs import Answers, InventedRuns
from medix_eval.judge_check.scorecard import Measured, make_scorecard
from medix_eval.reproduction import load_published
from medix_eval.site.boards import Board, Standing
from medix_eval.site.build import Written, read_boards, write_site
from medix_eval.site.check import problems_of
from medix_eval.site.facts import facts_of, load_facts
from medix_eval.site.measured import Measured as MeasuredBoard
from medix_eval.site.measured import measure
from medix_eval.site.published import published_tables, sources
from medix_eval.site.ranking import Rules
from medix_eval.tasks import Catalogue, load_tasks

VQA = ("slake_vqa", "rad_vqa", "path_vqa", "pmc_vqa", "pmc_vqa_hard")
RULES = Rules()


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_tasks([bundled("tasks")])


@pytest.fixture
def runs(tmp_path: Path, catalogue: Catalogue) -> InventedRuns:
    return InventedRuns(tmp_path / "results", catalogue)


def right(share: float, *, n: int = 40, tasks: Sequence[str] = VQA) -> Answers:
    """Answer the first part of each task's samples right."""
    return {task: [float(row < share * n) for row in range(n)] for task in tasks}


def boards_of(
    paths: Sequence[Path], catalogue: Catalogue, *, allow_synthetic: bool = False
) -> list[Board]:
    return read_boards(paths, catalogue=catalogue, facts={}, allow_synthetic=allow_synthetic)


def measured(paths: Sequence[Path], catalogue: Catalogue, rules: Rules = RULES) -> MeasuredBoard:
    (board,) = boards_of(paths, catalogue)
    return measure(board, catalogue, rules=rules)


def built(paths: Sequence[Path], out: Path, catalogue: Catalogue) -> Written:
    boards = boards_of(paths, catalogue, allow_synthetic=True)
    return write_site(boards, out, catalogue=catalogue, rules=RULES)


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
        who = Measured(
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


@pytest.mark.parametrize("what", ["slake_vqa", "medvqa"])
def test_an_edited_score_is_refused(runs: InventedRuns, catalogue: Catalogue, what: str) -> None:
    path = runs.make("a", right(0.5), groups={} if what in VQA else {"medvqa": VQA})
    (file,) = path.glob("judged/*/scores.json")
    scores = json.loads(file.read_text())
    (scores["tasks"] if what in VQA else scores["groups"])[what]["score"] = 0.99
    file.write_text(json.dumps(scores))

    with pytest.raises(ConfigError, match=what):
        measured([path], catalogue)


@pytest.mark.parametrize("name", ["../../../escaped", "/absolute", "..", "a/b", "a\\b", "<b>", ""])
def test_a_benchmark_named_like_a_path_is_refused(
    runs: InventedRuns, catalogue: Catalogue, name: str
) -> None:
    path = runs.make("a", {name: [1.0, 0.0]})

    with pytest.raises(ConfigError, match="no name of a benchmark"):
        boards_of([path], catalogue)


def test_check_names_every_edited_figure(runs: InventedRuns, catalogue: Catalogue) -> None:
    path = runs.make("a", right(0.5))
    (file,) = path.glob("judged/*/scores.json")
    scores = json.loads(file.read_text())
    scores["tasks"]["rad_vqa"]["n_scored"] = 41
    file.write_text(json.dumps(scores))

    problems = problems_of([path], catalogue=catalogue, facts={}, allow_synthetic=False)

    assert len(problems) == 1
    assert "rad_vqa: n_scored is 41, its verdicts give 40" in problems[0]


def test_check_exits_with_5_where_a_run_should_not_be_shown(
    runs: InventedRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(runs.make("a", right(0.5)))
    bad = str(runs.make("b", right(0.5), synthetic=True))

    with pytest.raises(SystemExit) as refused:
        main(["leaderboard", good, bad, "--check"])
    assert refused.value.code == 5
    assert "synthetic data" in capsys.readouterr().out
    with pytest.raises(SystemExit) as passed:
        main(["leaderboard", good, "--check"])
    assert passed.value.code == 0


def test_a_folder_of_runs_stands_for_all_of_them(
    runs: InventedRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.make("a", right(0.5))
    runs.make("b", right(0.6))

    with pytest.raises(SystemExit) as done:
        main(["leaderboard", str(runs.out), "--out", str(tmp_path / "site")])

    assert done.value.code == 0
    assert "2 models, 5 benchmarks (real)" in capsys.readouterr().out


def test_two_builds_of_one_set_of_runs_are_equal(
    runs: InventedRuns, tmp_path: Path, catalogue: Catalogue
) -> None:
    paths = [runs.make(name, right(share)) for name, share in (("a", 0.5), ("b", 0.7))]
    for out in (tmp_path / "one", tmp_path / "two"):
        built(paths, out, catalogue)

    files = sorted(
        path.relative_to(tmp_path / "one")
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    )

    assert len(files) > 15
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_new_build_leaves_no_page_of_a_withdrawn_run(
    runs: InventedRuns, tmp_path: Path, catalogue: Catalogue
) -> None:
    paths = [runs.make("stays", right(0.5)), runs.make("goes", right(0.6))]
    built(paths, tmp_path / "site", catalogue)

    built(paths[:1], tmp_path / "site", catalogue)

    assert {page.stem for page in (tmp_path / "site").rglob("models/*.html")} == {"stays"}


def test_a_folder_of_other_files_is_not_replaced(
    runs: InventedRuns, tmp_path: Path, catalogue: Catalogue
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years")

    with pytest.raises(ConfigError, match="no site of ours"):
        built([runs.make("a", right(0.5))], tmp_path / "thesis", catalogue)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years"


def test_the_downloads_hold_every_score(
    runs: InventedRuns, tmp_path: Path, catalogue: Catalogue
) -> None:
    built([runs.make("=cmd()", right(0.5))], tmp_path / "site", catalogue)

    (table,) = (tmp_path / "site").rglob("scores.csv")
    (content,) = (tmp_path / "site").rglob("scores.json")
    lines = list(csv.DictReader(table.read_text().splitlines()))
    assert {line["task"]: line["score"] for line in lines if line["task"] in VQA} == dict.fromkeys(
        VQA, "0.5"
    )
    assert {line["model"] for line in lines} == {"'=cmd()"}
    assert json.loads(content.read_text())["models"][0]["tasks"]["rad_vqa"]["score"] == 0.5


def test_text_of_data_that_is_not_public_is_on_no_page(
    runs: InventedRuns, tmp_path: Path, catalogue: Catalogue
) -> None:
    answers = right(0.5, tasks=("mimic_cxr_report_generation", "medqa"))
    path = runs.make("a", answers, completion="a sentence of the ward")
    lines = (path / "completions.jsonl").read_text().splitlines()
    lines = [
        line.replace("of the ward", "of the archive") if "medqa@" in line else line
        for line in lines
    ]
    (path / "completions.jsonl").write_text("\n".join(lines) + "\n")

    built([path], tmp_path / "site", catalogue)

    files = [file for file in (tmp_path / "site").rglob("*.*") if file.is_file()]
    assert not [file for file in files if b"of the ward" in file.read_bytes()]
    assert [file.stem for file in files if b"of the archive" in file.read_bytes()] == ["a"]


def test_facts_of_a_later_file_replace_single_facts(tmp_path: Path) -> None:
    mine = tmp_path / "models.yaml"
    mine.write_text("models: {MBZUAI/MediX-R1-8B: {licence: other}}")

    facts = load_facts([bundled("leaderboard") / "models.yaml", mine])

    known = facts_of("openai:MBZUAI/MediX-R1-8B@1a2b", facts)
    assert (known.licence, known.parameters_b) == ("other", 8)


def test_a_misspelt_fact_is_named(tmp_path: Path) -> None:
    mine = tmp_path / "models.yaml"
    mine.write_text("models: {a: {license: mit}}")

    with pytest.raises(ConfigError, match=r"models\.a\.license"):
        load_facts([mine])


def test_every_published_figure_is_shown_once_with_its_source() -> None:
    figures = load_published(bundled("leaderboard") / "published_results.csv")
    tables = published_tables(figures)

    assert sum(len(table.cells) for table in tables) == len(figures) == 299
    assert {figure.source for table in tables for figure in table.cells.values()} == set(
        sources(figures)
    )


def test_the_command_imports_nothing_heavy(runs: InventedRuns, tmp_path: Path) -> None:
    path = runs.make("a", right(0.5))
    script = (
        "import sys\nfrom medix_eval.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'lm_eval', 'pandas', 'openai', 'vllm'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, "leaderboard", path, "--out", tmp_path / "site"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("place", "line"),
    [
        pytest.param(("tasks", "rad_vqa", "interval", 0), "rad_vqa: interval.0 is 0.9", id="task"),
        pytest.param(
            ("groups", "medvqa", "interval", 1), "medvqa: interval.1 is 0.9", id="average"
        ),
        pytest.param(
            ("tasks", "slake_vqa", "slices", "answer_type", "A", "score"),
            "slake_vqa: slices.answer_type.A.score is 0.9",
            id="slice",
        ),
    ],
)
def test_check_compares_intervals_and_slices_too(
    runs: InventedRuns, catalogue: Catalogue, place: tuple[str | int, ...], line: str
) -> None:
    path = runs.make("a", right(0.5))
    (file,) = path.glob("judged/*/scores.json")
    scores = json.loads(file.read_text())
    inner = scores
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = 0.9
    file.write_text(json.dumps(scores))

    problems = problems_of([path], catalogue=catalogue, facts={}, allow_synthetic=False)

    assert len(problems) == 1
    assert line in problems[0]


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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param(
            {"note": "Near the <published> ones."}, "Near the &lt;published&gt;", id="note"
        ),
        pytest.param({"condition": {"imported": "official"}}, "IMPORTED.", id="imported"),
        pytest.param({"synthetic": True}, "SYNTHETIC.", id="synthetic"),
    ],
)
def test_a_caveat_stands_on_every_page_of_its_board_and_in_no_other(
    runs: InventedRuns,
    tmp_path: Path,
    catalogue: Catalogue,
    settings: dict[str, Any],
    said: str,
) -> None:
    paths = [
        runs.make("plain", right(0.5)),
        runs.make("a", right(0.5), protocol="other", **settings),
    ]

    out = built(paths, tmp_path / "site", catalogue).front.parent

    (board,) = (page.stem for page in out.glob("other-*.html"))
    marked = {page for page in out.rglob("*.html") if said in page.read_text()}
    assert marked == {out / f"{board}.html", *(out / "boards" / board).rglob("*.html")}
