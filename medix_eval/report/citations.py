"""BibTeX of the datasets that runs used.

Each entry names as `keywords` the tasks it stands for; `pmc_vqa` stands for `pmc_vqa_hard` too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medix_eval.results.store import JudgedRun

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
