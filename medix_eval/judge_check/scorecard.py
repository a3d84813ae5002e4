"""A judge's scorecard: how far its verdicts may be believed, class by class.

It says what the judge does on labelled answers. It never corrects a score: how often a judge errs
depends on who wrote the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from medix_eval.errors import ReplyUnusable
from medix_eval.judge_check.biases import (
    LengthBias,
    PositionBias,
    consistency,
    length_bias,
    position_bias,
)
from medix_eval.judge_check.confusion import Confusion, Judged, Rate, confusion, rate
from medix_eval.storage.digests import digest


class Usage(BaseModel):
    """What it cost to ask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int
    cached: int
    """Votes that the verdict cache knew."""
    judge_seconds: float
    """Time of all votes together, as if one after the other."""
    seconds: float
    """Time on the clock."""


class Scorecard(BaseModel):
    """`scorecard.json`: one judge under one protocol on one set of labelled answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    consistency: Rate
    """How often the first two valid votes on an answer were equal."""
    parse_failures: Rate
    """Of the votes that were asked for, how many gave no readable reply in any try."""
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Who was measured, and how it was asked."""

    name: str
    identity_digest: str
    protocol: Mapping[str, str]
    """Name and digest."""
    judging: Mapping[str, Any]
    """Everything in the protocol that can move a verdict, the texts of the prompts among it."""


def make_scorecard(
    judged: Sequence[Judged], who: Measured, *, labels: Mapping[str, Any], seconds: float
) -> Scorecard:
    """Sum up what a judge said of labelled answers."""
    votes = [vote for one in judged for vote in one.verdict.votes]
    unread = [
        vote for vote in votes if vote.failure and vote.failure.error == ReplyUnusable.__name__
    ]
    return Scorecard(
        judge={"id": who.name, "digest": who.identity_digest},
        protocol=dict(who.protocol),
        labels=dict(labels),
        digest=digest([who.identity_digest, dict(who.judging), dict(labels)]),
        overall=confusion(judged),
        classes=_grouped(judged, [one.item.label_class for one in judged]),
        splits=_grouped(judged, [one.item.split for one in judged]),
        length_bias=length_bias(judged),
        position_bias=position_bias(judged, who.judging.get("prompts", {})),
        consistency=consistency(judged),
        parse_failures=rate(len(unread), len(votes)),
        usage=Usage(
            calls=sum(vote.calls for vote in votes),
            cached=sum(vote.cached for vote in votes),
            judge_seconds=round(sum(vote.seconds for vote in votes), 3),
            seconds=round(seconds, 3),
        ),
    )


def _grouped(judged: Sequence[Judged], names: Sequence[str]) -> dict[str, Confusion]:
    groups: dict[str, list[Judged]] = {}
    for one, name in zip(judged, names, strict=True):
        groups.setdefault(name, []).append(one)
    return {name: confusion(members) for name, members in groups.items()}
