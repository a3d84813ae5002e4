"""Managed servers with a stand-in for vLLM: asked, watched, and looked for after their end."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medix_eval.models.chat import Completion, ModelSource, Prompt, Sampling
from medix_eval.models.vllm_server import VLLMServer
from medix_eval.phantom.dataset import model_folder

FAKE_VLLM = Path(__file__).parents[1] / "fixtures" / "fake_vllm"
Habits = Callable[[str], None]


def running(folder: Path) -> list[int]:
    """List the processes of this test's servers: all have the journal's path in common."""
    wanted = f"FAKE_VLLM_JOURNAL={folder}/".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = wanted in (process / "environ").read_bytes()
        except OSError:
            continue
        if is_ours and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def wait_until(happened: Callable[[], bool], *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)  # processes of others tell nobody that they ended


def journal(folder: Path) -> list[str]:
    lines = (folder / "journal").read_text().splitlines()
    return [" ".join(line.split()[:2]) for line in lines]


def server(**changed: Any) -> VLLMServer:
    settings = {"name": "phantom", "location": str(model_folder()), "role": "model"}
    return VLLMServer(**{**settings, "max_tokens": 64, **changed})


def ask(source: ModelSource, logs: Path, *, times: int = 1) -> list[Completion]:
    question, sampling = Prompt(text="Which side?"), Sampling(max_tokens=8)

    async def asking() -> list[Completion]:
        async with source.open(logs) as model:
            return [await model.complete(question, sampling) for _ in range(times)]

    return asyncio.run(asking())


def started_with(logs: Path) -> dict[str, Any]:
    """Return what the server was started with: its last start in the log."""
    lines = (logs / "vllm-candidate.log").read_text().splitlines()
    said: dict[str, Any] = json.loads([line for line in lines if line.startswith('{"argv"')][-1])
    return said
