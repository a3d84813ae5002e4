"""Every real row from its file to its score, against a reading of the file that is not ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pytest
from raw_rows import MMLU, RawRow, raw_rows
from scripted_servers import Run, records

from medix_eval.data.lm_task import open_task
from medix_eval.data.samples import read_samples
from medix_eval.data.tasks import Catalogue
from medix_eval.records import Kind, Sample

NUM_ROWS = {
    "medmcqa": 4183,
    "medqa": 1273,
    "medqa[fallback=gbaker]": 1273,
    **dict(zip(MMLU, (135, 265, 144, 173, 100, 272), strict=True)),
    "pubmedqa": 500,
    "pubmedqa_compat": 500,
    "pubmedqa[fallback=qiaojin]": 500,
}
"""How many questions each task asks. One that has no rows is a failure: none drops out unseen."""
CHOICES = [name for name in NUM_ROWS if name != "pubmedqa_compat"]
SLICED = ["medmcqa", "pubmedqa", "pubmedqa[fallback=qiaojin]"]
BENCHMARKS = [name for name in CHOICES if "fallback" not in name]
Samples = Callable[[str], list[Sample]]
Pairs = Callable[[str], Iterator[tuple[RawRow, Sample]]]
Replayed = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def samples(real_rows: Path, catalogue: Catalogue) -> Samples:
    """Read the samples of a task; a row that cannot be read is none."""

    @cache
    def read(name: str) -> list[Sample]:
        file = catalogue.tasks[name]
        task = open_task(file, data_root=real_rows)
        rows = range(len(task.rows))
        found = read_samples(task, rows, key=file.key, done=frozenset(), taken=set())
        return [sample for sample in found if isinstance(sample, Sample)]

    return read


@pytest.fixture
def pairs(real_rows: Path, samples: Samples) -> Pairs:
    """Put each sample of a task beside the row that it was made from."""
    return lambda name: zip(raw_rows(name, real_rows), samples(name), strict=True)


@pytest.fixture
def replayed(run: Run, real_rows: Path, samples: Samples, tmp_path: Path) -> Replayed:
    """Answer every row of tasks in one way, run them, and return each task's scores."""

    def call(
        names: list[str], answer: Callable[[RawRow], str], *flags: str, out: str = "out"
    ) -> dict[str, Any]:
        path = tmp_path / "answers.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for name in names:
                rows = raw_rows(name, real_rows)
                for row, sample in zip(rows, samples(name), strict=True):
                    line = {"task": name, "sample_id": sample.id, "completion": answer(row)}
                    file.write(json.dumps(line) + "\n")
        code, printed, err = run(
            *("--model", f"replay:{path}", "--tasks", ",".join(names), "--protocol", "rules"),
            *("--data-root", real_rows, "--out", tmp_path / out, "--json", *flags),
        )
        assert code == 0, err
        found: dict[str, Any] = json.loads(printed)["tasks"]
        assert sorted(found) == sorted(names)
        return found

    return call


def test_the_known_tasks_ask_7045_questions() -> None:
    assert len(NUM_ROWS) == 12
    assert sum(NUM_ROWS[name] for name in BENCHMARKS) == 7045


def test_the_check_of_the_data_finds_every_row_and_no_fault(
    run: Run, real_rows: Path, catalogue: Catalogue
) -> None:
    code, out, err = run("data", "check", "--data-root", real_rows, "--json")

    found = json.loads(out)
    num_rows = {name: found["tasks"].get(name, {}).get("num_rows") for name in NUM_ROWS}
    stated = {name: catalogue.tasks[name].settings.num_samples for name in NUM_ROWS}
    assert (code, found["faults"]) == (0, []), err
    assert num_rows == NUM_ROWS
    assert {name: num for name, num in stated.items() if num not in {None, NUM_ROWS[name]}} == {}
    assert not any(one["synthetic"] for one in found["datasets"].values())


@pytest.mark.parametrize("name", NUM_ROWS)
def test_each_prompt_shows_its_abstract_question_and_options(name: str, pairs: Pairs) -> None:
    other = [sample.row for raw, sample in pairs(name) if sample.prompt != shown(raw)]

    assert other == []


def shown(raw: RawRow) -> str:
    options = map("{}. {}".format, ascii_uppercase, raw.options)
    blocks = ["\n".join(raw.above), raw.question, "\n".join(["Choices:", *options])]
    return "\n\n".join(block for block in blocks if block)


@pytest.mark.parametrize("name", NUM_ROWS)
def test_each_reference_is_the_answer_of_its_row(name: str, pairs: Pairs) -> None:
    other = [
        (sample.row, sample.reference, raw.reference)
        for raw, sample in pairs(name)
        if sample.reference != raw.reference
    ]

    assert other == []


@pytest.mark.parametrize("name", NUM_ROWS)
def test_each_row_is_a_sample_of_its_own_with_its_options(name: str, pairs: Pairs) -> None:
    both = list(pairs(name))
    kind, has_options = (Kind.MULTIPLE_CHOICE, True) if name in CHOICES else (Kind.OPEN, False)

    assert [sample.row for _, sample in both] == list(range(NUM_ROWS[name]))
    assert len({sample.id for _, sample in both}) == NUM_ROWS[name]
    assert {sample.kind for _, sample in both} == {kind}
    assert [
        sample.row for raw, sample in both if sample.options != (raw.options if has_options else ())
    ] == []


def right(row: RawRow) -> str:
    return chosen(row, row.right)


def wrong(row: RawRow) -> str:
    others = [at for at, text in enumerate(row.options) if text != row.options[row.right]]
    return chosen(row, others[0] if others else row.right)


def chosen(row: RawRow, at: int) -> str:
    """Answer with letter and text: some options are letters, so that neither alone is certain.

    Of an option that is printed twice only the letter can tell which one is meant.
    """
    text = row.options[at]
    letter = ascii_uppercase[at]
    return letter if row.options.count(text) > 1 else f"{letter}. {text}"


@pytest.mark.parametrize(("answer", "score"), [(right, 1.0), (wrong, 0.0)], ids=["right", "wrong"])
def test_right_options_score_one_and_wrong_ones_zero(
    replayed: Replayed, real_rows: Path, answer: Callable[[RawRow], str], score: float
) -> None:
    found = replayed(CHOICES, answer)

    for name in CHOICES:
        # One row of MedMCQA prints one option four times, and so cannot be answered wrong.
        num_alike = sum(len(set(row.options)) == 1 for row in raw_rows(name, real_rows))
        assert num_alike == (name == "medmcqa")
        num_right = NUM_ROWS[name] if score else num_alike
        counts = Counter({"correct": num_right, "wrong": NUM_ROWS[name] - num_right})
        assert +Counter(found[name]["outcomes"]) == +counts, name
        assert found[name]["n"] == found[name]["n_scored"] == NUM_ROWS[name]
        assert found[name]["score"] == pytest.approx(num_right / NUM_ROWS[name], abs=1e-12)


def test_rules_know_a_published_reference_and_leave_its_bare_label_to_a_judge(
    replayed: Replayed, real_rows: Path
) -> None:
    name = "pubmedqa_compat"

    same = replayed([name], lambda row: row.reference)[name]
    label = replayed([name], lambda row: row.reference.partition("\n")[0])[name]

    assert (same["n_scored"], same["score"]) == (NUM_ROWS[name], 1.0)
    assert (label["n_scored"], label["outcomes"]["unjudged"]) == (0, NUM_ROWS[name])


def test_a_limited_run_keeps_the_proportions_and_grows(
    replayed: Replayed, real_rows: Path, tmp_path: Path
) -> None:
    asked: dict[int, dict[str, set[int]]] = {}
    for limit in (100, 300):
        found = replayed(SLICED, right, "--limit", str(limit), out=str(limit))
        assert {name: (one["n"], one["score"]) for name, one in found.items()} == dict.fromkeys(
            SLICED, (limit, 1.0)
        )
        asked[limit] = {name: set() for name in SLICED}
        for record in records(tmp_path / str(limit), "completions.jsonl"):
            asked[limit][record["task"].partition("@")[0]].add(record["row"])

    for name in SLICED:
        rows = raw_rows(name, real_rows)
        sizes = Counter(row.slices for row in rows)
        assert asked[100][name] < asked[300][name]
        for limit, of_limit in asked.items():
            taken = Counter(rows[row].slices for row in of_limit[name])
            for values, size in sizes.items():
                share = size / len(rows)
                # Each stratum is at most one row off, and its share of what the others are off.
                assert abs(taken[values] - limit * share) <= 1 + share * len(sizes), values
