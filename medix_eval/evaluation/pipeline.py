"""The path of a sample, top to bottom: row, prompt, completion, answer, verdict, run folder.

One asyncio loop. Samples are read a few ahead of what is sent and written when they are done, so
memory does not grow with their number, and a kill loses only what was in flight. This is also the
one place where a failure becomes data.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from medix_eval.data.samples import BadSample, read_samples
from medix_eval.data.tasks import TaskFile
from medix_eval.errors import BadRow, ModelError, RefusesAll, RequestRejected
from medix_eval.evaluation.controls import Control, Disturb, disturbing
from medix_eval.evaluation.panel import Panel
from medix_eval.judging.protocol import Protocol
from medix_eval.models.chat import ModelSource, Prompt, Sampling
from medix_eval.models.requests import RetryingModel, RetryPolicy, each, gate_for
from medix_eval.records import CompletionRecord, Failure, Sample
from medix_eval.report.format import counted
from medix_eval.results.store import Judging, RunFolder, newest_completions
from medix_eval.storage.images import as_sent

if TYPE_CHECKING:
    from medix_eval.data.lm_task import MedixTask

_LINE_EVERY_S = 30.0
"""How often progress is told where stderr is a file."""
_GARBAGE = 10_000
"""Net new objects before a collection: 256 samples in flight are some 7,000."""


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
    controls: tuple[Control, ...]
    """How samples are perturbed before they are sent."""
    candidate: ModelSource
    policy: RetryPolicy
    run: RunFolder
    stage: JudgingStage
    progress: Progress
    same_model: bool = False
    """Whether the user vouches for a server that tells of another folder."""
    _asker: RetryingModel | None = field(init=False, default=None)
    _sampling: Sampling = field(init=False)

    def __post_init__(self) -> None:
        self._sampling = Sampling(**self.protocol.generation.model_dump())

    async def evaluate(self) -> None:
        """Answer what has no completion, then judge what has no verdict.

        A judge that takes nothing the candidate needs is opened first and judges as completions
        come in. A judge on the same GPU is loaded after the candidate has stopped.
        """
        numbers = {one.file.key: len(one.rows) - len(self._done(one)) for one in self.tasks}
        left = {task: number for task, number in numbers.items() if number}
        if not left and not self._unjudged():
            return
        async with AsyncExitStack() as stack:
            stack.enter_context(_collecting_less())
            if self.stage.panel.devices.isdisjoint(self.candidate.devices):
                await self.stage.open(stack)
            if left:
                await self._answer_all(left)
            if wanted := self._unjudged():
                if not self.stage.panel.is_open:
                    await self.stage.open(stack)
                await self.stage.score_saved(wanted)

    async def _answer_all(self, left: Mapping[str, int]) -> None:
        """Open the candidate and send it every sample that has no completion yet."""
        async with AsyncExitStack() as stack:
            model = await stack.enter_async_context(self.candidate.open(self.run.path / "logs"))
            if told := getattr(model, "served", None):
                self.run.note_served(told, vouched=self.same_model)
            gate = gate_for(concurrency=self.candidate.concurrency, adapts=self.candidate.adapts)
            self._asker = RetryingModel(model=model, policy=self.policy, role="model", gate=gate)
            begun = [one.file for one in self.tasks if self.run.answered_rows(one.file.key)]
            self._asker.answered |= {file.settings.modality == "image" for file in begun}
            self.progress.begin("answering", left)
            in_judging = 0
            if self.stage.panel.judges and self.stage.panel.is_open:
                self.progress.begin("judging", left)
                in_judging = self.stage.panel.concurrency
            room = self.candidate.concurrency + in_judging
            try:
                await each(self._samples(), self._follow, limit=room)
            except RefusesAll:
                self.stage.judging.void_rejections()
                raise

    async def _follow(self, sample: Sample | BadSample) -> None:
        """Take one sample all the way, or as far as it can go already."""
        record = sample.record if isinstance(sample, BadSample) else await self._answer(sample)
        self.run.append(record)
        self.stage.judging.rejected.discard((record.task, record.sample_id))
        self.progress.done("answering", record.task, failed=record.failure is not None)
        if self.stage.panel.is_open:
            await self.stage.score(record)

    async def _answer(self, sample: Sample) -> CompletionRecord:
        """Ask the candidate; a request that fails for good is recorded with its reason."""
        if sample.answer is not None:
            return line_of(sample, completion=sample.answer, finish_reason="stop")
        assert self._asker is not None  # noqa: S101 (opened before the first sample)
        try:
            asked = partial(self._prompt, sample)  # drawing a picture takes a while
            prompt = await asyncio.to_thread(asked) if sample.images else asked()
            completion = await self._asker.complete(prompt, self._sampling)
        except ModelError as error:
            kind = error.kind if isinstance(error, RequestRejected) else ""
            failure = Failure(error=type(error).__name__, message=str(error), kind=kind)
            return line_of(sample, failure=failure, requests=error.requests, seconds=error.seconds)
        return line_of(
            sample,
            requests=completion.requests,
            seconds=completion.seconds,
            completion=completion.text,
            log_likelihoods=completion.log_likelihoods,
            finish_reason=completion.finish_reason,
            served_model=completion.served_model,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
        )

    def _prompt(self, sample: Sample) -> Prompt:
        encode = partial(as_sent, encoding=self.protocol.images.encoding)
        images = tuple(map(encode, sample.images))
        prompt = Prompt(text=self.wrap(sample.prompt), images=images, sample=sample)
        if (prefix := sample.option_prefix) is None:
            return prompt
        return replace(prompt, continuations=tuple(prefix + one for one in sample.options))

    def _samples(self) -> Iterator[Sample | BadSample]:
        for opened in self.tasks:
            disturb = disturbing(self.controls, opened.task) if self.controls else None
            for sample in read_samples(
                opened.task,
                opened.rows,
                key=opened.file.key,
                done=self._done(opened),
                taken=self.run.answered_ids(opened.file.key),
            ):
                if disturb is None or isinstance(sample, BadSample):
                    yield sample
                else:
                    yield _disturbed(sample, disturb)

    def _done(self, opened: OpenedTask) -> set[int]:
        return self.run.answered_rows(opened.file.key).intersection(opened.rows)

    def _unjudged(self) -> dict[tuple[str, str], int]:
        """Return the lines of this run's completions that have no verdict that stands."""
        rows = {opened.file.key: frozenset(opened.rows) for opened in self.tasks}
        return self.stage.unjudged(rows)


@dataclass(slots=True, kw_only=True)
class JudgingStage:
    """The second half of the pipeline: a completion comes in, its verdict is stored.

    An evaluation and `medix-eval judge` share it, so that saved completions are judged exactly as
    fresh ones are.
    """

    panel: Panel
    run: RunFolder
    judging: Judging
    progress: Progress
    failed: set[tuple[str, str]] = field(default_factory=set)
    """Samples whose judging failed; the next run may retry them."""

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the judges that are not open yet. Raises `NoJudge`."""
        self.panel.readable |= self.judging.readable
        await self.panel.open(stack, logs=self.run.path / "logs")

    async def score(self, record: CompletionRecord) -> None:
        """Bring one completion to its verdict."""
        verdict = await self.panel.score(record)
        if verdict.outcome.is_failure:
            self.failed.add((record.task, record.sample_id))
        self.judging.append(verdict)
        # Only now: a kill between the two must not make a vote look as if it had been free.
        task = self.run.manifest.tasks[record.task.partition("@")[0]]
        self.panel.keep(verdict.votes, restricted=task.data_class == "dua")
        self.progress.done("judging", verdict.task, failed=verdict.outcome.is_failure)

    async def score_saved(self, wanted: Mapping[tuple[str, str], int]) -> None:
        """Score completions that the run folder holds, by the number of their line."""
        self.progress.begin("judging", Counter(task for task, _ in wanted))
        newest = newest_completions(self.run.path, wanted=wanted)
        records = (self.run.as_read(record) for record in newest)
        await each(records, self.score, limit=self.panel.concurrency)

    def unjudged(self, rows: Mapping[str, frozenset[int]]) -> dict[tuple[str, str], int]:
        """Return the lines of completions without a verdict that stands, of these rows by task."""
        return {
            key: seen.line
            for key, seen in self.run.seen.items()
            if key not in self.failed
            and self.judging.judged.get(key) not in {seen.mark, ""}
            and seen.row in rows.get(key[0], ())
            and (seen.answered or key not in self.judging.rejected)
        }


@contextmanager
def _collecting_less() -> Iterator[None]:
    """Keep live objects from the garbage collector: libraries, and samples in flight."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_GARBAGE, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _disturbed(sample: Sample, disturb: Disturb) -> Sample | BadSample:
    try:
        return disturb(sample)
    except BadRow as error:
        failure = Failure(error=type(error).__name__, message=str(error))
        return BadSample(record=line_of(sample, failure=failure))


_CARRIED = "task row kind prompt question_at reference options parser restricted"


def line_of(sample: Sample, **result: Any) -> CompletionRecord:
    """Return a sample with its result as a line of the run."""
    images = tuple(hashlib.sha256(image).hexdigest() for image in sample.images)
    own = {"sample_id": sample.id, "facts": dict(sample.facts), "columns": dict(sample.columns)}
    same = {name: getattr(sample, name) for name in _CARRIED.split()}
    return CompletionRecord(image_sha256=images, **own, **same, **result)


class Progress:
    """What the pipeline tells as it goes; this one keeps it to itself."""

    def begin(self, stage: str, totals: Mapping[str, int]) -> None:
        """Report that a stage begins, with so many samples of each task to go."""

    def done(self, stage: str, task: str, *, failed: bool) -> None:
        """Report that a sample is through; this counts in a stage that has begun."""


@contextmanager
def shown_progress(
    *, wanted: bool, every_s: float = _LINE_EVERY_S, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """Return silence if nothing is wanted, a bar in a terminal, and lines for any other stderr."""
    if not wanted:
        yield Progress()
        return
    if not sys.stderr.isatty():
        with _Lines(every_s, clock).told() as lines:
            yield lines
        return
    from rich import progress as rich  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=24),
        rich.MofNCompleteColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[note]}"),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as bars:
        yield _Bars(bars)


class _Bars(Progress):
    def __init__(self, bars: object) -> None:
        self._bars: Any = bars
        self._ids: dict[str, int] = {}
        self._outcomes: Counter[str] = Counter()

    def begin(self, stage: str, totals: Mapping[str, int]) -> None:
        self._ids[stage] = self._bars.add_task(stage, total=sum(totals.values()), note="")

    def done(self, stage: str, task: str, *, failed: bool) -> None:
        if stage not in self._ids:
            return
        self._outcomes[stage] += failed
        note = f"{self._outcomes[stage]} failed" if self._outcomes[stage] else ""
        self._bars.update(self._ids[stage], advance=1, note=note)


@dataclass(slots=True)
class _Stage:
    begun: float
    totals: Mapping[str, int]
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def is_over(self) -> bool:
        return all(self.done[task] == total for task, total in self.totals.items())


class _Lines(Progress):
    """Whole lines for a log: one as a stage begins, as a task ends, and one from time to time."""

    def __init__(self, every_s: float, clock: Callable[[], float]) -> None:
        self._every_s, self._clock, self._begun = every_s, clock, clock()
        self._stages: dict[str, _Stage] = {}
        self._is_over = threading.Event()

    @contextmanager
    def told(self) -> Iterator[_Lines]:
        """Tell from another thread how far it is, so that a long wait shows life, too."""
        thread = threading.Thread(target=self._tell_until_over, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            thread.join()
            for name in self._under_way():  # it was stopped
                if any(self._stages[name].done.values()):
                    self._tell(name, *self._stages[name].totals)

    def begin(self, stage: str, totals: Mapping[str, int]) -> None:
        self._stages[stage] = _Stage(self._clock(), totals)
        if totals:
            self._tell(stage, *totals)

    def done(self, stage: str, task: str, *, failed: bool) -> None:
        found = self._stages.get(stage)
        if found is None or task not in found.totals:
            return
        found.done[task] += 1
        found.failed[task] += failed
        if found.done[task] == found.totals[task]:
            self._tell(stage, task)

    def _under_way(self) -> list[str]:
        return [name for name, stage in [*self._stages.items()] if not stage.is_over]

    def _tell_until_over(self) -> None:
        while not self._is_over.wait(self._every_s):
            under_way = self._under_way()
            for name in under_way:
                self._tell(name, *self._stages[name].totals)
            if not under_way:
                self._write("no sample under way", self._begun)

    def _tell(self, name: str, *tasks: str) -> None:
        """Tell of a task, or of several in one line, how far a stage is with them."""
        stage = self._stages[name]
        done, total, failed = (
            sum(numbers[task] for task in tasks)
            for numbers in (stage.done, stage.totals, stage.failed)
        )
        what = tasks[0].partition("@")[0] if len(tasks) == 1 else counted(len(tasks), "task")
        said = f"{what}  {done} of {total} {name.removesuffix('ing')}ed, {failed} failed"
        self._write(said, stage.begun)

    def _write(self, said: str, begun: float) -> None:
        # A log that takes no more lines is no reason to stop a run.
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{said}, {timedelta(seconds=int(self._clock() - begun))}\n")
            sys.stderr.flush()
