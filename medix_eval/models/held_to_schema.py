"""Rows of `generate` held to a JSON schema: a token that cannot follow in it has no chance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from medix_eval.errors import RequestRefused, how_to_install


def held(
    schemas: Sequence[Mapping[str, Any] | None], said: Sequence[Sequence[int]], tokenizer: Any
) -> dict[str, Any]:
    """Return settings of `generate` that hold rows to their schemas. Raises `RequestRefused`."""
    try:
        matchers = [
            _start(json.dumps(one), tokenizer).deep_copy() if one else None for one in schemas
        ]
    except (ImportError, ValueError) as error:
        refused = RequestRefused(f"no JSON schema: {error}", is_schema=True)
        refused.hint = how_to_install("hf")
        raise refused from error
    before = iter([said])

    def hold(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        new = next(before, None) or ids[:, -1:].tolist()
        for matcher, row, tokens in zip(matchers, scores, new, strict=True):
            if matcher is not None:
                if not matcher.is_stopped():
                    matcher.consume_tokens(list(tokens))
                bias = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8)
                row[: len(bias)][bias[: len(row)].to(row.device) == 0] = -torch.inf
                row[len(bias) :] = -torch.inf
        return scores

    return {"logits_processor": [hold], "num_beams": 1}


@lru_cache(maxsize=16)
def _start(schema: str, tokenizer: Any) -> Any:
    from llguidance import LLMatcher, hf  # noqa: PLC0415

    tight: Any = {"whitespace_flexible": False, "key_separator": ": "}
    grammar = LLMatcher.grammar_from_json_schema(schema, overrides=tight)
    return LLMatcher(hf.from_tokenizer(tokenizer), grammar)
