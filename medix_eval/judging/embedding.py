"""A protocol's embedding: how near an answer lies to its reference."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from medix_eval.errors import ConfigError
from medix_eval.judging.protocol import EmbeddingSpec
from medix_eval.models.torch_cpu import declare_missing_operators

Pair = tuple[str, str]
"""An answer and its reference."""
_KEPT_TEXTS = 20_000
"""Vectors in memory, the oldest are dropped: references and short answers recur."""


class Embedder:
    """The embedding model of a protocol; it is loaded when it is first needed."""

    def __init__(self, spec: EmbeddingSpec, *, model: Any = None) -> None:
        """`model` is a `SentenceTransformer` that is loaded already."""
        self.spec, self.model = spec, model
        self._vectors: dict[str, Any] = {}

    def similarities(self, pairs: Collection[Pair]) -> dict[Pair, float]:
        """Return the cosine of every pair; all texts that were not seen before are one batch.

        Raises `ConfigError` for a model that cannot be loaded.
        """
        texts, vectors = {text for pair in pairs for text in pair}, self._vectors
        for text in texts & vectors.keys():
            vectors[text] = vectors.pop(text)  # used again: among the youngest
        if unknown := sorted(texts - vectors.keys()):  # `encode` sorts by length; ties by text
            self.model = _load(self.spec) if self.model is None else self.model
            how = {"batch_size": 64, "normalize_embeddings": True, "show_progress_bar": False}
            vectors |= zip(unknown, self.model.encode(unknown, **how), strict=True)
        found = {pair: float(vectors[pair[0]] @ vectors[pair[1]]) for pair in pairs}
        for text in list(vectors)[: max(0, len(vectors) - _KEPT_TEXTS)]:
            del vectors[text]
        return found


def _load(spec: EmbeddingSpec) -> Any:
    declare_missing_operators()
    import torch  # noqa: PLC0415 (seconds, and an extra)
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    # Named in full: the current GPU is a thread's own, and this may be another thread.
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        return SentenceTransformer(spec.model, revision=spec.revision, device=device)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the embedding model {spec.model!r} cannot be loaded: {str(error).splitlines()[0]}",
            hint="embedding.model of the reward protocol takes ORG/NAME or a local folder",
        ) from error
