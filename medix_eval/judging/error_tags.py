"""Name the clinical mistake that a wrong answer makes, where its words alone prove it.

A tag affects no score: it says how an answer that was judged wrong differs from its reference.
Answer and reference must be alike but for that difference, or one of them must be nothing but it;
what is said in other words, hedged or denied gets no tag.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from functools import cache

from medix_eval.judging.replies import FINDING_TAGS, RELATIONS
from medix_eval.records import Kind
from medix_eval.rules.claims import unframed
from medix_eval.rules.decide import Expected, chosen_option, yes_no
from medix_eval.rules.quantities import Quantity, items_of
from medix_eval.rules.text import (
    Text,
    Vocabulary,
    read,
    terms,
    terms_of,
    vocabularies,
    vocabulary,
    words_of,
)

TAGS = {*RELATIONS, *FINDING_TAGS, "negation", "laterality", "modality", "organ", "number"}
TAGS |= {"unit", "unknown"} | {f"factor_{10**power}" for power in (1, 2, 3, 6)}
"""All mistakes that rules or a judge name; `harm` of a protocol weighs them."""
_LONGEST_ANSWER = 1_000
"""Characters; in a longer text the difference is hardly ever the only one."""
_POWERS = {Fraction(10) ** power: f"factor_{10**power}" for power in (1, 2, 3, 6)}
Words = tuple[str, ...]


def error_tags(
    answer: str, *, kind: Kind, reference: str, options: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return what is wrong in a wrong answer; nothing where that is not certain.

    >>> error_tags("Left kidney", kind=Kind.OPEN, reference="right kidney")
    ('laterality',)
    >>> error_tags("50 mg", kind=Kind.OPEN, reference="5 mg")
    ('number', 'factor_10')
    """
    if kind is Kind.REPORT or len(answer) > _LONGEST_ANSWER:
        return ()
    expected = Expected(reference=reference, options=tuple(options), facts={})
    text = read(answer)
    verdict = yes_no(text, expected)
    if verdict is not None:
        return () if verdict.score else ("negation",)
    if options:
        chosen = chosen_option(text, expected)
        if chosen is None:
            return ()
        text = read(chosen)
    given = unframed(text)
    if not terms_of("undecided").isdisjoint(words_of(given)):
        return ()
    swapped = (tag for tag, these in _confusable().items() if _swaps(*these, expected.text, given))
    negated = ("negation",) if _is_negated(expected.text, given) else ()
    return (*negated, *swapped, *_of_numbers(expected.text, given))


def _is_negated(reference: Text, given: Text) -> bool:
    """Whether both name the same finding, and one says that it is not there."""
    cores, denials = [], []
    for text in (reference, given):
        words = words_of(text)
        denials.append(sum(word in terms_of("negating") for word in words))
        around = terms_of("negating") | terms_of("stating")
        cores.append([word for word in words if word not in around])
    return cores[0] == cores[1] != [] and sorted(denials) == [0, 1]


@cache
def _confusable() -> Mapping[str, tuple[Vocabulary, frozenset[str]]]:
    """Return what is mistaken for another of its kind, and the words that may stand around it."""
    placing, named = terms_of("placing"), vocabularies()
    around = terms_of("stating") | placing
    return {
        "laterality": (named["side"], placing),
        "modality": (named["modality"], around),
        "organ": (vocabulary(terms()["organs"]), around),
    }


def _swaps(values: Vocabulary, fillers: Collection[str], reference: Text, given: Text) -> bool:
    """Whether each names one value of a vocabulary, another one, and nothing else differs."""
    found = [_named(words_of(text), values, fillers) for text in (reference, given)]
    (first, first_rest), (second, second_rest) = found
    if len(first) != 1 or len(second) != 1 or first == second:
        return False
    is_denied = any(not terms_of("negating").isdisjoint(rest) for rest in (first_rest, second_rest))
    is_alike = first_rest == second_rest or not first_rest or not second_rest
    return is_alike and not is_denied


def _named(words: Words, values: Vocabulary, fillers: Collection[str]) -> tuple[set[str], Words]:
    """Return the values that are named, and the words that are left beside them."""
    named, rest, at = set(), [], 0
    while at < len(words):
        lengths = [len(phrase) for phrase in values if words[at : at + len(phrase)] == phrase]
        if lengths:
            named.add(values[words[at : at + max(lengths)]])
        elif words[at] not in fillers:
            rest.append(words[at])
        at += max(lengths, default=1)
    return named, tuple(rest)


def _of_numbers(reference: Text, given: Text) -> tuple[str, ...]:
    """Compare the one quantity of each; a factor that is a power of ten has a tag of its own."""
    wanted, said = _one_quantity(reference), _one_quantity(given)
    if wanted is None or said is None:
        return ()
    (first, first_rest), (second, second_rest) = wanted, said
    if first_rest != second_rest and first_rest and second_rest:
        return ()
    is_same_number = _written(reference) == _written(given)
    if first.dimension != second.dimension:
        return ("unit",) if is_same_number else ()
    if first.equals(second) is not False:
        return ()
    tag = "unit" if is_same_number else "number"
    if not first.value or not second.value:
        return (tag,)
    ratio = abs(second.value / first.value)
    factor = _POWERS.get(max(ratio, 1 / ratio))
    return (tag, factor) if factor else (tag,)


def _one_quantity(text: Text) -> tuple[Quantity, Words] | None:
    items = items_of(text)
    quantities = [item for item in items if isinstance(item, Quantity)]
    rest = tuple(one for one in items if isinstance(one, str) and one not in terms_of("placing"))
    return (quantities[0], rest) if len(quantities) == 1 else None


def _written(text: Text) -> list[str]:
    return [key for key in text.keys if key[-1:].isdigit()]
