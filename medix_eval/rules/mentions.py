"""Find where a text names one of several choices: by its letter, its words, or both.

Letters are also words ("I", "a"), parts of names ("vitamin B", "E. coli") and list marks, and one
choice's words may contain another's. So a mention is read from a given token on, the longest text
first, and it says whether what follows leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property

from medix_eval.rules.text import SKIPPED, SOFT, Text, starts_with_article

_LETTER_WORDS = frozenset({"option", "choice", "answer", "letter"})
_OPENING = frozenset("([{")
_CLOSING = frozenset(")]}")
_BEFORE_OWN_LETTER = frozenset({",", "(", "--", ":"})
_LINE_ENDS = frozenset({"\n", ""})
_SOFT_IN_LINE = SOFT - {"\n"}
_ALSO_WORDS = frozenset({"a", "i"})
"""Letters that are words too, unless they are written as letters: "a)"."""
_REASON = frozenset({"because", "since"})
_REASON_AFTER_COMMA = _REASON | {"as", "which", "given", "due"}
_AFTER_YES_OR_NO = frozenset({":", "it", "there", "he", "she", "they", "this", "that"})
_LONGEST_ASIDE = 12
"""Tokens in brackets; longer ones are not read."""


class NotCertain(Exception):
    """The answer says something that cannot be read in one way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of the answers that can be given."""

    words: tuple[str, ...]
    letter: str = ""
    has_article: bool = False
    """Whether its text starts with `a` or `an`: then `A decrease` is its text, not letter A."""


@dataclass(frozen=True)
class Choices:
    """The answers that can be given, found by what their names start with."""

    all: tuple[Choice, ...]

    @cached_property
    def by_first_word(self) -> dict[str, list[int]]:
        """The choices by the first of their words."""
        found: dict[str, list[int]] = {}
        for index, choice in enumerate(self.all):
            if choice.words:
                found.setdefault(choice.words[0], []).append(index)
        return found

    @cached_property
    def by_letter(self) -> dict[str, int]:
        """The choices by their letter; none if they have no letters."""
        return {choice.letter: index for index, choice in enumerate(self.all) if choice.letter}

    def __getitem__(self, index: int) -> Choice:
        return self.all[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A choice that is named from one token to another."""

    choice: int
    start: int
    end: int
    is_by_letter: bool = False
    is_framed: bool = False
    """Whether it stands in words that make it an answer, such as "The answer is"."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Reads the mentions of the choices in one text."""

    text: Text
    choices: Choices
    interjects: bool
    """Whether the choices are yes and no, which stand before a comma: "No, it is clear."."""

    def at(self, start: int, *, is_bare: bool = False) -> Mention | None:
        """Return the choice that is named from this token on.

        `is_bare` is for a name that nothing introduces: there "B. Text" is a list mark and a text.
        """
        while self._keys[start] in _OPENING or self._keys[start] == "the":
            start += 1
        by_words = self._by_words(start)
        by_letter = self._by_letter(start, is_bare=is_bare and by_words is None)
        if by_words is None or by_letter is None:
            return by_words or by_letter
        end = self._past(by_words.end, _CLOSING)
        if by_words.choice != by_letter.choice and by_letter.end == end:
            raise NotCertain  # the option's text is another option's letter
        return max(by_letter, by_words, key=lambda mention: mention.end)

    def clean_at(self, start: int, *, is_bare: bool = False) -> Mention | None:
        """Return the choice that is named here if nothing after it changes what is named."""
        mention = self.at(start, is_bare=is_bare)
        return mention if mention and self.ends_cleanly(mention) else None

    def ends_cleanly(self, mention: Mention, *, may_explain: bool = True) -> bool:
        """Tell whether a sentence ends after this mention, or goes on with a reason only."""
        end = self._past(mention.end, _CLOSING)
        if end == len(self.text) or self._keys[end] in ("!", "\n"):
            return True
        if self._keys[end] == ".":
            return self.text.starts_sentence(end + 1)
        if self._keys[end] == "(":
            return may_explain and self._is_explained(end, mention)
        if self._keys[end] in (",", ";", "--"):
            return self.interjects or self._is_reason(end + 1, _REASON_AFTER_COMMA, mention)
        if self.interjects and self._keys[end] in _AFTER_YES_OR_NO:
            return True
        return self._is_reason(end, _REASON, mention)

    def _is_reason(self, at: int, reasons: frozenset[str], mention: Mention) -> bool:
        if self._keys[at] == "not":
            denied = self.at(at + 1)
            return denied is not None and denied.choice != mention.choice
        return self._keys[at] in reasons

    def _is_explained(self, at: int, mention: Mention) -> bool:
        """Tell whether brackets only explain the choice, as in "aspirin (an NSAID)."."""
        inside = range(at + 1, min(at + _LONGEST_ASIDE, len(self.text)))
        end = next((at for at in inside if self._keys[at] == ")"), None)
        if end is None or any(
            named.choice != mention.choice for at in range(at + 1, end) if (named := self.at(at))
        ):
            return False
        return self.ends_cleanly(replace(mention, end=end + 1), may_explain=False)

    def _by_words(self, start: int) -> Mention | None:
        """Match the text of a choice, the longest first, and its own letter after it."""
        at = start + 1 if starts_with_article(self.text, start) else start
        found = [
            (end, index)
            for index in self.choices.by_first_word.get(self._keys[at], ())
            if (end := self._end_of(self.choices[index].words, at)) is not None
        ]
        if not found:
            return None
        end, index = max(found)
        if sum(other == end for other, _ in found) > 1:
            return None  # two options with one text
        is_capital_a = at > start and self.text.raw[start] == "A"
        if is_capital_a and self.choices[0].letter and not self.choices[index].has_article:
            return None  # "A fracture" may be letter A and its text
        return Mention(choice=index, start=start, end=self._past_own_letter(end, index))

    def _end_of(self, words: tuple[str, ...], at: int) -> int | None:
        for number, word in enumerate(words):
            at = self._past(at, SKIPPED) if number else at
            if self._keys[at] != word:
                return None
            at += 1
        return at

    def _past_own_letter(self, end: int, index: int) -> int:
        """Step over the letter in "warfarin (B)"; another's letter is left there, as unclean."""
        at = self._past(end, _BEFORE_OWN_LETTER)
        at = self._past(at, _LETTER_WORDS)
        is_own = at > end and at < len(self.text) and self._letter(at) == index
        return self._past(at + 1, _CLOSING) if is_own else end

    def _by_letter(self, start: int, *, is_bare: bool) -> Mention | None:
        """Match "B", "(B)" or "option B"; the text of the same choice may follow."""
        at = self._past(self._past(start, _LETTER_WORDS), _OPENING)
        index = self._letter(at, is_marked=at > start)
        if index is None:
            return None
        letter = Mention(
            choice=index, start=start, end=self._past(at + 1, _CLOSING), is_by_letter=True
        )
        after = self._past(at + 1, _SOFT_IN_LINE)
        is_new_sentence = "." in self.text.keys[at + 1 : after] and self.text.starts_sentence(after)
        words = self._by_words(self._past(after, ("the",)))
        if words is not None and words.choice == index:
            is_confirmed = not is_new_sentence or self.ends_cleanly(words)
            return replace(letter, end=words.end) if is_confirmed else letter
        if is_bare and is_new_sentence and self._keys[after] not in _LINE_ENDS:
            raise NotCertain  # "B. Some other text"
        return letter

    def _letter(self, at: int, *, is_marked: bool = False) -> int | None:
        index = self.choices.by_letter.get(self._keys[at])
        if index is None or self.text.raw[at] not in _ALSO_WORDS:
            return index
        is_marked = is_marked or self._keys[at + 1] in (")", ".", ":") or len(self.text) == 1
        return index if is_marked else None

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        # Some keys past the end, so that looking ahead needs no care.
        return (*self.text.keys, "", "", "")

    def _past(self, at: int, keys: Container[str]) -> int:
        while self._keys[at] in keys:
            at += 1
        return at
