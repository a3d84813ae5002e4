"""A checkpoint that runs in this process through transformers, in batches, on CPU or CUDA."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medix_eval.errors import (
    ConfigError,
    ModelError,
    RequestRefused,
    RequestRejected,
    ServerError,
    how_to_install,
    one_line,
)
from medix_eval.models.chat import ChatModel, Completion, Prompt, Sampling
from medix_eval.models.checkpoint import (
    checkpoint_identity,
    describe,
    refused,
    split_revision,
    visible_gpus,
)
from medix_eval.models.torch_cpu import FreeCores, declare_missing_operators, threads_for
from medix_eval.records import IMAGE_MARK
from medix_eval.storage.images import as_rgb

if TYPE_CHECKING:
    from medix_eval.models.continuous_batch import BatchRow, ContinuousBatch

_LOG = logging.getLogger(__name__)
_LOADING = threading.Lock()
_DEFAULT_CONTEXT = 32_768
_GATHER_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersModel:
    """A folder or a hub name, answered by `generate` in this process."""

    name: str
    location: str
    """Folder or `ORG/NAME[@REV]`."""
    concurrency: int = 16
    """Prompts in one batch."""
    adapts: bool = False
    takes_continuations: bool = True
    """Whether it tells how likely a text is after another."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """None: nothing leaves this process."""
        return ()

    @property
    def devices(self) -> frozenset[str]:
        """The first GPU that this process may see, or the CPU."""
        return frozenset(visible_gpus()[:1] or ("cpu",))

    @property
    def takes_images(self) -> bool | None:
        """What the checkpoint's config says."""
        return describe(self.location).takes_images

    def identity(self) -> dict[str, Any]:
        """Hash of the folder or commit on the hub, and the engine that runs it."""
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

        try:
            engine = {name: version(name) for name in ("transformers", "torch")}
        except PackageNotFoundError as error:
            raise ConfigError(
                f"{self.name} needs the package {error.name!r}, which is not installed",
                hint=how_to_install("hf"),
            ) from error
        weights = checkpoint_identity(self.location)
        return {**weights, "engine": {"name": "transformers", "dtype": _dtype(), **engine}}

    @asynccontextmanager
    async def open(self, logs: Path) -> AsyncIterator[ChatModel]:
        """Load the checkpoint; one thread computes, prompts wait for their batch."""
        cores = FreeCores(self.name)
        loaded = await asyncio.to_thread(_load, self.location)
        batcher = _Batcher(loaded, batch_size=self.concurrency, cores=cores)
        worker = asyncio.create_task(batcher.work())
        try:
            yield batcher
        finally:
            batcher.ended.set()
            worker.cancel()
            with suppress(asyncio.CancelledError):
                await worker


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    model: Any
    processor: Any
    takes_images: bool
    context: int
    ends: frozenset[int]
    """The tokens that end an answer."""
    threads: int
    """How many to compute with, at most; 0 where a GPU computes."""

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)


@dataclass(slots=True)
class _Batcher:
    """Gathers the prompts in flight into batches; `complete` waits for its own row."""

    loaded: _Loaded
    batch_size: int
    cores: FreeCores
    ended: threading.Event = field(default_factory=threading.Event)
    """No prompt waits any more: what is being generated stops at its next token."""
    _waiting: asyncio.Queue[_Job] = field(default_factory=asyncio.Queue)

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        if prompt.images and not self.loaded.takes_images:
            raise ServerError("a text-only model does not accept images")
        done: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        await self._waiting.put((prompt, sampling, done))
        return await done

    async def work(self) -> None:
        from medix_eval.models.continuous_batch import supports  # noqa: PLC0415

        continuous = not self.loaded.takes_images and supports(self.loaded.model)
        while True:
            jobs = [await self._waiting.get(), *await self._more(self.batch_size - 1)]
            if not continuous:
                await self._together(jobs)
            elif greedy := await self._greedy(jobs):
                await self._together(await self._flow(greedy))

    async def _greedy(self, jobs: list[_Job]) -> list[_Job]:
        """Answer the prompts that are sampled, or have continuations, and return the others."""
        await self._together([job for job in jobs if job[1].temperature or job[0].continuations])
        return [job for job in jobs if not (job[1].temperature or job[0].continuations)]

    async def _more(self, most: int) -> list[_Job]:
        """Return up to so many prompts that wait; they come one by one as earlier ones finish."""
        await asyncio.sleep(_GATHER_S)
        return [self._waiting.get_nowait() for _ in range(min(most, self._waiting.qsize()))]

    async def _flow(self, joining: list[_Job]) -> list[_Job]:
        """Answer greedily, and let prompts that come meanwhile join, until none is left.

        Return those that an error left without one: when this has returned, their memory is free.
        """
        from medix_eval.models.continuous_batch import ContinuousBatch  # noqa: PLC0415

        tokenizer = self.loaded.tokenizer
        how: Any = {"ends": self.loaded.ends, "pad": tokenizer.pad_token_id}
        batch = ContinuousBatch(model=self.loaded.model, tokenizer=tokenizer, **how)
        inside: list[_Job] = []
        while joining or inside:
            places = self.batch_size - len(inside) - len(joining)
            inside += joining
            try:
                answers = await asyncio.to_thread(self._advance, batch, joining, places)
            except Exception as error:  # noqa: BLE001 (of which row, only another try can tell)
                _LOG.debug("answered again, in halves: %s", error)
                if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
                    self.batch_size = max(1, len(inside) // 2)
                    _LOG.warning("out of memory: from now on %d prompts a batch", self.batch_size)
                return inside
            for (_, _, done), answer in answers:
                _resolve(done, answer)
            inside = [job for job in inside if not job[2].done()]
            joining = await self._greedy(await self._more(self.batch_size - len(inside)))
        return []

    def _advance(
        self, batch: ContinuousBatch, jobs: list[_Job], places: int
    ) -> list[tuple[_Job, Completion | ModelError]]:
        """Let prompts join the batch, and return what has been answered since."""
        self._follow_cores()
        answers: list[tuple[_Job, Completion | ModelError]] = []
        rows = []
        for job in jobs:
            try:
                rows.append(_row(self.loaded, job))
            except Exception as error:  # noqa: BLE001 (a template may fail in any way)
                answers.append((job, _failure(error)))
        for row in batch.rows:
            if row.job[2].done():  # what it is for was interrupted
                row.room = 0
        if rows or batch.rows:
            done = batch.advance(
                rows,
                wanted=lambda: self.ended.is_set() or (places > 0 and not self._waiting.empty()),
            )
            answers += [
                (row.job, _completion(self.loaded, row.tokens, num_read=len(row.prompt)))
                for row in done
            ]
        return answers

    async def _together(self, jobs: list[_Job]) -> None:
        """Answer each group of prompts that are asked alike as one batch."""
        for how in dict.fromkeys((job[1], bool(job[0].continuations)) for job in jobs):
            alike = [job for job in jobs if (job[1], bool(job[0].continuations)) == how]
            await self._answer(alike, how[0])

    async def _answer(self, jobs: list[_Job], sampling: Sampling) -> None:
        """Run one batch; an error is every row's error, so a batch is halved to find its cause."""
        answers: Sequence[Completion | ModelError]
        half = 0
        try:
            prompts = [prompt for prompt, _, _ in jobs]
            answers = await asyncio.to_thread(self._generate, prompts, sampling)
        except Exception as error:  # noqa: BLE001 (a batch fails as a whole; found by halving)
            answers, half = [_failure(error)], len(jobs) // 2
        if half:  # tried here, as an error that is being handled keeps what filled the memory
            await self._answer(jobs[:half], sampling)
            await self._answer(jobs[half:], sampling)
            return
        for (_, _, done), answer in zip(jobs, answers, strict=True):
            _resolve(done, answer)

    def _generate(self, prompts: list[Prompt], sampling: Sampling) -> list[Completion]:
        self._follow_cores()
        if prompts[0].continuations:
            return [_likeliest(self.loaded, prompt) for prompt in prompts]
        return _generate(self.loaded, prompts, sampling, ended=self.ended.is_set)

    def _follow_cores(self) -> None:
        if self.loaded.threads:
            self.cores.follow(most=self.loaded.threads)


_Job = tuple[Prompt, Sampling, "asyncio.Future[Completion]"]


def _resolve(done: asyncio.Future[Completion], answer: Completion | ModelError) -> None:
    if done.done():  # the run was interrupted meanwhile
        return
    if isinstance(answer, Completion):
        done.set_result(answer)
    else:
        done.set_exception(answer)


def _failure(error: Exception) -> ModelError:
    """Return why a prompt has no answer; it is rejected only for its length."""
    if isinstance(error, ModelError):
        return error
    return RequestRefused(f"{type(error).__name__}: {one_line(error)[:300]}")


def _dtype() -> str:
    import torch  # noqa: PLC0415

    return "bfloat16" if torch.cuda.is_available() else "float32"


def _load(location: str) -> _Loaded:
    """Load a model, one at a time: transformers cannot load two in two threads."""
    with _LOADING:
        return _loaded(location)


def _loaded(location: str) -> _Loaded:
    """Load processor and weights; a vision-language class first, a text model otherwise."""
    declare_missing_operators()
    import torch  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
    )
    from transformers.models.auto.modeling_auto import (  # noqa: PLC0415
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()

    repo, revision = split_revision(location)
    kwargs = {"revision": revision} if revision else {}
    with refused(f"{location} does not load"):
        config = AutoConfig.from_pretrained(repo, **kwargs)
        takes_images = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        reader = AutoProcessor if takes_images else AutoTokenizer
        kind = AutoModelForImageTextToText if takes_images else AutoModelForCausalLM
        processor = reader.from_pretrained(repo, **kwargs)
        model = kind.from_pretrained(repo, dtype=getattr(torch, _dtype()), **kwargs)
    tokenizer = getattr(processor, "tokenizer", processor)
    if not getattr(processor, "chat_template", None) and not tokenizer.chat_template:
        raise ConfigError(f"{location} has no chat template", hint="use an instruction-tuned model")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    text = getattr(model.config, "text_config", model.config)
    context = getattr(text, "max_position_embeddings", None) or _DEFAULT_CONTEXT
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.generation_config.max_length = None  # with `max_new_tokens`, a warning at every call
    model.eval()
    model.to(torch.device(device))  # type: ignore[arg-type]  # transformers wraps `to` untyped
    configured = model.generation_config.eos_token_id
    ends = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id}
    return _Loaded(
        model=model,
        processor=processor,
        takes_images=takes_images,
        context=context,
        ends=frozenset(ends - {None}),
        threads=0 if device == "cuda" else threads_for(model.num_parameters()),
    )


def _messages(prompt: Prompt, *, takes_images: bool) -> list[dict[str, Any]]:
    """Return the dialogue in the form of chat templates, images decoded to RGB."""

    def turn(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}] if takes_images else text}

    messages: list[dict[str, Any]] = []
    for said, replied in prompt.before:
        messages += [turn("user", said), turn("assistant", replied)]
    if not takes_images or not prompt.images:
        return [*messages, turn("user", prompt.text)]
    content: list[dict[str, Any]] = []
    for index, text in enumerate(prompt.text.split(IMAGE_MARK, len(prompt.images))):
        if index:
            content.append({"type": "image", "image": as_rgb(prompt.images[index - 1])})
        if text.strip():
            content.append({"type": "text", "text": text.strip("\n")})
    return [*messages, {"role": "user", "content": content}]


def _generate(
    loaded: _Loaded, prompts: list[Prompt], sampling: Sampling, *, ended: Callable[[], bool]
) -> list[Completion]:
    """Answer one batch; greedy at temperature 0, else seeded sampling."""
    import torch  # noqa: PLC0415

    tensors = {"return_tensors": "pt", "padding": True}
    batch = loaded.processor.apply_chat_template(
        [_messages(prompt, takes_images=loaded.takes_images) for prompt in prompts],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        **({"processor_kwargs": tensors} if loaded.takes_images else tensors),
        **prompts[0].extra.get("chat_template_kwargs", {}),
    ).to(loaded.model.device)
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    room = loaded.context - batch["input_ids"].shape[1]
    if room < 1:
        raise _too_long(max(lengths), loaded)
    how: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        torch.manual_seed(sampling.seed)
        how = {"do_sample": True, "temperature": sampling.temperature}
        how |= {"top_p": sampling.top_p, "top_k": 0}
    if any(schemas := [prompt.schema for prompt in prompts]):
        from medix_eval.models.held_to_schema import held  # noqa: PLC0415

        how |= held(schemas, [()] * len(prompts), loaded.tokenizer)
    with torch.inference_mode():
        tokens = loaded.model.generate(
            **batch,
            **how,
            max_new_tokens=min(sampling.max_tokens, room),
            stopping_criteria=[
                lambda ids, _: torch.full_like(ids[:, -1], ended(), dtype=torch.bool)
            ],
        )
    fresh = tokens[:, batch["input_ids"].shape[1] :]
    return [
        _completion(loaded, row.tolist(), num_read=int(length))
        for row, length in zip(fresh, lengths, strict=True)
    ]


def _likeliest(loaded: _Loaded, prompt: Prompt) -> Completion:
    """Measure each continuation of a text, split into tokens and summed as lm-eval's `hf` does."""
    import torch  # noqa: PLC0415

    tokenizer = loaded.tokenizer
    starts = tokenizer.bos_token and prompt.text.startswith(tokenizer.bos_token)
    special = {"add_special_tokens": False} if starts else {}
    # Spaces before the boundary belong to the continuation, whose first token may begin with them.
    length = len(tokenizer.encode(prompt.text.rstrip(), **special))
    texts = [prompt.text + one for one in prompt.continuations]
    rows = [torch.tensor(tokenizer.encode(text, **special)) for text in texts]
    if not 0 < length < min(map(len, rows)):
        raise RequestRefused("the prompt, or an option, has no token of its own")
    if (longest := max(map(len, rows)) - 1) > loaded.context:
        raise _too_long(longest, loaded)
    batch = torch.nn.utils.rnn.pad_sequence([row[:-1] for row in rows], batch_first=True)
    batch, num = batch.to(loaded.model.device), longest - length + 1
    with torch.inference_mode():
        logits = loaded.model(input_ids=batch, logits_to_keep=num).logits[:, -num:]
    found = []
    for row, of_row in zip(rows, logits, strict=True):
        target = row[length:].to(of_row.device)
        likely = of_row[: len(target)].float().log_softmax(dim=-1)
        found.append(float(likely.gather(1, target[:, None]).sum()))
    letter = chr(ord("A") + found.index(max(found)))
    return Completion(text=letter, log_likelihoods=tuple(found), prompt_tokens=length)


def _row(loaded: _Loaded, job: _Job) -> BatchRow:
    """Read one prompt of text into tokens."""
    from medix_eval.models.continuous_batch import BatchRow  # noqa: PLC0415

    prompt, sampling, _ = job
    tokens = loaded.processor.apply_chat_template(
        _messages(prompt, takes_images=False),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
        **prompt.extra.get("chat_template_kwargs", {}),
    )
    room = loaded.context - len(tokens)
    if room < 1:
        raise _too_long(len(tokens), loaded)
    room = min(room, sampling.max_tokens)
    return BatchRow(job=job, prompt=tokens, room=room, schema=prompt.schema)


def _too_long(length: int, loaded: _Loaded) -> RequestRejected:
    said = f"the prompt has {length} tokens, the model takes {loaded.context}"
    return RequestRejected(said, kind="too_long")


def _completion(loaded: _Loaded, tokens: list[int], *, num_read: int) -> Completion:
    """Return what was generated, up to its end token, as text."""
    stop = next((at for at, token in enumerate(tokens) if token in loaded.ends), None)
    kept = tokens if stop is None else tokens[:stop]
    return Completion(
        text=loaded.tokenizer.decode(kept, skip_special_tokens=True),
        finish_reason="length" if stop is None else "stop",
        prompt_tokens=num_read,
        completion_tokens=len(kept) + (stop is not None),
    )
