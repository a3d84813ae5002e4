"""Find where a text names one of several choices: by its letter, its words, or both.

Letters are also words ("I", "a"), parts of names ("vitamin B", "E. coli") and list marks, and one
choice's words may contain another's. So a mention is read from a given token on, the longest text
first, and it says whether what follows leaves it as it is. The phrases of `phrases/` are made into
patterns here, for `claims` reads with them too.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path

from medix_eval.rules.text import (
    ARTICLES,
    SKIPPED,
    SOFT,
    Text,
    data_of,
    plain,
    starts_with_article,
    terms,
    terms_of,
)

_LETTER_WORDS = frozenset({"option", "choice", "answer", "letter"})
_OPENING = frozenset("([{")
_CLOSING = frozenset(")]}")
_LETTER_MARKS = frozenset({".", ":", "(", ")"})
_ALSO_WORDS = frozenset({"a", "i"})
"""Letters that are words too, unless they are written as letters: "a)"."""
_REASON = frozenset({"because", "since"})
_REASON_AFTER_COMMA = _REASON | {"as", "which", "given", "due"}
_AFTER_YES_OR_NO = frozenset({":", "it", "there", "he", "she", "they", "this", "that"})
_LONGEST_ASIDE = 12  # tokens in brackets
_MOST_OPENINGS = 4
_REMARK_ENDS = frozenset({".", "!", "?", "\n", ""})
_SENTENCE = 5  # words that make a sentence of what may else be a name, as in "It is E. Coli"
_ABBREVIATED = 3  # letters to which a species is shortened: "C. Diff"


@cache
def _lists() -> dict[str, list[str]]:
    """Return the phrases of all languages by what they do."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(__file__).with_name("phrases").glob("*.yaml")):
        for name, patterns in data_of(f"phrases/{path.name}").items():
            found.setdefault(name, []).extend(map(plain, patterns))
    return found


def _filled(pattern: str) -> str:
    return re.sub(
        r"\{([a-z_]+)\}", lambda name: f"(?:{_filled('|'.join(_lists()[name[1]]))})", pattern
    )


@cache
def phrase(pattern: str) -> re.Pattern[str]:
    """Return a pattern over the phrases: `{name}` stands for the list of that name."""
    return re.compile(_filled(pattern))


@dataclass(frozen=True)
class TokenLine:
    """A text as one line of tokens, on which patterns are tried at a token."""

    text: Text

    @cached_property
    def joined(self) -> str:
        """The tokens in lower case, each followed by one space."""
        return "".join(f"{key} " for key in self.text.keys)

    @cached_property
    def _offsets(self) -> list[int]:
        return list(accumulate((len(key) + 1 for key in self.text.keys), initial=0))

    def part(self, start: int, end: int) -> str:
        """Return the tokens from one up to another, each followed by one space."""
        return self.joined[self._offsets[start] : self._offsets[end]]

    def match(self, pattern: str, at: int) -> tuple[re.Match[str], int] | None:
        """Return what a pattern over the phrases matches at this token, and the token after it."""
        match = phrase(pattern).match(self.joined, self._offsets[at])
        return (match, bisect_left(self._offsets, match.end())) if match else None

    def after(self, pattern: str, at: int) -> int | None:
        """Return the token after a pattern over the phrases, if it matches at this token."""
        found = self.match(pattern, at)
        return found[1] if found else None


class NotCertain(Exception):
    """The answer says something that cannot be read in one way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of the answers that can be given."""

    words: tuple[str, ...]
    letter: str = ""
    first: int = 0
    """Where its text stands first: all letters of one text name one option."""
    parted: frozenset[int] = frozenset()
    """Behind which of its words its own text has a mark."""
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
            if choice.words and (choice.first == index or not choice.letter):
                found.setdefault(choice.words[0], []).append(index)
        return found

    @cached_property
    def by_letter(self) -> dict[str, int]:
        """The choices by their letter; none if they have no letters."""
        return {choice.letter: choice.first for choice in self.all if choice.letter}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A choice that is named from one token to another."""

    choice: int
    start: int
    end: int
    is_by_letter: bool = False
    is_confirmed: bool = False
    """Whether the text of the option stands beside its letter."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Reads the mentions of the choices in one text."""

    text: Text
    choices: Choices
    interjects: bool
    """Whether the choices are yes and no, which stand before a comma: "No, it is clear."."""

    @cached_property
    def first_words(self) -> frozenset[str]:
        """With what a mention starts, but for a bracket or an article in front."""
        return _LETTER_WORDS.union(self.choices.by_first_word, self.choices.by_letter)

    @cached_property
    def _starts(self) -> frozenset[str]:
        return self.first_words | _OPENING | ARTICLES

    def at(self, start: int, *, is_bare: bool = False) -> Mention | None:
        """Return the choice that is named from this token on.

        `is_bare` is for a name that nothing introduces: there "B. Text" is a list mark and a text.
        """
        for _ in range(_MOST_OPENINGS):
            start += self._keys[start] in _OPENING or self._keys[start] == "the"
        if self._keys[start] not in self._starts:
            return None  # as at most tokens of a reason
        by_words = self._by_words(start)
        by_letter = self._by_letter(start, is_bare=is_bare and by_words is None)
        if by_words is None or by_letter is None:
            return by_words or by_letter
        end = self.past(by_words.end, _CLOSING)
        if by_words.choice != by_letter.choice and by_letter.end == end:
            raise NotCertain  # the option's text is another option's letter
        return max(by_letter, by_words, key=lambda mention: mention.end)

    def clean_at(self, start: int, *, is_bare: bool = False) -> Mention | None:
        """Return the choice that is named here if nothing after it changes what is named."""
        mention = self.at(start, is_bare=is_bare)
        return mention if mention and self.ends_cleanly(mention) else None

    def ends_cleanly(self, mention: Mention, *, may_explain: bool = True) -> bool:
        """Tell whether a sentence ends after this mention, or goes on with a reason only."""
        end = self.past(mention.end, _CLOSING)
        end = self.past(end, _lists()["behind"]) if mention.is_by_letter else end
        end += self._keys[end] in (",", ";") and self._keys[end + 1] == "."
        if self._keys[end] in ("!", "\n") or self.past(end, SOFT) == len(self.text):
            return True  # also "Answer: D,"
        if self._keys[end] == ".":
            return self.text.starts_sentence(end + 1)
        if self._keys[end] == "(":
            return may_explain and self._is_explained(end, mention)
        return self._goes_on(end, mention)

    def _goes_on(self, end: int, mention: Mention) -> bool:
        """Tell whether the same sentence goes on with a reason."""
        key, is_parted = self._keys[end], self._keys[end] in (",", ";", "--")
        if self.interjects and (is_parted or key in _AFTER_YES_OR_NO):
            return True
        before = self._keys[max(mention.start - 1, 0) : end]
        is_label = key == ":" and before in (("a",), ("\n", "a"))  # "A: Give fluids."
        may_remark = not mention.is_confirmed and key in ("--", ":") and not is_label
        if not mention.is_by_letter:
            may_remark = key == "--" and self._is_of_no_other(mention.choice)
        reasons = _REASON_AFTER_COMMA if is_parted else _REASON
        is_remark = may_remark and self._is_remark(end + 1, mention)
        return is_remark or self._is_reason(end + is_parted, reasons, mention)

    def is_list_mark(self, at: int) -> bool:
        """Tell whether a full stop stands between a letter and its own text, as in "B. aspirin"."""
        letter = self.choices.by_letter.get(self._keys[at - 1]) if at > 0 else None
        named = self._by_words(at + 1) if letter is not None and self._keys[at] == "." else None
        return named is not None and named.choice == letter

    def past(self, at: int, keys: Container[str]) -> int:
        """Return the first token from here on that is none of these."""
        while self._keys[at] in keys:
            at += 1
        return at

    def _is_reason(self, at: int, reasons: frozenset[str], mention: Mention) -> bool:
        is_instead = self._keys[at : at + 2] in (("rather", "than"), ("instead", "of"))
        if is_instead or self._keys[at] == "not":
            denied = self.at(at + 1 + is_instead)
            return denied is not None and denied.choice != mention.choice
        pair = " ".join(self._keys[at : at + 2])  # "aspirin, given with heparin" is no reason
        is_part = self._keys[at] in ("as", "given") and pair not in terms()["reasons"]
        is_given = self._keys[at] in reasons and not is_part
        return is_given or f"{pair} ".startswith(tuple(_lists()["because"]))

    def _is_explained(self, at: int, mention: Mention) -> bool:
        """Tell whether brackets only explain the choice, as in "aspirin (an NSAID)."."""
        places = range(at + 1, min(at + _LONGEST_ASIDE, len(self.text)))
        end = next((place for place in places if self._keys[place] == ")"), None)
        if end is None or self._names_another(at + 1, end, mention):
            return False
        # "Heparin (and warfarin)" may be an option of its own.
        is_clear = mention.is_by_letter or self._is_of_no_other(mention.choice)
        inside = self._keys[at + 1 : end]
        if not is_clear or "!" in inside or not terms_of("unsettling").isdisjoint(inside):
            return False
        return self.ends_cleanly(replace(mention, end=end + 1), may_explain=False)

    def _is_remark(self, at: int, mention: Mention) -> bool:
        """Tell whether a sentence goes on behind a letter with its reason: "B - energy falls"."""
        end = next(end for end in range(at, len(self._keys)) if self._keys[end] in _REMARK_ENDS)
        is_open = self._keys[at] in terms_of("opens_a_limit")
        is_open = is_open or not terms_of("unsettling").isdisjoint(self._keys[at:end])
        return not is_open and not self._names_another(at, end, mention)

    def _names_another(self, start: int, end: int, mention: Mention) -> bool:
        named = (self.at(at) for at in range(start, end))
        return any(one is not None and one.choice != mention.choice for one in named)

    def _is_of_no_other(self, index: int) -> bool:
        """Tell whether no other option says all that this one says, and more."""
        words = set(self.choices.all[index].words)
        return not any(words < set(other.words) for other in self.choices.all)

    def _by_words(self, start: int) -> Mention | None:
        """Match the text of a choice, the longest first, and its own letter after it."""
        at = start + 1 if starts_with_article(self.text, start) else start
        if self._keys[at] == "no" and self._keys[at + 1] == "." and self._keys[at + 2].isdigit():
            return None  # "No. 3 rib"
        found = [
            (end, index)
            for index in self.choices.by_first_word.get(self._keys[at], ())
            if (end := self._end_of(self.choices.all[index], at)) is not None
        ]
        if not found:
            return None
        end, index = max(found)
        if sum(other == end for other, _ in found) > 1:
            return None  # two options with one text
        is_capital_a = at > start and self.text.raw[start] == "A"
        if is_capital_a and self.choices.all[0].letter and not self.choices.all[index].has_article:
            return None  # "A fracture" may be letter A and its text
        return Mention(choice=index, start=start, end=self._past_own_letter(end, index))

    def _end_of(self, choice: Choice, at: int) -> int | None:
        for number, word in enumerate(choice.words):
            if number:  # "No, surgery" is not "no surgery"
                denies = (
                    choice.words[number - 1] in terms_of("negations")
                    and number - 1 not in choice.parted
                )
                at = self.past(at, ("the",) if denies else SKIPPED)
            if self._keys[at] != word:
                return None
            at += 1
        return at

    def _past_own_letter(self, end: int, index: int) -> int:
        """Step over the letter in "warfarin (B)"; another's letter is left there, as unclean."""
        at = self.past(end, (",", "(", "--", ":"))
        at = self.past(at, _LETTER_WORDS)
        is_own = at > end and at < len(self.text) and self._letter(at) == index
        is_own = is_own and not self._is_list(end, at, index)
        return self.past(at + 1, _CLOSING) if is_own else end

    def _by_letter(self, start: int, *, is_bare: bool) -> Mention | None:
        """Match "B", "(B)" or "option B"; the text of the same choice may follow."""
        at = self.past(self.past(start, _LETTER_WORDS), _OPENING)
        index = self._letter(at, is_marked=at > start)
        if index is None:
            return None
        end = self.past(at + 1, _CLOSING)
        letter = Mention(choice=index, start=start, end=end, is_by_letter=True)
        after = self.past(at + 1, SOFT - {"\n"})
        is_new_sentence = "." in self.text.keys[at + 1 : after] and self.text.starts_sentence(after)
        words = self._by_words(self.past(after, ("the",)))
        if words is not None and words.choice == index:
            if self._is_list(at + 1, after, index):
                raise NotCertain
            if not is_new_sentence or self.ends_cleanly(words):
                return replace(letter, end=words.end, is_confirmed=True)
            # "B. Warfarin acts slowly" is clear, "B. Warfarin withdrawal" is not.
            behind = " ".join(self._keys[words.end : words.end + 2])
            if phrase(r"^(?:{verb}|because\b|since\b|\W|$)").match(behind) is None:
                raise NotCertain
            return letter
        if is_new_sentence and self._keys[after] not in ("\n", ""):
            # "B. Some other text", or a name: "The answer is E. Coli, as so often."
            starts = self._keys[after] in terms_of("sentence_starts") and words is None
            if not starts and (is_bare or self._may_be_name(after, self._keys[at])):
                raise NotCertain
        return letter

    def _is_list(self, start: int, end: int, index: int) -> bool:
        """Tell whether letters stand here beside each other: "b, c" is not option B, "B. c"."""
        words = {*self.choices.all[index].words} - {"and"}
        is_letters = all(len(word) == 1 and word.isalpha() for word in words)
        return is_letters and _LETTER_MARKS.isdisjoint(self._keys[start:end])

    def _may_be_name(self, at: int, initial: str) -> bool:
        """Tell whether a word behind a letter and a full stop may be the rest of a name."""
        end = next(end for end in range(at, len(self._keys)) if self._keys[end] in _REMARK_ENDS)
        start, line = self._keys[at][:_ABBREVIATED], " ".join(self._keys[at:end])
        is_abbreviated = any(
            word.startswith(start)
            for one in self.choices.all
            if " ".join(one.words).startswith(initial)
            for word in one.words[1:]
        )
        is_said = phrase("{verb}|^{courtesy}$").search(line) is not None
        is_sentence = is_said or end - at >= _SENTENCE
        is_word = self._keys[at].isalpha() and self._keys[at].isascii()
        return is_word and (is_abbreviated or not is_sentence)

    def _letter(self, at: int, *, is_marked: bool = False) -> int | None:
        index = self.choices.by_letter.get(self._keys[at])
        if index is None or self.text.raw[at] not in _ALSO_WORDS:
            return index
        before, after = self._keys[at - 1], self._keys[at + 1]
        is_last = at > 0 and before in (":", "=") and after in ("", "\n", ",")
        is_marked = is_marked or is_last or after in (")", ".", ":") or len(self.text) == 1
        return index if is_marked else None

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        # Some keys past the end, so that looking ahead needs no care.
        return (*self.text.keys, "", "", "")
