"""Evaluations against scripted servers: the flags that name them, and what a run keeps of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medix_eval.testing import ScriptedServer

HUB = Path(__file__).parents[1] / "fixtures" / "hub"
FENCED = re.compile(r"^(=== [a-z]{6} ===)$\n(.*?)\n\1$", re.DOTALL | re.MULTILINE)
"""The mark around an answer in a judge's prompt, and the answer."""
_ASKED = re.compile(
    r"\n\n[^\n]*:\n(.*?)\n(?=[A-Z])[^\n]*(?i:reference|solution|answer|text)[^\n]*:\n", re.DOTALL
)
Run = Callable[..., tuple[int, str, str]]
Serve = Callable[..., ScriptedServer]


def candidate(server: ScriptedServer) -> list[str]:
    return ["--model", "openai:scripted", "--base-url", server.url]


def judge(*servers: ScriptedServer) -> list[str]:
    """Name one judge, or a jury."""
    flags = [flag for _ in servers for flag in ("--judge", "openai:scripted")]
    return [*flags, *(flag for server in servers for flag in ("--judge-base-url", server.url))]


def asked_question(text: str) -> str:
    """Return the question in a judge's prompt, whatever its wording and order."""
    found = _ASKED.search(text)
    assert found is not None, text
    return found[1]


def asked_answer(text: str) -> str:
    """Return the answer in a judge's prompt."""
    found = FENCED.search(text)
    assert found is not None, text
    return found[2]


def strict(body: dict[str, Any]) -> str:
    """A judge whose votes agree."""
    return '{"score": 0}'


def records(folder: str | Path, name: str) -> list[dict[str, Any]]:
    """Return the lines of the one file of this name below a folder."""
    (path,) = Path(folder).rglob(name)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
