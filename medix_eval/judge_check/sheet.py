"""The blind annotation sheet: answers of a run for people to label, as CSV and as one HTML page.

Blind: neither the model's name nor any verdict is in it, and the order is random. The draw is
a simple random sample of all that the model wrote, answer or not, so that its labels represent the
rest: what a reader took for empty, cut off or refused may be right.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from medix_eval.errors import ConfigError
from medix_eval.models.requests import ending_of
from medix_eval.records import IMAGE_MARK, Kind, Outcome
from medix_eval.report.format import csv_of
from medix_eval.report.page import source_hash
from medix_eval.results.labels import MARK, with_quote
from medix_eval.results.store import JudgedRun, JudgedSample
from medix_eval.rules.answers import after_thinking
from medix_eval.storage.bundled import bundled
from medix_eval.storage.digests import digest, mark_of
from medix_eval.storage.jsonl import write_text

COLUMNS: tuple[str, ...] = (
    "sample_id",
    "label",
    "annotator",
    "task",
    "kind",
    "data_class",
    "question",
    "options",
    "reference",
    "answer",
    "note",
    "finish_reason",
    MARK,
)
_NOT_READ = frozenset({Outcome.REQUEST_FAILED, Outcome.SKIPPED, Outcome.REJECTED, Outcome.UNPARSED})
"""Outcomes of samples without an answer to read; the others may be labelled."""
_WHOLE = "The completion is shown as the model wrote it."
_CUT = "The completion was cut off at its token limit."


def write_sheet(run: JudgedRun, *, num: int, seed: int) -> tuple[Path, Path]:
    """Write `sheet/answers.csv` and `answers.html` beside the run's verdicts.

    Raises `ConfigError` if a sheet already exists: it may have been filled in.
    """
    folder = run.judged / "sheet"
    paths = folder / "answers.csv", folder / "answers.html"
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path} already exists", hint="move it away: it may contain labels")
    rows = _drawn(run, num=num, seed=seed)
    if not rows:
        raise ConfigError(f"{run.judged} has no answer to label")
    is_restricted = any(row["data_class"] == "dua" for row in rows)
    folder.mkdir(exist_ok=True)
    cells = ({name: with_quote(text) for name, text in row.items()} for row in rows)
    table = "\ufeff" + csv_of(COLUMNS, cells)  # without it Excel takes UTF-8 for something else
    for path, text in zip(paths, (table, as_page(rows)), strict=True):
        write_text(path, text)
        if is_restricted:
            path.chmod(0o600)
    return paths


def as_page(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the page: everything in one file, and nothing in it but what is shown."""
    folder = bundled("judges") / "sheet"
    script = (folder / "page.js").read_text(encoding="utf-8")
    style = (bundled("leaderboard") / "theme.css").read_text(encoding="utf-8")
    style += (folder / "page.css").read_text(encoding="utf-8")
    shown = ("sample_id", "task", "question", "reference", "answer", "note", MARK)
    content = json.dumps([{name: row[name] for name in shown} for row in rows])
    page = (folder / "page.html.jinja").read_text(encoding="utf-8")
    rubrics = {"report" if row["kind"] == Kind.REPORT else "question" for row in rows}
    rubric = folder.parent / "rubric"
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
    return environment.from_string(page).render(
        num=len(rows),
        rubrics={one: (rubric / f"{one}.txt").read_text("utf-8") for one in sorted(rubrics)},
        restricted=any(row["data_class"] == "dua" for row in rows),
        style=style,
        script=script,
        # `<` ends no script and `&` starts no entity inside JSON that is written so.
        answers=content.replace("<", "\\u003c").replace("&", "\\u0026"),
        digest=digest(content),
        style_hash=source_hash(style),
        script_hash=source_hash(script),
    )


def _drawn(run: JudgedRun, *, num: int, seed: int) -> list[dict[str, str]]:
    found = [
        sample
        for sample in run.samples()
        if sample.verdict.outcome not in _NOT_READ and (sample.completion.completion or "").strip()
    ]
    found.sort(key=lambda sample: (sample.task, sample.completion.sample_id))
    draw = random.Random(seed)  # noqa: S311 (no secret: the same sheet for a seed)
    return [_row(sample, run) for sample in draw.sample(found, min(num, len(found)))]


def _row(sample: JudgedSample, run: JudgedRun) -> dict[str, str]:
    record, answer = sample.completion, (sample.verdict.answer or "").strip()
    is_cut = ending_of(record.finish_reason) == "length"
    if is_cut:  # as it stands, so that it can be judged again for what was cut
        pairs = run.judging.judging.get("answer", {}).get("thinking", ())
        more = tuple((opening, closing) for opening, closing in pairs)
        answer = (after_thinking(record.completion or "", more=more) or "").strip()
    return {
        "sample_id": record.sample_id,
        "label": "",
        "annotator": "",
        "task": sample.task,
        "kind": Kind(record.kind).value,
        "data_class": run.entry(sample.task).data_class,
        "question": record.prompt.replace(IMAGE_MARK, "").strip(),
        "options": json.dumps(record.options, ensure_ascii=False) if record.options else "",
        "reference": record.reference,
        "answer": answer or record.completion or "",
        "note": " ".join([_WHOLE] * (not answer) + [_CUT] * is_cut),
        "finish_reason": record.finish_reason or "",
        MARK: mark_of(record.completion),
    }
