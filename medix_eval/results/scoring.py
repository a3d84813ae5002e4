"""From a run folder to its scores: per task, per group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medix_eval.results.corrected import Correction, correct, correct_average
from medix_eval.results.labels import Labels, mark_of
from medix_eval.results.scores import GroupScore, Scores, TaskScore
from medix_eval.results.store import JudgingManifest, RunManifest, newest
from medix_eval.results.tally import Answered, JudgedAs, Tally, mean
from medix_eval.statistics.intervals import (
    Clusters,
    average_interval,
    average_stderr,
    group_interval,
    limits_of,
)

IMAGES_LEFT_OUT = {"images": "left out"}
"""What marks the identity of a model that cannot see and was asked about images all the same."""


def score_run(
    run: Path,
    judged: Path,
    *,
    manifest: RunManifest,
    judging: JudgingManifest,
    groups: Mapping[str, tuple[str, ...]],
    allow_partial: bool = False,
    labels: Labels | None = None,
) -> Scores:
    """Score what a run folder holds; samples without a verdict count as skipped.

    With people's `labels` on its answers, tasks that have enough of them are corrected too.
    """
    tallies = {name: Tally(manifest.tasks[name]) for name in judging.tasks}

    def read_answered(line: Mapping[str, Any]) -> Answered | None:
        tally = tallies.get(_task(line))
        return Answered.of(line, tally.entry) if tally and tally.wants(int(line["row"])) else None

    for (task, sample_id), one in newest(run / "completions.jsonl", read_answered).items():
        if one is not None:
            tallies[task.partition("@")[0]].answered[sample_id] = one
    for (task, sample_id), verdict in newest(judged / "verdicts.jsonl", JudgedAs.of).items():
        tally = tallies.get(task.partition("@")[0])
        if tally is not None and sample_id in tally.answered:
            tally.judged[sample_id] = verdict
    corrections: dict[str, Correction] = {}
    if labels is not None:
        judged_samples = {name for tally in tallies.values() for name in tally.judged}
        marks = newest(run / "completions.jsonl", lambda line: mark_of(line.get("completion")))
        known = {name: mark for (_, name), mark in marks.items() if name in judged_samples}
        labels.check(known, run=judged)
        corrections = _corrections(tallies, labels)
    tasks = {
        name: tally.score().model_copy(
            update={"corrected": corrections[name].corrected if name in corrections else None}
        )
        for name, tally in tallies.items()
    }
    limits = {task.limit for task in tasks.values()}
    return Scores(
        model=manifest.model,
        judges=judging.judges,
        protocol=judging.protocol,
        generation_digest=manifest.generation_digest,
        judging_digest=judging.judging_digest,
        run=str(judged),
        limit=max((limit for limit in limits if limit is not None), default=None),
        synthetic=any(task.synthetic for task in tasks.values()),
        text_only=IMAGES_LEFT_OUT.items() <= manifest.generation.get("model", {}).items(),
        control=manifest.generation.get("control"),
        labels=dict(labels.source) if labels else None,
        tasks=tasks,
        groups=_with_corrections(
            group_scores(
                tasks,
                groups,
                clusters={name: tally.clusters() for name, tally in tallies.items()},
                allow_partial=allow_partial,
            ),
            corrections,
        ),
        usage=_usage(tallies.values()),
    )


def group_scores(
    tasks: Mapping[str, TaskScore],
    groups: Mapping[str, tuple[str, ...]],
    *,
    clusters: Mapping[str, Clusters],
    allow_partial: bool = False,
) -> dict[str, GroupScore]:
    """Average each group of which at least one task was run.

    With `allow_partial` an incomplete group is averaged over what there is, and stays marked.
    """
    found = {}
    for name, members in groups.items():
        here = [member for member in members if member in tasks]
        if not here:
            continue
        complete = len(here) == len(members) and all(tasks[one].is_complete for one in here)
        scored = {one: score for one in here if (score := tasks[one].score) is not None}
        usable = len(scored) == len(members) if not allow_partial else bool(scored)
        if not usable or not (complete or allow_partial):
            found[name] = GroupScore(score=None, tasks=members, complete=complete)
            continue
        parts = [clusters[one] for one in scored]
        drawn = group_interval(parts)
        found[name] = GroupScore(
            score=mean(scored.values()),
            tasks=members,
            complete=complete,
            stderr=average_stderr(parts),
            interval=limits_of(drawn),
            interval_method=drawn.method if drawn else None,
            closed_form=limits_of(average_interval(parts)),
        )
    return found


def _corrections(tallies: Mapping[str, Tally], labels: Labels) -> dict[str, Correction]:
    """Correct every task that has enough labels."""
    found = {name: correct(tally.labelled(labels.by_sample)) for name, tally in tallies.items()}
    return {name: one for name, one in found.items() if one is not None}


def _with_corrections(
    groups: Mapping[str, GroupScore], corrections: Mapping[str, Correction]
) -> dict[str, GroupScore]:
    """Correct every group whose tasks are all corrected, and that has a score at all."""
    found = dict(groups)
    for name, group in groups.items():
        if group.score is not None and set(group.tasks) <= corrections.keys():
            score, interval = correct_average([corrections[task] for task in group.tasks])
            update = {"corrected": score, "corrected_interval": interval}
            found[name] = group.model_copy(update=update)
    return found


def _usage(tallies: Iterable[Tally]) -> dict[str, dict[str, float | int]]:
    listed = list(tallies)
    answered = [one for tally in listed for one in tally.answered.values()]
    judged = [one for tally in listed for one in tally.judged.values()]
    return {
        "candidate": {
            "requests": sum(one.requests for one in answered),
            "prompt_tokens": sum(one.prompt_tokens for one in answered),
            "completion_tokens": sum(one.completion_tokens or 0 for one in answered),
            "seconds": round(math.fsum(one.seconds for one in answered), 3),
        },
        "judge": {
            "calls": sum(one.calls for one in judged),
            "cached": sum(one.cached for one in judged),
            "seconds": round(math.fsum(one.seconds for one in judged), 3),
        },
    }


def _task(line: Mapping[str, Any]) -> str:
    name: str = line["task"].partition("@")[0]
    return name
