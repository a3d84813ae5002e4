"""Evaluations against scripted servers: the flags that name them, and what a run keeps of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medix_eval.testing import ScriptedServer

HUB = Path(__file__).parents[1] / "fixtures" / "hub"
Run = Callable[..., tuple[int, str, str]]
Serve = Callable[..., ScriptedServer]


def candidate(server: ScriptedServer) -> list[str]:
    return ["--model", "openai:scripted", "--base-url", server.url]


def judge(*servers: ScriptedServer) -> list[str]:
    """Name one judge, or a jury."""
    flags = [flag for _ in servers for flag in ("--judge", "openai:scripted")]
    return [*flags, *(flag for server in servers for flag in ("--judge-base-url", server.url))]


def strict(body: dict[str, Any]) -> str:
    """A judge whose votes agree."""
    return '{"score": 0}'


def records(folder: str | Path, name: str) -> list[dict[str, Any]]:
    """Return the lines of the one file of this name below a folder."""
    (path,) = Path(folder).rglob(name)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
