"""Replies of a model in this process held to a JSON schema: no other token can be chosen.

Only a prompt with a schema costs anything: its row's scores are masked at every step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from medix_eval.errors import RequestRejected, how_to_install

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True, eq=False)
class Guide:
    """How far one answer has come in its schema."""

    matcher: Any
    num_read: int = 0

    def hold(self, scores: Tensor, *, last: int, num_said: int) -> None:
        """Leave only the tokens that may follow; `last` is that of so many said before."""
        import torch  # noqa: PLC0415

        if self.num_read < num_said and not self.matcher.is_stopped():
            self.matcher.consume_token(last)
            self.num_read = num_said
        allowed = torch.frombuffer(bytearray(self.matcher.compute_logit_bias()), dtype=torch.uint8)
        scores[len(allowed) :] = -torch.inf
        scores[: len(allowed)][~allowed[: len(scores)].to(scores.device).bool()] = -torch.inf


def guide_for(schema: Mapping[str, Any] | None, tokenizer: Any) -> Guide | None:
    """Return a guide along a schema. Raises `RequestRejected` where there can be none."""
    if schema is None:
        return None
    try:
        from llguidance import LLMatcher  # noqa: PLC0415

        grammar = LLMatcher.grammar_from_json_schema(
            json.dumps(schema), overrides={"whitespace_flexible": False, "key_separator": ": "}
        )
        return Guide(LLMatcher(_vocabulary(tokenizer), grammar))
    except (ImportError, ValueError) as error:
        raise RequestRejected(f"json_schema: {error}", hint=how_to_install("hf")) from error


@lru_cache(maxsize=4)
def _vocabulary(tokenizer: Any) -> Any:
    from llguidance.hf import from_tokenizer  # noqa: PLC0415

    return from_tokenizer(tokenizer)


def processors(guides: Sequence[Guide | None], said: Sequence[int], *, width: int) -> Any:
    """Return what holds rows of `generate` to their guides; they had said so much at `width`."""
    from transformers import LogitsProcessorList  # noqa: PLC0415

    def hold(ids: Tensor, scores: Tensor) -> Tensor:
        new = ids.shape[1] - width
        for guide, row, before, last in zip(guides, scores, said, ids[:, -1].tolist(), strict=True):
            if guide is not None:
                guide.hold(row, last=last, num_said=before + new)
        return scores

    return LogitsProcessorList([hold])
