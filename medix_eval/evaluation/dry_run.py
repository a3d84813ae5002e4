"""What would be sent, without sending it: `--dry-run` and `medix-eval show`."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import chain
from os.path import commonprefix
from pathlib import Path
from typing import Any

from medix_eval.data.samples import read_samples
from medix_eval.data.tasks import Catalogue, TaskFile
from medix_eval.evaluation.controls import NO_IMAGE
from medix_eval.evaluation.evaluation import (
    Settings,
    open_tasks,
    resolve_models,
)
from medix_eval.evaluation.pipeline import OpenedTask, line_of
from medix_eval.judging.judge import first_votes
from medix_eval.judging.protocol import Protocol
from medix_eval.models.resolve import kept_local
from medix_eval.records import Kind, Sample
from medix_eval.report.format import percent

_CHARACTERS_PER_TOKEN = 4
"""A rule of thumb; the model's own tokenizer is not loaded for an estimate."""
_MEASURED_ROWS = 64


def estimate(
    settings: Settings, catalogue: Catalogue, *, repetitions: int = 1, as_json: bool
) -> str:
    """Return what an evaluation would send where: requests, images, tokens, hosts.

    What the evaluation would refuse to send is refused in the same words.
    """
    candidate, judges = resolve_models(settings, catalogue)
    tasks = {
        one.file.name: _measured(one, settings.protocol, shows=settings.control != NO_IMAGE)
        for one in open_tasks(settings, catalogue)
    }
    hosts = sorted({host for model in (candidate, *judges) for host in model.hosts})
    kept_local(
        (candidate, *judges),
        tasks=[name for name, task in tasks.items() if task["data_class"] == "dua"],
        allowed=settings.local_hosts,
        reason=settings.egress_reason,
    )
    spec = settings.protocol.judge
    votes = sum(task["requests"] * spec.most_calls(Kind(task["kind"])) for task in tasks.values())
    result = {
        "model": settings.name or candidate.name,
        "protocol": settings.protocol.name,
        "repetitions": repetitions,
        "control": settings.control.name if settings.control else None,
        "tasks": tasks,
        "requests": sum(task["requests"] for task in tasks.values()),
        "images": sum(task["images"] for task in tasks.values()),
        "prompt_tokens": sum(task["prompt_tokens"] for task in tasks.values()),
        "max_completion_tokens": settings.protocol.generation.max_tokens,
        "judges": [judge.name for judge in judges],
        "max_judge_calls": votes * len(judges),
        "judge_prompt_tokens": len(judges)
        * sum(task["judge_prompt_tokens"] for task in tasks.values()),
        "judge_tokens_shared": len(judges)
        * sum(task["judge_tokens_shared"] for task in tasks.values()),
        "hosts": hosts,
    }
    return json.dumps(result, indent=2) if as_json else _text(result)


def shown_prompts(task_file: TaskFile, *, data_root: Path | None, num: int) -> str:
    """Return the first prompts of a task with their references."""
    from medix_eval.data.lm_task import open_task  # noqa: PLC0415

    task = open_task(task_file, data_root=data_root)
    parts = []
    for row in range(min(num, len(task.rows))):
        fields = task.rows[row]
        images = len(task.stored_images(fields, row=row))
        head = f"--- {task_file.key}, row {row}" + (f", images: {images}" if images else "")
        reference = task.reference(fields, row=row)
        slices = {*task_file.settings.slice_names}
        columns = task.columns(fields, row=row).items()
        head += "".join(f", {name}: {value}" for name, value in columns if name in slices)
        parts += [head, task.prompt_text(fields, row=row), f"--- reference: {reference}"]
    return "\n".join(parts)


def _measured(opened: OpenedTask, protocol: Protocol, *, shows: bool) -> dict[str, Any]:
    """Measure one task; its first rows stand for all.

    Of the judge these are the votes that are always asked, about answers like the references.
    """
    task, settings, num = opened.task, opened.file.settings, len(opened.rows)
    rows = range(min(_MEASURED_ROWS, len(task.rows)))
    found = read_samples(task, rows, key=opened.file.key, done=set(), taken=set())
    records = [line_of(one) for one in found if isinstance(one, Sample)]
    votes: defaultdict[str, list[str]] = defaultdict(list)
    for record in records:
        for cell, text in first_votes(protocol, record, record.reference).items():
            votes[cell].append(text)
    shared = sum(len(texts) * len(commonprefix(texts)) for texts in votes.values())  # noqa: RUF071
    each = num / (len(records) or 1)
    return {
        "kind": settings.kind.value,
        "data_class": settings.data_class,
        "requests": num,
        "images": round(each * sum(len(one.image_sha256) for one in records)) if shows else 0,
        "prompt_tokens": _tokens(each * sum(len(one.prompt) for one in records)),
        "judge_prompt_tokens": _tokens(each * sum(map(len, chain(*votes.values())))),
        "judge_tokens_shared": _tokens(each * shared),
    }


def _tokens(characters: float) -> int:
    return round(characters / _CHARACTERS_PER_TOKEN)


def _text(result: dict[str, Any]) -> str:
    width = max(map(len, result["tasks"]))
    lines = [
        f"{name:<{width}}  requests {task['requests']:>6}  images {task['images']:>6}  "
        f"prompt tokens ~{task['prompt_tokens']}  {task['data_class']}"
        for name, task in result["tasks"].items()
    ]
    judges = ", ".join(result["judges"]) or "no language model"
    asked = result["judge_prompt_tokens"]
    same = percent(result["judge_tokens_shared"] / (asked or 1))
    hosts = ", ".join(result["hosts"]) or "none: nothing leaves this machine"
    if (times := result["repetitions"]) > 1:
        lines += ["", f"{times} repetitions; this is one of them"]
    if control := result["control"]:
        lines += ["", f"control {control}; plus the same requests without it, unless already done"]
    lines += [
        "",
        f"model {result['model']}: requests {result['requests']}, images {result['images']}",
        f"tokens sent: about {result['prompt_tokens']}",
        f"completion tokens per request: at most {result['max_completion_tokens']}",
        f"judged by {judges}: judge calls: at most {result['max_judge_calls']}",
        *([f"tokens sent to the judge: about {asked}, {same} % begin all alike"] if asked else []),
        f"hosts contacted: {hosts}",
    ]
    return "\n".join(lines)
