"""What would be sent, without sending it: `--dry-run` and `medix-eval show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medix_eval.data.tasks import Catalogue, TaskFile
from medix_eval.errors import BadRow
from medix_eval.evaluation.controls import NO_IMAGE
from medix_eval.evaluation.evaluation import Settings, refuse_foreign_hosts, resolve_models
from medix_eval.records import Kind

if TYPE_CHECKING:
    from medix_eval.data.lm_task import MedixTask

_CHARACTERS_PER_TOKEN = 4
"""A rule of thumb; the model's own tokenizer is not loaded for an estimate."""
_MEASURED_ROWS = 64


def estimate(
    settings: Settings, catalogue: Catalogue, *, repetitions: int = 1, as_json: bool
) -> str:
    """Return what an evaluation would send where: requests, images, tokens, hosts.

    What the evaluation would refuse to send is refused in the same words.
    """
    from medix_eval.data.lm_task import open_all  # noqa: PLC0415 (datasets: seconds)

    candidate, judges = resolve_models(settings)
    opened = open_all(
        settings.tasks,
        catalogue,
        data_root=settings.data_root,
        accept_change=settings.accept_data_change,
        allow_fallback=settings.allow_fallback,
    )
    controls = (settings.control,) if settings.control else ()
    tasks = {
        file.name: _measured(file, task, limit=settings.limit, shows=NO_IMAGE not in controls)
        for file, task in opened
    }
    hosts = sorted({host for model in (candidate, *judges) for host in model.hosts})
    refuse_foreign_hosts(
        tasks=[name for name, task in tasks.items() if task["data_class"] == "dua"],
        hosts=hosts,
        vouched=settings.local_hosts,
        reason=settings.egress_reason,
    )
    spec = settings.protocol.judge
    votes = sum(task["requests"] * spec.most_calls(Kind(task["kind"])) for task in tasks.values())
    result = {
        "model": candidate.name,
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
        head = f"--- {task_file.key}, row {row}" + (f", {images} image(s)" if images else "")
        reference = task.reference(fields, row=row)
        parts += [head, task.prompt_text(fields, row=row), f"--- reference: {reference}"]
    return "\n".join(parts)


def _measured(file: TaskFile, task: MedixTask, *, limit: int | None, shows: bool) -> dict[str, Any]:
    """Measure one task: the first rows stand for all, so no image is read for nothing."""
    num = len(task.rows) if limit is None else min(limit, len(task.rows))
    lengths, images = [], []
    for row in range(min(_MEASURED_ROWS, len(task.rows))):
        fields = task.rows[row]
        try:
            lengths.append(len(task.prompt_text(fields, row=row)))
            images.append(len(task.stored_images(fields, row=row)))
        except BadRow:
            continue
    measured = len(lengths) or 1
    return {
        "kind": file.settings.kind.value,
        "data_class": file.settings.data_class,
        "requests": num,
        "images": round(num * sum(images) / measured) if shows else 0,
        "prompt_tokens": round(num * sum(lengths) / measured / _CHARACTERS_PER_TOKEN),
    }


def _text(result: dict[str, Any]) -> str:
    width = max(map(len, result["tasks"]))
    lines = [
        f"{name:<{width}}  {task['requests']:>6} requests  {task['images']:>6} images  "
        f"~{task['prompt_tokens']} prompt tokens  {task['data_class']}"
        for name, task in result["tasks"].items()
    ]
    judges = ", ".join(result["judges"]) or "no language model"
    hosts = ", ".join(result["hosts"]) or "none: nothing leaves this machine"
    if (times := result["repetitions"]) > 1:
        lines += ["", f"{times} repetitions; this is one of them"]
    if control := result["control"]:
        lines += ["", f"control {control}; plus the same requests without it, unless already done"]
    lines += [
        "",
        f"model {result['model']}: {result['requests']} requests, {result['images']} images",
        f"about {result['prompt_tokens']} tokens sent",
        f"at most {result['max_completion_tokens']} completion tokens per request",
        f"judged by {judges}: at most {result['max_judge_calls']} calls",
        f"hosts contacted: {hosts}",
    ]
    return "\n".join(lines)
