"""Judge answers without a language model: only what is certain, and never a guess.

`decide` asks the rules of a kind of task one after the other; the first that is certain decides.
What none is certain of stays unjudged, which costs a judge call but never makes a score wrong.

A new rule is one function `(answer, expected) -> RuleVerdict | None` and its name in `_RULES`: of
answers that are one of a few, of open answers, of reports. A new wording in which answers are given
is one pattern in `claims`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from string import ascii_lowercase

from medix_eval.records import Kind, RuleVerdict
from medix_eval.rules.claims import Claim, find_claim, unframed
from medix_eval.rules.mentions import Choice, Choices
from medix_eval.rules.quantities import NUMBER_WORDS, UNITS, Item, Quantity, items_of
from medix_eval.rules.text import (
    INVISIBLE,
    SKIPPED,
    VOCABULARIES,
    Text,
    Vocabulary,
    listed,
    read,
    starts_with_article,
    words,
    words_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The reference, and what belongs to it."""

    reference: str
    options: tuple[str, ...] = ()
    """The texts of the options in the order of their letters."""
    facts: Mapping[str, str]
    """What a report must state, by name."""

    @property
    def text(self) -> Text:
        """The reference as tokens."""
        return read(self.reference)

    @property
    def words(self) -> tuple[str, ...]:
        """The reference as words."""
        return words(self.reference)


Rule = Callable[[Text, Expected], RuleVerdict | None]
"""Judges an answer, or returns None where it is not certain: then the next rule is asked."""
_YES_OR_NO = Choices((Choice(words=("yes",)), Choice(words=("no",))))
_YES_NO = {choice.words for choice in _YES_OR_NO.all}
_YES_NO_MAYBE = {("yes",), ("no",), ("maybe",)}
_PLACE = re.compile(r"(?:(?:on|in|to|at) )?(.*?)(?: (?:side|sided|image|scan))?")


def option(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Decide which of the options is given, by letter or text."""
    right = _right_options(expected) if expected.options else set()
    claim = _claimed_option(answer, expected) if right else None
    if claim is None:
        return None
    rule = "option_letter" if claim.is_by_letter else "option_text"
    return RuleVerdict(score=float(claim.choice in right), rule=rule)


def chosen_option(answer: Text, expected: Expected) -> str | None:
    """Return the text of the option that is given, right or wrong."""
    claim = _claimed_option(answer, expected)
    return None if claim is None else expected.options[claim.choice]


def _claimed_option(answer: Text, expected: Expected) -> Claim | None:
    choices = _choices(expected.options)
    interjects = {choice.words for choice in choices.all} <= _YES_NO_MAYBE
    return find_claim(answer, choices, interjects=interjects)


def yes_no(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Decide an explicit yes or no; "There is no lesion" is neither."""
    if expected.words not in _YES_NO:
        return None
    claim = find_claim(answer, _YES_OR_NO, interjects=True)
    if claim is None:
        return None
    is_right = _YES_OR_NO[claim.choice].words == expected.words
    return RuleVerdict(score=float(is_right), rule="yes_no")


def exclusive_word(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Decide between words that exclude each other: who answers "left" did not answer "right"."""
    for vocabulary in VOCABULARIES.values():
        reference = vocabulary.get(expected.words)
        if reference is None:
            continue
        named = " ".join(words_of(unframed(answer)))
        match = _PLACE.fullmatch(named)
        value = vocabulary.get(tuple(match[1].split())) if match else None
        if value is not None:
            return RuleVerdict(score=float(value == reference), rule="exclusive_word")
    return None


def _right_options(expected: Expected) -> set[int]:
    """Return which options are the reference; several only where they are equal as written."""
    same = {at for at, text in enumerate(expected.options) if text == expected.reference}
    if same:
        return same
    choices = _choices(expected.options)
    alike = {at for at, choice in enumerate(choices.all) if choice.words == expected.words}
    return alike if len(alike) == 1 else set()


@lru_cache(maxsize=256)
def _choices(options: tuple[str, ...]) -> Choices:
    return Choices(
        tuple(
            Choice(
                words=words(text),
                letter=letter if text.strip() else "",  # an option that is not shown
                has_article=starts_with_article(read(text)),
            )
            for letter, text in zip(ascii_lowercase, options, strict=False)
        )
    )


# Open answers: the same words, or the same quantities. That a reference is contained in an answer
# decides nothing: "no pneumothorax" contains it too.

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
    if expected.options or reference in _YES_NO:
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


_NOTHING = frozenset({"", "0", "none", "no"})
_OF_A_FINDING = frozenset({"count", "side", "size"})
"""Facts about what is found; they say nothing about an image without findings."""
_RETRACTED = re.compile(
    r"\b(?:wrong|false|incorrect|untrue|opposite|actually|rather|anything|sorry|wait|correction"
    r"|ignore|disregard|disagree|reference)\b"
)
_HEDGES = frozenset(listed("maybe perhaps possibly may might could if ? ~"))
_DENIALS = frozenset(
    listed("not never neither nor cannot isnt arent doesnt dont absent excluded denies unlikely")
)
_NEGATIVE = _DENIALS | {"no", "without", "zero", "0"}
_FINDING = frozenset(listed("lesion nodule mass finding abnormality"))
_FINDINGS = _FINDING | frozenset(listed("lesions nodules masses findings abnormalities"))
_SEEN = frozenset(listed("any visible evident apparent detectable focal bright such"))
"""What may stand in "no visible lesion" without limiting it, as "no large lesion" does."""
_COUNTS = {str(value): str(value) for value in range(1, 100)} | {
    word: str(value) for word, value in NUMBER_WORDS.items() if value
}
_ONE = frozenset({"a", "an", "single"})
_NEAR = 3
"""How many words may stand between a number and what it counts."""
_NO_ADJECTIVES = frozenset(listed("or and of with in on image scan shows show showing"))
_INEXACT = frozenset(listed("least most than about approximately or to range / x < > - +"))


def listed_facts(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Return the share of the listed facts that a report states.

    A fact is stated if the report says its value and nothing that contradicts it. Where nothing is
    to be seen, the facts about it ("0", "", "none") are one fact: the report must say so.
    """
    if not expected.facts:
        return None
    if _RETRACTED.search(" ".join(answer.keys)):
        return None
    report = _Report(list(_sentences(answer)))
    present = {name: value for name, value in expected.facts.items() if not _is_nothing(value)}
    stated = [report.states(name, value) for name, value in present.items()]
    if len(present) < len(expected.facts):
        stated.append(report.is_clear)
    return RuleVerdict(score=sum(stated) / len(stated), rule="facts")


def _is_nothing(value: str) -> bool:
    return value.strip().casefold() in _NOTHING


def _sentences(text: Text) -> Iterator[Sequence[str]]:
    sentence: list[str] = []
    for at, key in enumerate(text.keys):
        if key not in SKIPPED:
            sentence.append(key)
        if text.ends_sentence(at) or key == ";":
            yield sentence
            sentence = []
    yield sentence


@dataclass(frozen=True)
class _Report:
    sentences: Sequence[Sequence[str]]

    def states(self, name: str, value: str) -> bool:
        """Tell whether the value is stated, and nothing that contradicts it."""
        if name in _OF_A_FINDING and self._says_nothing_is_found:
            return False
        said: set[str] = set()
        denied: set[str] = set()
        vocabulary = VOCABULARIES.get(name, {})
        phrase = words(value)
        vocabulary = vocabulary if phrase in vocabulary else {phrase: value}
        for sentence in self.sentences:
            is_hedged = not _HEDGES.isdisjoint(sentence)
            denial = _first_denial(sentence, of_a_finding=name in _OF_A_FINDING)
            found = _counts(sentence) if name == "count" else _values(sentence, vocabulary)
            for at, meant in found:
                if is_hedged or at <= denial:
                    said.add(meant)
                if is_hedged or at > denial:
                    denied.add(meant)
        meant = (
            _COUNTS.get(value.strip().casefold(), value) if name == "count" else vocabulary[phrase]
        )
        return said == {meant} and meant not in denied

    @cached_property
    def is_clear(self) -> bool:
        """Whether the report says that nothing is found, and of nothing that it is."""
        return self._says_nothing_is_found and not any(
            word in _FINDINGS and at < _first_denial(sentence, of_a_finding=True)
            for sentence in self.sentences
            for at, word in enumerate(sentence)
        )

    @cached_property
    def _says_nothing_is_found(self) -> bool:
        return any(
            _is_absence(sentence, at)
            and _HEDGES.isdisjoint(sentence)
            and _DENIALS.isdisjoint(sentence)
            and not any(_values(sentence, VOCABULARIES[name]) for name in ("side", "size"))
            for sentence in self.sentences
            for at in range(len(sentence))
        )


def _is_absence(sentence: Sequence[str], at: int) -> bool:
    """Tell whether "no lesion" or the like stands here."""
    if sentence[at] not in _NEGATIVE - _DENIALS:
        return False
    at += 1
    while at < len(sentence) and sentence[at] in _SEEN:
        at += 1
    return at < len(sentence) and sentence[at] in _FINDINGS


def _first_denial(sentence: Sequence[str], *, of_a_finding: bool) -> int:
    """Return where a sentence starts to deny; "no lesion" denies nothing but findings."""
    for at, word in enumerate(sentence):
        if word in _NEGATIVE and (of_a_finding or not _is_absence(sentence, at)):
            return at
    return len(sentence)


def _values(sentence: Sequence[str], vocabulary: Vocabulary) -> list[tuple[int, str]]:
    """Return the values that a sentence names, each with its place."""
    return [
        (at, value)
        for at in range(len(sentence))
        for phrase, value in vocabulary.items()
        if phrase[:1] == (sentence[at],) and tuple(sentence[at : at + len(phrase)]) == phrase
    ]


def _counts(sentence: Sequence[str]) -> list[tuple[int, str]]:
    """Return how many findings a sentence counts; a number that is not exact is no value."""
    found = []
    for at, word in enumerate(sentence):
        count = "1" if word in _ONE else _COUNTS.get(word)
        if count is None:
            continue
        for noun in sentence[at + 1 : at + 2 + _NEAR]:
            if noun in (_FINDING if word in _ONE else _FINDINGS):
                is_exact = at == 0 or sentence[at - 1] not in _INEXACT
                found.append((at, count if is_exact else "inexact"))
                break
            if noun in _COUNTS or noun in _NO_ADJECTIVES:
                break
    return found


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


_END = re.compile(
    r"(?m)(?:(?<!\d)|(?=.\s))(?<!^[A-Za-z\d])(?<!^\*\*[A-Za-z])(?<!^\d\d)(?<!\bvs)(?<!\bDr)[.!?]"
    r"(?![\w.])[\"'\u201d\u2019)\]*_]*|[\u3002\uff01\uff1f]|\n|\A\W*(?i:yes|no)\b[,;:]"
    r"|\\boxed\{(?:[^{}]|\{[^{}]*\})+\}"
)
"""Where a sentence, a line or a box ends; not "A. CT scan", and not "5." that may become 5.2."""
_SAYS = re.compile(r"(?i)\\boxed|\b(?:answer|option|choice|diagnosis)(?: is|:)\s+\W*\w")
_DESCRIBES = re.compile(
    r"(?i)\b(?:shows?|reveals?|suggests?|indicates?|demonstrates?|consistent with|located|it is"
    r"|it's|there (?:is|are)|(?:abnormality|findings?|(?:most|best)\b[^.\n]*) (?:is|are)) \w"
)
"""What may be an answer to an open question, and is for a judge to read."""
_FEW_WORDS = 6
_PREFACE = re.compile(
    r"(?i)[\W\d]*(?:lets?|sure|ok(?:ay)?|well|first|here|step|looking|to|i|we|based|this|there"
    r"|option|the (?:image|question|patient)|analysis|explanation|findings|thinking)\b|.*(?::|is)$"
)
_RESULT = re.compile(
    r"(?ims)^\W*(?:final )?(?:impression|conclusion|summary|answer|report|opinion)\W*?[:\n]"
    r".*?\w.*?(?=\n\s*\n|\n\W*[A-Z][\w ]{2,30}:)"  # another section stands behind it
)


def stated_before_cut(said: str, *, kind: Kind, options: Sequence[str] = ()) -> str | None:
    r"""Return the complete part of an answer that was cut, if it states an answer; else None.

    The sentence that was cut states nothing, but it may take back what stands before it.

    >>> stated_before_cut("The answer is B.\n\nExplanation: the", kind=Kind.OPEN)
    'The answer is B.\n\n'
    >>> stated_before_cut("The most likely diagnosis is a", kind=Kind.OPEN) is None
    True
    """
    if kind is Kind.REPORT:
        return said[: found.end()] if (found := _RESULT.search(said)) else None
    end = max((one.end() for one in _END.finditer(said)), default=0)
    stated, cut = said[:end], said[end:]
    if re.match(r"\W*[A-Za-z][.):]", cut) and not _SAYS.search(stated):
        return None  # it goes through the options
    return stated if states_answer(stated, kind=kind, options=options) else None


def states_answer(text: str, *, kind: Kind, options: Sequence[str] = ()) -> bool:
    """Tell whether complete sentences state an answer, right or wrong, certain or not."""
    if _SAYS.search(text):
        return True
    if options:
        given = Expected(reference="", options=tuple(options), facts={})
        return _claimed_option(read(text), given) is not None
    is_interjected = kind is Kind.CLOSED and re.match(r"(?i)\W*(?:yes|no)\b", text)
    first = _END.split(text.strip(), maxsplit=1)[0].strip("*_ ")
    is_short = 0 < len(first.split()) <= _FEW_WORDS and not _PREFACE.match(first)
    return bool(is_short or is_interjected or _DESCRIBES.search(text))
