"""Samples packed into a page: an index that is read at once, and chunks that are read on demand.

A browser parses inert text fast and objects slowly. So every text of a sample lies compressed in a
chunk of some hundred kilobytes, and only what a list and its filters need is in the index.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from medix_eval.records import IMAGE_MARK, CompletionRecord, Kind, VerdictRecord
from medix_eval.results.store import JudgedSample
from medix_eval.rules.answers import thinking_of

_CHUNK_BYTES = 400_000
_SNIPPET = 96
_LEVEL = 3
"""Of compression: the highest level takes three times as long and saves a tenth."""
_REPORT_GAP = 0.25
"""How far two grades of one report lie apart before they count as disagreement."""


@dataclass(slots=True)
class _Codes:
    """Gives each name a small number, in order of appearance."""

    names: dict[str, int] = field(default_factory=dict)

    def of(self, name: str) -> int:
        return self.names.setdefault(name, len(self.names))


@dataclass(slots=True)
class Packing:
    """Takes samples one by one; what comes out is text that can lie in a page as it is."""

    is_restricted: Callable[[str], bool]
    """Whether a task's texts must stay out of the page."""
    slices_of: Callable[[JudgedSample], Iterable[tuple[str, str]]]
    """Column and value of each slice that a sample is in."""
    images: dict[str, None] = field(default_factory=dict)
    """Hashes of the images that samples show, each once."""
    _part: list[bytes] = field(default_factory=list)
    _size: int = 0
    _starts: list[int] = field(default_factory=list)
    _tasks: _Codes = field(default_factory=_Codes)
    _labels: _Codes = field(default_factory=_Codes)
    _tags: _Codes = field(default_factory=_Codes)
    _rows: list[list[Any]] = field(default_factory=list)
    _slices: dict[str, _Codes] = field(default_factory=dict)
    _sliced: list[dict[str, int]] = field(default_factory=list)

    def add(self, sample: JudgedSample) -> None:
        """Pack one sample of one run, under its outcome."""
        self.add_compared([("", sample)], label=sample.verdict.outcome.value)

    def add_compared(self, answers: Sequence[tuple[str, JudgedSample]], *, label: str) -> None:
        """Pack one sample with the answers of several runs, each under its run's name."""
        sample = answers[-1][1]
        completion = sample.completion
        hidden = self.is_restricted(sample.task)
        if not self._part:
            self._starts.append(len(self._rows))
        record = {} if hidden else _question(completion)
        record["answers"] = [_answer(one, name=name, hidden=hidden) for name, one in answers]
        text = to_json(record)
        self._part.append(text)
        self._size += len(text)
        question = " ".join(completion.prompt.replace(IMAGE_MARK, " ").split())
        verdicts = [one.verdict for _, one in answers]
        # One row of the index; the page's script names these columns in the same order.
        self._rows.append(
            [
                self._tasks.of(sample.task),
                completion.row,
                self._labels.of(label),
                max(disagreements(verdict, kind=completion.kind) for verdict in verdicts),
                sorted({self._tags.of(tag) for verdict in verdicts for tag in verdict.error_tags}),
                completion.sample_id,
                "" if hidden else question[:_SNIPPET],
            ]
        )
        pairs = () if hidden else self.slices_of(sample)
        self._sliced.append(
            {name: self._slices.setdefault(name, _Codes()).of(value) for name, value in pairs}
        )
        if not hidden:
            self.images |= dict.fromkeys(completion.image_sha256)

    def chunk(self, *, at_least: int = _CHUNK_BYTES) -> str | None:
        """Return the samples since the last chunk, packed, once they are this many bytes."""
        if not self._part or self._size < at_least:
            return None
        packed_part = _compressed(b"[%b]" % b",".join(self._part))
        self._part, self._size = [], 0
        return packed_part

    def index(self) -> str:
        """Return the packed index."""
        slices = {
            name: list(codes.names) for name, codes in self._slices.items() if len(codes.names) > 1
        }
        return packed(
            {
                "tasks": list(self._tasks.names),
                "outcomes": list(self._labels.names),
                "tags": list(self._tags.names),
                "slices": slices,
                "sliced": {
                    name: [values.get(name, -1) for values in self._sliced] for name in slices
                },
                "starts": self._starts,
                "rows": self._rows,
            }
        )


def blocks(
    packing: Packing, filling: Iterable[None], *, images: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the blocks of a page by their ids, while it is being filled sample by sample.

    `images` are data URLs by the image's hash.
    """
    number = 0
    for _ in filling:
        if text := packing.chunk():
            yield f"chunk-{number}", text
            number += 1
    if text := packing.chunk(at_least=0):
        yield f"chunk-{number}", text
    yield "index", packing.index()
    for name in packing.images:
        if name in images:
            yield f"image-{name}", images[name]


def packed(content: object) -> str:
    """Return JSON, compressed, in letters that end no HTML element.

    >>> "<" in packed("</script>")
    False
    """
    return _compressed(to_json(content))


def disagreements(verdict: VerdictRecord, *, kind: Kind) -> int:
    """Return 1 where the rules say otherwise than the judge, 2 where its votes differ, 3 for both.

    Grades of a report always differ a little; there it takes a quarter of the scale.
    """
    gap = _REPORT_GAP if kind is Kind.REPORT else 0.0
    found = 0
    judged = verdict.judge_score
    if verdict.rule is not None and judged is not None:
        found |= abs(verdict.rule.score - judged) > gap
    points = [vote.points for vote in verdict.votes if vote.points is not None]
    if points and max(points) - min(points) > 5 * gap:
        found |= 2
    return int(found)


def _question(completion: CompletionRecord) -> dict[str, Any]:
    """Return what was asked."""
    return {
        "prompt": completion.prompt,
        "options": completion.options,
        "reference": completion.reference,
        "images": completion.image_sha256,
        "facts": completion.facts,
        "columns": completion.columns,
    }


def _answer(sample: JudgedSample, *, name: str, hidden: bool) -> dict[str, Any]:
    """Return what came back and what was said of it; of restricted data the verdicts only."""
    completion, verdict = sample.completion, sample.verdict
    votes = [
        {
            "judge": vote.judge,
            "prompt": vote.prompt,
            "points": vote.points,
            "cached": vote.cached,
            "failure": None if hidden or vote.failure is None else vote.failure.message,
            "reply": None if hidden else vote.reply,
        }
        for vote in verdict.votes
    ]
    judged = {
        "name": name,
        "outcome": verdict.outcome.value,
        "score": verdict.score,
        "judge_score": verdict.judge_score,
        "votes": votes,
        "rule": verdict.rule.model_dump() if verdict.rule else None,
    }
    if hidden:
        return judged
    thinking = thinking_of(completion.completion or "")
    return judged | {
        "thinking": thinking,
        "said": (completion.completion or "")[len(thinking) :],
        "answer": verdict.answer,
        "finish": completion.finish_reason,
        "tokens": completion.completion_tokens,
        "seconds": completion.seconds,
        "failure": completion.failure.message if completion.failure else None,
        "reason": verdict.reason,
    }


def _compressed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, _LEVEL)).decode("ascii")
