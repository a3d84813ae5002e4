"""Requests that share one run folder: each has its own scores, and the largest stands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from invented_runs import InventedRuns
from scripted_servers import Run, Serve, candidate, judge, records, strict

import medix_eval
from medix_eval.data.tasks import Catalogue, load_tasks
from medix_eval.errors import ConfigError
from medix_eval.results.align import read_sample_scores
from medix_eval.results.store import judging_at, read_run
from medix_eval.site.boards import Standing
from medix_eval.site.build import read_boards
from medix_eval.storage.bundled import bundled
from medix_eval.testing import Reply, prompt_text

RULES = ("--protocol", "rules")


def held(place: Path) -> dict[str, int]:
    """How many samples of which task the scores in a folder are of, by the file alone."""
    tasks = json.loads((place / "scores.json").read_text())["tasks"]
    return {name: task["n"] for name, task in tasks.items()}


@pytest.fixture
def asked(evaluate: Run, serve: Serve, caplog: pytest.LogCaptureFixture) -> Any:
    """Ask a server that always says A, under the rules; return scores and stderr."""
    answering = serve(lambda _: "A")

    def ask(tasks: str, *argv: str) -> tuple[dict[str, Any], str]:
        caplog.clear()
        _, out, err = evaluate(*candidate(answering), "--tasks", tasks, *RULES, *argv)
        return json.loads(out), caplog.text + err

    return ask


def test_a_smaller_request_leaves_a_finished_result_as_it_is(asked: Any) -> None:
    whole, _ = asked("medqa,medmcqa")
    judged = Path(whole["run"])
    files = ("scores.json", "scores.csv", "report.md", "report.html")
    before = [(judged / name).read_bytes() for name in files]

    few, err = asked("medqa", "--limit", "3")

    assert [(judged / name).read_bytes() for name in files] == before
    assert {name: task["n"] for name, task in few["tasks"].items()} == {"medqa": 3}
    assert "scores.json is of the largest complete selection" in err
    place = Path(few["run"])
    assert (place.parent.name, judging_at(place)) == ("selections", judged)
    assert held(place) == {"medqa": 3}
    assert f"report: {place / 'report.html'}" in err
    run = json.loads((judged.parent.parent / "run.json").read_text())
    assert run["tasks"]["medqa"]["rows"] is None


def test_every_reader_takes_the_rows_of_the_scores_it_reads(asked: Any, run: Run) -> None:
    whole, _ = asked("medqa,medmcqa")
    few, _ = asked("medqa", "--limit", "3")
    judged, place = Path(whole["run"]), Path(few["run"])

    for folder, n in ((judged, sum(held(judged).values())), (place, 3)):
        found = medix_eval.load_run(folder)
        assert found.path == folder
        assert len(list(found.samples())) == n
        assert sum(map(len, read_sample_scores(found.judged).values())) == n
        code, out, _ = run("export", folder, "--format", "csv")
        assert (code, "medmcqa" in out) == (0, folder == judged)
        code, out, _ = run("score", folder, "--json")
        assert sum(task["n"] for task in json.loads(out)["tasks"].values()) == n
    assert medix_eval.load_run(judged.parent.parent).scores == medix_eval.load_run(judged).scores
    code, out, _ = run("compare", judged, place, "--json")
    assert json.loads(out)["tasks"]["medqa"]["n"] == 3


def test_a_selection_is_judged_again_alone(asked: Any, run: Run, serve: Serve) -> None:
    asked("medqa,medmcqa")
    few, _ = asked("medqa", "--limit", "3")

    code, out, _ = run("judge", few["run"], *judge(serve(strict)), "--json")

    (again,) = json.loads(out)["runs"]
    assert code == 0
    assert {name: one["n"] for name, one in again["tasks"].items()} == {"medqa": 3}
    assert len(records(again["run"], "verdicts.jsonl")) == 3
    assert again["judged_before"].startswith("rules")


def test_tasks_that_are_asked_for_one_by_one_stand_together(asked: Any) -> None:
    first, _ = asked("medqa")
    both, err = asked("medmcqa")

    assert set(both["tasks"]) == {"medqa", "medmcqa"}
    assert both["run"] == first["run"]
    assert "largest complete" not in err
    assert len(list(Path(both["run"]).glob("selections/*"))) == 3


def test_a_larger_request_stands_once_it_is_complete(evaluate: Run, serve: Serve) -> None:
    broken, known = False, set[str]()

    def script(body: dict[str, Any]) -> str | Reply:
        if broken and prompt_text(body) not in known:
            return Reply(body="[]")
        known.add(prompt_text(body))
        return "A"

    argv = [*candidate(serve(script)), "--tasks", "medmcqa", *RULES]
    _, out, _ = evaluate(*argv, "--limit", "2")
    judged, broken = Path(json.loads(out)["run"]), True
    code, out, _ = evaluate(*argv)
    whole = json.loads(out)["tasks"]["medmcqa"]

    assert (code, whole["n_scored"]) == (1, 2)
    assert held(judged) == {"medmcqa": 2}
    broken = False
    assert evaluate(*argv)[0] == 0
    assert held(judged) == {"medmcqa": whole["n"]}


def test_the_newer_of_two_equal_requests_stands(asked: Any) -> None:
    one, _ = asked("medmcqa", "--limit", "3")
    other, _ = asked("medmcqa", "--limit", "3", "--seed", "1")
    judged = Path(one["run"])

    rows = {sample.completion.row for sample in read_run(judged).samples()}
    assert other["run"] == one["run"]
    assert len(rows) == 3
    entry = json.loads((judged.parent.parent / "run.json").read_text())["tasks"]["medmcqa"]
    assert len(list(judged.glob("selections/*"))) == 2
    assert set(entry["rows"]) > rows, "run.json knows the rows of both"


@pytest.mark.parametrize("lost", ["scores.json", "report.html"])
def test_a_kill_between_two_files_heals_with_the_next_command(asked: Any, lost: str) -> None:
    whole, _ = asked("medqa,medmcqa")
    judged = Path(whole["run"])
    asked("medqa", "--limit", "3")
    for file in (judged / lost, *judged.glob(f"selections/*/{lost}")):
        file.unlink()

    again, _ = asked("medqa,medmcqa")

    assert again == whole
    assert (judged / lost).is_file()


def test_a_new_verdict_reaches_every_selection_that_holds_its_sample(
    evaluate: Run, serve: Serve
) -> None:
    broken = True
    answering = serve(lambda _: Reply(body="[]") if broken else "A")
    argv = [*candidate(answering), "--tasks", "medqa", *RULES]
    _, out, _ = evaluate(*argv, "--limit", "2")
    broken = False
    evaluate(*argv)

    (place,) = [
        file.parent
        for file in Path(json.loads(out)["run"]).glob("selections/*/scores.json")
        if held(file.parent) == {"medqa": 2}
    ]
    scores = medix_eval.load_run(place).scores
    assert scores.num_failures == 0
    assert (
        sum(map(len, read_sample_scores(read_run(place)).values()))
        == scores.tasks["medqa"].n_scored
    )


def test_a_folder_of_0_1_keeps_its_scores_beside_a_smaller_request(
    asked: Any, tmp_path: Path
) -> None:
    """A run of 0.1 has no selections: what `run.json` and `judging.json` say is the one."""
    whole, _ = asked("medqa,medmcqa")
    judged = Path(whole["run"])
    shutil.rmtree(judged / "selections")
    old = {name: value for name, value in whole.items() if name != "selection"}
    (judged / "scores.json").write_text(json.dumps(old))
    assert medix_eval.load_run(judged).scores.tasks.keys() == whole["tasks"].keys()

    few, _ = asked("medmcqa", "--limit", "2")

    assert held(judged) == {name: task["n"] for name, task in whole["tasks"].items()}
    assert held(Path(few["run"])) == {"medmcqa": 2}


@pytest.fixture
def catalogue() -> Catalogue:
    return load_tasks([bundled("tasks")])


@pytest.fixture
def runs(tmp_path: Path, catalogue: Catalogue) -> InventedRuns:
    return InventedRuns(tmp_path / "results", catalogue)


def judged_twice(evaluate: Run, run: Run, serve: Serve) -> tuple[Path, Path, Path]:
    _, out, _ = evaluate(*candidate(serve(lambda _: "A")), "--tasks", "medqa", *RULES)
    first = Path(json.loads(out)["run"])
    folder = first.parent.parent
    run("judge", folder, *judge(serve(strict)))
    (second,) = [one for one in folder.glob("judged/*") if one != first]
    return folder, first, second


def test_a_command_tells_which_judging_it_took_and_takes_another_if_told(
    evaluate: Run, run: Run, serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, first, second = judged_twice(evaluate, run, serve)
    caplog.clear()

    _, out, _ = run("score", folder, "--json")
    assert Path(json.loads(out)["run"]) == second
    (line,) = [line for line in caplog.text.splitlines() if "has 2 judgings" in line]
    assert f"took {second.name} (protocol medix, judge openai:scripted)" in line
    assert f"others: {first.name} (protocol rules, judge none)" in line
    assert "--judging DIGEST" in line
    for name in (first.name, first.name[:4]):
        caplog.clear()
        _, out, _ = run("score", folder, "--judging", name, "--json")
        assert Path(json.loads(out)["run"]) == first
        assert "judgings" not in caplog.text
    policy = tmp_path / "policy.yaml"
    policy.write_text("name: p\nallow_synthetic: true\nfloors: [{task: medqa, at_least: 0.0}]\n")
    for argv in (
        ["export", folder],
        ["gate", policy, folder],
        ["compare", folder, folder],
        ["report", folder],
        ["submit", folder, "--allow-synthetic", "--out", tmp_path / "zips"],
        ["judge-check", "--sheet", folder],
        ["leaderboard", folder, "--allow-synthetic", "--check"],
    ):
        code, out, err = run(*argv, "--judging", first.name)
        assert (code, "judgings;" in caplog.text) == (0, False), (argv, out, err)
        code, _, err = run(*argv, "--judging", "zz")
        assert code in {2, 5}, argv


def test_a_judging_that_is_not_there_is_named_with_those_that_are(
    evaluate: Run, run: Run, serve: Serve
) -> None:
    folder, first, second = judged_twice(evaluate, run, serve)

    code, _, err = run("export", folder, "--judging", "zz")

    assert code == 2
    assert "is not judged as zz" in err
    assert first.name in err
    assert second.name in err
    code, _, err = run("export", first, "--judging", second.name)
    assert code == 2


def test_an_interrupted_judging_is_left_out_by_name(
    evaluate: Run, run: Run, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    folder, first, second = judged_twice(evaluate, run, serve)
    for file in second.rglob("scores.json"):
        file.unlink()

    code, out, _ = run("export", folder)

    assert (code, "medqa" in out) == (0, True)
    assert f"left out, interrupted before it had scores: {second}" in caplog.text
    assert medix_eval.load_run(folder).path == first
    code, out, _ = run("score", folder, "--judging", second.name, "--json")
    assert Path(json.loads(out)["run"]) == second


def test_the_order_of_judgings_survives_a_copy_without_times(
    evaluate: Run, run: Run, serve: Serve, tmp_path: Path
) -> None:
    folder, _, second = judged_twice(evaluate, run, serve)
    copy = tmp_path / "copy" / "M" / "run"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    for name in sorted(path.name for path in copy.glob("judged/*")):
        for file in (copy / "judged" / name).glob("*.json*"):
            file.touch()  # the last in the alphabet is the newest now

    assert medix_eval.load_run(copy).path.name == second.name


def test_every_judging_of_a_run_has_its_board(evaluate: Run, run: Run, serve: Serve) -> None:
    folder, first, second = judged_twice(evaluate, run, serve)
    options: dict[str, Any] = {"facts": {}, "allow_synthetic": True}
    options["catalogue"] = load_tasks([bundled("tasks")])

    boards = read_boards([folder], **options)
    one = read_boards([folder.parent.parent], judging=first.name, **options)

    assert {board.protocol["name"] for board in boards} == {"medix", "rules"}
    assert [board.protocol["name"] for board in one] == ["rules"]
    with pytest.raises(ConfigError, match="is not judged as zz"):
        read_boards([folder], judging="zz", **options)
    assert read_boards([second], **options)[0].protocol["name"] == "medix"


@pytest.mark.parametrize(
    "model",
    [
        ["openai:mistyped", "--base-url", "http://127.0.0.1:9/v1"],
        ["openai:x", "--base-url", "http://localhost:9"],
        ["replay:nofile.jsonl"],
        ["./nofolder"],
    ],
)
def test_a_model_that_cannot_be_opened_leaves_no_run(
    evaluate: Run, tmp_path: Path, model: list[str]
) -> None:
    code, _, _ = evaluate("--model", *model, "--tasks", "medqa", *RULES)

    assert code in {2, 4}
    assert [*(tmp_path / "out").rglob("*")] == []


def test_a_judge_that_cannot_be_opened_leaves_neither_run_nor_judging(
    evaluate: Run, run: Run, serve: Serve, tmp_path: Path
) -> None:
    answering = serve(lambda _: "A")
    away = ["--judge", "openai:j", "--judge-base-url", "http://127.0.0.1:9/v1"]
    code, _, _ = evaluate(*candidate(answering), *away, "--tasks", "medqa")
    assert code == 4
    assert [*(tmp_path / "out").rglob("run.json")] == []

    _, out, _ = evaluate(*candidate(answering), "--tasks", "medqa", *RULES)
    judged = Path(json.loads(out)["run"])
    code, _, _ = run("judge", judged.parent.parent, *away)

    assert code == 4
    assert [*judged.parent.iterdir()] == [judged]
    assert len(records(judged.parent.parent, "completions.jsonl")) > 0


def test_a_key_that_is_refused_at_the_first_sample_leaves_no_run(
    evaluate: Run, serve: Serve, tmp_path: Path
) -> None:
    answering = serve(lambda _: Reply(status=401, text="bad key"))

    code, _, _ = evaluate(*candidate(answering), "--tasks", "medqa", *RULES)

    assert code == 4
    assert [*(tmp_path / "out").rglob("run.json")] == []


def test_a_run_that_never_started_does_not_block_the_others(
    runs: InventedRuns, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs.make("good", {"slake_vqa": [1.0, 0.0]})
    never = runs.make("mistyped", {"slake_vqa": [1.0]})
    shutil.rmtree(never / "judged")
    (never / "completions.jsonl").write_text("")

    code, out, _ = run("leaderboard", runs.out, "--out", tmp_path / "site")

    assert (code, "1 model" in out) == (0, True)
    assert f"{never} is left out: it has no scores" in caplog.text
    code, _, err = run("leaderboard", never, "--out", tmp_path / "site")
    assert (code, "has no verdicts yet" in err) == (2, True)
    shutil.rmtree(runs.out / "good")
    code, _, err = run("leaderboard", runs.out, "--out", tmp_path / "site")
    assert (code, "none of these runs has scores" in err) == (2, True)
    assert (tmp_path / "site" / "boards").is_dir(), "the site that was there stays"


def test_synthetic_tasks_do_not_spread_to_real_ones(
    runs: InventedRuns, catalogue: Catalogue, run: Run, tmp_path: Path
) -> None:
    folder = runs.make("m", {"slake_vqa": [1.0, 0.0], "rad_vqa": [1.0, 1.0]})
    manifest = json.loads((folder / "run.json").read_text())
    manifest["tasks"]["rad_vqa"]["synthetic"] = True
    (folder / "run.json").write_text(json.dumps(manifest))
    run("score", folder)

    _, table, _ = run("score", folder)
    (board,) = read_boards([folder], catalogue=catalogue, facts={}, allow_synthetic=False)

    (line,) = [line for line in table.splitlines() if "rad_vqa@1" in line]
    (real,) = [line for line in table.splitlines() if "slake_vqa@1" in line]
    assert ("SYNTHETIC" in line, "SYNTHETIC" in real) == (True, False)
    assert not table.startswith("SYNTHETIC")
    (place,) = folder.glob("judged/*")
    page = (place / "report.html").read_text()
    assert ("rad_vqa<small>@1, SYNTHETIC<" in page, "slake_vqa<small>@1<" in page) == (True, True)
    assert board.standing is Standing.REAL
    assert [entry.tasks for entry in board.entries] == [("slake_vqa",)]
    assert all(group.score is None for entry in board.entries for group in entry.groups.values())
    csv = run("export", folder, "--format", "csv")[1].splitlines()
    at = csv[0].split(",").index("synthetic")
    told = {
        name: line.split(",")[at]
        for line in csv[1:]
        for name in ("slake_vqa", "rad_vqa")
        if f",{name},task," in line
    }
    assert told == {"slake_vqa": "False", "rad_vqa": "True"}
    for task, code in (("slake_vqa", 0), ("rad_vqa", 5)):
        policy = tmp_path / f"{task}.yaml"
        policy.write_text(f"name: p\nfloors: [{{task: {task}, at_least: 0.0}}]\n")
        assert run("gate", policy, folder)[0] == code


def test_a_failure_in_one_task_takes_no_rows_from_another(
    evaluate: Run, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    few = "medmcqa"
    lost = Reply(text="A", finish_reason="melted")
    fails = {"now": False}
    answering = serve(
        lambda body: lost if fails["now"] and "Choices" not in prompt_text(body) else "A"
    )
    argv = [*candidate(answering), *RULES]
    evaluate(*argv, "--tasks", few, "--limit", "3")
    fails["now"] = True
    code, out, _ = evaluate(*argv, "--tasks", f"{few},rad_vqa")

    (file,) = (one for one in Path(json.loads(out)["run"]).glob("scores.json"))
    standing = json.loads((judging_at(file.parent) / "scores.json").read_text())["tasks"]
    assert code == 1
    assert standing["rad_vqa"]["outcomes"]["request_failed"] > 0
    assert standing[few]["limit"] is None
    assert standing[few]["n"] > 3
    assert "more samples were asked for" not in caplog.text
