"""The published judge: one dialogue, in which each turn asks it to think again.

The mechanics are kept, defects included, so that published numbers can be compared: the answer
stands in the prompt as it is, every later turn invites a change of mind, and one reply that
cannot be read leaves the whole sample without a verdict.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2

from medix_eval.errors import ModelError, ReplyUnusable
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.judge import Ask, Grade
from medix_eval.judging.prompts import compiled, fence, fields_of
from medix_eval.judging.protocol import DialogueJudge
from medix_eval.judging.replies import read_published
from medix_eval.models.chat import Prompt, Sampling
from medix_eval.records import CompletionRecord, Failure, Kind, Vote
from medix_eval.storage.digests import digest

_MOST_POINTS = 5
"""Of a report; fixed in the published code."""
_ENOUGH = 2
"""Turns that must say 1 for an answer to count as right, out of however many."""


@dataclass(slots=True, kw_only=True)
class Dialogue:
    """One judge, asked the published way."""

    name: str
    identity: Mapping[str, Any]
    ask: Ask
    spec: DialogueJudge
    texts: Mapping[str, str]
    cache: VerdictCache | None
    _templates: dict[str, jinja2.Template] = field(init=False)
    _sampling: Sampling = field(init=False)

    def __post_init__(self) -> None:
        self._templates = compiled({name: self.texts[name] for name in self.spec.prompt_files()})
        self._sampling = Sampling(**self.spec.sampling.model_dump())

    async def grade(self, record: CompletionRecord, *, answer: str) -> Grade:
        """Hold the dialogue, or take all of it from the cache."""
        is_report = record.kind is Kind.REPORT
        opening = self.spec.report_prompt_file if is_report else self.spec.prompt_file
        files = [opening, *[self.spec.again_file] * (self.spec.turns - 1)]
        fields = fields_of(record, answer=answer)
        turns = self._turns(files, fields)
        votes = self._known(turns)
        if votes is None:
            seen = {**fields, "fence": fence(record.sample_id, answer)}
            texts = [self._templates[file].render(seen) for file in files]
            votes = await self._held(turns, texts, is_report=is_report)
        points = [vote.points for vote in votes]
        score = published_score(points, is_report=is_report, turns=self.spec.turns)
        return Grade(score=score, votes=tuple(votes))

    def _turns(self, files: Sequence[str], fields: Mapping[str, str]) -> list[Vote]:
        """Return the turns to come; all that a turn hears before follows from its key."""
        sampling, texts = self.spec.sampling.model_dump(), [self.texts[file] for file in files]
        asked = [dict(self.identity), sampling, texts, dict(fields), "dialogue"]
        return [
            Vote(judge=self.name, prompt=f"turn_{number}", key=digest([*asked, number]))
            for number in range(1, len(files) + 1)
        ]

    def _known(self, turns: Sequence[Vote]) -> list[Vote] | None:
        """Return the whole dialogue from the cache; half of one could not be gone on with."""
        found = [self.cache.find(vote.key) if self.cache else None for vote in turns]
        return (
            [
                vote.model_copy(update={"points": known[0], "reply": known[1], "cached": True})
                for vote, known in zip(turns, found, strict=True)
                if known is not None
            ]
            if None not in found
            else None
        )

    async def _held(
        self, turns: Sequence[Vote], texts: Sequence[str], *, is_report: bool
    ) -> list[Vote]:
        """Ask turn by turn, up to the first reply that cannot be read."""
        votes: list[Vote] = []
        before: list[tuple[str, str]] = []
        for turn, text in zip(turns, texts, strict=True):
            started = time.monotonic()
            prompt = Prompt(text=text, before=tuple(before))
            found = await self._asked(prompt, is_report=is_report)
            seconds = round(time.monotonic() - started, 3)
            votes.append(turn.model_copy(update={**found, "calls": 1, "seconds": seconds}))
            if votes[-1].points is None:
                break
            before.append((text, found["reply"]))
        return votes

    async def _asked(self, prompt: Prompt, *, is_report: bool) -> dict[str, Any]:
        """Ask one turn; a failure becomes part of its vote."""
        reply: str | None = None
        try:
            reply = (await self.ask(prompt, self._sampling)).text
            if reply is None:
                raise ReplyUnusable("the judge sent no text")
            return {"reply": reply, "points": read_published(reply, is_report=is_report)}
        except ModelError as error:
            failure = Failure(error=type(error).__name__, message=str(error))
            return {"reply": reply, "failure": failure}


def published_score(
    points: Sequence[float | None], *, is_report: bool, turns: int = 3
) -> float | None:
    """Turn what the turns said into a score: two of three that say 1, or a report's mean of 5.

    No range is checked, so a report can score more than 1. None where a turn is missing.

    >>> published_score([1.0, 0.0, 1.0], is_report=False)
    1.0
    >>> published_score([7.0, 7.0, 7.0], is_report=True)
    1.4
    """
    valid = [point for point in points if point is not None]
    if len(valid) < turns:
        return None
    if is_report:
        return sum(valid) / turns / _MOST_POINTS
    return float(valid.count(1.0) >= _ENOUGH)
