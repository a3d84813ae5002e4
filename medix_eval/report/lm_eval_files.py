"""Files as lm-evaluation-harness writes them, for tools that read those."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from medix_eval.results.scores import GroupScore, TaskScore
from medix_eval.results.store import JudgedRun, JudgedSample, distinct_names, slug
from medix_eval.storage.jsonl import write_text

_METRIC = "score"


def write_lm_eval(runs: Sequence[JudgedRun], folder: Path) -> None:
    """Write `results_DATE.json` and a `samples_TASK_DATE.jsonl` for each task, a folder a run.

    Samples of restricted tasks are left out: lm-eval's format requires their text.
    """
    for run, name in zip(runs, distinct_names(runs), strict=True):
        where = folder / slug(name) / run.scores.judging_digest[:8]
        where.mkdir(parents=True, exist_ok=True)
        date = run.manifest.started.replace(":", "-").replace("_", "-")
        results = json.dumps(_results(run), indent=2, ensure_ascii=False)
        write_text(where / f"results_{date}.json", results)
        with ExitStack() as stack:
            files: dict[str, TextIO] = {}
            for sample in run.samples():
                if run.entry(sample.task).data_class == "dua":
                    continue
                if sample.task not in files:
                    path = where / f"samples_{sample.task}_{date}.jsonl"
                    files[sample.task] = stack.enter_context(path.open("w", encoding="utf-8"))
                line = json.dumps(_sample(run, sample), ensure_ascii=False)
                files[sample.task].write(f"{line}\n")


def _results(run: JudgedRun) -> dict[str, Any]:
    scores, manifest = run.scores, run.manifest
    tasks, groups = scores.tasks, scores.groups
    names = [*tasks, *groups]
    return {
        "results": dict(_metrics(run)),
        "groups": {name: metrics for name, metrics in _metrics(run) if name in groups},
        "group_subtasks": {
            **{name: [] for name in tasks},
            **{
                name: [task for task in group.tasks if task in tasks]
                for name, group in groups.items()
            },
        },
        "configs": {
            name: {
                "task": name,
                "dataset_path": run.entry(name).source.get("path"),
                "output_type": "generate_until",
                "generation_kwargs": manifest.generation.get("generation", {}),
                "metadata": {"version": task.version, "digest": run.entry(name).digest},
            }
            for name, task in tasks.items()
        },
        "versions": {name: task.version for name, task in tasks.items()},
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {name: {_METRIC: True} for name in names},
        "n-samples": {
            name: {"original": run.entry(name).num_rows, "effective": task.n}
            for name, task in tasks.items()
        },
        "config": {
            "model": "medix-eval",
            "model_args": {"model": scores.model},
            "limit": scores.limit,
            "protocol": scores.protocol,
            "judges": scores.judges,
            "generation_digest": scores.generation_digest,
            "judging_digest": scores.judging_digest,
            "synthetic": scores.synthetic,
        },
        "model_name": scores.model,
        "date": manifest.started,
        "versions_of_software": manifest.versions,
    }


def _metrics(run: JudgedRun) -> Iterator[tuple[str, dict[str, Any]]]:
    parts: dict[str, TaskScore | GroupScore] = {**run.scores.tasks, **run.scores.groups}
    for name, one in parts.items():
        # As in lm-eval: a metric's name, a comma, the filter; what is not known is "N/A".
        yield (
            name,
            {
                "alias": name,
                f"{_METRIC},none": "N/A" if one.score is None else one.score,
                f"{_METRIC}_stderr,none": "N/A" if one.stderr is None else one.stderr,
            },
        )


def _sample(run: JudgedRun, sample: JudgedSample) -> dict[str, Any]:
    completion, verdict = sample.completion, sample.verdict
    document = {
        "prompt": completion.prompt,
        "options": list(completion.options),
        "reference": completion.reference,
        **{f"column_{name}": value for name, value in completion.columns.items()},
    }
    sampling = json.dumps(run.manifest.generation.get("generation", {}))
    return {
        "doc_id": completion.row,
        "doc": document,
        "target": completion.reference,
        "arguments": {"gen_args_0": {"arg_0": completion.prompt, "arg_1": sampling}},
        "resps": [[completion.completion or ""]],
        "filtered_resps": [verdict.answer or ""],
        "filter": "none",
        "metrics": [_METRIC],
        "doc_hash": _hash(json.dumps(document, ensure_ascii=False)),
        "prompt_hash": _hash(completion.prompt),
        "target_hash": _hash(completion.reference),
        _METRIC: verdict.score,
        "outcome": verdict.outcome.value,
        "sample_id": completion.sample_id,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()
