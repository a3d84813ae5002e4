"""A model that cannot see, asked all the same: the question goes out without its images."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medix_eval.models.chat import ChatModel, Completion, ModelSource, Prompt, Sampling
from medix_eval.records import IMAGE_MARK

IMAGES_LEFT_OUT = {"images": "left out"}
"""What marks such a model's identity, and so the digest of all that it answers."""


@dataclass(frozen=True, slots=True)
class TextOnly:
    """Any model, sent only the text."""

    source: ModelSource

    @property
    def name(self) -> str:
        """The model's own name."""
        return self.source.name

    @property
    def hosts(self) -> tuple[str, ...]:
        """The model's own."""
        return self.source.hosts

    @property
    def devices(self) -> frozenset[str]:
        """The model's own."""
        return self.source.devices

    @property
    def takes_images(self) -> bool:
        """It takes them, and puts them away."""
        return True

    @property
    def concurrency(self) -> int:
        """The model's own."""
        return self.source.concurrency

    @property
    def adapts(self) -> bool:
        """The model's own."""
        return self.source.adapts

    def identity(self) -> dict[str, Any]:
        """Return the model's own identity, marked."""
        return {**self.source.identity(), **IMAGES_LEFT_OUT}

    @asynccontextmanager
    async def open(self, logs: Path) -> AsyncIterator[ChatModel]:
        """Open the model."""
        async with self.source.open(logs) as model:
            yield _Blind(model)


@dataclass(frozen=True, slots=True)
class _Blind:
    model: ChatModel

    async def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        text = prompt.text.replace(IMAGE_MARK, "").strip("\n")
        return await self.model.complete(replace(prompt, text=text, images=()), sampling)
