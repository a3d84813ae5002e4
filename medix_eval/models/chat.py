"""What every model adapter is: one method that turns a prompt into a completion.

An adapter translates, and nothing else. It does not retry, cache, score, log or print: those are
the pipeline's, once, for all adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from medix_eval.records import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a model picks its tokens; all of it is in the digest."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is sent: one user turn, its images at their `<image>` marks."""

    text: str
    before: tuple[tuple[str, str], ...] = ()
    """Earlier turns of the dialogue: what was said and what the model replied."""
    images: tuple[bytes, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request; a chat template in this process sees its own."""
    schema: Mapping[str, Any] | None = None
    """JSON schema that the reply must follow, where the server can enforce one."""
    sample: Sample | None = None
    """The sample asked about, for adapters that look answers up."""
    continuations: tuple[str, ...] = ()
    """Texts whose likelihood is asked for in place of an answer: then the prompt is plain text."""


@dataclass(slots=True, kw_only=True)
class Completion:
    """What a model returned; `text` is None where the server sent no content at all."""

    text: str | None
    log_likelihoods: tuple[float, ...] = ()
    """Of each continuation; `text` is then the likeliest one's letter."""
    finish_reason: str | None = None
    """In the server's own word; once it is accepted, as `requests.ending_of` calls it."""
    thought_only: bool = False
    """Whether a server split reasoning off, and nothing was left."""
    served_model: str | None = None
    """The id in the reply, where it is not the one asked for."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    requests: int = 1
    """How many requests it took, tries included."""
    seconds: float = 0.0
    """Time in requests, all tries together; without the wait for a free slot."""


class ChatModel(Protocol):
    """A model that is open and answers prompts."""

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Return one completion, or raise `ModelError` (this prompt) or `ServerError` (all)."""
        ...


class ModelSource(Protocol):
    """A model by name, not yet open: cheap to make, so that `--dry-run` loads nothing."""

    @property
    def name(self) -> str:
        """The name that appears in tables and folders."""
        ...

    @property
    def hosts(self) -> tuple[str, ...]:
        """Hosts that will be sent samples; empty for a model in this process."""
        ...

    @property
    def devices(self) -> frozenset[str]:
        """The devices it uses on this machine, such as GPU `0` or `cpu`; none for a remote model.

        Two models with a device in common take turns.
        """
        ...

    @property
    def takes_images(self) -> bool | None:
        """Whether it accepts images; None if only a request would tell."""
        ...

    @property
    def concurrency(self) -> int:
        """How many prompts to keep in flight, at most."""
        ...

    @property
    def adapts(self) -> bool:
        """Whether the number in flight is tuned, up to `concurrency`."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that tells this model from another; it goes into the digest.

        Raises `ConfigError` or `ServerError` where the model cannot be found.
        """
        ...

    def open(self, logs: Path) -> AbstractAsyncContextManager[ChatModel]:
        """Load or connect, and check that the model really answers under its name.

        A model that is a separate process writes its output into the folder `logs`.
        """
        ...
