"""Judge answers without a language model: only what is certain, and never a guess.

`decide` asks the rules of a kind of task one after the other; the first that is certain decides.
What none is certain of stays unjudged, which costs a judge's call but never the truth of a score.

A new rule is one function `(answer, expected) -> RuleVerdict | None` in the module of its sort
(`choices`, `plain`, `reports`) and its name in `_RULES`. A new wording in which answers are given
is one pattern in `frames`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medix_eval.records import Kind, RuleVerdict
from medix_eval.rules.choices import exclusive_word, option, yes_no
from medix_eval.rules.expected import Expected, Rule
from medix_eval.rules.plain import exact, number
from medix_eval.rules.reports import facts as listed_facts
from medix_eval.rules.text import INVISIBLE, normalise, read, words

__all__ = ["decide", "normalise"]

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
