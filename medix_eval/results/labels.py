"""Human labels of answers: `sample_id,label[,annotator]`, and sheets with more columns.

A file may hold several people's labels of one answer; the majority counts, a tie labels nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medix_eval.errors import ConfigError
from medix_eval.results.statistics import krippendorff_alpha, middle

LABELS = {"right": 1.0, "correct": 1.0, "yes": 1.0, "true": 1.0} | dict.fromkeys(
    ("wrong", "incorrect", "no", "false"), 0.0
)
"""Words for a label; a number from 0 to 1 is one too."""
_NO_LABEL = frozenset({"", "?", "unsure"})
_QUOTE = "'"
_MOVED_BY_A_SPREADSHEET = re.compile(r"[=+\-@\t\r']|[\d\s.,:/eE+-]+\Z")
"""What begins as a formula, or is like a number or a date: `12e4` becomes 120000, `1-2` a day."""
MARK = "answer_mark"
"""The column that tells one model's answers from another's: both have the same sample ids."""


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
    marks: Mapping[str, frozenset[str]]
    """Of each sample the marks of the answers that were labelled, where the file has them."""
    source: Mapping[str, Any]
    """What a scorecard says about the file: name, hash, people, and their agreement."""

    def check(self, marks: Mapping[str, str], *, run: Path) -> None:
        """Compare with the marks of a run's answers, by sample id.

        Raises `ConfigError` for a sample that the run does not have, and for another model's
        answer: how often a judge errs depends on who wrote the answers.
        """
        file = self.source["file"]
        strangers = sorted(self.by_sample.keys() - marks)
        if strangers:
            raise ConfigError(
                f"{file} labels {strangers[0]!r}, which {run} does not have"
                + (f" (and {len(strangers) - 1} more)" if strangers[1:] else ""),
                hint=_WHOSE,
            )
        for sample_id in self.by_sample:
            if self.marks.get(sample_id, frozenset()) - {marks[sample_id]}:
                raise ConfigError(
                    f"{file} labels a different answer to {sample_id} than {run} has", hint=_WHOSE
                )


def read_labels(path: Path) -> Labels:
    """Read a file of labels. Raises `ConfigError` naming the line that is wrong."""
    lines = list(_rows(path))
    given: dict[str, dict[str, float]] = {}
    marks: dict[str, set[str]] = {}
    for row in lines:
        if mark := row.columns.get(MARK):
            marks.setdefault(row.sample_id, set()).add(mark)
        if row.label is not None:
            if row.annotator in given.setdefault(row.sample_id, {}):
                who = f" by {row.annotator}" if row.annotator else ""
                raise ConfigError(
                    f"{path}: {row.sample_id} is labelled twice{who}",
                    hint="add a column `annotator` to distinguish two people's labels",
                )
            given[row.sample_id][row.annotator] = row.label
    if not given:
        raise ConfigError(f"{path} has no label", hint=_HINT)
    by_sample = {name: middle(list(said.values())) for name, said in given.items()}
    people = sorted({name for said in given.values() for name in said})
    table = [[said.get(name, np.nan) for name in people] for said in given.values()]
    decided = {name: label for name, label in by_sample.items() if label is not None}
    if not decided:
        raise ConfigError(
            f"{path}: people are split on every answer", hint="add a third label for each answer"
        )
    return Labels(
        by_sample=decided,
        rows={row.sample_id: row for row in reversed(lines)},
        marks={name: frozenset(of_sample) for name, of_sample in marks.items()},
        source={
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "n": len(decided),
            "n_split": len(by_sample) - len(decided),
            "annotators": len(people),
            "alpha": krippendorff_alpha(np.array(table), graded=False) if people[1:] else None,
        },
    )


_WHOSE = "name the run whose answers were labelled; `judge-check --sheet RUN` writes a sheet"
_HINT = f"a CSV with the columns sample_id and label ({', '.join(LABELS)}, or 0 to 1)"


def _rows(path: Path) -> Iterator[LabelRow]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"--labels {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8", hint="save it as CSV UTF-8") from error
    first_line = text.partition("\n")[0]
    delimiter = ";" if first_line.count(";") > first_line.count(",") else ","
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # answers can be long
    # Strict, for a quote that is never closed would swallow all labels behind it.
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        missing = {"sample_id", "label"} - set(table.fieldnames or ())
        if missing:
            raise ConfigError(f"{path} has no column {' and '.join(sorted(missing))}", hint=_HINT)
        for row in table:
            columns = {name: without_quote(value or "") for name, value in row.items() if name}
            yield _row(columns, where=f"{path}, line {table.line_num}")
    except csv.Error as error:
        raise ConfigError(f"{path}, after line {table.line_num}: {error}", hint=_HINT) from error


def _row(columns: Mapping[str, str], *, where: str) -> LabelRow:
    sample_id = columns["sample_id"].strip()
    if not sample_id:
        raise ConfigError(f"{where}: no sample_id", hint=_HINT)
    return LabelRow(
        sample_id=sample_id,
        label=_label(columns["label"], where=where),
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
        raise ConfigError(f"{where}: {written!r} is not a label", hint=_HINT)
    return label


def with_quote(text: str) -> str:
    """Return a cell that no spreadsheet runs or rewrites: a model may write anything.

    >>> with_quote("=HYPERLINK(1)")
    "'=HYPERLINK(1)"
    """
    return f"{_QUOTE}{text}" if _MOVED_BY_A_SPREADSHEET.match(text) else text


def without_quote(text: str) -> str:
    """Undo `with_quote`."""
    is_quoted = text.startswith(_QUOTE) and _MOVED_BY_A_SPREADSHEET.match(text[1:])
    return text[1:] if is_quoted else text


def options_of(cell: str, *, sample_id: str) -> tuple[str, ...]:
    """Read the options that a sheet keeps as a JSON list."""
    try:
        found = json.loads(cell or "[]")
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise ConfigError(
            f"sample {sample_id}: options {cell[:40]!r} are not a JSON list",
            hint='such as ["liver", "spleen"]',
        )
    return tuple(map(str, found))
