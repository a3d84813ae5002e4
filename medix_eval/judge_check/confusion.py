"""How well verdicts agree with labels: counts first, then what statistics makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from medix_eval.judge_check.probes import LabelledAnswer
from medix_eval.records import Outcome, VerdictRecord

_ACCEPTED_ABOVE = 0.5


class Part(BaseModel):
    """A part of a scorecard."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(Part):
    """A share of a count, with its 95 % Wilson interval; no value where nothing was counted."""

    k: int
    n: int
    value: float | None
    low: float | None
    high: float | None


class Kappa(Part):
    """Cohen's kappa of verdict and label, with its 95 % interval.

    No value where all are the same, and no interval where either is.
    """

    value: float | None
    low: float | None
    high: float | None


class Confusion(Part):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A labelled answer with the verdict it was given."""

    item: LabelledAnswer
    verdict: VerdictRecord

    @property
    def is_accepted(self) -> bool | None:
        """Whether the judge took the answer for right; None where it did not say."""
        score = self.verdict.score
        return None if score is None else score > _ACCEPTED_ABOVE


def confusion(judged: Sequence[Judged]) -> Confusion:
    """Count how often verdict and label agree."""
    decided = [(one.is_accepted, one.item.is_correct) for one in judged]
    table = np.array(
        [[decided.count((said, true)) for said in (False, True)] for true in (False, True)]
    )
    (rejected_wrong, accepted_wrong), (rejected_right, accepted_right) = table.tolist()
    n_decided = int(table.sum())
    n_abstained = sum(one.verdict.outcome is Outcome.UNJUDGED for one in judged)
    false_accept = rate(accepted_wrong, accepted_wrong + rejected_wrong)
    false_reject = rate(rejected_right, accepted_right + rejected_right)
    both = false_accept.value is not None and false_reject.value is not None
    return Confusion(
        n=len(judged),
        n_decided=n_decided,
        n_abstained=n_abstained,
        n_failed=len(judged) - n_decided - n_abstained,
        accuracy=rate(rejected_wrong + accepted_right, n_decided),
        balanced_accuracy=(
            1 - ((false_accept.value or 0.0) + (false_reject.value or 0.0)) / 2 if both else None
        ),
        macro_f1=_macro_f1(table) if both else None,
        kappa=_kappa(table),
        false_accept=false_accept,
        false_reject=false_reject,
    )


def rate(k: int, n: int) -> Rate:
    """Return a share with its interval.

    >>> rate(0, 0).value is None
    True
    """
    from statsmodels.stats.proportion import proportion_confint  # noqa: PLC0415 (a second)

    if not n:
        return Rate(k=0, n=0, value=None, low=None, high=None)
    low, high = proportion_confint(k, n, method="wilson")
    return Rate(k=k, n=n, value=k / n, low=max(0.0, float(low)), high=min(1.0, float(high)))


def _macro_f1(table: np.ndarray) -> float:
    """Return the mean of the F1 of `right` and of `wrong`."""
    hits = np.diag(table)
    return float(np.mean(2 * hits / np.maximum(table.sum(0) + table.sum(1), 1)))


def _kappa(table: np.ndarray) -> Kappa:
    from statsmodels.stats.inter_rater import cohens_kappa  # noqa: PLC0415 (a second)

    if np.diag(table).max() == table.sum():  # all is alike, so chance would say the same
        return Kappa(value=None, low=None, high=None)
    if (table.sum(0) == 0).any() or (table.sum(1) == 0).any():
        return Kappa(value=0.0, low=None, high=None)
    found = cohens_kappa(table)
    return Kappa(value=float(found.kappa), low=float(found.kappa_low), high=float(found.kappa_upp))
