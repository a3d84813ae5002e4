"""The way of a sample, top to bottom: row, prompt, completion, answer, verdict, run folder.

One asyncio loop. A sample is read when there is room to send it and written when it is done, so
memory does not grow with their number, and a kill loses only what was in flight. This is also the
one place where a failure becomes data.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from medix_eval.concurrency import gate_for
from medix_eval.errors import ConfigError, MedixError, ModelError, NoJudge, ServerError
from medix_eval.images import as_jpeg
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.judge import Judge
from medix_eval.judging.outcomes import Scorer
from medix_eval.lm_task import MedixTask
from medix_eval.models.chat import ChatModel, ModelSource, Prompt, Sampling
from medix_eval.progress import Progress
from medix_eval.protocol import LLMJudge, Protocol
from medix_eval.records import CompletionRecord, Failure, Sample
from medix_eval.retrying import RetryingModel, RetryPolicy
from medix_eval.samples import BadSample, read_samples
from medix_eval.store import Judging, Run, newest_completions
from medix_eval.tasks import TaskFile

_Item = TypeVar("_Item")
_JPEG_QUALITY = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedTask:
    """A task whose rows are open, and which of them are asked."""

    file: TaskFile
    task: MedixTask
    rows: list[int]
    is_limited: bool = False


@dataclass(slots=True, kw_only=True)
class Pipeline:
    """One evaluation: a candidate answers, a judge grades, a run folder keeps it all."""

    tasks: tuple[OpenedTask, ...]
    protocol: Protocol
    wrap: Callable[[str], str]
    """Puts the protocol's template around a prompt."""
    candidate: ModelSource
    judge: ModelSource | None
    judge_identity: Mapping[str, Any]
    policies: Mapping[str, RetryPolicy]
    """Of the `model` and of the `judge`."""
    run: Run
    judging: Judging
    cache: VerdictCache | None
    progress: Progress
    _asker: RetryingModel | None = field(init=False, default=None)
    _scorer: Scorer | None = field(init=False, default=None)
    _sampling: Sampling = field(init=False)
    _failed: set[tuple[str, str]] = field(init=False, default_factory=set)
    """Samples that this run has tried in vain; the next run may try them again."""

    def __post_init__(self) -> None:
        self._sampling = Sampling(**self.protocol.generation.model_dump())

    async def evaluate(self) -> None:
        """Answer what has no completion, then judge what has no verdict.

        A judge that takes nothing the candidate needs is opened first and judges as completions
        come in. A judge on the same GPU is loaded when the candidate is gone.
        """
        num_left = sum(len(opened.rows) - len(self._done(opened)) for opened in self.tasks)
        if not num_left and not self._unjudged():
            return
        async with AsyncExitStack() as stack:
            if self.judge is None or self.judge.devices.isdisjoint(self.candidate.devices):
                await self._open_judge(stack)
            if num_left:
                await self._answer_all(num_left)
            if wanted := self._unjudged():
                if self._scorer is None:
                    await self._open_judge(stack)
                self.progress.begin("judging", len(wanted))
                records = newest_completions(self.run.path, wanted=wanted)
                await _each(records, self._score, limit=self.judge.concurrency if self.judge else 1)

    async def _answer_all(self, num_left: int) -> None:
        """Open the candidate and send it every sample that has no completion yet."""
        async with AsyncExitStack() as stack:
            model = await stack.enter_async_context(self.candidate.open(self.run.path / "logs"))
            self._asker = self._retrying(model, self.candidate, role="model")
            self.progress.begin("answering", num_left)
            in_judging = 0
            if self.judge is not None and self._scorer is not None:
                self.progress.begin("judging", num_left)
                in_judging = self.judge.concurrency
            room = self.candidate.concurrency + in_judging
            await _each(self._samples(), self._follow, limit=room)

    async def _follow(self, sample: Sample | BadSample) -> None:
        """Take one sample all the way, or as far as it can go by now."""
        record = sample.record if isinstance(sample, BadSample) else await self._answer(sample)
        self.run.append(record)
        self.progress.answered(record)
        if self._scorer is not None:
            await self._score(record)

    async def _answer(self, sample: Sample) -> CompletionRecord:
        """Ask the candidate; a request that fails for good is recorded with its reason."""
        assert self._asker is not None  # noqa: S101 (opened before the first sample)
        try:
            prompt = self._prompt(sample)
            completion = await self._asker.complete(prompt, self._sampling)
        except ModelError as error:
            failure = Failure(error=type(error).__name__, message=str(error))
            return _record(sample, failure=failure, requests=error.requests, seconds=error.seconds)
        return _record(
            sample,
            requests=completion.requests,
            seconds=completion.seconds,
            completion=completion.text,
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
        )

    def _prompt(self, sample: Sample) -> Prompt:
        images = sample.images
        if self.protocol.images.encoding == "jpeg75":
            images = tuple(as_jpeg(image, quality=_JPEG_QUALITY) for image in images)
        return Prompt(text=self.wrap(sample.prompt), images=images, sample=sample)

    async def _score(self, record: CompletionRecord) -> None:
        """Bring one completion to its verdict."""
        assert self._scorer is not None  # noqa: S101 (opened before the first verdict)
        verdict = await self._scorer.score(record)
        if verdict.outcome.is_failure:
            self._failed.add((record.task, record.sample_id))
        self.judging.append(verdict)
        # Only now: a kill between the two must not make a vote look as if it had been free.
        if self.cache is not None:
            task = self.run.manifest.tasks[record.task.partition("@")[0]]
            self.cache.keep(verdict.votes, restricted=task.data_class == "dua")
        self.progress.judged(verdict)

    async def _open_judge(self, stack: AsyncExitStack) -> None:
        if self.judge is None:
            self._scorer = Scorer(self.protocol, None)
            return
        assert isinstance(self.protocol.judge, LLMJudge)  # noqa: S101 (a judge needs a rubric)
        try:
            model = await stack.enter_async_context(self.judge.open(self.run.path / "logs"))
        except (ConfigError, ServerError) as error:
            raise NoJudge(error) from error
        judge = Judge(
            name=self.judge.name,
            identity=self.judge_identity,
            ask=self._retrying(model, self.judge, role="judge").complete,
            spec=self.protocol.judge,
            texts=self.protocol.texts,
            cache=self.cache,
        )
        self._scorer = Scorer(self.protocol, judge)

    def _retrying(self, model: ChatModel, source: ModelSource, *, role: str) -> RetryingModel:
        gate = gate_for(concurrency=source.concurrency, adapts=source.adapts)
        return RetryingModel(model=model, policy=self.policies[role], role=role, gate=gate)

    def _samples(self) -> Iterator[Sample | BadSample]:
        for opened in self.tasks:
            yield from read_samples(
                opened.task,
                opened.rows,
                key=opened.file.key,
                done=self._done(opened),
                taken=self.run.answered_ids(opened.file.key),
            )

    def _done(self, opened: OpenedTask) -> set[int]:
        return self.run.answered_rows(opened.file.key).intersection(opened.rows)

    def _unjudged(self) -> dict[tuple[str, str], int]:
        """Return the lines of the completions of this run that have no verdict that stands."""
        settled = self.judging.judged | self._failed
        rows = {opened.file.key: set(opened.rows) for opened in self.tasks}
        return {
            key: seen.line
            for key, seen in self.run.seen.items()
            if key not in settled
            and seen.row in rows.get(key[0], ())
            and (seen.answered or key not in self.judging.rejected)
        }


async def _each(
    items: Iterable[_Item], work: Callable[[_Item], Awaitable[None]], *, limit: int
) -> None:
    """Run `work` on every item, at most `limit` at a time, each taken when there is room.

    `work` records expected failures; what escapes it stops the stage.
    """
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        # Several requests in flight find out that a server is gone; one line is enough.
        known = [error for error in errors.exceptions if isinstance(error, MedixError)]
        raise (known[0] if known else errors.exceptions[0]) from None


def _record(sample: Sample, **result: Any) -> CompletionRecord:
    return CompletionRecord(
        task=sample.task,
        sample_id=sample.id,
        row=sample.row,
        kind=sample.kind,
        prompt=sample.prompt,
        reference=sample.reference,
        options=sample.options,
        facts=dict(sample.facts),
        columns=dict(sample.columns),
        image_sha256=tuple(hashlib.sha256(image).hexdigest() for image in sample.images),
        **result,
    )
