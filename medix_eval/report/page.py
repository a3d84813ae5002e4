"""One self-contained page: templates with escaping on, and a strict content security policy.

The page's own style and script are allowed by their hash. So what a model wrote could not run even
if it escaped from its element, and nothing is loaded from the network. The samples of a run are
packed in compressed blocks, which the script opens one at a time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from pydantic_core import to_json

from medix_eval.judging.replies import details_of
from medix_eval.records import IMAGE_MARK, CompletionRecord, Kind, Outcome, VerdictRecord
from medix_eval.report.format import NOTHING, counted, decimal, p_value, percent, points, span
from medix_eval.report.tables import daggers, notes, yes_no_text
from medix_eval.results.gate import Check, Policy
from medix_eval.results.scoring import sample_slices
from medix_eval.results.store import JudgedRun, JudgedSample, judging_at
from medix_eval.rules.answers import thinking_of
from medix_eval.storage.bundled import bundled
from medix_eval.storage.jsonl import write_text

_PAGES = Path(__file__).parent / "pages"
_DATA = "<!--blocks-->"
"""Where the blocks go; text of a model cannot hold it, for there `<` is escaped."""


def render(name: str, **content: Any) -> str:
    """Return a page made from `pages/NAME`."""
    theme = (bundled("leaderboard") / "theme.css").read_text(encoding="utf-8")
    style, script = f"{theme}\n{_read('style.css')}", _read("script.js")
    security_policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src '{source_hash(style)}'",
            f"script-src '{source_hash(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    # Ours, and without `</`: text of a model never comes this way.
    trusted = {"style": Markup(style), "script": Markup(script)}  # noqa: S704
    page = _environment().get_template(name)
    return page.render(security_policy=security_policy, **trusted, **content)


def with_blocks(page: str, blocks: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a page in parts, with blocks of packed data by their ids; none is held in memory."""
    head, tail = page.split(_DATA)
    yield head
    for name, text in blocks:
        yield f'<script type="application/json" id="{name}">{text}</script>\n'
    yield tail


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {f.__name__: f for f in (counted, decimal, p_value, points, yes_no_text)}
    environment.filters |= {one.__name__: partial(one, none=NOTHING) for one in (percent, span)}
    return environment


def _read(name: str) -> str:
    return (_PAGES / name).read_text(encoding="utf-8")


def source_hash(text: str) -> str:
    """Return by which hash a content security policy lets a style or a script in."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def write_run_page(run: JudgedRun, *, images: Mapping[str, str] | None = None) -> Path:
    """Write `report.html` beside the scores; `images` are data URLs by the image's hash."""
    path = run.place / "report.html"
    write_text(path, run_page(run, images=images or {}))
    return path


def is_current(place: Path) -> bool:
    """Tell whether the page beside some scores was written after them and the last verdict."""
    page, files = place / "report.html", [judging_at(place) / "verdicts.jsonl"]
    newest = max(file.stat().st_mtime_ns for file in (*files, place / "scores.json"))
    return page.exists() and page.stat().st_mtime_ns >= newest


def run_page(run: JudgedRun, *, images: Mapping[str, str]) -> Iterator[str]:
    """Yield the parts of the page of one judging of one run."""
    restricted = {name for name in run.judging.tasks if run.entry(name).data_class == "dua"}
    packing = Packing(
        is_restricted=restricted.__contains__,
        slices_of=lambda one: sample_slices(run.entry(one.task), one.completion),
    )
    tasks = run.scores.tasks.values()
    settings = {"generation": run.manifest.generation, "judging": run.judging.judging}
    page = render(
        "run.html.jinja",
        run=run,
        scores=run.scores,
        notes=notes(run.scores),
        daggers=daggers(run.scores),
        restricted=sorted(restricted),
        outcomes=[one.value for one in Outcome if any(task.outcomes[one] for task in tasks)],
        settings=json.dumps(settings, indent=2, ensure_ascii=False),
    )

    def fill() -> Iterator[None]:
        for sample in run.samples():
            packing.add(sample)
            yield

    return with_blocks(page, blocks(packing, fill(), images=images))


def gate_page(policy: Policy, results: Sequence[tuple[JudgedRun, Sequence[Check]]]) -> str:
    """Return the page of one policy checked on some runs."""
    return render(
        "gate.html.jinja",
        policy=policy,
        results=results,
        is_met=all(check.is_met for _, checks in results for check in checks),
        today=datetime.now(UTC).date().isoformat(),
    )


_CHUNK_BYTES = 400_000
_SNIPPET = 96
_LEVEL = 3
"""Compression level: the highest takes three times as long and saves a tenth."""
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
    """Takes samples one by one; the result is text that can be embedded in a page as it is."""

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
        slices = {name: list(one.names) for name, one in self._slices.items() if len(one.names) > 1}
        return packed(
            {
                "tasks": list(self._tasks.names),
                "outcomes": list(self._labels.names),
                "tags": list(self._tags.names),
                "slices": slices,
                "sliced": {name: [one.get(name, -1) for one in self._sliced] for name in slices},
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
    """Return 1 if rules and judge disagree, 2 if the votes differ, 3 for both.

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
            "details": {} if hidden else details_of(vote.reply or ""),
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
