"""A methods paragraph: every setting that can move a number, in sentences a paper can print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from medix_eval.records import Outcome
from medix_eval.results.store import JudgedRun

_COUNTED = ("truncated", "empty", "refused", "rejected")
"""Outcomes that score 0 although nobody judged the answer wrong."""
_INTERVALS = (
    "Task scores are means over the scored samples; 95 % intervals are Wilson's for "
    "right-or-wrong answers and from a bootstrap for graded ones, both over clusters where "
    "samples share an image or a patient."
)
_SENT_AS = {"stored": "as stored", "jpeg75": "re-encoded as JPEG of quality 75"}


def methods(runs: Sequence[JudgedRun]) -> str:
    """Return one paragraph a run."""
    return "\n\n".join(" ".join(_sentences(run)) for run in runs) + "\n"


def _sentences(run: JudgedRun) -> list[str]:
    manifest, scores = run.manifest, run.scores
    version = manifest.versions.get("medix-eval", "of an unknown version")
    sentences = [
        f"{scores.model} was evaluated with medix-eval {version} on {_tasks(run)}.",
        _generation(manifest.generation),
        _judging(run),
        _outcomes(run),
        _INTERVALS,
    ]
    if scores.groups:
        sentences.append("Group scores are unweighted means of their tasks.")
    if scores.synthetic:
        sentences.insert(1, "The data is SYNTHETIC and stands in for the named benchmarks.")
    if scores.text_only:
        sentences.insert(1, "The model was asked about images without being shown them.")
    if scores.control:
        sentences.insert(1, f"The samples were disturbed on purpose: {scores.control}.")
    sentences.append(
        f"The run was started on {manifest.started[:10]}; its digests are "
        f"{scores.generation_digest[:8]} (generation) and {scores.judging_digest[:8]} (judging)."
    )
    return sentences


def _tasks(run: JudgedRun) -> str:
    named = []
    for name, task in run.scores.tasks.items():
        entry = run.entry(name)
        revision = entry.source.get("revision")
        where = entry.source.get("path")
        data = f"{where} at revision {revision[:12] if revision else 'unknown'}"
        parts = [f"n = {task.n}", *([data] if where else [])]
        if task.limit:
            parts.append(f"a stratified subset of {entry.num_rows}, seed {entry.seed}")
        named.append(f"{name}@{task.version} ({', '.join(parts)})")
    return "; ".join(named)


def _generation(generation: dict[str, Any]) -> str:
    sampling = generation.get("generation", {})
    engine = generation.get("model", {}).get("engine") or {}
    by = f" with {engine['name']} in {engine['dtype']}" if {"name", "dtype"} <= set(engine) else ""
    said = f"Completions were generated{by}"
    said += "".join(
        f", {name.replace('_', ' ')} {sampling[name]}"
        for name in ("temperature", "top_p", "max_tokens", "seed")
        if name in sampling
    )
    encoding = generation.get("images", {}).get("encoding")
    said += f"; images were sent {_SENT_AS.get(encoding, encoding)}" if encoding else ""
    said += "; a prompt template was used" if generation.get("prompt_template") else ""
    return f"{said}."


def _judging(run: JudgedRun) -> str:
    protocol = run.scores.protocol
    under = f"under the protocol “{protocol['name']}” (digest {protocol['digest'][:8]})"
    spec = run.judging.judging.get("judge", {})
    judges = " and ".join(
        f"{judge['id']}" + (f" at {str(judge['revision'])[:12]}" if judge["revision"] else "")
        for judge in run.scores.judges
    )
    if not judges:
        return (
            f"Answers were scored {under} by rules alone, without a language model; what no rule "
            "can decide is left out and counted as unjudged."
        )
    sampling = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in spec.get("sampling", {}).items()
    )
    said = f"Answers were scored {under} by {judges}"
    said += f" ({sampling})" if sampling else ""
    return f"{said}{_votes(spec)}."


def _votes(spec: dict[str, Any]) -> str:
    if spec.get("scorer") == "dialogue":
        return f", asked again within one dialogue of {spec['turns']} turns"
    first = spec.get("rules") == "first"
    said = ", after rules had settled what they are certain of" if first else ""
    for name, what in (("question", "questions"), ("report", "reports")):
        rubric = spec.get(name)
        if rubric:
            low, high = rubric["scale"]
            num = len(rubric["prompts"]) * rubric.get("repeats", 1)
            votes = f"the {rubric['decide']} of {num} votes" if num > 1 else "one vote"
            said += f"; {what} on a scale from {low} to {high} by {votes}"
    return said


def _outcomes(run: JudgedRun) -> str:
    totals: Counter[str] = Counter()
    for task in run.scores.tasks.values():
        totals.update(task.outcomes)
    lost = [(name, totals[name]) for name in _COUNTED if totals[name]]
    outside = [
        (outcome.value.replace("_", " "), totals[outcome.value])
        for outcome in Outcome
        if not outcome.is_scored and totals[outcome.value]
    ]
    said = f"Of {totals.total()} samples"
    said += (
        f" {_counts(lost)} and count as wrong"
        if lost
        else " none was truncated, empty, refused or rejected"
    )
    said += f"; {_counts(outside)} and stand outside of the scores" if outside else ""
    return f"{said}."


def _counts(counts: list[tuple[str, int]]) -> str:
    return ", ".join(f"{count} ended as {name}" for name, count in counts)
