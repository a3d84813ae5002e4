"""What the site shows of single samples: a prompt and a few answers.

Only text of `public` data is ever shown; of `gated` and `dua` data the site has scores alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from medix_eval.results.store import JudgedRun
from medix_eval.storage.jsonl import read_lines

_LOOKED_AT = 400
_LONGEST_TEXT = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One sample as it came: prompt and completion, cut where they are long."""

    task: str
    prompt: str
    completion: str
    score: float | None


def read_examples(
    run: JudgedRun, scores: Mapping[str, Mapping[str, float]], *, tasks: Iterable[str], most: int
) -> list[Example]:
    """Return the first answered sample of a few benchmarks whose text may be shown."""
    allowed = {name for name in tasks if run.entry(name).data_class == "public"}
    found: dict[str, Example] = {}
    for line in islice(read_lines(run.folder / "completions.jsonl"), _LOOKED_AT):
        task = str(line["task"]).partition("@")[0]
        if len(found) == most:
            break
        if task in allowed and task not in found and line.get("completion") is not None:
            found[task] = Example(
                task=task,
                prompt=cut(line["prompt"]),
                completion=cut(line["completion"]),
                score=scores.get(task, {}).get(line["sample_id"]),
            )
    return list(found.values())


def cut(text: str) -> str:
    """Cut a text that is too long for a page, and say so.

    >>> cut("a" * 2000).lstrip("a")
    ' … (500 more characters)'
    """
    more = len(text) - _LONGEST_TEXT
    return text if more <= 0 else f"{text[:_LONGEST_TEXT]} … ({more:,} more characters)"
