"""`data new`: a folder with a table and images becomes a benchmark in one command."""

from __future__ import annotations

import csv
import json
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from medix_eval.testing import ScriptedServer

Run = Callable[..., tuple[int, str, str]]
ROWS = [
    {
        "question": "Which lobe is opaque?",
        "answer": "B",
        "image": "a.png",
        "options": "Upper | Lower | Middle",
        "group_site": "north",
        "cluster": "p1",
    },
    {
        "question": "Which view is it?",
        "answer": "lateral",
        "image": "a.png|b.png",
        "options": "frontal|lateral",
        "group_site": "south",
        "cluster": "p1",
    },
    {
        "question": "Is there an effusion?",
        "answer": "No",
        "image": "b.png",
        "group_site": "north",
        "cluster": "p2",
    },
    {
        "question": "What is seen?",
        "answer": "a nodule",
        "image": "b.png",
        "group_site": "north",
        "cluster": "p2",
    },
]


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """Return a folder with two images and a table."""
    folder = tmp_path / "ward"
    folder.mkdir()
    for number, name in enumerate(("a.png", "b.png")):
        Image.new("L", (8, 8), number * 99).save(folder / name)
    write(folder, ROWS)
    return folder


def write(folder: Path, rows: list[dict[str, str]], name: str = "table.csv") -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if name.endswith(".csv"):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        return
    (folder / "table.csv").unlink()
    frame = pd.DataFrame(rows, columns=columns)
    if name.endswith(".xlsx"):
        frame.to_excel(folder / name, index=False)
    else:
        frame.to_parquet(folder / name)


@pytest.mark.parametrize("name", ["table.csv", "table.xlsx", "table.parquet"])
def test_one_command_makes_a_benchmark_that_runs_as_it_says(
    run: Run, ward: Path, tmp_path: Path, name: str
) -> None:
    write(ward, ROWS, name)

    made, out, err = run("data", "new", ward, "--to", tmp_path / "out", "--json")

    assert made == 0, err
    told = json.loads(out)
    assert told["tasks"] == {"ward_multiple_choice": 2, "ward_closed": 1, "ward_open": 1}
    images = []

    def answer(body: dict[str, Any]) -> str:
        parts = body["messages"][-1]["content"]
        images.append(sum(part["type"] == "image_url" for part in parts))
        text = " ".join(part.get("text", "") for part in parts)
        right = {"lobe": "B", "view": "B", "effusion": "no", "seen": "a nodule"}
        return next(reply for word, reply in right.items() if word in text)

    with ScriptedServer(answer) as server:
        argv = shlex.split(told["command"].replace("--model M", "--model openai:scripted"))[1:]
        code, out, err = run(
            *(*argv, "--base-url", server.url, "--protocol", "rules", "--json"),
            *("--out", tmp_path / "results"),
        )

    scores = json.loads(out)
    assert code == 0, err
    assert sorted(images) == [1, 1, 1, 2]
    assert {task: one["score"] for task, one in scores["tasks"].items()} == dict.fromkeys(
        told["tasks"], 1.0
    )
    assert scores["groups"]["ward"]["score"] == 1.0
    assert not scores["synthetic"]


def test_it_stays_on_this_machine_unless_its_owner_says_otherwise(
    run: Run, ward: Path, tmp_path: Path
) -> None:
    run("data", "new", ward, "--to", tmp_path / "out")

    include = ("--include-path", tmp_path / "out" / "tasks")
    _, out, _ = run("tasks", "--json", *include)
    (table, *_) = (tmp_path / "out").rglob("*.parquet")
    code, _, err = run(
        *("--model", "openai:m", "--base-url", "http://192.0.2.1/v1", "--tasks", "ward"),
        *("--protocol", "rules", *include, "--data-root", tmp_path / "out" / "data"),
    )

    classes = {one["name"]: one["data_class"] for one in json.loads(out)["tasks"]}
    assert classes["ward_open"] == "dua"
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    assert code == 2
    assert "restricted data may not be sent to 192.0.2.1" in err


def test_a_table_of_one_kind_is_one_task_and_may_have_no_images(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "quiz-one"
    folder.mkdir()
    write(
        folder, [{"question": "What is it?", "answer": "NA"}, {"question": "Why?", "answer": "so"}]
    )

    code, out, _ = run("data", "new", folder, "--to", tmp_path / "out")

    assert code == 0
    assert out.startswith("quiz_one: 2 questions\n")


def test_a_benchmark_is_pinned_to_the_bytes_it_was_made_with(
    run: Run, ward: Path, tmp_path: Path
) -> None:
    run("data", "new", ward, "--to", tmp_path / "out")
    manifest = tmp_path / "out/data/local/ward/medix-mirror.json"
    text = json.loads(manifest.read_text())
    file = "open/test-00000-of-00001.parquet"
    text["files"][file]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(text))

    code, _, err = run(
        *("--model", "phantom", "--protocol", "rules", "--tasks", "ward_open"),
        *("--include-path", tmp_path / "out/tasks", "--data-root", tmp_path / "out/data"),
        *("--out", tmp_path / "results"),
    )

    assert code == 3
    assert (
        f"the data differs from its pins: {file}: SHA-256 {'0' * 12}… in the manifest, now " in err
    )


def changed(number: int, **cells: str) -> list[dict[str, str]]:
    return [row | cells if at == number else row for at, row in enumerate(ROWS)]


BAD = [
    ([{"question": "q"}], "has no column 'answer', only question"),
    (changed(0, question=" "), "row 2: the question is empty"),
    (changed(3, answer=""), "row 5: the answer is empty"),
    (changed(0, answer="D"), "row 2: the answer 'D' is not an option"),
    (changed(0, options="Lower"), "row 2: two or more options are needed"),
    (changed(1, image="c.png"), "row 3: there is no image c.png"),
    (changed(1, image="../secret.png"), "row 3: the image ../secret.png is outside"),
    (changed(1, image="text.png"), "row 3: the image text.png cannot be used"),
    (changed(2, kind="essay"), "row 4: kind 'essay' is not one of multiple_choice, closed"),
    (changed(2, kind="multiple_choice"), "row 4: kind multiple_choice needs options"),
    ([row | {"id": "1"} for row in ROWS], "id '1' is used in 4 rows"),
]


@pytest.mark.parametrize(("rows", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_a_fault_of_the_table_is_named_and_nothing_is_written(
    run: Run, ward: Path, tmp_path: Path, rows: list[dict[str, str]], message: str
) -> None:
    (ward / "text.png").write_text("no image")
    (tmp_path / "secret.png").write_bytes((ward / "a.png").read_bytes())
    write(ward, rows)

    code, _, err = run("data", "new", ward, "--to", tmp_path / "out")

    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_all_faults_are_told_at_once(run: Run, ward: Path, tmp_path: Path) -> None:
    write(ward, [row | {"image": "none.png"} for row in ROWS] * 4)

    _, _, err = run("data", "new", ward, "--to", tmp_path / "out")

    assert "problems found: 16" in err
    assert "and 6 more" in err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.parquet", b"PAR1 and no more", "table.parquet cannot be read"),
        ("table.xlsx", b"no zip", "table.xlsx cannot be read"),
        ("second.csv", b"question,answer\n", "must have exactly one table"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(
    run: Run, ward: Path, tmp_path: Path, *, name: str, content: bytes, message: str
) -> None:
    if name.startswith("table"):
        (ward / "table.csv").unlink()
    (ward / name).write_bytes(content)

    code, _, err = run("data", "new", ward, "--to", tmp_path / "out")

    assert code == 2
    assert message in err
