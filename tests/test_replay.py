"""Saved answers in place of a model: how they are written, and whose they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_servers import HUB, Run, candidate, records

from medix_eval.cli.app import main
from medix_eval.testing import ScriptedServer


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every sample of the 17 tasks with its reference and options, as a run keeps it."""
    out = tmp_path_factory.mktemp("answered")
    flags = ["--tasks", "medix", "--protocol", "rules", "--data-root", str(HUB), "--out", str(out)]
    with ScriptedServer(lambda _: "x") as server, pytest.raises(SystemExit):
        main([*candidate(server), *flags])
    return records(out, "completions.jsonl")


def letter(record: dict[str, Any], text: str) -> str:
    return "ABCDEFGHIJ"[record["options"].index(text)]


STYLES: dict[str, Callable[[dict[str, Any], str], str]] = {
    "letter": letter,
    "text": lambda _, text: text,
    "sentence": lambda _, text: f"The answer is {text}.",
    "medix-r1": lambda _, text: f"<X_RAY><thinking>Hm.</thinking><answer>{text}</answer>",
}


@pytest.mark.parametrize("score", [1.0, 0.0], ids=["right", "wrong"])
@pytest.mark.parametrize("style", STYLES)
def test_replayed_choices_score_full_marks_or_none(
    evaluate: Run, answered: list[dict[str, Any]], tmp_path: Path, style: str, score: float
) -> None:
    lines = []
    choices = [record for record in answered if record["kind"] == "multiple_choice"]
    for record in choices:
        chosen = record["reference"]
        if not score:
            chosen = next(text for text in record["options"] if text != chosen)
        completion = STYLES[style](record, chosen)
        row = {"task": record["task"], "sample_id": record["sample_id"], "completion": completion}
        lines.append(json.dumps(row))
    path = tmp_path / "replay.jsonl"
    path.write_text("\n".join(lines) + "\n")
    tasks = ",".join(sorted({record["task"].partition("@")[0] for record in choices}))

    _, out, _ = evaluate("--model", f"replay:{path}", "--tasks", tasks, "--protocol", "rules")

    scored = {
        name: (task["n_scored"] == task["n"], task["score"])
        for name, task in json.loads(out)["tasks"].items()
    }
    assert len(scored) == 11
    assert scored == dict.fromkeys(scored, (True, score))


def test_an_official_answer_file_is_matched_to_its_rows(
    evaluate: Run, answered: list[dict[str, Any]], tmp_path: Path
) -> None:
    medqa = [record for record in answered if record["task"] == "medqa@1"]
    official = [
        {
            "id": f"medqa_{record['row']}",
            "question": record["prompt"],
            "answer": record["reference"],
            "response": f"<think>x</think>{record['reference']}",
        }
        for record in medqa
    ]
    path = tmp_path / "official.jsonl"
    path.write_text("\n".join(map(json.dumps, official)))
    argv = ["--model", f"replay:{path}", "--tasks", "medqa", "--protocol", "rules"]
    code, out, _ = evaluate(*argv)
    official[0]["answer"], official[1]["answer"] = official[1]["answer"], official[0]["answer"]
    path.write_text("\n".join(map(json.dumps, official)))
    moved, _, err = evaluate(*argv)

    assert (code, json.loads(out)["tasks"]["medqa"]["score"]) == (0, 1.0)
    assert moved == 3
    assert "medqa_0 has another reference than row 0" in err


def test_a_replay_without_some_samples_skips_them(
    evaluate: Run, answered: list[dict[str, Any]], tmp_path: Path
) -> None:
    medqa = [record for record in answered if record["task"] == "medqa@1"]
    path = tmp_path / "half.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"task": "medqa", "sample_id": one["sample_id"], "completion": "A"})
            for one in medqa[:4]
        )
    )

    code, out, _ = evaluate("--model", f"replay:{path}", "--tasks", "medqa", "--protocol", "rules")

    task = json.loads(out)["tasks"]["medqa"]
    assert code == 1
    assert task["outcomes"]["skipped"] == len(medqa) - 4
    assert task["n_scored"] == 4


def test_a_replay_may_spell_half_a_character(
    evaluate: Run, answered: list[dict[str, Any]], tmp_path: Path
) -> None:
    medqa = [record for record in answered if record["task"] == "medqa@1"]
    path = tmp_path / "answers.jsonl"
    rows = [{"sample_id": one["sample_id"], "completion": "A \ud83d"} for one in medqa]
    path.write_text("".join(f"{json.dumps(row | {'task': 'medqa'})}\n" for row in rows))

    code, out, _ = evaluate("--model", f"replay:{path}", "--tasks", "medqa", "--protocol", "rules")

    assert code == 0
    assert json.loads(out)["tasks"]["medqa"]["n"] == len(medqa)


@pytest.mark.parametrize("content", ["", '{"task": "medqa", "sam'], ids=["empty", "torn"])
def test_a_replay_without_one_answer_is_one_line(
    evaluate: Run, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content)

    code, out, err = evaluate(
        "--model", f"replay:{path}", "--tasks", "medqa", "--protocol", "rules"
    )

    assert (code, out) == (2, "")
    assert "has no complete line" in err


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"task": "medqa", "sample_id": "a", "completion": NaN}', "completion is nan"),
        (
            '{"task": "medqa", "sample_id": "a", "completion": "A", "finish_reason": 1}',
            "finish_reason is 1",
        ),
        ('{"id": "medqa_0", "response": ["A"]}', "response is ['A']"),
    ],
)
def test_an_answer_that_is_no_text_is_one_line(
    evaluate: Run, tmp_path: Path, line: str, fault: str
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(f"{line}\n")

    code, out, err = evaluate(
        "--model", f"replay:{path}", "--tasks", "medqa", "--protocol", "rules"
    )

    assert (code, out) == (2, "")
    assert f"answers.jsonl, line 1: {fault}, not text" in err
