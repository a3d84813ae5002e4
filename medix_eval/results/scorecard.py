"""A judge's scorecard, as `judge-check` writes it and a leaderboard reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from medix_eval.records import Frozen
from medix_eval.results.statistics import Difference


class Rate(Frozen):
    """A share of a count, with its 95 % Wilson interval; no value where nothing was counted."""

    k: int
    n: int
    value: float | None
    low: float | None
    high: float | None


class Kappa(Frozen):
    """Cohen's kappa of verdict and label, with its 95 % interval.

    No value where all are the same, and no interval where either is.
    """

    value: float | None
    low: float | None
    high: float | None


class Confusion(Frozen):
    """Verdicts against labels over some answers."""

    n: int
    n_decided: int
    n_abstained: int
    """Left open on purpose, as rules do; in no rate below."""
    n_failed: int
    """No usable verdict; in no rate below."""
    accuracy: Rate
    balanced_accuracy: float | None
    macro_f1: float | None
    kappa: Kappa
    false_accept: Rate
    """Of the wrong answers that were decided, how many were accepted."""
    false_reject: Rate
    """Of the right answers that were decided, how many were not."""


class ShareDifference(Frozen):
    """How much more often one sort of answer is accepted than another; 95 % Newcombe interval."""

    first: Rate
    second: Rate
    value: float | None
    """First minus second."""
    low: float | None
    high: float | None


class LengthBias(Frozen):
    """Long answers against short ones to the same questions; 0 is no bias."""

    right_answers: ShareDifference
    wrong_answers: ShareDifference


class PositionBias(Frozen):
    """How position affects a verdict."""

    reference_first: ShareDifference | None = None
    """Of a scorecard of 0.2 and before; now among `judge_effects`."""
    accuracy_by_letter: Mapping[str, Rate]
    """Of questions with options, by the letter of the right one."""


class Usage(Frozen):
    """The cost of asking."""

    calls: int
    cached: int
    """Votes from the verdict cache."""
    judge_seconds: float
    """Time of all votes together, as if one after the other."""
    seconds: float
    """Wall-clock time."""
    completion_tokens: int = 0
    """That the judge wrote, as far as its server counts them."""
    thinking_tokens: int = 0


class Scorecard(Frozen):
    """`scorecard.json`: one judge under one protocol on one set of labelled answers."""

    schema_version: Literal[1] = 1
    judge: Mapping[str, Any]
    """Its name and the digest of its identity."""
    protocol: Mapping[str, str]
    labels: Mapping[str, Any]
    """Where the labels come from: the probe set and its seed, or a file."""
    digest: str
    """Of judge, protocol and labels; its folder is named after it."""
    overall: Confusion
    classes: Mapping[str, Confusion]
    splits: Mapping[str, Confusion]
    length_bias: LengthBias | None
    position_bias: PositionBias
    judge_effects: Mapping[str, Difference] = {}
    """What a vote gains by showing the reference first, and by each wording: paired."""
    consistency: Rate
    """How often the first two valid votes on an answer were equal."""
    parse_failures: Rate
    """Of the votes that were asked for, how many gave no readable reply in any try."""
    usage: Usage

    @property
    def is_unusable(self) -> bool:
        """Whether nothing was decided, or nine of ten votes could not be read."""
        lost = self.parse_failures
        return lost.k > 0 and (not self.overall.n_decided or lost.k >= 9 * (lost.n - lost.k))
