"""`medix-eval compare` on real runs of replayed answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invented_runs import InventedRuns
from rich.console import Console

from medix_eval.cli.app import main
from medix_eval.report.tables import comparison_table
from medix_eval.results.comparison import compare_runs
from medix_eval.results.store import read_run
from medix_eval.testing import ScriptedServer

HUB = Path(__file__).parent / "fixtures" / "hub"
Run = Callable[..., tuple[int, str, str]]
Answers = dict[tuple[str, str], str]


@pytest.fixture
def replayed(run: Run, tmp_path: Path) -> Callable[..., str]:
    """Run a file of answers and return its run folder."""

    def replay(name: str, answers: Answers, *more: str, tasks: str = "medqa,medmcqa") -> str:
        path = tmp_path / f"{name}.jsonl"
        lines = [
            json.dumps({"task": task, "sample_id": sample_id, "completion": answer})
            for (task, sample_id), answer in answers.items()
        ]
        path.write_text("\n".join(lines))
        argv = ["--model", f"replay:{path}", "--tasks", tasks, "--protocol", "rules", *more]
        _, out, err = run(*argv, "--data-root", HUB, "--out", tmp_path / "out", "--json")
        assert out, err
        return str(json.loads(out)["run"])

    return replay


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The samples, as a run keeps them."""
    out = tmp_path_factory.mktemp("first")
    argv = ["--tasks", "medqa,medmcqa,rad_vqa", "--data-root", str(HUB), "--out", str(out)]
    with ScriptedServer(lambda _: "A") as server:
        argv += ["--model", "openai:scripted", "--base-url", server.url, "--protocol", "rules"]
        with pytest.raises(SystemExit):
            main(argv)
    (path,) = out.rglob("completions.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def right(asked: list[dict[str, Any]]) -> Answers:
    return {(one["task"].split("@")[0], one["sample_id"]): one["reference"] for one in asked}


@pytest.fixture
def wrong(asked: list[dict[str, Any]]) -> Answers:
    """Another option than the right one, where there are options."""
    return {
        (one["task"].split("@")[0], one["sample_id"]): next(
            option for option in one["options"] if option not in one["reference"]
        )
        for one in asked
        if "options" in one
    }


def test_two_replays_that_differ_in_twelve_planted_samples_list_exactly_those(
    run: Run, replayed: Any, right: Answers, wrong: Answers
) -> None:
    planted = list(wrong)[5:17]
    fixed, broken = set(planted[:5]), set(planted[5:])
    before = replayed("before", right | {key: wrong[key] for key in fixed})
    after = replayed("after", right | {key: wrong[key] for key in broken})

    code, out, _ = run("compare", before, after, "--json")

    (pair,) = json.loads(out)["pairs"]
    assert code == 0
    assert {(one["task"], one["sample_id"]) for one in pair["won"]} == fixed
    assert {(one["task"], one["sample_id"]) for one in pair["lost"]} == broken
    assert len(fixed | broken) == 12
    assert sum(one["n"] for one in pair["tasks"].values()) == len(wrong)


def test_the_table_says_who_won_and_by_how_much(
    run: Run, replayed: Any, right: Answers, wrong: Answers
) -> None:
    good, bad = replayed("good", right), replayed("bad", wrong)

    _, out, _ = run("compare", good, bad)
    _, reverse, _ = run("compare", good, "--baseline", bad)

    assert "A = replay:good" in out
    assert "-100.0" in out
    assert "A = replay:bad" in reverse
    assert "+100.0" in reverse
    assert max(map(len, out.splitlines()[3:])) <= 100


def test_runs_that_are_alike_tie_with_the_best(
    run: Run, replayed: Any, right: Answers, wrong: Answers
) -> None:
    slip = {key: wrong[key] for key in [key for key in wrong if key[0] == "medqa"][:1]}
    answers = {"best": right, "near": right | slip, "far": wrong}
    runs = [replayed(name, answers[name]) for name in answers]

    _, out, _ = run("compare", *runs, "--json")

    contest = json.loads(out)["tasks"]["medqa"]
    assert (contest["best"], contest["ties_with_best"]) == (0, [1])


def test_only_samples_that_both_runs_scored_count(run: Run, replayed: Any, right: Answers) -> None:
    whole = replayed("whole", right)
    part = replayed("part", right, "--limit", "5")

    _, out, _ = run("compare", whole, part, "--json")

    contest = json.loads(out)["tasks"]["medqa"]
    assert contest["n"] == 5
    assert contest["n_left_out"] > 0


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--set", "generation.max_tokens=77"], "generation.max_tokens: 2048, now 77"),
        (["--set", "answer.refusals=[never]"], "judging.answer.refusals"),
    ],
)
def test_runs_of_different_protocols_are_refused_and_the_difference_named(
    run: Run, replayed: Any, right: Answers, more: list[str], named: str
) -> None:
    one, other = replayed("one", right), replayed("other", right, *more)

    code, out, err = run("compare", one, other)
    forced, table, _ = run("compare", one, other, "--force")

    assert (code, out) == (2, "")
    assert named in err
    assert forced == 0
    assert f"FORCED, not comparable: B: {named}" in table


def test_runs_on_different_data_are_refused_and_the_difference_named(
    run: Run, replayed: Any, right: Answers, tmp_path: Path
) -> None:
    first, second = replayed("a", right), replayed("b", right)
    path = Path(second).parents[1] / "run.json"
    manifest = json.loads(path.read_text())
    (file,) = manifest["tasks"]["medqa"]["source"]["files"]
    manifest["tasks"]["medqa"]["source"]["files"][file] = "0" * 64
    manifest["tasks"]["medmcqa"]["version"] = "9"
    del manifest["digests"]  # as of an earlier version
    path.write_text(json.dumps(manifest))

    code, _, err = run("compare", first, second)
    forced, out, _ = run("compare", first, second, "--force")

    assert (code, forced) == (2, 0)
    assert f"tasks.medqa.source.files.{file}: " in err
    assert 'tasks.medmcqa.version: "' in err
    assert "FORCED, not comparable: B: tasks.medqa.source" in out


def test_a_slice_on_which_runs_differ_is_named(run: Run, runs: InventedRuns) -> None:
    first = runs.make("m", {"slake_vqa": [1.0, 1.0] * 40})
    second = runs.make("m2", {"slake_vqa": [1.0, 1.0] * 15 + [1.0, 0.0] * 25})

    _, out, _ = run("compare", first, second)
    _, found, _ = run("compare", first, second, "--json")

    by_type = json.loads(found)["pairs"][0]["slices"]["slake_vqa"]["answer_type"]
    assert {value: one["difference"] for value, one in by_type.items()} == {"A": 0, "B": -0.625}
    assert "slices on which B differs: 1 of 2" in out
    assert "slake_vqa, answer_type B, n 40: -62.5 (" in out


def test_another_seed_is_no_other_protocol(run: Run, replayed: Any, right: Answers) -> None:
    one = replayed("one", right)
    other = replayed("other", right, "--set", "generation.seed=7")

    code, out, _ = run("compare", one, other, "--json")

    assert code == 0
    assert json.loads(out)["runs"][1]["settings"] == {"seed": 7}


def test_runs_of_different_tasks_share_nothing(run: Run, replayed: Any, right: Answers) -> None:
    one, other = replayed("one", right), replayed("other", right, tasks="rad_vqa")

    code, _, err = run("compare", one, other)

    assert code == 2
    assert "share no scored sample" in err
    assert "they ran different tasks" in err


def test_runs_of_other_rows_of_one_task_are_not_said_to_have_run_different_tasks(
    run: Run, runs: InventedRuns
) -> None:
    one = runs.make("one", {"medqa": [1.0] * 20 + [None] * 20}, groups={})
    other = runs.make("other", {"medqa": [None] * 20 + [1.0] * 20}, groups={})

    code, _, err = run("compare", one, other)

    assert code == 2
    assert "they share no scored row of these tasks" in err
    assert "medix-eval score RUN" in err
    assert "different tasks" not in err


def test_the_tables_of_a_comparison_fit_into_eighty_columns(
    runs: InventedRuns,
) -> None:
    task = "mmlu_professional_medicine"
    lost: list[float | None] = [1.0] * 20 + [0.0] * 10 + [None] * 10
    places = [runs.make(name, {task: lost}, groups={}) for name in ("a", "b", "c")]
    console = Console(width=80, no_color=True)

    with console.capture() as shown:
        console.print(comparison_table(compare_runs([read_run(place) for place in places])))

    text = shown.get()
    assert "…" not in text
    assert text.count("detectable") == 3  # in two headers and in the note


def test_the_same_rows_in_another_order_are_the_same_samples(runs: InventedRuns) -> None:
    places = [
        runs.make(name, {"medqa": [score] * 8}, groups={})
        for name, score in (("a", 1.0), ("b", 0.0))
    ]
    for place, rows in zip(places, ([*range(8)], [*range(4, 8), *range(4)]), strict=True):
        file = place / "run.json"
        manifest = json.loads(file.read_text())
        manifest["tasks"]["medqa"] |= {"rows": rows, "limit": 8}
        file.write_text(json.dumps(manifest))

    found = compare_runs([read_run(place) for place in places])

    assert found.tasks["medqa"].best_withheld == ""


def test_one_run_alone_is_refused(run: Run, replayed: Any, right: Answers) -> None:
    code, _, err = run("compare", replayed("one", right))

    assert code == 2
    assert "one run alone" in err


def contests_of(run: Run, *paths: Path) -> tuple[dict[str, Any], str]:
    _, found, _ = run("compare", *paths, "--json")
    _, table, _ = run("compare", *paths)
    return json.loads(found), table


@pytest.mark.parametrize(
    ("first", "second", "is_crowned"),
    [
        pytest.param([1.0] * 40, [0.0] * 40, True, id="nothing-lost"),
        pytest.param([1.0] * 40, [1.0] * 10 + [None] * 30, True, id="the-other-could-only-tie"),
        pytest.param([1.0] * 30 + [None] * 10, [0.0] * 40, True, id="lost-too-few-to-turn"),
        pytest.param([1.0] * 16 + [None] * 24, [1.0] * 15 + [0.0] * 25, True, id="just-enough"),
        pytest.param([1.0] * 14 + [None] * 26, [1.0] * 15 + [0.0] * 25, False, id="the-best-lost"),
        pytest.param([1.0] * 30 + [0.0] * 10, [1.0] * 9 + [None] * 31, False, id="the-other-lost"),
    ],
)
def test_nobody_is_the_best_where_lost_samples_could_turn_the_order(
    first: list[float | None],
    second: list[float | None],
    is_crowned: bool,  # noqa: FBT001 (a case)
    run: Run,
    runs: InventedRuns,
) -> None:
    paths = [
        runs.make(name, {"medqa": answers}, groups={})
        for name, answers in (("m", first), ("m2", second))
    ]

    found, table = contests_of(run, *paths)

    contest = found["tasks"]["medqa"]
    assert (contest["best_withheld"] == "") == is_crowned
    assert (
        "No best in medqa: samples without a score could turn the order." in table
    ) != is_crowned
    for (low, high), answers in zip(contest["bounds"], (first, second), strict=True):
        right = sum(one == 1.0 for one in answers)
        assert (low, high) == (right / 40, (right + answers.count(None)) / 40)


def test_the_bounds_of_every_run_stand_beside_scores_that_leave_samples_out(
    run: Run, runs: InventedRuns, visit: Any, tmp_path: Path
) -> None:
    whole = runs.make("m", {"medqa": [1.0] * 20 + [0.0] * 20}, groups={})
    part = runs.make("m2", {"medqa": [1.0] * 10 + [0.0] * 10 + [None] * 20}, groups={})

    _, table = contests_of(run, whole, part)
    run("report", whole, part, "--out", tmp_path / "both.html")

    line = next(line for line in table.splitlines() if line.split()[:1] == ["medqa"])
    assert "(50.0)" in line
    assert "(25.0 to 75.0)" in line
    for width in (390, 1440):
        visited = visit(tmp_path / "both.html", width=width)
        cells = visited.page.locator("#scores tbody tr").inner_text()
        assert "no best: samples without a score could turn the order" in cells
        assert "25.0 to 75.0" in cells
        assert "50.0 to 50.0" not in cells
        assert visited.page.locator("#scores tbody b").count() == 0
        for caption in visited.page.locator("#scores caption, #differences caption").all():
            box = caption.locator("xpath=ancestor::div[1]")
            seen = box.evaluate("box => box.getBoundingClientRect().right")
            assert caption.evaluate("one => one.getBoundingClientRect().right") <= seen + 1
        assert visited.is_clean
        assert visited.violations() == []


def test_nobody_is_the_best_of_a_group_that_it_has_not_completed(
    run: Run, runs: InventedRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = {"both": ("medqa", "medmcqa")}
    weak = {name: [1.0] * 10 + [0.0] * 30 for name in groups["both"]}
    better = {name: [1.0] * 39 + ["request_failed"] for name in groups["both"]}
    paths = [runs.make("weak", weak, groups=groups), runs.make("better", better, groups=groups)]

    found, table = contests_of(run, *paths)
    with pytest.raises(SystemExit):
        main(["export", *map(str, paths), "--format", "markdown"])

    assert found["groups"]["both"]["best_withheld"] == "B has not completed all tasks"
    assert [one["best_withheld"] for one in found["tasks"].values()] == ["", ""]
    assert "No best in both: B has not completed all tasks." in table
    line = next(one for one in capsys.readouterr().out.splitlines() if one.startswith("| **both**"))
    assert line.count("**") == 2  # the name alone


def test_runs_that_were_asked_about_different_samples_have_no_best(
    run: Run, replayed: Any, right: Answers, wrong: Answers
) -> None:
    found, _ = contests_of(run, replayed("a", right), replayed("b", wrong, "--limit", "5"))

    reasons = {one["best_withheld"] for one in found["tasks"].values()}
    assert reasons == {"the runs were not asked the same samples"}
