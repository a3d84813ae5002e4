"""Rows that cannot be asked: each is named by task and row, and none closes the task."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from datasets import List, Value
from opened_tasks import CHOICE, Open, open_fixture

from medix_eval.errors import BadRow

BAD_CHOICES = [
    ([None, "b"], 0, "option A is not text: None"),
    (["a", None, "c"], 0, "option B is not text: None"),
    (["a", "  "], 0, "option B is not text: '  '"),
    (["a"], 0, "a choice needs at least two options, found 1"),
    (["a", None, None], 0, "a choice needs at least two options, found 1"),
    (["a", "b"], -1, "the answer index is -1: the label is withheld"),
    (["a", "b"], 2, "the answer index is 2: 2 options"),
    (["a", "b", None], 2, "the answer index is 2: 2 options"),
    (["a", "b"], None, "the answer None is not the index of an option"),
]


@pytest.mark.parametrize(("choices", "index", "message"), BAD_CHOICES)
def test_a_bad_choice_names_task_and_row(
    open_rows: Open, choices: list[str | None], index: int | None, message: str
) -> None:
    good = {"question": "q", "choices": ["a", "b"], "index": 0}
    features = {"question": Value("string"), "choices": List(Value("string"))}
    rows = [good, good | {"choices": choices, "index": index}]

    task = open_rows(rows, features=features | {"index": Value("int64")}, **CHOICE)

    with pytest.raises(BadRow) as error:
        task.reference(task.rows[1], row=1)
    assert str(error.value) == f"task mine, row 1: {message}"


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        (None, "a", "column 'question' is empty"),
        (" \n", "a", "column 'question' is empty"),
        ("q", None, "column 'answer' is empty"),
        ("q", "", "column 'answer' is empty"),
    ],
)
def test_an_empty_question_or_answer_is_never_sent(
    open_rows: Open, question: str | None, answer: str | None, message: str
) -> None:
    features = dict.fromkeys(("question", "answer"), Value("string"))

    task = open_rows([{"question": question, "answer": answer}], features=features)

    with pytest.raises(BadRow, match=message):
        task.prompt_text(task.rows[0], row=0)


@pytest.mark.parametrize("answer", [None, " "])
def test_an_empty_reference_names_task_and_row(open_rows: Open, answer: str | None) -> None:
    features = dict.fromkeys(("question", "answer"), Value("string"))
    task = open_rows([{"question": "q", "answer": answer}], features=features)

    with pytest.raises(BadRow, match="task mine, row 0: the reference is not text"):
        task.reference(task.rows[0], row=0)


@pytest.mark.parametrize("fields", [{}, {"doc_to_text": "question"}])
def test_a_number_where_text_is_needed_names_task_and_row(
    open_rows: Open, fields: dict[str, Any]
) -> None:
    task = open_rows([{"question": 1, "answer": 2}], **fields)

    with pytest.raises(BadRow, match="task mine, row 0: the reference is not text: 2"):
        task.reference(task.rows[0], row=0)
    if fields:
        with pytest.raises(BadRow, match="task mine, row 0: the prompt is not text: 1"):
            task.prompt_text(task.rows[0], row=0)


def test_an_answer_that_is_not_among_the_options_names_task_and_row() -> None:
    task = open_fixture("pubmedqa")

    with pytest.raises(
        BadRow, match="task pubmedqa, row 4: the reference cannot be read: 'perhaps'"
    ):
        task.reference({**task.rows[0], "final_decision": "perhaps"}, row=4)


def test_the_withheld_labels_of_medmcqa_are_told_by_task_and_row() -> None:
    task = open_fixture("medmcqa")
    withheld = task.dataset["test"][1]

    with pytest.raises(BadRow, match="task medmcqa, row 1: the answer index is -1"):
        task.reference(withheld, row=1)


def test_a_bad_first_row_does_not_close_the_task_to_the_others(open_rows: Open) -> None:
    rows = [
        {"question": "q", "choices": [None, "b"], "index": 0},
        {"question": "q", "choices": ["a", "b"], "index": 1},
    ]

    task = open_rows(rows, **CHOICE)

    assert task.reference(task.rows[1]) == "b"


def test_a_row_without_image_names_task_and_row(open_rows: Open) -> None:
    texts = dict.fromkeys(("question", "answer"), Value("string"))
    features = texts | {"image": datasets.Image()}
    row = {"question": "q", "answer": "a", "image": None}

    task = open_rows([row], doc_to_image="image", features=features)

    with pytest.raises(BadRow, match="task mine, row 0: no image in image"):
        task.stored_images(task.rows[0], row=0)


def test_a_name_that_is_not_in_the_zip_names_task_and_row() -> None:
    task = open_fixture("slake_vqa")

    with pytest.raises(
        BadRow, match=r"task slake_vqa, row 2: no image imgs/none\.jpg in imgs\.zip"
    ):
        task.stored_images({**task.rows[0], "img_name": "none.jpg"}, row=2)
