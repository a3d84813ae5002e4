"""One self-contained page: templates with escaping on, and a policy that lets nothing else in.

The page's own style and script are allowed by their hash. So what a model wrote could not run even
if it got out of its place, and nothing is ever asked of the network.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from medix_eval.records import Outcome
from medix_eval.report.format import NOTHING, decimal, p_value, percent, points, span
from medix_eval.report.packing import Packing, blocks
from medix_eval.report.tables import notes
from medix_eval.results.gate import Check, Policy
from medix_eval.results.scoring import slices_of
from medix_eval.results.store import JudgedRun, JudgedSample
from medix_eval.storage.bundled import bundled
from medix_eval.storage.jsonl import write_text

_PAGES = Path(__file__).parent / "pages"
_DATA = "<!--blocks-->"
"""Where the blocks go; text of a model cannot hold it, for there `<` is escaped."""


def render(name: str, **content: Any) -> str:
    """Return a page made from `pages/NAME`."""
    style, script = _style(), _read("script.js")
    security_policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
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
    environment.filters |= {one.__name__: one for one in (decimal, p_value, points)}
    environment.filters |= {one.__name__: partial(one, none=NOTHING) for one in (percent, span)}
    return environment


def _style() -> str:
    theme = (bundled("leaderboard") / "theme.css").read_text(encoding="utf-8")
    return f"{theme}\n{_read('style.css')}"


def _read(name: str) -> str:
    return (_PAGES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def write_run_page(run: JudgedRun, *, images: Mapping[str, str] | None = None) -> Path:
    """Write `report.html` beside the verdicts; `images` are data URLs by the image's hash."""
    path = run.judged / "report.html"
    write_text(path, run_page(run, images=images or {}))
    return path


def is_current(judged: Path) -> bool:
    """Tell whether the page was written after the last verdict."""
    page = judged / "report.html"
    newest = max((judged / name).stat().st_mtime_ns for name in ("verdicts.jsonl", "scores.json"))
    return page.exists() and page.stat().st_mtime_ns >= newest


def slices_in(run: JudgedRun) -> Callable[[JudgedSample], tuple[tuple[str, str], ...]]:
    """Return what tells the slices of a sample, as its scores name them."""

    def of(sample: JudgedSample) -> tuple[tuple[str, str], ...]:
        entry, completion = run.entry(sample.task), sample.completion
        return slices_of(
            completion.columns,
            names=entry.slices,
            kind=entry.kind,
            reference=completion.reference,
        )

    return of


def run_page(run: JudgedRun, *, images: Mapping[str, str]) -> Iterator[str]:
    """Yield the parts of the page of one judging of one run."""
    restricted = {name for name in run.judging.tasks if run.entry(name).data_class == "dua"}
    packing = Packing(is_restricted=restricted.__contains__, slices_of=slices_in(run))
    tasks = run.scores.tasks.values()
    settings = {"generation": run.manifest.generation, "judging": run.judging.judging}
    page = render(
        "run.html.jinja",
        run=run,
        scores=run.scores,
        notes=[note for note in notes(run.scores) if not note.startswith("†")],
        restricted=sorted(restricted),
        outcomes=[
            outcome.value
            for outcome in Outcome
            if any(task.outcomes[outcome.value] for task in tasks)
        ],
        settings=json.dumps(settings, indent=2, ensure_ascii=False),
    )

    def fill() -> Iterator[None]:
        for sample in run.samples():
            packing.add(sample)
            yield

    return with_blocks(page, blocks(packing, fill(), images=images))


def gate_page(policy: Policy, results: Sequence[tuple[JudgedRun, Sequence[Check]]]) -> str:
    """Return the page of one policy held against some runs."""
    return render(
        "gate.html.jinja",
        policy=policy,
        results=results,
        is_met=all(check.is_met for _, checks in results for check in checks),
        today=datetime.now(UTC).date().isoformat(),
    )
