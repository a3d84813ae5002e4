"""The reward of a completion: judge, embedding, format and modality in one number.

One composite, not four functions: TRL counts a missing value of one function as 0, and a judge
that is down would then teach. A completion is left out only if the single function gives None.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from medix_eval.errors import ConfigError, EndpointFault, RequestFailed, ServerError
from medix_eval.evaluation.panel import JudgeChoice, Panel, ResolvedJudge, judge_sources
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.canaries import Asked, accept_rates, canaries
from medix_eval.judging.embedding import Embedder, Pair
from medix_eval.models.requests import each
from medix_eval.models.resolve import ModelFlags, kept_local
from medix_eval.records import CompletionRecord, Kind, Vote
from medix_train.reading import EDITIONS, Text, last_turn
from medix_train.recipe import RewardSettings

_LOG = logging.getLogger(__name__)
Similarities = Callable[[Collection[Pair]], Mapping[Pair, float]]
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_pause = asyncio.sleep
_MEANS = ("judge", "embedding", "similarity", "format", "modality")


class Scored(NamedTuple):
    """One completion and what each part of the reward says of it, in [0, 1]."""

    reference: str
    answer: str
    judge: float | None
    embedding: float
    similarity: float
    format: float
    modality: float
    total: float | None  # none where the judge failed: the completion is left out of the step


class MedixReward:
    """TRL's reward function `await reward(prompts, completions, solution=…)`.

    It is opened by its first call, in the loop of its caller, and closed by `close`. `scored` holds
    every part of the last batch, in its order, for filters and logs. `similarities` returns the
    similarity of answers to references; by default the protocol's embedding model does.
    """

    def __init__(
        self, settings: RewardSettings, *, similarities: Similarities | None = None
    ) -> None:
        logging.getLogger("trl.trainer.grpo_trainer").addFilter(_holds_no_row)
        self.settings = settings
        self.scored: list[Scored] = []
        self._protocol, _, embedding = settings.load_protocol()
        self._edition, self._threshold = EDITIONS[settings.edition], embedding.threshold
        self._is_restricted = settings.data_class == "dua"
        self._similarities = similarities or Embedder(embedding).similarities
        self._panel: Panel | None = None
        self._opened = AsyncExitStack()
        self._num_batches = self._num_calls = 0
        self._said = ""  # why there was no verdict, the last time there was none

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
        questions = [last_turn(text) for text in prompts] if problem is None else list(problem)
        texts = [last_turn(text) for text in completions]
        self.scored = await self.score(questions, texts, solutions=solution)
        if log_extra is not None and log_metric is not None and self.scored:
            metrics = {"reward_parts/seconds": time.monotonic() - started}
            metrics["reward_parts/judge_calls"] = float(self._num_calls - before)
            for name in ("reference", "answer", *_MEANS):
                values = [getattr(one, name) for one in self.scored]
                log_extra(name, values)
                valid = [value for value in values if value is not None]
                if name in _MEANS and valid:
                    metrics[f"reward_parts/{name}"] = fmean(valid)
            metrics["reward_parts/judge_failed"] = fmean(one.judge is None for one in self.scored)
            for name, value in (metrics | await self._canaries(questions)).items():
                log_metric(name, value)
        self._num_batches += 1
        return [one.total for one in self.scored]

    async def score(
        self, questions: Sequence[str], completions: Sequence[str], *, solutions: Sequence[str]
    ) -> list[Scored]:
        """Score completions: judge and embedding at the same time, each distinct pair once.

        Raises `ConfigError` or `ServerError` where there is no judge, or it keeps failing.
        """
        edition, weights, rows = self._edition, self.settings.weights, []
        more = self._protocol.answer.thinking
        for question, completion, solution in zip(questions, completions, solutions, strict=True):
            gold, read = edition.solution(solution), edition.reading(completion, more=more)
            reference = gold.answer if gold else ""
            asked = Asked(question if edition.sees_question else "", reference, read.answer)
            settled = edition.settle(read.answer, reference) if gold else 0.0
            has_modality = gold is not None and read.modality.lower() == gold.modality.lower()
            rows.append((asked, settled, float(read.is_well_formed), float(has_modality)))
        unknown = list(dict.fromkeys(asked for asked, settled, _, _ in rows if settled is None))
        alike, judged = await asyncio.gather(
            asyncio.to_thread(self._similarities, {(one.answer, one.reference) for one in unknown}),
            self._verdicts(unknown),
        )
        scored = []
        for asked, settled, form, modality in rows:
            judge, near = settled, settled
            if near is None:
                judge, near = judged[asked], alike[asked.answer, asked.reference]
            embedding, total = float(near >= self._threshold), None
            if self.settings.graded:
                embedding = max(0.0, min(near, 1.0))
            if judge is not None:
                total = weights.judge * judge + weights.embedding * embedding
                total = total + weights.format * form + weights.modality * modality
            parts = (judge, embedding, near, form, modality, total)
            scored.append(Scored(asked.reference, asked.answer, *parts))
        return scored

    async def check(self) -> None:
        """Reach the judge and the embedding model, or raise `ConfigError` or `ServerError`."""
        try:
            await self._opened_panel()
            await asyncio.to_thread(self._similarities, {("yes", "yes")})
        except ServerError as error:
            error.hint = "is the judge running? reward.judge.base_url says where"
            raise
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the session and the cache; the next call opens them again."""
        self._panel = None
        await self._opened.aclose()

    async def _opened_panel(self) -> Panel:
        if self._panel is None:
            server, cache = self.settings.judge, None
            ours = {"model", "base_url", "local_hosts", "allow_egress"}
            given = server.model_dump(exclude=ours)
            flags = ModelFlags(role="judge", base_urls=server.base_url, **given)
            choice = JudgeChoice(name=server.model, flags=flags)
            sources = judge_sources(self._protocol, [choice], out=Path())
            tasks = ["reward.data_class: dua"] * self._is_restricted
            egress: Any = {"allowed": server.local_hosts, "reason": server.allow_egress}
            try:
                (source,) = kept_local(sources, tasks=tasks, **egress)
            except ConfigError as error:
                error.hint = "name the host in reward.judge.local_hosts, or say why in allow_egress"
                raise
            judge = ResolvedJudge(name=source.name, source=source, identity=source.identity())
            model = await self._opened.enter_async_context(source.open(Path("logs")))
            if self.settings.cache:
                hint = "`cache: null` of the reward runs without it"
                cache = self._opened.enter_context(VerdictCache.at(self.settings.cache, hint=hint))
            # Not for long: `failures` says how long a batch waits.
            policy = flags.policy(tries=3, longest_wait_s=8.0, patience_s=8.0, overload_s=0.0)
            how: Any = {"policy": policy, "cache": cache, "models": {judge.name: model}}
            how["gives_up"] = self.settings.edition == "medix"  # the other reads in its own way
            panel = Panel(protocol=self._protocol, judges=(judge,), **how)
            await panel.open(self._opened)
            self._panel = panel
        return self._panel

    async def _verdicts(self, asked: Collection[Asked]) -> dict[Asked, float | None]:
        """Return a verdict for each; None where the judge failed, which is rare or raises.

        With more failures the batch waits: a policy must not learn from who happened to be graded.
        """
        budget, left, waited_s, pause_s = self.settings.failures, list(asked), 0.0, _FIRST_PAUSE_S
        found: dict[Asked, float | None] = {}
        while left:
            found |= await self._ask(left)
            left = [pair for pair, verdict in found.items() if verdict is None]
            if len(left) <= budget.tolerated_share * len(found):
                break
            failed = f"answers that the judge failed: {len(left)} of {len(found)}"
            if waited_s >= budget.patience_s:
                hint = "the last checkpoint is complete: fix the judge, then resume"
                raise ServerError(f"{failed} for {waited_s:.0f} s ({self._said})", hint=hint)
            _LOG.warning("%s: %s", failed, self._said)
            await _pause(pause_s)
            waited_s, pause_s = waited_s + pause_s, min(2 * pause_s, _LONGEST_PAUSE_S)
        return found

    async def _ask(self, asked: Collection[Asked]) -> dict[Asked, float | None]:
        """Return a verdict for each, None if the judge failed; without waiting for a retry."""
        panel = await self._opened_panel()
        found: dict[Asked, float | None] = {}
        votes: list[Vote] = []

        async def work(pair: Asked) -> None:
            said: Any = {"prompt": pair.question, "reference": pair.reference, "kind": Kind.OPEN}
            said["restricted"] = self._is_restricted
            record = CompletionRecord(task="reward", sample_id=pair.question, row=0, **said)
            try:
                grade = await panel.grade(record, answer=pair.answer)
            except ServerError as error:
                cause = error.__cause__
                if not isinstance(cause, RequestFailed) or isinstance(cause, EndpointFault):
                    raise  # it is there, and does not want us
                found[pair], self._said = None, str(error)
                return
            (vote,) = grade.votes
            votes.append(vote)
            found[pair] = self._edition.verdict(grade.score, vote)
            self._said = vote.failure.message if vote.failure else self._said

        try:
            # Not all at once: the first request would wait until every prompt is made.
            await each(dict.fromkeys(asked), work, limit=panel.concurrency)
        finally:
            self._num_calls += sum(vote.calls for vote in votes)
            panel.keep(votes, restricted=self._is_restricted)
        return found

    async def _canaries(self, questions: Sequence[str]) -> dict[str, float]:
        """Send the judge what it should refuse, every so many batches."""
        every = self.settings.canaries_every
        if not every or self._num_batches % every:
            return {}
        references = [one.reference for one in self.scored]
        sent = canaries(questions, references, shift=self._num_batches)
        return accept_rates(sent, await self._ask([one.asked for one in sent]))


def _holds_no_row(record: logging.LogRecord) -> bool:
    """Keep TRL from printing a row that has no reward: rows may be restricted."""
    return "All reward functions returned None" not in str(record.msg)
