"""Rows that are not what they should be, in a benchmark of a test's own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from medix_eval.cli.app import main
from medix_eval.testing import ScriptedServer

TASK = """
task: ward_vqa
class: !function medix_eval.lm_task.MedixTask
dataset_path: ward/vqa
test_split: test
output_type: generate_until
doc_to_image: image
doc_to_text: "<image>{{ question }}"
doc_to_target: answer
num_fewshot: 0
generation_kwargs: {until: [], do_sample: false, max_gen_toks: 2048}
metadata:
  version: 1
  medix: {kind: open, modality: image, data_class: public, licence: ours, num_samples: null}
"""
Evaluate = Callable[..., tuple[int, dict[str, Any], str]]


def picture(shade: int, mode: str = "L") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (8, 8), shade).save(out, format="PNG")
    return out.getvalue()


def row(question: str, image: bytes, answer: str | None = "yes") -> dict[str, Any]:
    return {"question": question, "image": {"bytes": image, "path": None}, "answer": answer}


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Evaluate]:
    """Evaluate on these rows; return exit code, scores and stderr."""
    server = ScriptedServer(lambda _: "yes").__enter__()

    def call(rows: list[dict[str, Any]], *argv: str, task: str = TASK) -> Any:
        folder = tmp_path / "mirror" / "ward" / "vqa"
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tasks").mkdir(exist_ok=True)
        (tmp_path / "tasks" / "ward_vqa.yaml").write_text(task)
        features = datasets.Features(
            {
                "question": datasets.Value("string"),
                "image": datasets.Image(),
                "answer": datasets.Value("string"),
            }
        )
        datasets.Dataset.from_list(rows, features=features).to_parquet(folder / "test.parquet")
        with pytest.raises(SystemExit) as stopped:
            main(
                [
                    *("--model", "openai:scripted", "--base-url", server.url, "--json"),
                    *("--tasks", "ward_vqa", "--include-path", str(tmp_path / "tasks")),
                    *("--data-root", str(tmp_path / "mirror"), "--out", str(tmp_path / "out")),
                    *("--protocol", "rules", *argv),
                ]
            )
        out, err = capsys.readouterr()
        return stopped.value.code, json.loads(out or "{}"), err

    yield call
    server.__exit__(None, None, None)


def completions(tmp_path: Path) -> list[dict[str, Any]]:
    (path,) = tmp_path.rglob("completions.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_row_that_cannot_be_asked_is_skipped_and_named(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    rows = [
        row("Is it there?", picture(1)),
        row("Does it decode?", b"no image at all"),
        row("Is there a reference?", picture(3), answer=None),
    ]

    code, scores, _ = evaluate(rows)

    task = scores["tasks"]["ward_vqa"]
    reasons = sorted(one["failure"]["message"] for one in completions(tmp_path) if "failure" in one)
    assert code == 1
    assert (task["n"], task["n_scored"], task["outcomes"]["skipped"]) == (3, 1, 2)
    assert "task ward_vqa, row 1: image does not decode" in reasons[0]
    assert "task ward_vqa, row 2:" in reasons[1]


def test_a_task_without_one_usable_row_is_exit_code_3(evaluate: Evaluate) -> None:
    code, _, err = evaluate([row("A?", b"broken"), row("B?", b"broken too")])

    assert code == 3
    assert "task ward_vqa has no usable row: task ward_vqa, row 0" in err


def test_a_missing_column_is_exit_code_3(evaluate: Evaluate) -> None:
    code, _, err = evaluate(
        [row("A?", picture(1))], task=TASK.replace("target: answer", "target: '{{ gold }}'")
    )

    assert code == 3
    assert "no column 'gold'" in err
    assert "question" in err


def test_a_true_duplicate_gets_a_number_and_both_are_asked(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    code, _, _ = evaluate([row("Same?", picture(1)), row("Same?", picture(1))])

    first, second = sorted(one["sample_id"] for one in completions(tmp_path))
    assert code == 0
    assert second == f"{first}#2"


def test_an_id_is_of_the_content_and_not_of_the_place(evaluate: Evaluate, tmp_path: Path) -> None:
    rows = [row("A?", picture(1)), row("A?", picture(2)), row("B?", picture(1))]
    evaluate(rows)
    before = {one["row"]: one["sample_id"] for one in completions(tmp_path)}
    (tmp_path / "out").rename(tmp_path / "before")
    evaluate(rows[::-1])
    (path,) = (tmp_path / "out").rglob("completions.jsonl")
    after = {one["row"]: one["sample_id"] for one in map(json.loads, path.read_text().splitlines())}

    assert len(set(before.values())) == 3
    assert [after[2], after[1], after[0]] == [before[0], before[1], before[2]]


def test_a_run_is_not_continued_on_other_data(evaluate: Evaluate) -> None:
    evaluate([row("A?", picture(1))])

    code, _, err = evaluate([row("A?", picture(1)), row("B?", picture(2))])

    assert code == 2
    assert "tasks.ward_vqa.num_rows: 1, now 2" in err


def test_growing_a_limited_run_reads_no_row_twice(evaluate: Evaluate, tmp_path: Path) -> None:
    rows = [row(f"Number {number}?", picture(number)) for number in range(20)]
    evaluate(rows, "--limit", "5")
    few = [one["row"] for one in completions(tmp_path)]
    evaluate(rows, "--limit", "9")
    more = [one["row"] for one in completions(tmp_path)]

    assert len(few) == 5
    assert more[:5] == few
    assert len(set(more)) == 9
    assert sorted(few) != list(range(5))
