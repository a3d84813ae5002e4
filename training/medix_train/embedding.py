"""How near two answers lie: one batched call for all texts of a batch that were not seen before."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medix_eval.errors import ConfigError
from medix_eval.judging.protocol import EmbeddingSpec

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer

Pair = tuple[str, str]
"""An answer and its reference."""
_KEPT_TEXTS = 20_000
"""Vectors in memory, the oldest make room: references come back, and so do short answers."""


@dataclass(slots=True, kw_only=True)
class Embedder:
    """The embedding model of a protocol; it is loaded when it is first needed."""

    spec: EmbeddingSpec
    batch_size: int = 64
    model: SentenceTransformer | None = None
    _vectors: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def similarities(self, pairs: Collection[Pair]) -> dict[Pair, float]:
        """Return the cosine of every pair."""
        if not pairs:
            return {}
        self._embed({text for pair in pairs for text in pair})
        found = {
            (answer, reference): float(self._vectors[answer] @ self._vectors[reference])
            for answer, reference in pairs
        }
        for text in list(self._vectors)[: max(0, len(self._vectors) - _KEPT_TEXTS)]:
            del self._vectors[text]
        return found

    def _embed(self, texts: set[str]) -> None:
        for text in texts & self._vectors.keys():
            self._vectors[text] = self._vectors.pop(text)  # used again: among the youngest
        unknown = sorted(texts - self._vectors.keys())  # `encode` sorts by length; ties by text
        if not unknown:
            return
        if self.model is None:
            self.model = _load(self.spec)
        vectors = self.model.encode(
            unknown,
            batch_size=self.batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        self._vectors |= zip(unknown, vectors, strict=True)


def _load(spec: EmbeddingSpec) -> SentenceTransformer:
    from medix_eval.models.torchvision_cpu import declare_missing_operators  # noqa: PLC0415

    declare_missing_operators()
    import torch  # noqa: PLC0415
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    # Named in full: the current GPU is a thread's own, and this may be another thread.
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        return SentenceTransformer(spec.model, revision=spec.revision, device=device)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(
            f"the embedding model {spec.model!r} cannot be loaded: {first}",
            hint="embedding.model of the reward protocol takes ORG/NAME or a local folder",
        ) from error
