"""Rules for answers that must be one of a few: options, yes or no, words that exclude another."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_lowercase

from medix_eval.records import RuleVerdict
from medix_eval.rules.claims import Claim, find_claim, unframed
from medix_eval.rules.mentions import Choice, Choices
from medix_eval.rules.text import VOCABULARIES, Text, read, starts_with_article, words, words_of


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
