"""Judge answers without a language model: only what is certain, and never a guess.

`decide` asks the rules of a kind of task one after the other; the first that is certain decides.
What none is certain of stays unjudged, which costs a judge's call but never the truth of a score.

A new rule is one function `(answer, expected) -> RuleVerdict | None` in the module of its sort
(`choices`, `reports`, or here) and its name in `_RULES`. A new wording in which answers are given
is one pattern in `claims`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from medix_eval.records import Kind, RuleVerdict
from medix_eval.rules.choices import Expected, Rule, exclusive_word, option, yes_no
from medix_eval.rules.claims import unframed
from medix_eval.rules.quantities import UNITS, Item, Quantity, items_of
from medix_eval.rules.reports import facts as listed_facts
from medix_eval.rules.text import INVISIBLE, Text, listed, read, words, words_of

# Open answers: the same words, or the same quantities. That a reference is contained in an answer
# decides nothing: "no pneumothorax" contains it too.

_CHOICES = {("yes",), ("no",)}
_COUNTING = (("there", "is"), ("there", "are"), ("i", "see"), ("i", "count"))
_NO_NOUNS = (
    frozenset(listed("or and to of more less fewer plus point out per fold times x percent"))
    | frozenset(listed("half halves quarter quarters pair pairs dozen hundred thousand million"))
    | frozenset(listed("billion log st nd rd th not"))
    | frozenset(UNITS)
)
"""Words that change the number before them."""
_LONGEST_COUNT = 3
"""A number, a word such as `small`, and what is counted."""
_ZERO = Quantity(value=Fraction(0), step=Fraction(1))


def exact(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Accept an answer that is the reference but for spelling, also as "It is ..."."""
    reference = expected.words
    if expected.options or reference in _CHOICES:
        return None  # the rules for choices also know wrong answers, so they have the last word
    if reference and (words_of(answer) == reference or words_of(unframed(answer)) == reference):
        return RuleVerdict(score=1.0, rule="exact")
    return None


def number(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Compare quantities in any unit; all other words must be the same."""
    reference = items_of(expected.text)
    if not any(isinstance(item, Quantity) for item in reference):
        return None
    given = items_of(unframed(answer))
    is_equal = _is_count(reference, given)
    if is_equal is None:
        is_equal = _are_equal(reference, given)
    return None if is_equal is None else RuleVerdict(score=float(is_equal), rule="number")


def _are_equal(reference: Sequence[Item], given: Sequence[Item]) -> bool | None:
    if len(reference) != len(given):
        return None
    compared: list[bool | None] = []
    for left, right in zip(reference, given, strict=True):
        if isinstance(left, Quantity) and isinstance(right, Quantity):
            compared.append(left.equals(right))
        elif left != right:
            return None
    if all(compared):
        return True
    # One number of several may stand in another order.
    return False if compared == [False] else None


def _is_count(reference: Sequence[Item], given: Sequence[Item]) -> bool | None:
    """Compare "two small lesions", "no lesions" or "none" with a bare number."""
    if len(reference) != 1 or not isinstance(reference[0], Quantity) or reference[0].dimension:
        return None
    given = given[2:] if tuple(given[:2]) in _COUNTING else given
    if not given or len(given) > _LONGEST_COUNT or not _NO_NOUNS.isdisjoint(given[1:]):
        return None
    is_zero = given[0] == "none" or (given[0] == "no" and len(given) > 1)
    count = _ZERO if is_zero else given[0]
    if not isinstance(count, Quantity) or any(isinstance(item, Quantity) for item in given[1:]):
        return None
    return reference[0].equals(count)


_RULES: dict[Kind, tuple[Rule, ...]] = {
    Kind.MULTIPLE_CHOICE: (option,),
    Kind.CLOSED: (yes_no, option, exact, number, exclusive_word),
    Kind.OPEN: (yes_no, option, exact, number, exclusive_word),
    Kind.REPORT: (exact, listed_facts),
}
_LONGEST_ANSWER = 10_000
"""Characters; in a longer answer than any reference there is always more than can be understood."""


def decide(
    answer: str,
    *,
    kind: Kind,
    reference: str,
    options: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
) -> RuleVerdict | None:
    """Judge an answer by rules; None if none of them is certain.

    `options` are the texts of the options in the order of their letters, and `reference` is then
    one of these texts. `facts` are what a report must state, by name.

    >>> drugs = ["aspirin", "warfarin"]
    >>> decide("(B)", kind=Kind.MULTIPLE_CHOICE, reference="warfarin", options=drugs)
    RuleVerdict(score=1.0, rule='option_letter')
    >>> decide("It is not a fracture.", kind=Kind.OPEN, reference="fracture") is None
    True
    """
    expected = Expected(reference=reference, options=tuple(options), facts=facts or {})
    if len(answer) > _LONGEST_ANSWER or _hides_characters(answer, expected):
        return None
    if not words(answer):
        return None
    text = read(answer)
    verdicts = (rule(text, expected) for rule in _RULES[kind])
    return next((verdict for verdict in verdicts if verdict is not None), None)


def _hides_characters(answer: str, expected: Expected) -> bool:
    """Tell whether an answer carries characters that no reader sees and its task does not use."""
    if answer.isascii() and answer.isprintable():
        return False
    hidden = set(INVISIBLE.findall(answer))
    return not hidden <= set("".join((expected.reference, *expected.options)))
