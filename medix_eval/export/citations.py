"""BibTeX of the datasets that runs used; each entry names its tasks as `keywords`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medix_eval.judged_run import JudgedRun

_BIB = Path(__file__).parent / "datasets.bib"
_KEYWORDS = re.compile(r",\n  keywords = \{([^}]*)\}")


def citations(runs: Sequence[JudgedRun]) -> str:
    """Return the entries of all tasks of these runs; a task without one is a comment."""
    tasks = sorted({task for run in runs for task in run.scores.tasks})
    entries = _entries()
    found = list(dict.fromkeys(entries[task] for task in tasks if task in entries))
    lines = [f"% no citation is known for {task}" for task in tasks if task not in entries]
    return "\n\n".join([*found, *(["\n".join(lines)] if lines else [])]) + "\n"


def _entries() -> dict[str, str]:
    """Return each task's entry."""
    found = {}
    for entry in _BIB.read_text(encoding="utf-8").strip().split("\n\n"):
        named = _KEYWORDS.search(entry)
        for task in named[1].split(",") if named else ():
            found[task.strip()] = _KEYWORDS.sub("", entry)
    return found
