"""What a run cost: its tokens and judge calls times the prices of a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from medix_eval.errors import ConfigError, first_error
from medix_eval.records import Frozen
from medix_eval.results.scores import Cost, Scores
from medix_eval.storage.bundled import read_mapping

_MILLION = 1_000_000
_Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Prices(Frozen):
    """A file of prices."""

    currency: str
    prompt_tokens: _Price
    """For a million of the candidate's prompt tokens, and below of those it wrote."""
    completion_tokens: _Price
    judge_call: _Price = 0.0
    """For one call; those that the cache answered are free."""


def read_prices(path: Path) -> Prices:
    """Read a file of prices. Raises `ConfigError` naming what is wrong in it."""
    try:
        return Prices.model_validate(read_mapping(path, what="price list"))
    except ValidationError as error:
        hint = f"keys are {', '.join(Prices.model_fields)}; tokens are priced by the million"
        raise ConfigError(f"prices {path}: {first_error(error)}", hint=hint) from error


def cost_of(scores: Scores, prices: Prices) -> Cost:
    """Return what the candidate and the judge cost, and each full mark."""
    used, judged = scores.usage["candidate"], scores.usage["judge"]
    candidate = (
        used["prompt_tokens"] * prices.prompt_tokens
        + used["completion_tokens"] * prices.completion_tokens
    ) / _MILLION
    judge = judged["calls"] * prices.judge_call
    marks = math.fsum((task.score or 0.0) * task.n_scored for task in scores.tasks.values())
    return Cost(
        currency=prices.currency,
        candidate=candidate,
        judge=judge,
        per_correct=(candidate + judge) / marks if marks else None,
    )
