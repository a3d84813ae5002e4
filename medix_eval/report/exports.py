"""A methods paragraph: every setting that can affect a number, in sentences for a paper."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medix_eval.records import Outcome
from medix_eval.report.format import counted, csv_of
from medix_eval.report.tables import ends
from medix_eval.results.scores import whose
from medix_eval.results.store import JudgedRun, JudgedSample

if TYPE_CHECKING:
    import pandas as pd

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
        names = ", ".join(name for name, task in scores.tasks.items() if task.synthetic)
        sentences.insert(1, f"The data is SYNTHETIC and stands in for the benchmarks: {names}.")
    if scores.text_only:
        sentences.insert(1, "The model was asked about images without being shown them.")
    if scores.control:
        sentences.insert(1, f"The samples were perturbed on purpose: {scores.control}.")
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
        return f", asked again within one dialogue of {counted(spec['turns'], 'turn')}"
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
    tasks = run.scores.tasks.values()
    wrong, lost = whose(tasks, scored=True), whose(tasks, scored=False)
    said = f"these count as wrong without a verdict: {wrong or 'none'}; these have no score: "
    said = said + (lost or "none") if wrong or lost else "all have a verdict"
    return f"Of {counted(sum(task.n for task in tasks), 'sample')}, {said}."


_BIB = Path(__file__).parent / "datasets.bib"
_KEYWORDS = re.compile(r",\n  keywords = \{([^}]*)\}")


def citations(runs: Sequence[JudgedRun]) -> str:
    """Return the entries of all tasks of these runs; a task without one is a comment."""
    entries = _entries()
    tasks = sorted({task for run in runs for task in run.scores.tasks})
    found = {task: citation(task, entries) for task in tasks}
    known = list(dict.fromkeys(entry for entry in found.values() if entry))
    missing = [f"% no citation is known for {task}" for task, entry in found.items() if not entry]
    return "\n\n".join([*known, *(["\n".join(missing)] if missing else [])]) + "\n"


def citation(task: str, entries: Mapping[str, str] | None = None) -> str | None:
    """Return the entry of a task, or of the nearest task that its name begins with.

    >>> "PMC-VQA" in citation("pmc_vqa_hard")
    True
    """
    known = _entries() if entries is None else entries
    words = task.partition("[")[0].split("_")  # without what stands in for the data
    names = ["_".join(words[:end]) for end in range(len(words), 0, -1)]
    return next((known[name] for name in names if name in known), None)


def _entries() -> dict[str, str]:
    """Return the entries by the names they stand for."""
    found = {}
    for entry in _BIB.read_text(encoding="utf-8").strip().split("\n\n"):
        named = _KEYWORDS.search(entry)
        for task in named[1].split(",") if named else ():
            found[task.strip()] = _KEYWORDS.sub("", entry)
    return found


_COLUMNS = (
    "model", "protocol", "protocol_digest", "judges", "generation_digest", "judging_digest",
    "synthetic", "text_only", "control", "name", "what", "version", "kind", "limit", "complete",
    "n", "n_scored", "score", "stderr", "interval_low", "interval_high", "bounds_low",
    "bounds_high", "rules_score", "rules_n", *(outcome.value for outcome in Outcome),
)  # fmt: skip


def scores_csv(runs: Sequence[JudgedRun]) -> str:
    """Return every task and group of every run; runs of different protocols may stand together.

    Each line carries the digests that tell which of them may be compared.
    """
    rows = (
        _about(run) | row | {"synthetic": run.scores.is_synthetic(row["name"])}
        for run in runs
        for row in _rows(run)
    )
    return csv_of(_COLUMNS, rows)


def _about(run: JudgedRun) -> dict[str, Any]:
    scores = run.scores
    return {
        "model": scores.model,
        "protocol": scores.protocol["name"],
        "protocol_digest": scores.protocol["digest"],
        "judges": " ".join(str(judge["id"]) for judge in scores.judges),
        "generation_digest": scores.generation_digest,
        "judging_digest": scores.judging_digest,
        "synthetic": scores.synthetic,
        "text_only": scores.text_only,
        "control": scores.control,
    }


def _rows(run: JudgedRun) -> Iterator[dict[str, Any]]:
    for name, task in run.scores.tasks.items():
        fields = {"version", "kind", "limit", "n", "n_scored", "score", "stderr"}
        fields |= {"rules_score", "rules_n"}
        row = task.model_dump(include=fields) | task.outcomes
        row |= ends("interval", task.interval) | ends("bounds", task.bounds)
        yield row | {"name": name, "what": "task", "complete": task.is_complete}
    for name, group in run.scores.groups.items():
        row = {"score": group.score, "stderr": group.stderr, "complete": group.complete}
        yield row | {"name": name, "what": "group"} | ends("interval", group.interval)


def write_samples(runs: Sequence[JudgedRun], path: Path) -> None:
    """Write the table as Parquet; of restricted tasks ids and verdicts only."""
    samples_frame(runs).to_parquet(path, index=False)


def samples_frame(runs: Sequence[JudgedRun]) -> pd.DataFrame:
    """Return one row a sample; the texts of restricted tasks are None."""
    import pandas as pd  # noqa: PLC0415 (half a second, and only here)

    return pd.DataFrame([_row(run, sample) for run in runs for sample in run.samples()])


def _row(run: JudgedRun, sample: JudgedSample) -> dict[str, Any]:
    completion, verdict = sample.completion, sample.verdict
    row: dict[str, Any] = {
        "model": run.scores.model,
        "judging_digest": run.scores.judging_digest,
        "task": sample.task,
        "version": completion.task.partition("@")[2],
        "sample_id": completion.sample_id,
        "row": completion.row,
        "kind": completion.kind.value,
        "outcome": verdict.outcome.value,
        "score": verdict.score,
        "judge_score": verdict.judge_score,
        "rule": verdict.rule.rule if verdict.rule else None,
        "rule_score": verdict.rule.score if verdict.rule else None,
        "points": [vote.points for vote in verdict.votes],
        "error_tags": list(verdict.error_tags),
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "seconds": completion.seconds,
    }
    hidden = run.entry(sample.task).data_class == "dua"
    return row | {
        "prompt": None if hidden else completion.prompt,
        "reference": None if hidden else completion.reference,
        "options": None if hidden else list(completion.options),
        "columns": None if hidden else json.dumps(completion.columns, ensure_ascii=False),
        "completion": None if hidden else completion.completion,
        "answer": None if hidden else verdict.answer,
        "replies": None if hidden else [vote.reply for vote in verdict.votes],
    }
