"""One judge check from what was asked to its scorecard on disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from medix_eval.evaluation.progress import shown_progress
from medix_eval.judge_check.answers import answers_of_run
from medix_eval.judge_check.asking import AskedJudge
from medix_eval.judge_check.confusion import Judged
from medix_eval.judge_check.picture import draw
from medix_eval.judge_check.probes import LabelledAnswer
from medix_eval.judge_check.scorecard import Measured, Scorecard, make_scorecard
from medix_eval.judging.cache import VerdictCache
from medix_eval.results.labels import Labels
from medix_eval.results.store import JudgedRun, slug
from medix_eval.storage.digests import digest
from medix_eval.storage.jsonl import write_text


def ask_about(
    items: Sequence[LabelledAnswer],
    judge: AskedJudge,
    *,
    labels: Mapping[str, Any],
    out: Path,
    use_cache: bool,
) -> Scorecard:
    """Ask a judge about labelled answers and sum up what it said."""
    identity = judge.identity()
    settings = judge.protocol.judging_settings()
    started = time.monotonic()
    with ExitStack() as stack:
        if use_cache and judge.source is not None:
            cache = stack.enter_context(VerdictCache.at(out / ".cache" / "verdicts.sqlite"))
            judge = replace(judge, cache=cache)
        progress = stack.enter_context(shown_progress())
        verdicts = asyncio.run(judge.judged(items, progress=progress))
    judged = [
        Judged(item=item, verdict=verdict) for item, verdict in zip(items, verdicts, strict=True)
    ]
    who = Measured(
        name=judge.name,
        identity_digest=digest(identity),
        protocol={"name": judge.protocol.name, "digest": judge.protocol.digest},
        judging=settings,
    )
    return make_scorecard(judged, who, labels=labels, seconds=time.monotonic() - started)


def read_back(labels: Labels, run: JudgedRun) -> Scorecard:
    """Compare labels with the verdicts that a run already has; nobody is asked."""
    judging = run.judging
    who = Measured(
        name=" + ".join(str(judge["id"]) for judge in judging.judges) or judging.protocol["name"],
        identity_digest=digest([judge["digest"] for judge in judging.judges]),
        protocol=judging.protocol,
        judging=judging.judging,
    )
    source = {**labels.source, "run": run.manifest.generation_digest}
    return make_scorecard(answers_of_run(labels, run), who, labels=source, seconds=0.0)


def write_scorecard(card: Scorecard, out: Path) -> Path:
    """Write `scorecard.json` and its picture, and return their folder."""
    folder = out / "judges" / slug(str(card.judge["id"])) / card.digest[:8]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "scorecard.json", card.model_dump_json(indent=2) + "\n")
    draw(card, folder / "scorecard.svg")
    return folder
