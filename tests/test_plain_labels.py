"""Whole numbers in a column where the task file says class labels, as pyarrow and pandas write."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from opened_tasks import CATALOGUE, CHOICE, HUB, Open
from pyarrow import csv, parquet

from medix_eval.data.lm_task import MedixTask, open_task
from medix_eval.data.samples import BadSample, read_samples
from medix_eval.errors import DatasetError
from medix_eval.records import Sample

MCQ, MMLU = "openlifescienceai/medmcqa", "cais/mmlu"
RIGHT = [1, 0, 3, 2, 1, 0, 3, 2, 1, 0, 3, 2]
"""What the fixture of medmcqa has."""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HUB, tmp_path / "mirror"))


def rewrite(
    dataset: Path, column: str, *, values: Sequence[Any] | None = None, type_: Any = None
) -> None:
    """Write a dataset's tables again with pyarrow alone: without class labels.

    `values` are for the split that is asked.
    """
    for path in dataset.rglob("*.parquet"):
        table = parquet.read_table(path).replace_schema_metadata()
        found = table[column].to_pylist()
        if values is not None and table.num_rows == len(values):
            found = list(values)
        place = table.column_names.index(column)
        cells = pa.array([abs(one or 0) if type_ else one for one in found], type=type_)
        parquet.write_table(table.set_column(place, column, cells), path)
    (dataset / "medix-mirror.json").write_text(
        '{"source": "s", "revision": null, "synthetic": true, "rows": {}, "files": {}}'
    )


def medmcqa(mirror: Path, **changed: Any) -> MedixTask:
    rewrite(mirror / MCQ, "cop", **changed)
    return open_task(CATALOGUE.tasks["medmcqa"], data_root=mirror)


def asked(task: MedixTask, key: str) -> list[tuple[str, str]]:
    rows = range(len(task.rows))
    samples = list(read_samples(task, rows, key=key, done=frozenset(), taken=set()))
    return [(one.id, one.reference) for one in samples if isinstance(one, Sample)]


@pytest.mark.parametrize(
    "type_", [pa.int64(), pa.int32(), pa.int8(), pa.uint8(), pa.uint64()], ids=str
)
def test_numbers_from_0_are_read_as_the_labels_they_are(mirror: Path, type_: Any) -> None:
    labelled = open_task(CATALOGUE.tasks["medmcqa"], data_root=HUB)

    plain = medmcqa(mirror, type_=type_)

    assert asked(plain, "medmcqa@1") == asked(labelled, "medmcqa@1")
    assert len(asked(plain, "medmcqa@1")) == len(RIGHT)


def test_options_in_a_list_and_a_table_of_text_are_read_alike(mirror: Path) -> None:
    rewrite(mirror / MMLU, "answer")
    rewrite(mirror / MCQ, "cop")
    for file in (mirror / MCQ).rglob("*.parquet"):
        if file.name.startswith("validation"):
            csv.write_csv(parquet.read_table(file), file.with_suffix(".csv"))
        file.unlink()

    anatomy = open_task(CATALOGUE.tasks["mmlu_anatomy"], data_root=mirror)
    table = open_task(CATALOGUE.tasks["medmcqa"], data_root=mirror)

    assert len(asked(anatomy, "mmlu_anatomy@1")) == 8
    assert len(asked(table, "medmcqa@1")) == len(RIGHT)


FILE = "task medmcqa: data/validation-00000-of-00001.parquet: "
FROM_1 = "subtract 1 if it counts from 1, else store 'cop' as a ClassLabel"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param(
            [one + 1 for one in RIGHT],
            "row 2: 'cop' is 4, but options count from 0 to 3",
            id="from-1",
        ),
        pytest.param(
            [min(one + 1, 3) for one in RIGHT],
            "'cop' is 0 in no row, so it may count from 1",
            id="from-1-and-none-is-4",
        ),
        pytest.param(
            [*RIGHT[:-1], 4],
            "row 11: 'cop' is 4, but options count from 0 to 3",
            id="only-the-last-row",
        ),
        pytest.param(
            [*RIGHT[:-1], -1],
            "row 11: 'cop' is -1, but options count from 0 to 3",
            id="withheld",
        ),
        pytest.param(
            [10**12, *RIGHT[1:]],
            "row 0: 'cop' is 1000000000000, but options count from 0 to 3",
            id="ids-of-options",
        ),
        pytest.param([None] * 12, "'cop' is 0 in no row, so it may count from 1", id="empty"),
    ],
)
def test_numbers_that_may_be_other_options_are_refused(
    mirror: Path, values: list[int | None], said: str
) -> None:
    with pytest.raises(DatasetError) as error:
        medmcqa(mirror, values=values)

    assert str(error.value) == FILE + said
    assert error.value.hint == FROM_1


def test_a_limit_hides_no_row_from_the_check(mirror: Path, run: Run, tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        medmcqa(mirror, values=[*RIGHT[:-1], 4])

    code, out, err = run(
        *("--model", "phantom", "--tasks", "medmcqa", "--protocol", "rules", "--limit", "1"),
        *("--data-root", mirror, "--out", tmp_path / "out"),
    )

    assert (code, out) == (3, "")
    assert f"{FILE}row 11: 'cop' is 4, but options count from 0 to 3" in err
    assert f"hint: {FROM_1}" in err


def test_the_check_of_a_mirror_names_the_row_and_what_to_do(mirror: Path, run: Run) -> None:
    with pytest.raises(DatasetError):
        medmcqa(mirror, values=[*RIGHT[:-1], 4])

    code, out, _ = run("data", "check", "--data-root", mirror, "--tasks", "medmcqa")

    assert code == 3
    assert f"row 11: 'cop' is 4, but options count from 0 to 3 ({FROM_1})" in out


def test_a_row_without_a_label_or_an_option_is_a_bad_row_as_ever(open_rows: Open) -> None:
    choices = ["left", "right"]
    rows = [
        {"question": "a", "choices": choices, "index": 0},
        {"question": "b", "choices": choices, "index": None},
        {"question": "c", "choices": ["left", ""], "index": 1},
    ]

    task = open_rows(rows, settings={"columns": {"index": "label"}}, **CHOICE)
    read = list(read_samples(task, range(3), key="mine@1", done=frozenset(), taken=set()))

    assert [isinstance(one, BadSample) for one in read] == [False, True, True]


def test_each_row_has_its_own_number_of_options(open_rows: Open) -> None:
    rows = [
        {"question": "a", "choices": ["1", "2", "3"], "index": 2},
        {"question": "b", "choices": ["1", "2"], "index": 0},
        {"question": "c", "choices": ["1", "2"], "index": 2},
    ]

    with pytest.raises(DatasetError, match="row 2: 'index' is 2, but options count from 0 to 1"):
        open_rows(rows, settings={"columns": {"index": "label"}}, **CHOICE)


@pytest.mark.parametrize(
    ("index", "fields"),
    [
        pytest.param(0.0, CHOICE, id="float"),
        pytest.param("0", CHOICE, id="text"),
        pytest.param(True, CHOICE, id="yes-or-no"),
        pytest.param(0, CHOICE | {"doc_to_target": "{{ index - 1 }}"}, id="a-template-counts"),
        pytest.param(0, {"doc_to_target": "index"}, id="no-options"),
        pytest.param(0, CHOICE | {"doc_to_target": "other"}, id="not-the-answer"),
    ],
)
def test_what_the_task_file_does_not_settle_is_refused(
    open_rows: Open, index: Any, fields: dict[str, Any]
) -> None:
    rows = [{"question": "q", "choices": ["left", "right"], "index": index, "other": 0}]

    with pytest.raises(DatasetError, match=r"column 'index' is .*, but the task file says label"):
        open_rows(rows, settings={"columns": {"index": "label"}}, **fields)


def test_a_task_file_that_says_numbers_takes_them_as_they_are(open_rows: Open) -> None:
    rows = [{"question": "q", "choices": ["left", "right"], "index": 1}]

    task = open_rows(rows, settings={"columns": {"index": "label | int"}}, **CHOICE)

    assert asked(task, "mine@1")[0][1] == "right"
