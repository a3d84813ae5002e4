"""Labels that people gave to answers: `sample_id,label[,annotator]`, and sheets with more columns.

A file may hold several people's labels of one answer; the majority counts, a tie labels nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medix_eval.errors import ConfigError
from medix_eval.statistics.agreement import krippendorff_alpha

LABELS = {"right": 1.0, "correct": 1.0, "yes": 1.0, "true": 1.0} | dict.fromkeys(
    ("wrong", "incorrect", "no", "false"), 0.0
)
"""Words for a label; a number from 0 to 1 is one too."""
_NO_LABEL = frozenset({"", "?", "unsure"})
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_QUOTE = "'"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """One line of a file of labels."""

    sample_id: str
    label: float | None
    """From 0 to 1; None where the person did not say."""
    annotator: str
    columns: Mapping[str, str]
    """Every column of the line, for sheets that carry the answers with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The labels of a file, one an answer."""

    by_sample: Mapping[str, float]
    rows: Mapping[str, LabelRow]
    """The first line of each sample."""
    source: Mapping[str, Any]
    """What a scorecard says of the file: name, hash, people, and how far they agree."""


def read_labels(path: Path) -> Labels:
    """Read a file of labels. Raises `ConfigError` naming the line that is wrong."""
    lines = list(_rows(path))
    given: dict[str, dict[str, float]] = {}
    for row in lines:
        if row.label is not None:
            if row.annotator in given.setdefault(row.sample_id, {}):
                who = f" by {row.annotator}" if row.annotator else ""
                raise ConfigError(
                    f"{path}: {row.sample_id} is labelled twice{who}",
                    hint="a column `annotator` tells two people's labels apart",
                )
            given[row.sample_id][row.annotator] = row.label
    if not given:
        raise ConfigError(f"{path} holds no label", hint=_HINT)
    by_sample = {name: _consensus(list(said.values())) for name, said in given.items()}
    people = sorted({name for said in given.values() for name in said})
    table = [[said.get(name, np.nan) for name in people] for said in given.values()]
    decided = {name: label for name, label in by_sample.items() if label is not None}
    return Labels(
        by_sample=decided,
        rows={row.sample_id: row for row in reversed(lines)},
        source={
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "n": len(decided),
            "n_split": len(by_sample) - len(decided),
            "annotators": len(people),
            "alpha": krippendorff_alpha(np.array(table), graded=False) if people[1:] else None,
        },
    )


_HINT = f"a CSV with the columns sample_id and label ({', '.join(LABELS)}, or 0 to 1)"


def _consensus(said: Sequence[float]) -> float | None:
    """Return what most people said: the middle label, or None where they are split."""
    middle = float(np.median(said))
    return middle if middle in said else None


def _rows(path: Path) -> Iterator[LabelRow]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"--labels {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8", hint="save it as CSV UTF-8") from error
    first_line = text.partition("\n")[0]
    delimiter = ";" if first_line.count(";") > first_line.count(",") else ","
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    missing = {"sample_id", "label"} - set(table.fieldnames or ())
    if missing:
        raise ConfigError(f"{path} has no column {' and '.join(sorted(missing))}", hint=_HINT)
    for row in table:
        columns = {name: without_quote(value or "") for name, value in row.items() if name}
        yield LabelRow(
            sample_id=columns["sample_id"].strip(),
            label=_label(columns["label"], where=f"{path}, line {table.line_num}"),
            annotator=columns.get("annotator", "").strip(),
            columns=columns,
        )


def _label(written: str, *, where: str) -> float | None:
    word = written.strip().casefold()
    if word in _NO_LABEL:
        return None
    try:
        label = LABELS[word] if word in LABELS else float(word.replace(",", "."))
    except ValueError:
        label = np.nan
    if not 0 <= label <= 1:
        raise ConfigError(f"{where}: {written!r} is no label", hint=_HINT)
    return label


def with_quote(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: a model may write anything.

    >>> with_quote("=HYPERLINK(1)")
    "'=HYPERLINK(1)"
    """
    return f"{_QUOTE}{text}" if text.startswith((*_FORMULA, _QUOTE)) else text


def without_quote(text: str) -> str:
    """Undo `with_quote`."""
    is_quoted = text.startswith(_QUOTE) and text[1:].startswith((*_FORMULA, _QUOTE))
    return text[1:] if is_quoted else text


def options_of(cell: str) -> tuple[str, ...]:
    """Read the options that a sheet keeps as a JSON list."""
    try:
        found = json.loads(cell or "[]")
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise ConfigError(f"options {cell[:40]!r} are no JSON list")
    return tuple(map(str, found))
