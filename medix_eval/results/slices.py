"""Scores by slice, and what needs no knowledge to score: a task's mean can hide a blind spot."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from medix_eval.records import Kind
from medix_eval.results.scores import SliceScore, YesNo
from medix_eval.statistics.intervals import clustered, limits_of, task_interval

_YES_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_ANSWERED_FREELY = {Kind.OPEN, Kind.CLOSED}
_SHORT, _MEDIUM = 1, 3
REFERENCE = "reference"
"""The slice that every free-form task has: what sort of reference a question has."""


class Row(NamedTuple):
    """One sample, as slices see it."""

    slices: tuple[tuple[str, str], ...]
    cluster: str
    score: float | None
    expects: str | None
    """`yes` or `no`, if that is the reference."""
    says: str | None
    """`yes` or `no`, if the answer begins so."""


def slices_of(
    columns: Mapping[str, str], *, names: Sequence[str], kind: str, reference: str
) -> tuple[tuple[str, str], ...]:
    """Return column and value of each slice that a sample is in.

    >>> slices_of({"organ": "lung"}, names=["organ"], kind="open", reference="left upper lobe")
    (('organ', 'lung'), ('reference', '2 to 3 words'))
    """
    found = [(name, columns[name]) for name in names if name in columns]
    if kind in _ANSWERED_FREELY:
        found.append((REFERENCE, _sort_of(reference)))
    return tuple(found)


def said(text: str, *, whole: bool = False) -> str | None:
    """Return the yes or no that a text begins with; if `whole`, only if it says nothing else.

    >>> said("Yes, there is."), said("Yes, there is.", whole=True), said("Nodule")
    ('yes', None, None)
    """
    found = _YES_NO.match(text)
    if not found or (whole and text[found.end() :].strip(" .")):
        return None
    return found[1].lower()


def slice_scores(rows: Iterable[Row], *, with_clusters: bool) -> dict[str, dict[str, SliceScore]]:
    """Score every value of every column, in the order of the alphabet."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        for column, value in row.slices:
            found.setdefault(column, {}).setdefault(value, []).append(row)
    return {
        column: {value: _slice(values[value], with_clusters) for value in sorted(values)}
        for column, values in sorted(found.items())
    }


def yes_no(rows: Iterable[Row]) -> YesNo | None:
    """Compare with always giving the more frequent answer; None without such questions."""
    asked = [row for row in rows if row.expects]
    if not asked:
        return None
    expected = Counter(row.expects for row in asked)
    answered = Counter(row.says for row in asked if row.says)
    scores = [row.score for row in asked if row.score is not None]
    majority = max(sorted(str(one) for one in expected), key=lambda one: expected[one])
    return YesNo(
        n=len(asked),
        score=clustered(scores).mean if scores else None,
        majority=expected[majority] / len(asked),
        majority_answer=majority,
        reference_yes=expected["yes"] / len(asked),
        answered_yes=answered["yes"] / answered.total() if answered else None,
        n_answered=answered.total(),
    )


def _slice(rows: Sequence[Row], with_clusters: bool) -> SliceScore:  # noqa: FBT001 (private)
    scored = [(row.score, row.cluster) for row in rows if row.score is not None]
    clusters = clustered(
        [score for score, _ in scored], [name for _, name in scored] if with_clusters else None
    )
    return SliceScore(
        n=len(rows),
        n_scored=len(scored),
        score=clusters.mean if scored else None,
        interval=limits_of(task_interval(clusters)),
    )


def _sort_of(reference: str) -> str:
    if said(reference, whole=True):
        return "yes or no"
    words = len(reference.split())
    if words <= _SHORT:
        return "1 word"
    return "2 to 3 words" if words <= _MEDIUM else "4 words or more"
