"""What moves a judge besides the answer: length, letter, order in the prompt, chance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from string import ascii_uppercase

from medix_eval.judge_check.confusion import Judged, Part, Rate, rate
from medix_eval.judging.prompts import compiled
from medix_eval.records import Kind

_SHORT_RIGHT, _LONG_RIGHT = frozenset({"exact", "letter"}), frozenset({"verbose_right"})
_SHORT_WRONG, _LONG_WRONG = frozenset({"wrong_option"}), frozenset({"verbose_wrong"})
_REFERENCE, _ANSWER = "<reference>", "<answer>"


class Difference(Part):
    """How much more often one sort of answer is accepted than another; 95 % Newcombe interval."""

    first: Rate
    second: Rate
    value: float | None
    """First minus second."""
    low: float | None
    high: float | None


class LengthBias(Part):
    """Long answers against short ones to the same questions; 0 is no bias."""

    right_answers: Difference
    wrong_answers: Difference


class PositionBias(Part):
    """What place does to a verdict."""

    reference_first: Difference | None
    """Votes whose prompt shows the reference first, against votes that see the answer first."""
    accuracy_by_letter: Mapping[str, Rate]
    """Of questions with options, by the letter of the right one."""


def length_bias(judged: Sequence[Judged]) -> LengthBias | None:
    """Compare long with short answers; None where the labels know no such classes."""
    if not any(one.item.label_class in _LONG_RIGHT | _LONG_WRONG for one in judged):
        return None
    return LengthBias(
        right_answers=_accepted(judged, _LONG_RIGHT, _SHORT_RIGHT),
        wrong_answers=_accepted(judged, _LONG_WRONG, _SHORT_WRONG),
    )


def position_bias(judged: Sequence[Judged], prompts: Mapping[str, str]) -> PositionBias:
    """See what the order in the prompt, and the letter of the right option, do.

    `prompts` are the texts of the judge's prompts by the name of their file.
    """
    letters: dict[str, list[bool]] = {}
    for one in judged:
        record = one.item.record
        is_decided_choice = record.kind is Kind.MULTIPLE_CHOICE and one.is_accepted is not None
        if is_decided_choice and record.reference in record.options:
            letter = ascii_uppercase[record.options.index(record.reference)]
            letters.setdefault(letter, []).append(one.is_accepted == one.item.is_correct)
    return PositionBias(
        reference_first=_by_order(judged, _orders(prompts)),
        accuracy_by_letter={
            letter: rate(sum(hits), len(hits)) for letter, hits in sorted(letters.items())
        },
    )


def consistency(judged: Sequence[Judged]) -> Rate:
    """Return how often the first two valid votes on an answer were equal."""
    points = [
        [vote.points for vote in one.verdict.votes if vote.points is not None][:2] for one in judged
    ]
    pairs = [pair for pair in points if len(pair) > 1]
    return rate(sum(first == second for first, second in pairs), len(pairs))


def _accepted(
    judged: Sequence[Judged], first: Collection[str], second: Collection[str]
) -> Difference:
    said = [(one.item, one.is_accepted) for one in judged if one.is_accepted is not None]
    counts = [
        [bool(accepted) for item, accepted in said if item.label_class in classes]
        for classes in (first, second)
    ]
    return difference(*(rate(sum(hits), len(hits)) for hits in counts))


def difference(first: Rate, second: Rate) -> Difference:
    """Return the difference of two shares, with its interval."""
    from statsmodels.stats.proportion import confint_proportions_2indep  # noqa: PLC0415 (a second)

    if first.value is None or second.value is None:
        return Difference(first=first, second=second, value=None, low=None, high=None)
    low, high = confint_proportions_2indep(
        first.k, first.n, second.k, second.n, method="newcomb", compare="diff"
    )
    value = first.value - second.value
    return Difference(first=first, second=second, value=value, low=float(low), high=float(high))


def _by_order(judged: Sequence[Judged], orders: Mapping[str, bool]) -> Difference | None:
    """Compare votes by what their prompt shows first, over answers with votes of both orders."""
    if len(set(orders.values())) < len((True, False)):
        return None
    said: dict[bool, list[bool]] = {True: [], False: []}
    for one in judged:
        votes = {
            orders[vote.prompt]: vote.points
            for vote in reversed(one.verdict.votes)  # the first vote of an order counts
            if vote.points is not None and vote.prompt in orders
        }
        if len(votes) == len(said):
            for is_reference_first, points in votes.items():
                said[is_reference_first].append(points > 0)
    return difference(*(rate(sum(said[order]), len(said[order])) for order in (True, False)))


def _orders(prompts: Mapping[str, str]) -> dict[str, bool]:
    """Tell of each prompt, by its short name, whether the reference stands before the answer."""
    orders = {}
    for name, template in compiled(prompts).items():
        shown = template.render(question="", reference=_REFERENCE, answer=_ANSWER, fence="")
        if _REFERENCE in shown and _ANSWER in shown:
            short = name.rsplit("/", 1)[-1].removesuffix(".jinja")
            orders[short] = shown.index(_REFERENCE) < shown.index(_ANSWER)
    return orders
