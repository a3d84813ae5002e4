"""The annotation sheet is blind, whole and safe, and its labels come back to the right answers."""

from __future__ import annotations

import csv
import io
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_servers import HUB, Run

from medix_eval.results.labels import read_labels, with_quote, without_quote
from medix_eval.testing import Reply, ScriptedServer

SAID = '=A, </script><b>it</b> is "left"\nor so'


@pytest.fixture
def judged(run: Run, tmp_path: Path) -> Path:
    return a_run(run, tmp_path, "medqa,rad_vqa")


def a_run(run: Run, tmp_path: Path, tasks: str, *, said: str = SAID, finish: str = "stop") -> Path:
    """Return the judging of a run whose model always says the same, judged by rules."""
    out = tmp_path / "out"
    flags = ["--tasks", tasks, "--protocol", "rules", "--data-root", HUB, "--out", out]
    reply = Reply(text=said, finish_reason=finish)
    with ScriptedServer(lambda _: reply, model="secret-name") as server:
        run("--model", "openai:secret-name", "--base-url", server.url, *flags)
    return next(out.rglob("judging.json")).parent


def sheet_of(judged: Path) -> list[dict[str, str]]:
    text = (judged / "sheet" / "answers.csv").read_text(encoding="utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_sheet_is_blind_and_drawn_by_lot(run: Run, judged: Path) -> None:
    code, out, _ = run("judge-check", "--sheet", judged, "--num", 9)
    rows = sheet_of(judged)
    verdicts = (judged / "verdicts.jsonl").read_text()

    assert code == 0
    assert out.split() == [str(judged / "sheet" / name) for name in ("answers.csv", "answers.html")]
    assert len(rows) == 9
    assert {row["sample_id"] for row in rows} <= {
        json.loads(line)["sample_id"] for line in verdicts.splitlines()
    }
    page = (judged / "sheet" / "answers.html").read_text(encoding="utf-8")
    for text in (page, (judged / "sheet" / "answers.csv").read_text(encoding="utf-8")):
        assert "secret-name" not in text
        assert "unjudged" not in text
    assert all(row["label"] == "" for row in rows)


def test_the_same_seed_draws_the_same_answers(run: Run, judged: Path) -> None:
    drawn = []
    for seed in (0, 0, 1):
        run("judge-check", "--sheet", judged, "--num", 9, "--seed", seed)
        drawn.append([row["sample_id"] for row in sheet_of(judged)])
        (judged / "sheet" / "answers.csv").unlink()
        (judged / "sheet" / "answers.html").unlink()

    assert drawn[0] == drawn[1] != drawn[2]


def test_a_sheet_that_is_there_is_not_overwritten(run: Run, judged: Path) -> None:
    run("judge-check", "--sheet", judged)
    code, _, errors = run("judge-check", "--sheet", judged)

    assert code == 2
    assert "already exists" in errors


UNREAD = {
    "truncated": ("<think>x</think>The most likely one is a", "length"),
    "cut while thinking": ("<think>It may be A", "length"),
    "stated": ("<think>x</think>The answer is A.\n\nFor", "length"),
    "empty": ("<think>It may be A</think>", "stop"),
    "blank": ("", "stop"),
    "refused": ("I'm sorry, but I can't help with that.", "stop"),
}
NOTES = {
    "truncated": "The completion was cut off at its token limit.",
    "cut while thinking": (
        "The completion is shown as the model wrote it. "
        "The completion was cut off at its token limit."
    ),
    "stated": "The completion was cut off at its token limit.",
    "empty": "The completion is shown as the model wrote it.",
    "refused": "",
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_no_reader_took_for_an_answer_is_drawn_too(
    run: Run, tmp_path: Path, name: str
) -> None:
    said, finish = UNREAD[name]
    judged = a_run(run, tmp_path, "medqa", said=said, finish=finish)
    code, _, err = run("judge-check", "--sheet", judged, "--num", 3)

    if name == "blank":
        assert (code, "has no answer to label" in err) == (2, True)
        return
    rows = sheet_of(judged)
    assert {row["answer"] for row in rows} == {
        said.removeprefix("<think>x</think>") if name in {"truncated", "stated"} else said
    }
    assert {row["note"] for row in rows} == {NOTES[name]}
    page = (judged / "sheet" / "answers.html").read_text(encoding="utf-8")
    assert NOTES[name] in page


@pytest.mark.parametrize("name", sorted(UNREAD.keys() - {"blank"}))
def test_a_filled_sheet_is_judged_as_its_run_was(run: Run, tmp_path: Path, name: str) -> None:
    said, finish = UNREAD[name]
    judged = a_run(run, tmp_path, "medqa", said=said, finish=finish)
    run("judge-check", "--sheet", judged, "--num", 3)
    labelled(judged, tmp_path, "right".format)
    filled, flags = judged / "sheet" / "filled.csv", ["--out", tmp_path, "--json"]

    _, of_run, _ = run("judge-check", "--sheet", judged, "--labels", filled, *flags)
    _, of_sheet, err = run("judge-check", "--judge", "rules", "--labels", filled, *flags)

    overall = [json.loads(text)["overall"] for text in (of_run, of_sheet)]
    assert overall[0]["n"] == 3, err
    assert overall[0]["false_reject"] == overall[1]["false_reject"]
    if name != "stated":
        assert overall[0]["false_reject"]["k"] == 3


def test_a_spreadsheet_takes_no_answer_for_a_formula(run: Run, judged: Path) -> None:
    run("judge-check", "--sheet", judged, "--num", 3)

    answers = {row["answer"] for row in sheet_of(judged)}
    assert answers == {f"'{SAID}"}
    assert without_quote(answers.pop()) == SAID


@given(text=st.text(st.sampled_from("=+-@'\t\rab1e./")))
def test_a_quoted_cell_comes_back_as_it_was(text: str) -> None:
    assert without_quote(with_quote(text)) == text
    assert not with_quote(text).startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("text", ["1234567890123456", "12345678901234e5", "1-2", "3/4", "1.50"])
def test_a_spreadsheet_rewrites_no_number(text: str) -> None:
    assert with_quote(text) == f"'{text}"


def test_restricted_answers_are_for_their_owner_only(run: Run, tmp_path: Path) -> None:
    judged = a_run(run, tmp_path, "mimic_cxr_report_summarization")
    run("judge-check", "--sheet", judged, "--num", 3)

    for path in (judged / "sheet").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "Restricted data" in (judged / "sheet" / "answers.html").read_text(encoding="utf-8")


def test_restricted_labels_go_to_no_foreign_judge(run: Run, tmp_path: Path) -> None:
    judged = a_run(run, tmp_path, "mimic_cxr_report_summarization")
    run("judge-check", "--sheet", judged, "--num", 3)
    labels = labelled(judged, tmp_path, "wrong".format)
    judge = ["--judge", "openai:x", "--judge-base-url", "http://192.0.2.7/v1"]

    for argv in (
        ["--labels", judged / "sheet" / "filled.csv"],
        ["--labels", labels, "--sheet", judged],
    ):
        code, _, errors = run("judge-check", *judge, *argv, "--out", tmp_path)

        assert code == 2
        assert "may not be sent to 192.0.2.7" in errors


def labelled(judged: Path, tmp_path: Path, label: Callable[[int], str]) -> Path:
    """Fill the sheet in, once in its own columns and once as the page saves labels."""
    rows = sheet_of(judged)
    with (judged / "sheet" / "filled.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": label(n)} for n, row in enumerate(rows))
    path = tmp_path / "labels.csv"
    lines = [
        f"{row['sample_id']},{label(number)},anna,{row['answer_mark']}"
        for number, row in enumerate(rows)
    ]
    path.write_text("\n".join(["sample_id,label,annotator,answer_mark", *lines]) + "\n")
    return path


def test_labels_come_back_to_the_verdicts_of_their_run(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ScriptedServer(lambda _: "B", model="secret-name") as server:
        flags = ["--tasks", "medqa", "--protocol", "rules", "--data-root", HUB, "--out", out]
        run("--model", "openai:secret-name", "--base-url", server.url, *flags)
    judged = next(out.rglob("judging.json")).parent
    run("judge-check", "--sheet", judged, "--num", 10)
    labels = labelled(judged, tmp_path, lambda number: "right" if number < 4 else "wrong")

    code, text, _ = run(
        "judge-check", "--sheet", judged, "--labels", labels, "--out", out, "--json"
    )

    card = json.loads(text)
    rows = [row["sample_id"] for row in sheet_of(judged)]
    lines = [json.loads(line) for line in (judged / "verdicts.jsonl").read_text().splitlines()]
    scores = {line["sample_id"]: line["score"] for line in lines}
    accepted = sum(scores[name] == 1 for name in rows[4:])
    rejected = sum(scores[name] == 0 for name in rows[:4])
    assert code == 0
    assert card["overall"]["n"] == 10
    assert card["overall"]["false_accept"]["k"] == accepted
    assert card["overall"]["false_reject"]["k"] == rejected
    assert card["labels"]["annotators"] == 1
    assert card["usage"]["calls"] == 0


def test_a_filled_sheet_is_judged_without_its_run(run: Run, judged: Path, tmp_path: Path) -> None:
    run("judge-check", "--sheet", judged, "--num", 6)
    labelled(judged, tmp_path, lambda number: "wrong" if number else "right")
    asked: list[dict[str, Any]] = []

    def judge(body: dict[str, Any]) -> str:
        asked.append(body)
        return '{"score": 0}'

    with ScriptedServer(judge, model="j") as server:
        flags = ["--judge", "openai:j", "--judge-base-url", server.url, "--out", tmp_path]
        filled = judged / "sheet" / "filled.csv"
        code, text, _ = run("judge-check", *flags, "--labels", filled, "--json")

    card = json.loads(text)
    assert code == 0
    assert len(asked) == 12
    assert all(SAID in str(body["messages"][0]["content"]) for body in asked)
    assert (card["overall"]["false_accept"]["k"], card["overall"]["false_reject"]["k"]) == (0, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,label\na,right\n", "has no column sample_id"),
        ("sample_id,label\na,perhaps\n", "line 2: 'perhaps' is not a label"),
        ("sample_id,label\na,2\n", "'2' is not a label"),
        ("sample_id,label\na,\n", "has no label"),
        ("sample_id,label\na,right\na,wrong\n", "a is labelled twice"),
        ("sample_id,label\n,right\n", "line 2: no sample_id"),
        ("sample_id,label,annotator\na,1,x\na,0,y\n", "split on every answer"),
        ('sample_id,label,answer\na,1,"b\nc,0,d\n', "after line 1: unexpected end of data"),
        (f"sample_id,label,answer\na,1,{'x' * 200_000}\n", "has no column question"),
        ("sample_id,label\na,right\n", "has no column question, reference, answer"),
        (
            "sample_id,label,question,reference,answer,kind\na,right,q,r,a,essay\n",
            "sample a: kind",
        ),
    ],
)
def test_a_file_of_labels_that_cannot_be_is_one_line(
    run: Run, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    code, _, errors = run("judge-check", "--judge", "rules", "--labels", path, "--out", tmp_path)

    assert code == 2
    assert said in errors


def test_the_majority_of_several_people_counts_and_a_tie_does_not(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    rows = ["a,right,x", "a,right,y", "a,wrong,z", "b,right,x", "b,wrong,y", "c;d,1,x", "c;d,1,y"]
    path.write_text("\n".join(["sample_id,label,annotator", *rows]))

    labels = read_labels(path)

    assert labels.by_sample == {"a": 1.0, "c;d": 1.0}
    assert labels.source["n_split"] == 1
    assert labels.source["annotators"] == 3
    assert labels.source["alpha"] is not None


def test_a_semicolon_file_as_spreadsheets_save_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffsample_id;label\r\na;Richtig\r\n".replace("Richtig", "Right"))

    assert read_labels(path).by_sample == {"a": 1.0}


def test_labels_of_another_run_are_refused(run: Run, judged: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("sample_id,label\nstranger,right\n")
    code, _, errors = run("judge-check", "--sheet", judged, "--labels", path, "--out", tmp_path)

    assert code == 2
    assert "'stranger'" in errors


def test_labels_of_another_models_answers_are_refused(
    run: Run, judged: Path, tmp_path: Path
) -> None:
    other = a_run(run, tmp_path / "other", "medqa,rad_vqa", said="B")
    run("judge-check", "--sheet", judged, "--num", 30)
    labels = labelled(judged, tmp_path, "wrong".format)

    for argv in (["judge-check", "--sheet", other, "--out", tmp_path], ["score", other]):
        code, _, errors = run(*argv, "--labels", labels)

        assert code == 2
        assert "labels a different answer to" in errors
    assert run("score", judged, "--labels", labels)[0] == 0


def test_a_run_scored_without_labels_forgets_those_it_was_scored_with(
    run: Run, judged: Path, tmp_path: Path
) -> None:
    run("judge-check", "--sheet", judged, "--num", 60)
    labels = labelled(judged, tmp_path, lambda number: "right" if number % 2 else "wrong")
    run("score", judged)
    shown = [(judged / name) for name in ("scores.json", "scores.csv", "report.md", "report.html")]
    plain = [path.read_text() for path in shown]

    run("score", judged, "--labels", labels)
    corrected = [path.read_text() for path in shown]
    run("score", judged)

    assert json.loads(corrected[0])["labels"]
    assert corrected[2] != plain[2]
    assert [path.read_text() for path in shown] == plain


def test_a_protocol_that_would_judge_nothing_is_refused(
    run: Run, judged: Path, tmp_path: Path
) -> None:
    run("judge-check", "--sheet", judged, "--num", 3)
    labels = labelled(judged, tmp_path, "wrong".format)
    code, _, errors = run(
        "judge-check", "--sheet", judged, "--labels", labels, "--protocol", "cascade"
    )

    assert code == 2
    assert "under its own protocol" in errors
