"""`report.html` of a run: scores, ledger, settings, and every sample to be looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from medix_eval.records import Outcome
from medix_eval.report.packing import Packing, blocks
from medix_eval.report.page import render, with_blocks
from medix_eval.report.tables import notes
from medix_eval.results.scoring import slices_of
from medix_eval.results.store import JudgedRun, JudgedSample
from medix_eval.storage.jsonl import write_text


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
