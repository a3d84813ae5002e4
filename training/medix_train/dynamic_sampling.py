"""Dynamic sampling (DAPO): prompts whose group teaches nothing are replaced by others.

A process holds whole groups, so each decides alone which of its own to replace. What they do
together, they do equally often and with equally many rows, because generating and gathering wait
for every process: as long as one has a group to replace, all draw as many as it lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medix_train.recipe import DynamicSampling

_PUBLISHED_MEAN = (0.01, 0.99)
_PER_ROW = (0, 1, 2, 3, 4, 6)
"""Of what TRL's `_generate` returns: prompt ids, completion ids, tool mask, completions, logprobs
and images have an entry for each row; the others are empty without tools."""


@dataclass(slots=True, kw_only=True)
class Rollout:
    """Rows with their completions and rewards, the rows of a group side by side."""

    rows: list[dict[str, Any]]
    generated: list[Any]
    """What TRL's `_generate` returned."""
    rewards: torch.Tensor
    """One row each, one column a reward function; NaN where it has no reward."""
    logged: dict[str, list[Any]]
    """What the reward logged of each row."""
    group: int
    """Completions of one prompt."""

    def informative(self, rule: DynamicSampling) -> list[bool]:
        """Say of each group whether it can teach anything, by the rule."""
        rewards, judged = self.rewards.sum(dim=1).tolist(), self.logged["judge"]
        return [
            is_informative(
                rule,
                accuracies=judged[start : start + self.group],
                rewards=rewards[start : start + self.group],
            )
            for start in range(0, len(self.rows), self.group)
        ]

    def replace(self, slot: int, *, by: Rollout, source: int) -> None:
        """Put a group of another rollout in the place of one of this."""
        here, there = (slice(at * self.group, (at + 1) * self.group) for at in (slot, source))
        self.rows[here] = by.rows[there]
        self.rewards[here] = by.rewards[there]
        for at in _PER_ROW:
            if self.generated[at] is not None:
                self.generated[at][here] = by.generated[at][there]
        for name, values in self.logged.items():
            values[here] = by.logged[name][there]


def is_informative(
    rule: DynamicSampling, *, accuracies: Sequence[float | None], rewards: Sequence[float]
) -> bool:
    """Say whether a group can teach anything.

    >>> all_wrong, in_form = [0.0, 0.0], [0.145, 0.145]
    >>> is_informative(DynamicSampling(), accuracies=all_wrong, rewards=in_form)
    False
    >>> is_informative(
    ...     DynamicSampling(keep="published_mean"), accuracies=all_wrong, rewards=in_form
    ... )
    True
    """
    if rule.keep == "published_mean":
        known = [reward for reward in rewards if reward == reward]  # noqa: PLR0124 (not NaN)
        low, high = _PUBLISHED_MEAN
        return bool(known) and low < sum(known) / len(known) < high
    judged = {accuracy for accuracy in accuracies if accuracy is not None}
    return len(judged) > 1
