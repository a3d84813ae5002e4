"""The same real rows through stock lm-eval and through medix-eval, each as its own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripted_servers import records

from medix_eval.storage.bundled import bundled

TASKS = "medmcqa,pubmedqa"
NUM_ROWS = 8
"""Of each task."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Answered:
    """One row as a harness asked it, and the answer that it keeps."""

    task: str
    prompt: str
    completion: str


def ours(out: Path, *, rows: Path, argv: Sequence[str], max_tokens: int) -> list[Answered]:
    """Run medix-eval; return what it keeps, in order, prompts without a chat template."""
    asked = ["--tasks", TASKS, "--limit", str(NUM_ROWS), "--protocol", "rules"]
    cut = ["--set", f"generation.max_tokens={max_tokens}"]
    _run("medix_eval", *asked, *cut, *argv, "--data-root", str(rows), "--out", str(out))
    return sorted(
        Answered(
            task=record["task"].partition("@")[0],
            prompt=record["prompt"],
            completion=record["completion"],
        )
        for record in records(out, "completions.jsonl")
    )


def stock(
    out: Path, *, rows: Path, picked: Mapping[str, Sequence[int]], argv: Sequence[str], cut: int
) -> list[Answered]:
    """Run lm-eval on the picked rows of each task; return what it logs, in order.

    Its prompts are those of the model: with the chat template around them.
    """
    _run(
        *("lm_eval", "run", *argv, "--tasks", TASKS, "--samples", json.dumps(picked)),
        *("--gen_kwargs", f"max_gen_toks={cut}", "--apply_chat_template", "--log_samples"),
        *("--include_path", str(bundled("tasks")), "--output_path", str(out)),
        cwd=rows,  # it finds ORG/NAME as a folder here
    )
    return sorted(
        Answered(
            task=path.name.removeprefix("samples_").rpartition("_")[0],
            prompt=line["arguments"]["gen_args_0"]["arg_0"],
            completion=line["resps"][0][0],
        )
        for path in out.rglob("samples_*.jsonl")
        for line in records(out, path.name)
    )


def picked_rows(out: Path) -> dict[str, list[int]]:
    """Return which rows of each task a run of ours has asked."""
    picked: dict[str, list[int]] = {}
    for record in records(out, "completions.jsonl"):
        picked.setdefault(record["task"].partition("@")[0], []).append(record["row"])
    return {task: sorted(numbers) for task, numbers in picked.items()}


def compared(
    ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what two request bodies say in the fields that both have."""

    def said(body: Mapping[str, Any]) -> dict[str, Any]:
        fields = {name: body[name] for name in {*ours} & {*theirs}}
        return fields | {"messages": [texts(message) for message in body["messages"]]}

    return said(ours), said(theirs)


def texts(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return who speaks and what: a text and a list of one text part mean the same."""
    content = message["content"]
    if not isinstance(content, str):
        (part,) = content
        assert part["type"] == "text"
        content = part["text"]
    return message["role"], content


def _run(module: str, *argv: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *argv],
        cwd=cwd,
        env=os.environ | {"OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
