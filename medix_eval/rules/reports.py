"""The rule for reports whose task lists their facts: what share of the facts is stated.

A fact is stated if the report says its value and nothing that contradicts it. Where nothing is to
be seen, the facts about it ("0", "", "none") are one fact: the report must say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from medix_eval.records import RuleVerdict
from medix_eval.rules.choices import Expected
from medix_eval.rules.quantities import NUMBER_WORDS
from medix_eval.rules.text import SKIPPED, VOCABULARIES, Text, Vocabulary, listed, words

_NOTHING = frozenset({"", "0", "none", "no"})
_OF_A_FINDING = frozenset({"count", "side", "size"})
"""Facts about what is found; they say nothing of an image on which nothing is found."""
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


def facts(answer: Text, expected: Expected) -> RuleVerdict | None:
    """Return the share of the listed facts that a report states."""
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
