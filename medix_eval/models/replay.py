"""Answers that were generated elsewhere, read from a JSONL file.

Two layouts: medix-eval's, `{sample_id, task, completion, finish_reason?}`, and the official
`<model>.jsonl` of MediX-R1, `{id: "<task>_<row>", question, answer, response}`. The official row
counter depends on the order of the dataset, so question and reference are compared with the row.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medix_eval.errors import ConfigError, DatasetError, NoAnswer
from medix_eval.models.chat import ChatModel, Completion, Prompt, Sampling
from medix_eval.records import IMAGE_MARK, Sample
from medix_eval.storage.jsonl import read_lines

_OFFICIAL_ID = re.compile(r"(?P<task>.+)_(?P<row>\d+)")
_QUESTION_START = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFile:
    """A file of completions instead of a model."""

    path: Path
    concurrency: int = 64
    adapts: bool = False

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return f"replay:{self.path.stem}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """None: the answers are in the file."""
        return ()

    @property
    def devices(self) -> frozenset[str]:
        """None: nothing computes."""
        return frozenset()

    @property
    def takes_images(self) -> None:
        """Unknown: the answers are given already."""

    def identity(self) -> dict[str, Any]:
        """Hash of the file."""
        if not self.path.is_file():
            raise ConfigError(
                f"the replay file {self.path} does not exist", hint="replay:FILE.jsonl takes a path"
            )
        sha = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return {"kind": "replay", "sha256": sha}

    @asynccontextmanager
    async def open(self, logs: Path) -> AsyncIterator[ChatModel]:
        """Read the file."""
        replay = _Replay(self.path)
        for number, row in enumerate(read_lines(self.path), 1):
            replay.add(row, number=number)
        if replay.is_empty:
            raise ConfigError(
                f"the replay file {self.path} has no complete line",
                hint="each line is {sample_id, task, completion} or the official {id, response}",
            )
        yield replay


@dataclass(slots=True)
class _Replay:
    path: Path
    _own: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _official: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    def add(self, row: dict[str, Any], *, number: int) -> None:
        """Take one line of either layout; anything else is an error that names the line."""
        where = f"{self.path.name}, line {number}"
        used = ("completion", "finish_reason") if "completion" in row else ("response",)
        for name in used:
            if not isinstance(row.get(name), str | None):
                raise ConfigError(
                    f"{where}: {name} is {row[name]!r:.40}, not text",
                    hint=f"{name} must be a string, or null",
                )
        if "completion" in row:
            key = (str(row.get("task", "")).partition("@")[0], str(row.get("sample_id", "")))
            if not all(key):
                raise ConfigError(f"{where} has no task or no sample_id")
            if key in self._own:
                raise ConfigError(f"{where} answers {key[0]} {key[1]} a second time")
            self._own[key] = row
        elif "response" in row and (found := _OFFICIAL_ID.fullmatch(str(row.get("id", "")))):
            # The official file repeats a task that was asked for twice; the first answer counts.
            self._official.setdefault((found["task"], int(found["row"])), row)
        else:
            raise ConfigError(
                f"{where} is in neither layout of answers",
                hint="expected {sample_id, task, completion} or the official {id, response}",
            )

    @property
    def is_empty(self) -> bool:
        """Whether not one answer was read."""
        return not self._own and not self._official

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        del sampling
        sample = prompt.sample
        if sample is None:
            raise ConfigError("a replay file cannot judge", hint="give --judge a model")
        task = sample.task.partition("@")[0]
        if (row := self._own.get((task, sample.id))) is not None:
            text = row["completion"]
            return Completion(text=text, finish_reason=row.get("finish_reason"))
        row = self._official.get((task.removesuffix("_compat"), sample.row))
        if row is None:
            raise NoAnswer(f"{self.path.name} has no answer for {task} row {sample.row}")
        _verify(row, sample, file=self.path.name)
        return Completion(text=row["response"])


def _verify(row: dict[str, Any], sample: Sample, *, file: str) -> None:
    """Check that an official answer was given to this very question."""
    theirs, ours = _plain(row.get("question")), _plain(sample.prompt.replace(IMAGE_MARK, ""))
    asked = theirs[:_QUESTION_START] in ours or ours[:_QUESTION_START] in theirs
    answer, reference = _plain(row.get("answer")), _plain(sample.reference)
    if asked and answer.startswith(reference):
        return
    what = "reference" if asked else "question"
    raise DatasetError(
        f"{file}: {row['id']} has another {what} than row {sample.row} of {sample.task}",
        hint="the file was made from another revision or order of the dataset",
    )


def _plain(text: object) -> str:
    return re.sub(r"[\W_]+", "", str(text or "").casefold())
