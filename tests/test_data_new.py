"""`data new`: a folder with a table and images becomes a benchmark in one command."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medix_eval.data.options import layout_of, listed, options_of, readings
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


def as_made_at_0_1(path: Path) -> str:
    """Hash a task file without the hash of its rows: that depends on the Parquet writer."""
    text = re.sub(r"\n.*parquet: \w+", "", path.read_text())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_plain_table_gives_the_benchmark_that_it_always_gave(
    run: Run, ward: Path, tmp_path: Path
) -> None:
    run("data", "new", ward, "--to", tmp_path / "out")

    made = {path.name: as_made_at_0_1(path) for path in (tmp_path / "out").rglob("*.yaml")}
    rows = pd.concat(
        pd.read_parquet(path) for path in sorted((tmp_path / "out").rglob("*.parquet"))
    )
    assert made == {
        "ward.yaml": "60d12deee2bd4098",
        "ward_closed.yaml": "b36dd24872908f51",
        "ward_multiple_choice.yaml": "47ba8c74093cf4ef",
        "ward_open.yaml": "389bd745357e5ec9",
    }
    names = ["id", "question", "answer", "options", "images", "group_site", "cluster"]
    assert [*rows.columns] == names
    assert [*rows["answer"]] == ["No", "Lower", "lateral", "a nodule"]
    assert [*rows["id"]] == ["3", "1", "2", "4"]


TEN = "a,b,c,d,e,f,g,h,i,j"
HEAD = "question,options,answer\n"
LAYOUTS = {
    "A,B,C,D": ("question,A,B,C,D,answer\nQ?,w,x,y,None,D\n", ["w", "x", "y", "None"], "D"),
    "columns in another order": ("B,question,A,answer\nx,Q?,w,B\n", ["w", "x"], "B"),
    "Option A": ("Question,Option A,Option-B,ANSWER\nQ?,w,x,b\n", ["w", "x"], "B"),
    "opa, one of five empty": ("question,opa,opb,opc,answer\nQ?,w,x,,x\n", ["w", "x"], "B"),
    "choice0": ("question,choice0,choice1,answer\nQ?,w,x,x\n", ["w", "x"], "B"),
    "choice1 to choice10": (
        f"question{''.join(f',choice{at}' for at in range(1, 11))},answer\nQ?,{TEN},J\n",
        TEN.split(","),
        "J",
    ),
    "Options": ("question,Options,answer\nQ?,w|x,B\n", ["w", "x"], "B"),
    "choices": ("question,choices,answer\nQ?,w|x|,B\n", ["w", "x"], "B"),
    "answer choices": ("question,Answer Choices,answer\nQ?,w|x,x\n", ["w", "x"], "B"),
    "semicolons": (HEAD + "Q?,w; x; y,C\n", ["w", "x", "y"], "C"),
    "lines": (HEAD + 'Q?,"w; a\nx\ny",C\n', ["w; a", "x", "y"], "C"),
    "a bar wins over lines": (HEAD + 'Q?,"w\na|x",B\n', ["w\na", "x"], "B"),
    "a bar wins": (HEAD + "Q?,w; a|x,B\n", ["w; a", "x"], "B"),
    "JSON": (HEAD + 'Q?,"[""w|v"", ""x\\u00e9""]",B\n', ["w|v", "xé"], "B"),
    "a Python list": (HEAD + "Q?,\"['w, v', 'x']\",B\n", ["w, v", "x"], "B"),
    "a numpy array": (HEAD + "Q?,\"['w, v' 'x']\",B\n", ["w, v", "x"], "B"),
    "a mapping": (HEAD + "Q?,\"{'B': 'x', 'A': 'w'}\",B\n", ["w", "x"], "B"),
    "lettered in one line": (HEAD + "Q?,A. w; v B. x,B. x\n", ["w; v", "x"], "B"),
    "lettered and parted": (HEAD + "Q?,(a) w|(b) x,(B)\n", ["w", "x"], "B"),
    "names with initials": (
        HEAD + "Q?,E. coli|S. aureus,S. aureus\n",
        ["E. coli", "S. aureus"],
        "B",
    ),
    "brackets that are no list": (HEAD + "Q?,[Na+]|[K+],B\n", ["[Na+]", "[K+]"], "B"),
    "another case and width": (
        HEAD + "Q?,Low dose|High,\uff4cow  dose\n",
        ["Low dose", "High"],
        "A",
    ),
    "a number that is a text": (HEAD + "Q?,30|20|40,20\n", ["30", "20", "40"], "B"),
    "letters as texts": (HEAD + "Q?,A|B|C,B\n", ["A", "B", "C"], "B"),
    "a letter beside letters": (HEAD + "Q?,C|D|E|A,(D)\nR?,w|x,w\n", ["C", "D", "E", "A"], "D"),
    "a letter, as in all rows": (HEAD + "Q?,C|D|E|A,D\nR?,w|x,B\n", ["C", "D", "E", "A"], "D"),
    "a text, as in all rows": (HEAD + "Q?,C|D|E|A,D\nR?,w|x,x\n", ["C", "D", "E", "A"], "B"),
    "a count, where others are letters": (HEAD + "Q?,3|2|4,2\nR?,w|x,B\n", ["3", "2", "4"], "B"),
}


def make(run: Run, tmp_path: Path, table: str | pd.DataFrame) -> tuple[int, str, str]:
    """Run `data new` on a table, with two pictures beside it."""
    folder = tmp_path / "quiz"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 8)).save(folder / name)
    if isinstance(table, str):
        (folder / "t.csv").write_text(table, encoding="utf-8")
    else:
        table.to_parquet(folder / "t.parquet")
    return run("data", "new", folder, "--to", tmp_path / "out")


def first_row(tmp_path: Path) -> dict[str, Any]:
    (path,) = (tmp_path / "out").rglob("*.parquet")
    return {str(name): cells[0] for name, cells in pd.read_parquet(path).items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_options_are_shown_and_the_gold_is_the_printed_letter(
    run: Run, tmp_path: Path, layout: str
) -> None:
    table, options, letter = LAYOUTS[layout]

    code, _, err = make(run, tmp_path, table)

    assert code == 0, err
    row = first_row(tmp_path)
    assert [*row["options"]] == options
    assert row["answer"] == options[ascii_uppercase.index(letter)]
    places = ("--include-path", tmp_path / "out/tasks", "--data-root", tmp_path / "out/data")
    _, shown, _ = run("show", "quiz", *places)
    printed = [f"{one}. {text}" for one, text in zip(ascii_uppercase, options, strict=False)]
    assert "\n".join(["", "Choices:", *printed, "--- reference: "]) in shown


@pytest.mark.parametrize(
    "options",
    [["w", "x"], np.array(["w", "x"]), {"A": "w", "B": "x"}],
    ids=["list", "array", "mapping"],
)
def test_a_parquet_cell_may_hold_the_options(run: Run, tmp_path: Path, options: Any) -> None:
    table = pd.DataFrame({"question": ["Q?"], "answer": ["B"], "choices": [options]})

    code, _, err = make(run, tmp_path, table)

    assert code == 0, err
    assert [*first_row(tmp_path)["options"]] == ["w", "x"]
    assert first_row(tmp_path)["answer"] == "x"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=9))
def test_a_list_is_read_as_each_library_writes_it(texts: list[str]) -> None:
    assert listed(json.dumps(texts)) == texts
    assert listed(repr(texts)) == texts
    assert listed(str(np.array(texts, dtype=object))) == texts


@given(st.data())
def test_no_letter_ever_names_another_option_than_the_one_printed_at_it(
    data: st.DataObject,
) -> None:
    word = st.text("ABCDab12 .():", min_size=1, max_size=4).map(str.strip).filter(bool)
    cells = data.draw(st.lists(word, min_size=2, max_size=6))
    letter = data.draw(st.sampled_from("ABCDEFG"))
    try:
        options = options_of(cells)
    except ValueError:
        return

    assert len(options) == len(cells)
    assert all(cell.endswith(option) for cell, option in zip(cells, options, strict=True))
    expected = dict(zip(ascii_uppercase, options, strict=False)).get(letter)
    assert readings(f"({letter})", options).get("letter") == expected


REFUSED = {
    "a gap": ("question,A,B,C,answer\nQ?,w,,y,C\n", "row 2: option 2 is empty"),
    "a gap between bars": (HEAD + "Q?,w||x|y,C\n", "row 2: option 2 is empty"),
    "a gap before semicolons": (HEAD + "Q?,; w; x,B\n", "row 2: option 1 is empty"),
    "a gap in a list": (HEAD + 'Q?,"[""w"", null, ""y""]",B\n', "row 2: option 2 is empty"),
    "no number of a pandas cell": (HEAD + "Q?,w|nan|y,B\n", "row 2: option 2 is empty"),
    "the same twice": (HEAD + "Q?,w|x|w,B\n", "two or more options are needed, all different"),
    "the same in other forms": (HEAD + "Q?,w|\uff57\u200b|x,B\n", "all different"),
    "commas": (HEAD + 'Q?,"w, x",B\n', "all different (in one cell: w | x): ('w, x',)"),
    "27 options": (HEAD + f"Q?,{'|'.join(map(str, range(27)))},B\n", "two or more options"),
    "letters out of order": (HEAD + "Q?,B. w|A. x,B\n", "the options are lettered B, A, not in"),
    "two ways to part": (HEAD + "Q?,A. w; v; B. x,B\n", "can be parted at letters or at `;`"),
    "a mapping of other names": (HEAD + "Q?,\"{'x': 'w', 'z': 'v'}\",B\n", "nor named A, B …"),
    "a mapping of equal names": (HEAD + "Q?,\"{'A': 'w', 'a': 'v', 'B': 'x'}\",B\n", "nor named"),
    "a list of lists": (HEAD + 'Q?,"[[""w""], [""x""]]",B\n', "neither a list of texts"),
    "a letter or a text": (
        HEAD + "Q?,C|D|E|A,D\n",
        "row 2: the answer 'D' can be read as text ('D') or letter ('A')",
    ),
    "a letter or a text, both are used": (
        HEAD + "Q?,C|D|E|A,D\nR?,w|x,x\nS?,w|x,B\n",
        "row 2: the answer 'D' can be read as text ('D') or letter ('A')",
    ),
    "a number": (HEAD + "Q?,w|x|y,1\n", "as number from 0 ('x') or number from 1 ('w')"),
    "a number, though others are letters": (
        HEAD + "Q?,w|x|y,1\nR?,w|x,B\n",
        "row 2: the answer '1'",
    ),
    "a number of a float column": (HEAD + "Q?,w|x|y,1.0\n", "as number from 0 ('x')"),
    "only 0": (HEAD + "Q?,w|x|y,0\n", "as number from 0 ('w')"),
    "a number or a text": (HEAD + "Q?,3|2|4,2\n", "text ('2') or number from 0 ('4')"),
    "a letter of another text": (HEAD + "Q?,w|x|y,B. w\n", "the answer 'B. w' is not an option"),
    "several letters": (HEAD + 'Q?,w|x|y,"A, C"\n', "the answer 'A, C' is not an option"),
    "a letter of another script": (
        HEAD + "Q?,w|x|y,\u0412\n",
        "' (CYRILLIC CAPITAL LETTER VE) is not",
    ),
    "no cell": (HEAD + "Q?,w|x,nan\n", "row 2: the answer is empty"),
    "no options, in a row": (HEAD + "Q?,w|x,B\nR?,,C\n", "row 3: the answer 'C' seems to name an"),
    "no options, in the table": ("question,answer\nQ?,(b)\n", "row 2: the answer '(b)' seems to"),
    "options under other names": ("question,보기1,보기2,answer\nQ?,가,나,2\n", "in 보기1, 보기2?)"),
    "texts under other names": (
        "question,보기1,보기2,answer\nQ?,가,나,나\n",
        "(are they in 보기2?)",
    ),
    "a list under another name": ("question,보기,answer\nQ?,가|나,나\n", "(are they in 보기?)"),
    "a JSON list under another name": (
        'question,보기,answer\nQ?,"[""가"", ""나""]",나\n',
        "(are they in 보기?)",
    ),
    "another answer": (HEAD + "Q?,w|x,B\nQ?,w|x,A\n", "row 3: the question of row 2, with another"),
    "columns with a gap": (
        "question,A,B,D,answer\nQ?,w,x,y,D\n",
        "columns A, B, D look like options",
    ),
    "columns without A": (
        "question,\u0410,B,C,answer\nQ?,w,x,y,B\n",
        "columns B, C look like options",
    ),
    "columns and a column": ("question,options,A,B,answer\nQ?,w|x,w,x,B\n", "hold options twice"),
    "two sorts of columns": ("question,opa,opb,A,B,answer\nQ?,w,x,w,x,B\n", "hold options twice"),
    "one name, two cases": (
        "question,Options,options,answer\nQ?,w|x,w|x,B\n",
        "'Options', 'options'",
    ),
    "one name twice": ("question,answer,answer\nQ?,yes,no\n", "'answer', 'answer.1': one meaning"),
    "more cells": ("question,answer\nQ?,yes,x\n", "the rows have more cells than the first"),
    "a picture elsewhere": (
        "question,answer,xray\nQ?,yes,a.png\n",
        "row 2: column 'xray' names a.png, which `image` does not",
    ),
    "a second picture": (
        "question,answer,image,image2\nQ?,yes,a.png,b.png\n",
        "row 2: column 'image2' names b.png, which `image` does not",
    ),
    "some without a picture": (
        "question,answer,image\nQ?,yes,a.png\nR?,no,\n",
        "row 3: no image, although other closed questions have one",
    ),
    "no header": (
        '"A man, 45",w,x,B\nQ?,w,x,A\n',
        "no column 'question' and no 'answer', only A man",
    ),
    "no answer but a number": (
        "question,opa,opb,cop\nQ?,w,x,1\n",
        "cop: call it `answer` if it has",
    ),
    "a foreign header": ("문제,보기1,보기2,정답\nQ?,가,나,2\n", "only 문제, 보기1, 보기2, 정답"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_could_be_another_benchmark_is_refused_by_name(
    run: Run, tmp_path: Path, kind: str
) -> None:
    table, message = REFUSED[kind]

    code, _, err = make(run, tmp_path, table)

    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [{"bytes": b"x", "path": "a.png"}]}, "column 'image' holds bytes, not text"),
        ({"": ["w"]}, "columns '': no name"),
        ({"answer": [["yes", "no"]]}, "row 2: the answer is a list, not a text"),
        ({"question": [None]}, "row 2: the question is empty"),
    ],
)
def test_a_parquet_cell_that_is_no_text_is_refused(
    run: Run, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    code, _, err = make(
        run, tmp_path, pd.DataFrame({"question": ["Q?"], "answer": ["yes"]} | columns)
    )

    assert code == 2
    assert message in err


def test_an_index_with_a_name_is_a_column(run: Run, tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["q7"], "question": ["Q?"], "answer": ["yes"]})

    make(run, tmp_path, table.set_index("id"))

    assert first_row(tmp_path)["id"] == "q7"


def test_all_faults_of_the_columns_and_what_is_understood_are_told(
    run: Run, tmp_path: Path
) -> None:
    _, _, err = make(run, tmp_path, "id,ID,opa,opc,cop\n1,2,w,x,1\n")

    assert "problems found: 4" in err
    assert "hint: the first row names the columns, in any case: question, answer; optional" in err


def test_every_column_is_accounted_for_and_few_values_make_a_slice(
    run: Run, tmp_path: Path
) -> None:
    rows = [f"Q{at}?,w,x,{'AB'[at % 2]},{at % 2},{at},{at % 3},{at % 2},CT" for at in range(6)]
    head = "Question,A,B,answer,site,note,many,label,all"

    _, out, _ = make(run, tmp_path, "\n".join([head, *rows, "Q0?,w,x,A,0,0,0,0,CT"]))

    assert "columns: question (Question), answer, options (A, B), slices (site, many), kept " in out
    assert "kept (note, label, all)\nrow 8 repeats row 2\n" in out
    fields = yaml.safe_load((tmp_path / "out/tasks/quiz/quiz.yaml").read_text().partition("\n")[2])
    assert fields["metadata"]["medix"]["slices"] == ["site", "many"]
    assert fields["metadata"]["medix"]["kept_columns"] == ["id", "note", "label", "all"]
    assert first_row(tmp_path)["note"] == "0"


def test_a_letter_may_be_a_text_if_the_row_says_so(run: Run, tmp_path: Path) -> None:
    code, _, _ = make(run, tmp_path, "question,answer,kind\nWhich blood group?,A,open\n")

    assert code == 0
    assert first_row(tmp_path)["answer"] == "A"


@pytest.mark.parametrize(
    "names", [("x", "y"), ("vital_1", "vital_2"), ("OPD",), ("group_a", "group_b")]
)
def test_a_column_that_is_no_option_stays_what_it_is(names: tuple[str, ...]) -> None:
    layout, faults = layout_of(["question", "answer", *names])

    assert not faults
    assert layout.options == []
    assert layout.others == [*names]
    assert ("group_a" in names) <= (layout.alike == [])


def test_a_column_may_repeat_the_name_of_a_picture(run: Run, tmp_path: Path) -> None:
    code, out, _ = make(run, tmp_path, "question,answer,image,file\nQ?,yes,a.png,a.png\n")

    assert code == 0
    assert "columns: question, answer, image, kept (file)\n" in out


def test_a_parquet_cell_may_list_pictures(run: Run, tmp_path: Path) -> None:
    table = {"question": ["Q?"], "answer": ["yes"], "images": [["a.png", "b.png"]]}

    code, _, err = make(run, tmp_path, pd.DataFrame(table))

    assert code == 0, err
    assert [one["path"] for one in first_row(tmp_path)["images"]] == ["a.png", "b.png"]
