"""The reward of a completion: judge, embedding, format and modality in one number.

One composite, not four functions: TRL counts a missing value of one function as 0, and a judge
that is down would then teach. Only where the only function says None is a completion left out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from medix_train.canaries import accept_rates, canaries
from medix_train.completions import Reading, Solution
from medix_train.editions import EDITIONS, Edition
from medix_train.embedding import Embedder, Pair
from medix_train.judge_desk import Asked, JudgeDesk
from medix_train.reward_settings import RewardSettings

Message = Mapping[str, Any]
Text = str | Sequence[Message]
"""Plain text, or the turns of a conversation."""
Similarities = Callable[[Collection[Pair]], Mapping[Pair, float]]
_MEANS = ("judge", "embedding", "similarity", "format", "modality")
_LOGGED = ("reference", "answer", *_MEANS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One completion and what each part of the reward says of it, in [0, 1]."""

    reference: str
    answer: str
    judge: float | None
    embedding: float
    similarity: float
    format: float
    modality: float
    total: float | None
    """None where the judge failed: the completion is then left out of the step."""


@dataclass(slots=True, kw_only=True, eq=False)
class MedixReward:
    """TRL's reward function `await reward(prompts, completions, solution=…)`.

    It is opened by its first call, in the loop of its caller, and closed by `close`.
    """

    settings: RewardSettings = field(default_factory=RewardSettings)
    scored: list[Scored] = field(default_factory=list)
    """Every part of the last batch, in its order, for whoever filters or logs."""
    similarities: Similarities | None = None
    """How near answers lie to references; by default the protocol's embedding model says."""
    _edition: Edition = field(init=False)
    _threshold: float = field(init=False)
    _similarities: Similarities = field(init=False)
    _desk: JudgeDesk | None = None
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack)
    _batches: int = 0

    def __post_init__(self) -> None:
        logging.getLogger("trl.trainer.grpo_trainer").addFilter(_holds_no_row)
        self._edition = EDITIONS[self.settings.edition]
        _, _, embedding = self.settings.load_protocol()
        self._threshold = embedding.threshold
        self._similarities = self.similarities or Embedder(spec=embedding).similarities

    async def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        *,
        solution: Sequence[str],
        problem: Sequence[str] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **_columns: Any,
    ) -> list[float | None]:
        """Score a batch as TRL asks for it; what else the dataset holds is not looked at."""
        started, before = time.monotonic(), self._num_calls
        questions = list(problem) if problem is not None else [last_turn(text) for text in prompts]
        texts = [last_turn(text) for text in completions]
        self.scored = await self.score(questions, texts, solutions=solution)
        if log_extra is not None and log_metric is not None and self.scored:
            for name in _LOGGED:
                log_extra(name, [getattr(one, name) for one in self.scored])
            seconds, calls = time.monotonic() - started, self._num_calls - before
            metrics = self._metrics(seconds=seconds, calls=calls)
            for name, value in (metrics | await self._canaries(questions)).items():
                log_metric(name, value)
        self._batches += 1
        return [one.total for one in self.scored]

    async def score(
        self, questions: Sequence[str], completions: Sequence[str], *, solutions: Sequence[str]
    ) -> list[Scored]:
        """Score completions: judge and embedding at the same time, each distinct pair once."""
        edition = self._edition
        gold = [edition.solution(text) for text in solutions]
        read = [edition.reading(text) for text in completions]
        asked = [
            Asked(
                question if edition.sees_question else "",
                one.reference if one else "",
                reading.answer,
            )
            for question, one, reading in zip(questions, gold, read, strict=True)
        ]
        settled = [
            edition.settle(pair.answer, pair.reference) if one else 0.0
            for pair, one in zip(asked, gold, strict=True)
        ]
        open_pairs = [pair for pair, value in zip(asked, settled, strict=True) if value is None]
        unknown = list(dict.fromkeys(open_pairs))
        alike, judged = await asyncio.gather(
            asyncio.to_thread(self._similarities, {_pair(one) for one in unknown}),
            self._judged(unknown),
        )
        return [
            self._scored(one, reading, judge=value, similarity=value)
            if value is not None
            else self._scored(one, reading, judge=judged[pair], similarity=alike[_pair(pair)])
            for pair, one, reading, value in zip(asked, gold, read, settled, strict=True)
        ]

    def _scored(
        self, gold: Solution | None, reading: Reading, *, judge: float | None, similarity: float
    ) -> Scored:
        embedding = float(similarity >= self._threshold)
        if self.settings.graded:
            embedding = max(0.0, min(similarity, 1.0))
        parts = {
            "embedding": embedding,
            "format": float(reading.is_well_formed),
            "modality": float(
                gold is not None and reading.modality.lower() == gold.modality.lower()
            ),
        }
        return Scored(
            reference=gold.reference if gold else "",
            answer=reading.answer,
            judge=judge,
            similarity=similarity,
            total=self.settings.weights.total(judge=judge, others=parts),
            **parts,
        )

    async def open(self) -> None:
        """Reach the judge and the embedding model; `ConfigError` or `ServerError` otherwise."""
        await self._opened_desk()
        await asyncio.to_thread(self._similarities, {("yes", "yes")})

    async def close(self) -> None:
        """Close the session and the cache; the next call opens them again."""
        self._desk = None
        await self._opened.aclose()

    @property
    def _num_calls(self) -> int:
        return self._desk.num_calls if self._desk else 0

    async def _judged(self, asked: Sequence[Asked]) -> dict[Asked, float | None]:
        return await (await self._opened_desk()).verdicts(asked) if asked else {}

    async def _opened_desk(self) -> JudgeDesk:
        if self._desk is None:
            self._desk = await JudgeDesk.open(
                self.settings, vote=self._edition.vote, stack=self._opened
            )
        return self._desk

    def _metrics(self, *, seconds: float, calls: int) -> dict[str, float]:
        """Return the means of a batch, as the logs of a run show them."""
        failed = fmean(one.judge is None for one in self.scored)
        parts = {"judge_failed": failed, "judge_calls": float(calls), "seconds": seconds}
        for name in _MEANS:
            values = [getattr(one, name) for one in self.scored]
            if valid := [value for value in values if value is not None]:
                parts[name] = fmean(valid)
        return {f"reward_parts/{name}": value for name, value in parts.items()}

    async def _canaries(self, questions: Sequence[str]) -> dict[str, float]:
        """Send the judge what it should refuse, every so many batches."""
        every = self.settings.canaries_every
        if not every or self._batches % every:
            return {}
        references = [one.reference for one in self.scored]
        sent = canaries(questions, references, shift=self._batches)
        verdicts = await (await self._opened_desk()).ask([one.asked for one in sent])
        return accept_rates(sent, verdicts)


def _holds_no_row(record: logging.LogRecord) -> bool:
    """Keep TRL from printing a row that has no reward: rows may be restricted."""
    return "All reward functions returned None" not in str(record.msg)


def last_turn(text: Text) -> str:
    """Return the words of a completion, or of a prompt's last turn, images left out."""
    if isinstance(text, str):
        return text
    content = text[-1]["content"] if len(text) else ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")


def _pair(asked: Asked) -> Pair:
    return asked.answer, asked.reference
