"""Judge answers without a language model: only what is certain, and never a guess.

`decide` asks the rules of a kind of task one after the other; the first that is certain decides.
What none is certain of stays unjudged, which costs a judge call but never makes a score wrong.

A new rule is one function `(answer, expected) -> RuleVerdict | None` and its name in `_RULES`. A
new wording in which answers are given is one entry in `phrases/`, a new word one in `terms.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property, lru_cache
from string import ascii_lowercase

from medix_eval.records import Kind, RuleVerdict
from medix_eval.rules.claims import concluded, find_claim, may_change, unframed
from medix_eval.rules.mentions import Choice, Choices, Mention
from medix_eval.rules.quantities import NUMBER_WORDS, Item, Quantity, items_of
from medix_eval.rules.text import (
    DIRECTION_MARKS,
    INVISIBLE,
    SKIPPED,
    Text,
    Vocabulary,
    marked_words_of,
    read,
    starts_with_article,
    terms,
    terms_of,
    vocabularies,
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


def option(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Decide which of the options is given, by letter or text."""
    right = _right_options(expected)
    claim = _claimed_option(answer, expected.options) if right else None
    if claim is None:
        return None
    rule = "option_letter" if claim.is_by_letter else "option_text"
    return RuleVerdict(score=float(claim.choice in right), rule=rule)


def chosen_option(answer: Text, expected: Expected) -> str | None:
    """Return the text of the option that is given, right or wrong."""
    claim = _claimed_option(answer, expected.options)
    return None if claim is None else expected.options[claim.choice]


def _claimed_option(answer: Text, options: tuple[str, ...]) -> Mention | None:
    choices = _choices(options)
    interjects = {choice.words for choice in choices.all} <= _YES_NO_MAYBE
    return find_claim(answer, choices, interjects=interjects)


def yes_no(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Decide an explicit yes or no; "There is no lesion" is neither."""
    if expected.words not in _YES_NO:
        return None
    claim = find_claim(answer, _YES_OR_NO, interjects=True)
    if claim is None:
        return None
    is_right = _YES_OR_NO.all[claim.choice].words == expected.words
    return RuleVerdict(score=float(is_right), rule="yes_no")


def exclusive_word(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Decide between words that exclude each other: who answers "left" did not answer "right"."""
    for vocabulary in vocabularies().values():
        reference = vocabulary.get(expected.words)
        if reference is None:
            continue
        named = words_of(unframed(answer)) if len(answer) <= _LONGEST_FRAME else ()
        if {phrase[0] for phrase in vocabulary}.isdisjoint(named) or words_of(answer) in _ASSENTS:
            return None
        match = re.fullmatch(terms()["frame"], " ".join(named))
        value = vocabulary.get(tuple(match["value"].split())) if match else None
        if value is not None:
            return RuleVerdict(score=float(value == reference), rule="exclusive_word")
    return None


def _right_options(expected: Expected) -> set[int]:
    """Return which options are the reference; several only where they are equal as written."""
    reference = expected.reference.split()
    same = {at for at, text in enumerate(expected.options) if text.split() == reference}
    if same:
        return same
    choices = _choices(expected.options)
    alike = {at for at, choice in enumerate(choices.all) if choice.words == expected.words}
    return alike if len(alike) == 1 else set()


@lru_cache(maxsize=256)
def _choices(options: tuple[str, ...]) -> Choices:
    written = [text.split() for text in options]
    return Choices(
        tuple(
            Choice(
                words=words(text),
                letter=letter if text.strip() else "",  # an option that is not shown
                first=written.index(text.split()),
                parted=_parted(read(text)),
                has_article=starts_with_article(read(text)),
            )
            for letter, text in zip(ascii_lowercase, options, strict=False)
        )
    )


def _parted(text: Text) -> frozenset[int]:
    """Return behind which words of an option a mark stands."""
    keys = text.keys[int(starts_with_article(text)) :]
    marks = [at for at, key in enumerate(keys) if key in SKIPPED and key != "the"]
    return frozenset(sum(key not in SKIPPED for key in keys[:at]) - 1 for at in marks)


# Open answers: the same words, or the same quantities. That a reference is contained in an answer
# decides nothing: "no pneumothorax" contains it too.

_COUNTING = (("there", "is"), ("there", "are"), ("i", "see"), ("i", "count"))
_LONGEST_COUNT = 4  # a number, words such as `small`, and what is counted
_LONGEST_FRAME = 20
_ASSENTS = {(), ("thats", "right"), ("that", "is", "right")}  # they name no side
_ZERO = Quantity(value=Fraction(0), step=Fraction(1))


def exact(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Accept an answer that is the reference but for spelling, also as "It is ..."."""
    if expected.options or expected.words in _YES_NO or words_of(answer) in _ASSENTS:
        return None  # the rules for choices also know wrong answers, so they have the last word
    is_exact = _is_same(answer, expected) or _is_same(unframed(answer), expected)
    return RuleVerdict(score=1.0, rule="exact") if is_exact else None


def _is_same(text: Text, expected: Expected) -> bool:
    is_alike = words_of(text) == expected.words
    return is_alike and marked_words_of(text) == marked_words_of(expected.text)


def number(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Compare quantities in any unit; all other words must be the same."""
    reference = items_of(expected.text)
    is_measured = any(isinstance(item, Quantity) for item in reference)
    if not is_measured or not terms_of("negations").isdisjoint(expected.words):
        return None
    text = unframed(answer)
    if not terms_of("negations").isdisjoint(text.keys) and marked_words_of(text) != words_of(text):
        return None  # "No, lesions" is not "no lesions"
    given = items_of(text)
    is_equal = _is_count(reference, given)
    if is_equal is None:
        is_equal = _are_equal(reference, given)
    if is_equal is None or (not is_equal and "--" in answer.keys):
        return None  # a dash may be a minus
    return RuleVerdict(score=float(is_equal), rule="number")


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
    """Compare "two small lesions", "no lesions" or "none" with a bare number, but not "2 feet"."""
    if len(reference) != 1 or not isinstance(reference[0], Quantity) or reference[0].dimension:
        return None
    given = given[2:] if tuple(given[:2]) in _COUNTING else given
    if not given or len(given) > _LONGEST_COUNT:
        return None
    count, *rest = given
    looks = terms_of("unlimiting" if count == "no" else "looks")
    is_understood = looks.issuperset(rest[:-1]) and terms_of("counted").issuperset(rest[-1:])
    if (count == "none" and not rest) or (count == "no" and rest and is_understood):
        count = _ZERO
    elif count in ("no", "none") and len(rest) == 1 and str(rest[0]).isalpha():
        return False if reference[0].value else None  # "No idea" is no count, and none above zero
    return reference[0].equals(count) if is_understood and isinstance(count, Quantity) else None


_NOTHING = frozenset({"", "0", "none", "no"})
_OF_A_FINDING = frozenset({"count", "side", "size"})
"""Facts about what is found; they say nothing about an image without findings."""
_COUNTS = {str(value): str(value) for value in range(1, 100)} | {
    word: str(value) for word, value in NUMBER_WORDS.items() if value
}
_ONE = frozenset({"a", "an", "single"})
_NEAR = 3  # words between a number and what it counts


@cache
def _known_words() -> frozenset[str]:
    """Return the words that a report may consist of where it is understood."""
    lists = ("reporting", "findings", "denials", "absences", "seen", "limiting", "inexact")
    values = (phrase for named in vocabularies().values() for phrase in named)
    return SKIPPED.union(_COUNTS, _ONE, *map(terms_of, lists), *values)


def listed_facts(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Return the share of the listed facts that a report states.

    A fact is stated if the report says its value and nothing that contradicts it. Where nothing is
    to be seen, the facts about it ("0", "", "none") are one fact: the report must say so. A report
    with a word that is not known leaves all facts open that it names: the word may be a hedge.
    """
    if not expected.facts:
        return None
    facts = expected.facts.items()
    present = {name: value for name, value in facts if value.strip().casefold() not in _NOTHING}
    known = {*terms_of("findings")}
    for name, value in present.items():
        known.update(words(name), *(_vocabulary_of(name, value) if name != "count" else ()))
    has_nothing = len(present) < len(expected.facts)
    is_named = any(len(key) > 1 and key in known for key in answer.keys)
    report = _Report(list(_sentences(answer)))
    if (has_nothing or is_named) and (
        not {*answer.keys} - _known_words() <= known
        or report.is_open(" ".join(answer.keys), present)
        or (has_nothing and report.is_clear is None)
    ):
        return None
    stated = [report.states(name, value) for name, value in present.items()]
    stated += [bool(report.is_clear)] if has_nothing else []
    return RuleVerdict(score=sum(stated) / len(stated), rule="facts")


def _sentences(text: Text) -> Iterator[Sequence[str]]:
    sentence: list[str] = []
    for at, key in enumerate(text.keys):
        if key not in SKIPPED:
            sentence.append(key)
        if text.ends_sentence(at) or key in {";", "(", ")"}:
            yield sentence
            sentence = []
    yield sentence


@dataclass(frozen=True)
class _Report:
    sentences: Sequence[Sequence[str]]

    def is_open(self, said: str, facts: Mapping[str, str]) -> bool:
        """Tell whether something is denied, and it is not certain what."""
        if any(one and _negative().issuperset(one) for one in self.sentences):
            return True  # "No."
        counted = [meant for one in self.sentences for _, meant in _counts(one)]
        is_apart = not counted and any(not _COUNTS.keys().isdisjoint(one) for one in self.sentences)
        if "count" in facts and (counted.count("1") > 1 or is_apart):
            return True  # "A lesion on the left. A lesion on the right.", "There are two."
        # Without findings, "no lesion, no mass" denies one thing.
        denials = ("denied_behind", "denied_first")[: 1 + bool(_OF_A_FINDING & facts.keys())]
        return any(re.search(terms()[one], said) for one in ("unclear_report", *denials))

    def states(self, name: str, value: str) -> bool:
        """Tell whether the value is stated, and nothing that contradicts it."""
        if name in _OF_A_FINDING and self._says_nothing_is_found:
            return False
        said: set[str] = set()
        denied: set[str] = set()
        vocabulary, is_count = _vocabulary_of(name, value), name == "count"
        for sentence in self.sentences:
            denial = _first_denial(sentence, of_a_finding=name in _OF_A_FINDING)
            for at, meant in _counts(sentence) if is_count else _values(sentence, vocabulary):
                (said if at <= denial else denied).add(meant)
        counted = _COUNTS.get(value.strip().casefold(), value)
        true = counted if is_count else vocabulary[words(value)]
        return said == {true} and said.isdisjoint(denied)

    @cached_property
    def is_clear(self) -> bool | None:
        """Whether the report says that nothing is found; None where that is not certain."""
        negative, findings = _negative(), terms_of("findings")
        found = [one for one in self.sentences if not findings.isdisjoint(one)]
        if not found or any(negative.isdisjoint(one) for one in found):
            return False
        if self._says_nothing_is_found:
            befores = [one[: _first_denial(one, of_a_finding=True)] for one in found]
            return True if all(map(findings.isdisjoint, befores)) else None
        is_limited = any(self._is_limited(one) or len(negative & {*one}) > 1 for one in found)
        return False if is_limited else None

    @cached_property
    def _says_nothing_is_found(self) -> bool:
        return any(
            _is_absence(sentence, at)
            and terms_of("denials").isdisjoint(sentence)
            and not self._is_limited(sentence)
            for sentence in self.sentences
            for at in (() if _negative().isdisjoint(sentence) else range(len(sentence)))
        )

    @staticmethod
    def _is_limited(sentence: Sequence[str]) -> bool:
        """Tell whether a sentence speaks of a side, a size or of more than was said."""
        return not terms_of("limiting").isdisjoint(sentence) or any(
            _values(sentence, vocabularies()[name]) for name in ("side", "size")
        )


def _vocabulary_of(name: str, value: str) -> Vocabulary:
    """Return the values that a fact may have, or its own words."""
    vocabulary, phrase = vocabularies().get(name, {}), words(value)
    return vocabulary if phrase in vocabulary else {phrase: value}


@cache
def _negative() -> frozenset[str]:
    return terms_of("denials") | terms_of("absences")


def _is_absence(sentence: Sequence[str], at: int) -> bool:
    """Tell whether "no lesion" or the like stands here."""
    behind = (word for word in sentence[at + 1 :] if word not in terms_of("seen"))
    return sentence[at] in terms_of("absences") and next(behind, "") in terms_of("findings")


def _first_denial(sentence: Sequence[str], *, of_a_finding: bool) -> int:
    """Return where a sentence starts to deny; "no lesion" denies nothing but findings."""
    negative = _negative().intersection(sentence)
    for at, word in enumerate(sentence if negative else ()):
        if word in negative and (of_a_finding or not _is_absence(sentence, at)):
            return at
    return len(sentence)


def _values(sentence: Sequence[str], vocabulary: Vocabulary) -> list[tuple[int, str]]:
    """Return the values that a sentence names, each with its place."""
    return [
        (at, value)
        for phrase, value in vocabulary.items()
        if phrase and phrase[0] in sentence
        for at in range(len(sentence))
        if tuple(sentence[at : at + len(phrase)]) == phrase
    ]


def _counts(sentence: Sequence[str]) -> list[tuple[int, str]]:
    """Return how many findings a sentence counts; a number that is not exact is no value."""
    found = []
    for at, word in enumerate(sentence):
        count = "1" if word in _ONE else _COUNTS.get(word)
        if count is None:
            continue
        for noun in sentence[at + 1 : at + 2 + _NEAR]:
            if noun in terms_of("finding" if word in _ONE else "findings"):
                is_exact = at == 0 or sentence[at - 1] not in terms_of("inexact")
                found.append((at, count if is_exact else "inexact"))
                break
            if noun in _COUNTS or noun in terms_of("unadjective"):
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
    if len(answer) > _LONGEST_ANSWER or _hides_characters(answer, expected) or not words(answer):
        return None
    text = read(answer)
    readings: list[Callable[[Text], Text | None]] = [lambda whole: whole]
    if kind in {Kind.CLOSED, Kind.OPEN} and not options:
        readings.append(concluded)  # what the answer ends with
    for said in filter(None, (reading(text) for reading in readings)):
        for rule in _RULES[kind]:
            if (verdict := rule(said, expected)) is not None:
                return verdict
    return None


def _hides_characters(answer: str, expected: Expected) -> bool:
    """Tell whether an answer carries characters that no reader sees and its task does not use."""
    if answer.isascii() and answer.isprintable():
        return False
    hidden = set(INVISIBLE.findall(answer)) - DIRECTION_MARKS
    return not hidden <= set("".join((expected.reference, *expected.options)))


def stated_before_cut(said: str, *, kind: Kind, options: Sequence[str] = ()) -> str | None:
    r"""Return the complete part of an answer that was cut, if it states an answer; else None.

    The sentence that was cut states nothing, but it may take back what stands before it.

    >>> stated_before_cut("The answer is 5 mg. Expla", kind=Kind.OPEN)
    'The answer is 5 mg.'
    >>> stated_before_cut("The most likely diagnosis is a", kind=Kind.OPEN) is None
    True
    """
    ends = [one.end() for one in re.finditer(terms()["ends"], said)]
    if kind is Kind.OPEN and not options:  # "Four chambers: the left …", but "A. Aspirin: a …"
        ends += [one.end() for one in re.finditer(terms()["clause_ends"], said)]
    end = max(ends, default=0)
    stated, cut = said[:end], said[end:]
    if re.match(r"\W*[A-Za-z][.):]", cut) and not re.search(terms()["says_answer"], stated):
        return None  # it goes through the options
    return stated if states_answer(stated, kind=kind, options=options) else None


def states_answer(text: str, *, kind: Kind, options: Sequence[str] = ()) -> bool:
    """Tell whether complete sentences state an answer, right or wrong, certain or not."""
    if re.search(terms()["says_answer"], text):
        return True
    is_readable = options and len(text) <= 10 * _LONGEST_ANSWER
    if is_readable and _claimed_option(read(text), tuple(options)) is not None:
        return True
    is_interjected = kind is Kind.CLOSED and re.match(r"(?i)\W*(?:yes|no)\b", text)
    parts = [one.strip("*_# :") for one in re.split(terms()["ends"], text) if words(one)]
    parts = parts if kind is Kind.REPORT else parts[:1]
    is_said = any(not re.match(terms()["preface"], one) for one in parts)
    return bool(is_interjected or is_said or re.search(terms()["describes"], text))


def may_take_back(cut: str, options: Sequence[str] = ()) -> bool:
    """Tell whether a sentence that was cut may change what was stated before it."""
    return len(cut) > _LONGEST_ANSWER or may_change(read(cut), _choices(tuple(options)))
