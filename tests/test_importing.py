"""Results of elsewhere come in only as their own lines tell it, and never break the importer."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published_scoring
import pytest

Run = Callable[..., tuple[int, str, str]]


def official(folder: Path, points: dict[str, list[float]], *, claim: str = "") -> Path:
    folder.mkdir()
    with (folder / "m.jsonl").open("w") as said, (folder / "m_eval.jsonl").open("w") as judged:
        for task, scores in points.items():
            for row, score in enumerate(scores):
                line = {"id": f"{task}_{row}", "question": "q", "answer": "a", "response": "r"}
                said.write(json.dumps(line) + "\n")
                judged.write(json.dumps(line | {"evaluation": {"score": score}}) + "\n")
    (folder / "m_score.txt").write_text(claim)
    return folder


def test_an_imported_average_is_the_published_one(run: Run, tmp_path: Path) -> None:
    points: dict[str, list[float]] = {
        "medqa": [1, 0, 1, 1],
        "rad_vqa": [0, 1],
        "mimic_cxr_report_generation": [3.0, 4.666666666666667, 0.0],
    }
    lines = [(task, score) for task, scores in points.items() for score in scores]
    published = published_scoring.run_scores(lines, selected=[*points])
    overall = published_scoring.overall(published)
    claim = "".join(f"{task}: {score:.4f}\n" for task, score in published.items())
    folder = official(tmp_path / "m", points, claim=f"{claim}Overall: {100 * overall:.2f}\n")

    code, out, err = run("import", folder, "--out", tmp_path / "in", "--json")

    scores = {name: task["score"] for name, task in json.loads(out)["tasks"].items()}
    assert code == 1, err  # most rows are missing
    assert scores == pytest.approx(published)
    assert sum(scores.values()) / 3 == pytest.approx(overall)


def test_a_claim_that_the_samples_do_not_give_is_named(run: Run, tmp_path: Path) -> None:
    folder = official(tmp_path / "m", {"medqa": [1, 0]}, claim="medqa: 0.9\nOverall: 90.0\n")

    code, _, err = run("import", folder, "--out", tmp_path / "in")

    assert code == 5
    assert "medqa: 90.00 is stated, its samples give 50.00" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"evaluation": {"score": 7}}, "has the score 7"),
        ({"evaluation": {"score": "1"}}, "has the score '1'"),
        ({"evaluation": {}}, "has the score None"),
        ({"id": "medqa"}, "no id of the form TASK_ROW"),
        ({"id": "medqa_0"}, "judges medqa_0 again"),
        ({"id": "medqa_9"}, "judges an answer that does not exist"),
        ({"response": "other"}, "judges another response"),
    ],
)
def test_a_defective_file_is_refused_with_its_line(
    run: Run, tmp_path: Path, line: dict[str, Any], message: str
) -> None:
    folder = official(tmp_path / "m", {"medqa": [1, 0]})
    path = folder / "m_eval.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(f"{lines[0]}\n{json.dumps(json.loads(lines[1]) | line)}\n")

    code, _, err = run("import", folder, "--out", tmp_path / "in")

    assert code == 3
    assert "m_eval.jsonl, line 2" in err
    assert message in err
    assert not (tmp_path / "in").exists()


# As the published code really writes


def replaced(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder


def test_a_reply_without_content_is_an_answer_without_a_verdict(run: Run, tmp_path: Path) -> None:
    folder = official(tmp_path / "m", {"medqa": [1, 0]})
    answers = (folder / "m.jsonl").read_text().replace('"response": "r"', '"response": null', 1)
    judged = (folder / "m_eval.jsonl").read_text().partition("\n")[2]
    replaced(replaced(folder, "m.jsonl", answers), "m_eval.jsonl", judged)

    _, out, err = run("import", folder, "--out", tmp_path / "in", "--json")

    assert json.loads(out)["tasks"]["medqa"]["outcomes"]["judge_failed"] == 1, err


def test_further_keys_of_a_line_are_nobodys_business(run: Run, tmp_path: Path) -> None:
    folder = official(tmp_path / "m", {"usmle_sa": [1]})
    line = {"id": "usmle_sa_0", "question": "q", "answer": "a", "answer_idx": "B", "response": "r"}
    replaced(folder, "m.jsonl", json.dumps(line))
    replaced(folder, "m_eval.jsonl", json.dumps(line | {"evaluation": {"score": 1, "raw": ["x"]}}))

    code, _, err = run("import", folder, "--out", tmp_path / "in")

    assert code == 1, err


@pytest.mark.parametrize(
    ("claim", "differs"),
    [
        pytest.param("medqa: 0.9\nOverall: 90.0medqa: 0.5\nOverall: 50.0", "", id="glued"),
        pytest.param("medqa: 0.5\nOverall: 50.0medqa: 0.9\nOverall: 90.0", "90.00", id="glued-2"),
        pytest.param("rad_vqa: 1.0\nOverall: 100.0", "", id="mean-of-the-last-table"),
        pytest.param("| Task | Accuracy |\n| medqa | 0.5 |\n| Overall | 50.0 |", "", id="table"),
        pytest.param("medqa: 50%", "", id="percent"),
        pytest.param("medqa: 0.500", "", id="rounded"),
        pytest.param("medqa: 0.504", "50.40", id="0.4-points"),
        pytest.param("medqa: 50.4", "50.40", id="0.4-points-of-a-hundred"),
        pytest.param("pubmedqa: 0.5", "no samples", id="no-samples"),
    ],
)
def test_the_claims_stated_last_count_to_the_digit_that_they_state(
    run: Run, tmp_path: Path, claim: str, differs: str
) -> None:
    folder = official(tmp_path / "m", {"medqa": [1, 0], "rad_vqa": [1]}, claim=claim)

    code, _, err = run("import", folder, "--out", tmp_path / "in")

    assert (code == 5) == bool(differs), err
    assert differs in err


# As a cheater, or a broken disk, writes


def test_left_out_rows_count_although_the_files_say_there_are_none(
    run: Run, tmp_path: Path
) -> None:
    folder = official(tmp_path / "m", {"medqa": [1]})
    replaced(folder, "medix-eval.json", json.dumps({"num_rows": {"medqa": 1, "x": "y"}}))

    code, out, _ = run("import", folder, "--out", tmp_path / "in", "--json")

    task = json.loads(out)["tasks"]["medqa"]
    assert (code, task["n"], task["n_scored"], task["outcomes"]["skipped"]) == (1, 1273, 1, 1272)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"id": "medqa@x_0"}, "is of 'medqa@x', which is not a task name"),
        ({"id": "../../x_0"}, "which is not a task name"),
        ({"id": "medqa_1273"}, "medqa has 1273 rows"),
        ({"id": "new_99999999999999999999"}, "row 99999999999999999999"),
        ({"id": "x\n\x1b_0"}, "no id of the form"),
    ],
)
def test_a_task_or_row_that_cannot_be_is_refused(
    run: Run, tmp_path: Path, line: dict[str, Any], message: str
) -> None:
    folder = official(tmp_path / "m", {"medqa": [1]})
    for name in ("m.jsonl", "m_eval.jsonl"):
        replaced(folder, name, json.dumps(json.loads((folder / name).read_text()) | line) + "\n")

    code, _, err = run("import", folder, "--out", tmp_path / "in")

    assert (code, "\x1b" in err) == (3, False)
    assert message in err


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param('{"id": "medqa_0", "question": "q", "resp', 3, id="torn"),
        pytest.param("[" * 100_000 + "\n", 2, id="deep"),
        pytest.param("[1]\n", 2, id="no-object"),
        pytest.param('{"id": "medqa_0", "response": "\\ud800"}\n', 3, id="half-a-character"),
    ],
)
def test_a_file_of_no_json_lines_is_refused(run: Run, tmp_path: Path, text: str, code: int) -> None:
    folder = replaced(official(tmp_path / "m", {"medqa": [1]}), "m.jsonl", text)

    assert run("import", folder, "--out", tmp_path / "in")[0] == code


def test_half_a_character_comes_in_as_a_question_mark(run: Run, tmp_path: Path) -> None:
    folder = official(tmp_path / "m", {"medqa": [1]})
    for name in ("m.jsonl", "m_eval.jsonl"):
        replaced(folder, name, (folder / name).read_text().replace('"r"', '"\\ud800"'))

    code, _, err = run("import", folder, "--out", tmp_path / "in")

    assert code == 1, err


def test_several_models_in_one_folder_are_not_mixed_up(run: Run, tmp_path: Path) -> None:
    folder = official(tmp_path / "m", {"medqa": [1]})
    for name in ("m.jsonl", "m_eval.jsonl"):
        (folder / f"x{name}").write_bytes((folder / name).read_bytes())

    code, _, err = run("import", folder, "--out", tmp_path / "in")

    assert (code, "several models: m, xm" in err) == (2, True)


def test_an_import_that_was_killed_is_finished_by_the_next(run: Run, tmp_path: Path) -> None:
    folder = official(tmp_path / "m", {"medqa": [1, 0]})
    argv = ("import", folder, "--out", tmp_path / "in", "--json")
    _, whole, _ = run(*argv)
    (verdicts,) = (tmp_path / "in").rglob("verdicts.jsonl")
    verdicts.write_text(verdicts.read_text().partition("\n")[0] + "\n")

    _, again, _ = run(*argv)

    assert json.loads(again)["tasks"] == json.loads(whole)["tasks"]


# lm-eval


def lm_eval(folder: Path, lines: list[dict[str, Any]], **results: Any) -> Path:
    folder.mkdir()
    stated = {"results": {"medmcqa": {"acc,none": 0.5}}, "model_name": "m"} | results
    (folder / "results_2026-01-01T00-00-00.0.json").write_text(json.dumps(stated))
    (folder / "samples_medmcqa_2026-01-01T00-00-00.0.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )
    return folder


def weighed(row: object, acc: float) -> dict[str, Any]:
    """Return a sample as lm-eval logs one whose options were weighed."""
    options = {f"gen_args_{at}": {"arg_0": "q", "arg_1": f" {at}"} for at in range(3)}
    responses = [[["-3.5", "False"]], [["-0.5", "True"]], [["-9.0", "False"]]]
    return {"doc_id": row, "arguments": options, "resps": responses, "target": 1, "acc": acc}


def test_of_options_that_lm_eval_weighed_the_likeliest_is_the_answer(
    run: Run, tmp_path: Path
) -> None:
    code, _, err = run(
        *("import", lm_eval(tmp_path / "lm", [weighed(0, 1.0), weighed(1, 0.0)])),
        *("--out", tmp_path / "in"),
    )

    (completions,) = (tmp_path / "in").rglob("completions.jsonl")
    said = [json.loads(line)["completion"] for line in completions.read_text().splitlines()]
    assert (code, said) == (1, ["1", "1"]), err


@pytest.mark.parametrize(
    ("row", "results", "said"),
    [
        (-1, {}, (3, "row -1")),
        (True, {}, (3, "no doc_id")),
        (0, {"results": {"medmcqa": 1}}, (3, "no answered samples")),
        (0, {"results": {"medmcqa": {"acc,none": float("nan")}}}, (5, "nan is stated")),
        (0, {"results": {"medmcqa": {"acc,none": 1}, "x": {"acc,none": 1}}}, (5, "no samples")),
        (0, {"config": [1], "n-samples": [1]}, (5, "50.00 is stated")),
        (0, {"model_name": "a\nb"}, (2, "is not a model name")),
    ],
)
def test_odd_lm_eval_results_are_refused_and_break_nothing(
    run: Run, tmp_path: Path, row: object, results: dict[str, Any], said: tuple[int, str]
) -> None:
    folder = lm_eval(tmp_path / "lm", [weighed(row, 1.0)], **results)

    code, _, err = run("import", folder, "--out", tmp_path / "in")

    assert code == said[0], err
    assert said[1] in err


def test_a_folder_that_lm_eval_was_given_is_known_by_its_name(run: Run, tmp_path: Path) -> None:
    folder = lm_eval(tmp_path / "lm", [weighed(0, 1.0)], model_name="/data/mine/weights/m-1")

    run("import", folder, "--out", tmp_path / "in")

    kept = [file.read_text() for file in (tmp_path / "in").rglob("*") if file.is_file()]
    assert json.loads(next((tmp_path / "in").rglob("run.json")).read_text())["model"] == "m-1"
    assert not any("/data/mine" in text for text in kept)


# MedEvalKit


def test_medevalkit_results_are_read_by_their_order(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "model-x" / "PATH_VQA"
    folder.mkdir(parents=True)
    rows = [
        {"question": "q", "answer": "yes", "response": "yes", "correct": True},
        {"question": "q", "answer": "no", "response": "yes", "correct": 0},
    ]
    (folder / "results.json").write_text(json.dumps(rows))
    (folder / "metrics.json").write_text(json.dumps({"total metrics": {"acc": 0.5}}))

    code, out, _ = run("import", folder.parent, "--out", tmp_path / "in", "--json")

    scores = json.loads(out)
    assert code == 1  # of 6719
    assert (scores["model"], scores["tasks"]["path_vqa"]["score"]) == ("model-x", 0.5)


def test_a_zip_that_reaches_outside_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../outside.txt", "x")

    code, _, err = run("import", path, "--out", tmp_path / "in")

    assert code == 2
    assert "outside" in err
    assert not (tmp_path.parent / "outside.txt").exists()
