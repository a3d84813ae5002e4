"""Judge saved completions again: other judges or another protocol, nothing generated.

A run folder may be anywhere, under any name: `run.json` says which samples belong to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import ConfigError
from medix_eval.evaluation.evaluation import write_scores
from medix_eval.evaluation.panel import (
    JudgeChoice,
    Panel,
    ResolvedJudge,
    judge_sources,
    judging_manifest,
    resolve_judges,
)
from medix_eval.evaluation.pipeline import JudgingStage, Progress, shown_progress
from medix_eval.judging.cache import CACHE_FILE, VerdictCache
from medix_eval.judging.protocol import Protocol
from medix_eval.models.requests import run_to_end
from medix_eval.models.resolve import give_gpus, kept_local
from medix_eval.results.store import (
    JudgingManifest,
    RunManifest,
    Selection,
    find_judgings,
    find_run,
    judging_at,
    load_run_manifest,
    open_judging,
    open_run,
    read_selection,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudging:
    """What the user asked for."""

    runs: tuple[Path, ...]
    protocol: Protocol
    judges: tuple[JudgeChoice, ...]
    use_cache: bool
    allow_partial: bool
    local_hosts: tuple[str, ...] = ()
    egress_reason: str | None = None
    progress: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """One run, with its earlier judging and the new one."""

    folder: Path
    before: Path | None
    """None where this is the first judging, or the same one again."""
    after: Path


def judge_again(asked: Rejudging, catalogue: Catalogue) -> list[Rejudged]:
    """Judge the completions of every run; valid verdicts are kept, as in an evaluation."""
    named = [find_run(path) for path in asked.runs]
    folders = [folder for folder, _ in named]
    if twice := next((one for one in folders if folders.count(one) > 1), None):
        raise ConfigError(f"{twice} is named twice", hint="name each run once, at either level")
    out = folders[0].parent.parent
    manifests = [
        load_run_manifest(folder, read_selection(folder, place) if place else None)
        for folder, place in named
    ]
    sources = kept_local(
        give_gpus(judge_sources(asked.protocol, asked.judges, out=out)),
        tasks={
            name
            for manifest in manifests
            for name, task in manifest.tasks.items()
            if task.data_class == "dua"
        },
        allowed=asked.local_hosts,
        reason=asked.egress_reason,
    )
    judges = resolve_judges(sources)
    with shown_progress(wanted=asked.progress) as progress:
        runs = zip(folders, manifests, strict=True)
        judgings = run_to_end(_judge_all(asked, judges, runs, progress))
    done = []
    for (folder, before), manifest, judged in zip(named, manifests, judgings, strict=True):
        what, partial = Selection(tasks=manifest.tasks), asked.allow_partial
        scores = write_scores(folder, judged, catalogue, asked=what, allow_partial=partial)
        others = (*find_judgings(folder)[1], before)
        old = [one for one in others if one and judging_at(one) != judged]
        last = old[-1] if old else None
        done.append(Rejudged(folder=folder, before=last, after=Path(scores.run)))
    return done


async def _judge_all(
    asked: Rejudging,
    judges: tuple[ResolvedJudge, ...],
    runs: Iterable[tuple[Path, RunManifest]],
    progress: Progress,
) -> list[Path]:
    """Judge one run after the other, and return the folders of the judgings."""
    policy = asked.judges[0].flags.policy()
    panel = Panel(protocol=asked.protocol, judges=judges, policy=policy)
    async with AsyncExitStack() as stack:
        return [await _judge(asked, panel, run, stack=stack, progress=progress) for run in runs]


async def _judge(
    asked: Rejudging,
    panel: Panel,
    run: tuple[Path, RunManifest],
    *,
    stack: AsyncExitStack,
    progress: Progress,
) -> Path:
    folder, manifest = run
    with ExitStack() as files:
        opened = files.enter_context(open_run(folder.parent, manifest, at=folder))
        judging = files.enter_context(open_judging(opened, _describe(asked, panel, manifest)))
        if asked.use_cache and panel.judges:
            cache = files.enter_context(VerdictCache.at(folder.parent.parent / CACHE_FILE))
            panel = replace(panel, cache=cache)
        stage = JudgingStage(panel=panel, run=opened, judging=judging, progress=progress)
        rows = {
            f"{name}@{task.version}": frozenset(
                range(task.num_rows) if task.rows is None else task.rows
            )
            for name, task in manifest.tasks.items()
        }
        if wanted := stage.unjudged(rows):
            await stage.open(stack)  # only now: nothing is loaded to find out there is no work
            await stage.score_saved(wanted)
        return judging.path


def _describe(asked: Rejudging, panel: Panel, manifest: RunManifest) -> JudgingManifest:
    """Describe the judging; completions of other generation settings are named as such."""
    generation = {key: manifest.generation.get(key) for key in asked.protocol.generation_settings()}
    described = judging_manifest(
        asked.protocol, panel.judges, tasks=list(manifest.tasks), generation=generation
    )
    return described.model_copy(update={"egress_reason": asked.egress_reason})
