"""Real rows as their files hold them, read without a line of the harness.

What the harness makes of a row is compared with these, so nothing here may ask its task files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

_VARIABLE = "MEDIX_REAL_DATA"
_REPOSITORY = Path(__file__).resolve().parents[2]
_YES_NO_MAYBE = ("yes", "no", "maybe")
_SUBJECTS = (
    *("anatomy", "clinical_knowledge", "college_biology"),
    *("college_medicine", "medical_genetics", "professional_medicine"),
)
MMLU = tuple(f"mmlu_{subject}" for subject in _SUBJECTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """One row of a benchmark."""

    question: str
    options: tuple[str, ...]
    """What the options read in the prompt, in their order."""
    right: int
    """Which of the options is the answer."""
    reference: str
    above: tuple[str, ...] = ()
    """What stands over the question: the sections of an abstract."""
    slices: tuple[str, ...] = ()
    """The values by which a limited run is stratified."""
    rationale: str | None = None
    """Why the answer is right, in the words of the people who made the benchmark."""


def place_of_real_rows() -> Path | None:
    """Return the folder that holds them, or None where there is none."""
    if named := os.environ.get(_VARIABLE):
        folder = Path(named).absolute()
        if not folder.is_dir():
            raise NotADirectoryError(f"{_VARIABLE} is {named}, which is no folder")
        return folder
    beside = _REPOSITORY.parent / "medix-real-data"
    return beside if beside.is_dir() else None


@cache
def raw_rows(task: str, folder: Path) -> tuple[RawRow, ...]:
    """Return the rows that a task asks, in the order of its file."""
    return tuple(_READERS[task](folder))


def _table(folder: Path, pattern: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq  # noqa: PLC0415 (slow, and most tests need none of this)

    shards = sorted(folder.glob(pattern))
    return [row for shard in shards for row in pq.ParquetFile(shard).read().to_pylist()]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _mmlu(folder: Path, *, subject: str) -> list[RawRow]:
    return [
        _choice(row["question"], row["choices"], row["answer"])
        for row in _table(folder, f"cais/mmlu/{subject}/test-*.parquet")
    ]


def _medmcqa(folder: Path) -> list[RawRow]:
    return [
        _choice(
            row["question"],
            [row[f"op{letter}"] for letter in "abcd"],
            row["cop"],
            slices=(row["subject_name"], row["choice_type"]),
            rationale=row["exp"],
        )
        for row in _table(folder, "openlifescienceai/medmcqa/data/validation-*.parquet")
    ]


def _medqa(folder: Path) -> list[RawRow]:
    return [
        _choice(row["sent1"], [row[f"ending{number}"] for number in range(4)], row["label"])
        for row in _lines(folder / "GBaker/MedQA-USMLE-4-options-hf/test.json")
    ]


def _medqa_first_release(folder: Path) -> list[RawRow]:
    """Read the answer from its text: the task file reads its letter."""
    path = folder / "GBaker/MedQA-USMLE-4-options/phrases_no_exclude_test.jsonl"
    rows = []
    for row in _lines(path):
        options = [row["options"][letter] for letter in "ABCD"]
        rows.append(_choice(row["question"], options, options.index(row["answer"])))
    return rows


def _choice(question: str, options: list[str], right: int, **more: Any) -> RawRow:
    return RawRow(
        question=question,
        options=tuple(options),
        right=right,
        reference=options[right],
        **more,
    )


def _pubmedqa(folder: Path) -> list[RawRow]:
    return [
        _decision(
            row["QUESTION"],
            row["final_decision"],
            above=map("{}: {}".format, row["LABELS"], row["CONTEXTS"]),
            rationale=row["LONG_ANSWER"],
        )
        for row in _table(folder, "sahalshajim/medix-eval-sets/pubmedqa/test-*.parquet")
    ]


def _decision(question: str, said: str, *, above: Iterable[str], rationale: str) -> RawRow:
    return RawRow(
        question=question,
        options=_YES_NO_MAYBE,
        right=_YES_NO_MAYBE.index(said),
        reference=said,
        above=tuple(above),
        slices=(said,),
        rationale=rationale,
    )


def _pubmedqa_compat(folder: Path) -> list[RawRow]:
    """Repeat the defects of the published evaluation: one section, and two texts as reference."""
    return [
        RawRow(
            question=row["QUESTION"],
            options=("True", "False", "maybe"),
            right=_YES_NO_MAYBE.index(row["final_decision"]),
            reference=f"{row['final_decision']}\n{row['LONG_ANSWER']}",
            above=tuple(row["CONTEXTS"][:1]),
            slices=(row["final_decision"],),
        )
        for row in _table(folder, "sahalshajim/medix-eval-sets/pubmedqa/test-*.parquet")
    ]


def _pubmedqa_first_release(folder: Path) -> list[RawRow]:
    """Keep the official test set by its questions: the task file lists its numbers."""
    official = {row.question for row in raw_rows("pubmedqa", folder)}
    return [
        _decision(
            row["question"],
            row["final_decision"],
            above=map("{}: {}".format, row["context"]["labels"], row["context"]["contexts"]),
            rationale=row["long_answer"],
        )
        for row in _table(folder, "qiaojin/PubMedQA/pqa_labeled/train-*.parquet")
        if row["question"] in official
    ]


_READERS: Mapping[str, Callable[[Path], list[RawRow]]] = {
    **{f"mmlu_{subject}": partial(_mmlu, subject=subject) for subject in _SUBJECTS},
    "medmcqa": _medmcqa,
    "medqa": _medqa,
    "medqa[fallback=gbaker]": _medqa_first_release,
    "pubmedqa": _pubmedqa,
    "pubmedqa_compat": _pubmedqa_compat,
    "pubmedqa[fallback=qiaojin]": _pubmedqa_first_release,
}
