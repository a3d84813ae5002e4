"""What affects a judge besides the answer: length, letter, order in the prompt, chance."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np

from medix_eval.judge_check.probes import LabelledAnswer
from medix_eval.records import Kind, Outcome, VerdictRecord
from medix_eval.results.scorecard import (
    Confusion,
    Kappa,
    LengthBias,
    PositionBias,
    Rate,
    ShareDifference,
)

_SHORT_RIGHT, _LONG_RIGHT = frozenset({"exact", "letter"}), frozenset({"verbose_right"})
_SHORT_WRONG, _LONG_WRONG = frozenset({"wrong_option"}), frozenset({"verbose_wrong"})


def length_bias(judged: Sequence[JudgedAnswer]) -> LengthBias | None:
    """Compare long with short answers; None where the labels know no such classes."""
    if not any(one.item.label_class in _LONG_RIGHT | _LONG_WRONG for one in judged):
        return None
    return LengthBias(
        right_answers=_accepted(judged, _LONG_RIGHT, _SHORT_RIGHT),
        wrong_answers=_accepted(judged, _LONG_WRONG, _SHORT_WRONG),
    )


def letter_bias(judged: Sequence[JudgedAnswer]) -> PositionBias:
    """See what the letter of the right option does."""
    letters: dict[str, list[bool]] = {}
    for one in judged:
        record = one.item.record
        is_decided_choice = record.kind is Kind.MULTIPLE_CHOICE and one.is_accepted is not None
        if is_decided_choice and record.reference in record.options:
            letter = ascii_uppercase[record.options.index(record.reference)]
            letters.setdefault(letter, []).append(one.is_accepted == one.item.is_correct)
    return PositionBias(
        accuracy_by_letter={
            letter: rate(sum(hits), len(hits)) for letter, hits in sorted(letters.items())
        },
    )


def consistency(judged: Sequence[JudgedAnswer]) -> Rate:
    """Return how often the first two valid votes on an answer were equal."""
    points = [
        [vote.points for vote in one.verdict.votes if vote.points is not None][:2] for one in judged
    ]
    pairs = [pair for pair in points if len(pair) > 1]
    return rate(sum(first == second for first, second in pairs), len(pairs))


def _accepted(
    judged: Sequence[JudgedAnswer], first: Collection[str], second: Collection[str]
) -> ShareDifference:
    said = [(one.item, one.is_accepted) for one in judged if one.is_accepted is not None]
    counts = [
        [bool(accepted) for item, accepted in said if item.label_class in classes]
        for classes in (first, second)
    ]
    return difference(*(rate(sum(hits), len(hits)) for hits in counts))


def difference(first: Rate, second: Rate) -> ShareDifference:
    """Return the difference of two shares, with its interval."""
    from statsmodels.stats.proportion import confint_proportions_2indep  # noqa: PLC0415 (a second)

    if first.value is None or second.value is None:
        return ShareDifference(first=first, second=second, value=None, low=None, high=None)
    low, high = confint_proportions_2indep(
        first.k, first.n, second.k, second.n, method="newcomb", compare="diff"
    )
    gap = first.value - second.value
    return ShareDifference(first=first, second=second, value=gap, low=float(low), high=float(high))


_ACCEPTED_ABOVE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedAnswer:
    """A labelled answer with the verdict it was given."""

    item: LabelledAnswer
    verdict: VerdictRecord

    @property
    def is_accepted(self) -> bool | None:
        """Whether the judge took the answer for right; None where it did not say."""
        score = self.verdict.score
        return None if score is None else score > _ACCEPTED_ABOVE


def confusion(judged: Sequence[JudgedAnswer]) -> Confusion:
    """Count how often verdict and label agree."""
    decided = [(one.is_accepted, one.item.is_correct) for one in judged]
    both_ways = (False, True)
    table = np.array([[decided.count((said, true)) for said in both_ways] for true in both_ways])
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
    """Return the kappa; its ends are those of the agreement's interval, rescaled as it is."""
    if np.diag(table).max() == table.sum():  # all is alike, so chance would say the same
        return Kappa(value=None, low=None, high=None)
    if (table.sum(0) == 0).any() or (table.sum(1) == 0).any():
        return Kappa(value=0.0, low=None, high=None)
    agree = rate(int(np.trace(table)), int(table.sum()))
    chance = float(table.sum(0) @ table.sum(1)) / agree.n**2
    found = (agree.value, agree.low, agree.high)
    ends = [max(-1.0, ((x or 0.0) - chance) / (1 - chance)) for x in found]
    return Kappa(value=ends[0], low=ends[1], high=ends[2])
