"""Find which one of several choices an answer states, or that this is not certain.

An answer is read sentence by sentence. A clause may state a choice: alone ("B.", "B) warfarin"), in
a frame ("The answer is warfarin") or before one ("B is correct"). The last statement counts, if
nothing behind it takes it back, doubts it or speaks for another choice; what was weighed before it
does not matter. Naming a choice is not stating it: "Aspirin is tempting" states nothing. Whatever
is not understood leaves the answer undecided. The phrases of a language stand in `phrases/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from medix_eval.rules.mentions import Choices, Mention, Naming, NotCertain, TokenLine, phrase
from medix_eval.rules.text import SOFT, Text, listed


LEAD = r"(?:{lead}(?: ,| :| --| \n| !| \.)? ){0,4}(?:\{ )?"
_FILLER = r"(?:{filler} ){0,3}"
FRAMES = r"(?:(?P<answer>{answer}|(?P<latin>{answer_in_latin})|(?P<key>{key}))|{remark}) "
_STRICT = r"(?:{answer}|{it_is}) (?:(?::|--|\n) )?"
GIVES_ANSWER = r"(?<!this )(?<!that )\b(?:answer|option|choice) (?:{is}|:) (?!correct|right|wrong|incorrect|not)"
"""The heart of a frame; where it stands outside one, the text is not plain."""
_LETTER_CONTEXT = frozenset(listed("option choice answer letter is be or and not than choose pick"))
_LETTER_CONTEXT |= frozenset(listed("select to between both either so hence thus therefore with but say says"))
_LETTER_CONTEXT |= frozenset(listed("( , : -- ; . ! ? use")) | {"", "\n"}
"""Before a letter that names an option; the letters of `vitamin C` and of `A patient` do not."""
_ABSENT = frozenset(listed("no none without absent negative not isnt wasnt cannot cant dont never"))
_ABSENT |= frozenset(listed("doesnt nor hardly unlikely wrong incorrect false untrue"))
_DENIALS = frozenset({"not", "isnt", "wasnt"})
_WRONG = frozenset(listed("wrong incorrect false untrue yes"))
_MARKS = frozenset({"--", ":", "\n"})
"""Of a list, or of a heading that stands above."""
_LONGEST_LEAD = 12
"""Words before an answer in the line that gives it; in a longer line it is part of an argument."""
_SHORT = 5
"""Words of a sentence that must be understood; a longer one is a reason."""
_CLAUSE_ENDS = frozenset(", ; -- : }".split())


def unframed(text: Text) -> Text:
    """Return what a whole-sentence answer names: "It is 5 mg." becomes "5 mg."."""
    end = TokenLine(text).after(_STRICT, 0) or 0
    return Text(raw=text.raw[end:], keys=text.keys[end:])


def concluded(text: Text) -> Text | None:
    """Return what a text ends with as its answer: "… So the answer is 5 mg." gives "5 mg."."""
    answer = _Answer(text=text, naming=Naming(text=text, choices=Choices(()), interjects=False))
    for number in range(len(answer.sentences) - 1, max(len(answer.sentences) - 3, -1), -1):
        if (at := answer.concludes(number)) is not None:
            end = answer.sentences[-1][1]
            return Text(raw=text.raw[at:end], keys=text.keys[at:end])
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The choice that an answer states, by its index."""

    choice: int
    is_by_letter: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """A clause that states a choice."""

    mention: Mention | None
    """What is named, with its frame; None where an answer is stated that cannot be read."""
    sentence: int
    is_answer: bool = True
    """Whether it says that this is the answer; else it is a bare name or perhaps a remark."""
    is_foreign: bool = False
    """Whether it is in a language whose words mean other things in English."""
    is_limited: bool = False
    """Whether words before it may make it conditional or somebody else's."""


def find_claim(text: Text, choices: Choices, *, interjects: bool = False) -> Claim | None:
    """Return the choice that the answer states; None if it states none or that is unclear.

    `interjects` is for yes and no, which stand before a comma: "No, the lungs are clear."
    """
    naming = Naming(text=text, choices=choices, interjects=interjects)
    try:
        return _Answer(text=text, naming=naming).claim()
    except NotCertain:
        return None


@dataclass(frozen=True, kw_only=True)
class _Answer:
    text: Text
    naming: Naming

    @cached_property
    def line(self) -> TokenLine:
        return TokenLine(self.text)

    @cached_property
    def sentences(self) -> list[tuple[int, int]]:
        """Where each sentence starts and ends; courtesies are none."""
        ends = [
            at + 1
            for at in range(len(self.text))
            if self.text.ends_sentence(at) and not self.naming.is_list_mark(at)
        ]
        spans = zip([0, *ends], [*ends, len(self.text)], strict=True)
        return [
            (start, end)
            for start, end in spans
            if not SOFT.issuperset(self.text.keys[start:end])
            and not phrase("{courtesy} ?").fullmatch(self.line.part(start, end))
        ]

    def claim(self) -> Claim | None:
        stated = self._without_items(list(self._all_statements()))
        if not stated or stated[-1].mention is None or stated[-1].is_limited:
            return None
        last, mention = stated[-1], stated[-1].mention
        others = [one for one in stated if not one.mention or one.mention.choice != mention.choice]
        if others and not self._overrules(last, others[-1]):
            return None
        alike = [one for one in stated if one not in others]
        is_answer = any(one.is_answer and not one.is_limited for one in alike)
        first = last.sentence if others or last.is_answer else alike[0].sentence if is_answer else 0
        if any(self._unsettles(number, last) for number in range(first, len(self.sentences))):
            return None
        is_by_letter = any(one.mention.is_by_letter for one in alike if one.mention)
        return Claim(choice=mention.choice, is_by_letter=is_by_letter)

    def _overrules(self, last: _Statement, other: _Statement) -> bool:
        """Tell whether a statement replaces the others, which differ: as a correction or at last."""
        assert last.mention is not None
        start = self.sentences[last.sentence][0]
        before = self.sentences[other.sentence][0]
        if not last.is_answer or any(self._turns(at) for at in range(before, start)):
            return False
        first = other.mention.end if other.mention else before
        if phrase("{corrected}").search(self.line.part(min(first, start), last.mention.end)):
            return True
        if other.mention is None and self.line.match("{so} ", last.mention.start):
            return True
        is_apart = start > 0 and self.text.keys[start - 1] == "\n"
        is_new = is_apart and last.mention.start < start + _LONGEST_LEAD
        return is_new and self._is_last(last.mention.end)

    def _is_last(self, end: int) -> bool:
        return all(self.text.keys[at] in SOFT for at in range(end, self.sentences[-1][1]))

    def _turns(self, at: int) -> bool:
        """Tell whether the text goes on with another question here."""
        starts_line = at == 0 or self.text.keys[at - 1] == "\n"
        return starts_line and self.line.after("{new_turn} ", at) is not None

    # What a sentence states.

    def _without_items(self, stated: list[_Statement]) -> list[_Statement]:
        """Leave out what only lists why the others are wrong: "- A. aspirin: too weak"."""

        def explains(one: _Statement) -> bool:
            end = one.mention.end if one.mention else 0
            rest = self.text.keys[end : self.sentences[one.sentence][1]]
            return not one.is_answer and not SOFT.issuperset(rest)

        opens = stated[:1] if stated and not stated[0].sentence and not explains(stated[0]) else []
        if not opens and not any(one.is_answer for one in stated):
            return stated
        return [one for one in stated if not explains(one) or one in opens]

    def _all_statements(self) -> Iterator[_Statement]:
        end = 0  # of what was stated: "B. aspirin" are two sentences and one statement
        for number, (start, _) in enumerate(self.sentences):
            for one in self._statements(number, max(start, end)):
                end = one.mention.end if one.mention else end
                yield one

    def _statements(self, number: int, start: int) -> Iterator[_Statement]:
        end = self.sentences[number][1]
        while start < end and self.text.keys[start] in _MARKS:
            start += 1
        at, rest = start, start
        while at < end:
            try:
                found = self._stated(at, start)
            except NotCertain:
                found = _Statement(mention=None, sentence=0)
            if found is not None:
                is_limited = found.is_limited or self._is_limited(start, at, number)
                yield replace(found, sentence=number, is_limited=is_limited)
                at = rest = max(found.mention.end if found.mention else end, at + 1)
            while at < end and self.text.keys[at] not in _CLAUSE_ENDS:
                at += 1
            at += 1
        if rest < end and phrase(GIVES_ANSWER).search(self.line.part(rest, end)):
            yield _Statement(mention=None, sentence=number)

    def concludes(self, number: int) -> int | None:
        """Return where the answer stands that the last frame of a sentence gives."""
        start, end = self.sentences[number]
        for at in range(end - 1, start - 1, -1):
            is_boxed = self.text.keys[at - 1 : at + 2] == (";", "answer", ":")
            follows = self.line.after("(?:{lead} )*{so} ", at) is not None
            if at > start and not is_boxed and not follows:
                continue
            frame = self.line.match(FRAMES, self.line.after(LEAD, at) or at)
            if frame is not None and frame[0]["answer"] and not self._is_no_answer(frame[0]):
                is_limited = self._is_limited(start, at, number)
                return None if is_limited else self.line.after(_FILLER, frame[1])
        return None

    def _is_no_answer(self, frame: re.Match[str]) -> bool:
        return phrase(r"\b{not_best}\b").search(frame[0]) is not None

    def _stated(self, start: int, sentence: int) -> _Statement | None:
        """Return what the clause that starts here states."""
        is_first = start == sentence and (not self._is_key(start) or start == len("x:"))
        if is_first and (bare := self.naming.clean_at(start, is_bare=True)):
            return _Statement(mention=bare, sentence=0, is_answer=False)
        at = self.line.after(LEAD, start) or start
        if is_first and at > start and (bare := self.naming.clean_at(at, is_bare=True)):
            is_answer = phrase(r"\b{so}\b").search(self.line.part(start, at)) is not None
            return _Statement(mention=replace(bare, start=start), sentence=0, is_answer=is_answer)
        frame = self.line.match(FRAMES, at)
        if frame is not None and not self._is_no_answer(frame[0]):
            return self._framed(frame, start)
        return self._before_frame(at, start)

    def _is_key(self, at: int) -> bool:
        """Tell whether this is the key of a book that a reason quotes: "Ans. C"."""
        return at > 1 and self.text.keys[at - 2] in {"ans", "answer"}

    def _named(self, at: int) -> Mention | None:
        try:
            return self.naming.at(at)
        except NotCertain:
            return None

    def _framed(self, frame: tuple[re.Match[str], int], start: int) -> _Statement | None:
        match, at = frame
        is_answer, is_foreign = match["answer"] is not None, match["latin"] is not None
        # First as it stands: "probably benign" may be an option beside "benign".
        for candidate in (at, self.line.after(_FILLER, at) or at):
            if mention := self.naming.clean_at(candidate):
                if match["key"] and start and not self._is_last(mention.end):
                    return None
                mention = replace(mention, start=start)
                return _Statement(
                    mention=mention, sentence=0, is_answer=is_answer, is_foreign=is_foreign
                )
        if match["key"]:
            return None
        is_denial = self.text.keys[at : at + 1] == ("not",) and self.naming.at(at + 1) is not None
        return _Statement(mention=None, sentence=0) if is_answer and not is_denial else None

    def _before_frame(self, at: int, start: int) -> _Statement | None:
        named = self.naming.at(at)
        end = self.line.after("{is_answer} ", named.end) if named else None
        if named is None or end is None:
            return None
        mention = replace(named, start=start, end=end)
        if not self.naming.ends_cleanly(mention):
            raise NotCertain
        is_answer = at > start or self.text.keys[end - 1] in {"answer", "option", "choice"}
        return _Statement(mention=mention, sentence=0, is_answer=is_answer)

    def _is_limited(self, start: int, at: int, number: int) -> bool:
        """Tell whether what stands before a clause, up to the heading above it, may limit it."""
        before = self.sentences[number - 1] if number else (0, 0)
        is_heading = before[1] > 1 and self.text.keys[before[1] - 2] == ":"
        label = self.line.part(*before)
        is_label = len(label.split()) <= 2 * _SHORT and phrase("{mislabels}").search(label)
        if is_label and not any(map(self._named, range(*before))):
            return True
        said = self.line.part(before[0] if is_heading else start, at)
        for place in range(start, at):
            denied = self._named(place) if self.text.keys[place - 1] in _DENIALS else None
            if denied is not None:  # "Not B, the answer is C"
                said = self.line.part(min(denied.end, at), at)
        is_labelled = said.rstrip("; ").endswith(":") and phrase("{mislabels}").search(said)
        if not said or is_labelled or phrase("{limits}").search(said):
            return bool(said)
        follows = self.line.match(r"(?:{lead} )?{so} ", at) or phrase("{so} [,;:] $").search(said)
        return not follows and phrase("{denies}").search(said) is not None

    # What the sentences around it do to it.

    def _unsettles(self, number: int, last: _Statement) -> bool:
        """Tell whether a sentence may take a statement back, doubt it or speak for another one."""
        mention = last.mention
        assert mention is not None
        start, end = self.sentences[number]
        is_own = number == last.sentence
        start = max(start, mention.end) if number >= last.sentence else start
        start = self._past_soft(start)
        again = self._named(start) if is_own and mention.is_by_letter else None
        if again is not None and again.choice == mention.choice:
            if self.line.after("{refuted} ", again.end) is not None:
                return True
            start = self._past_soft(again.end)
        if start >= end:
            return False
        said = self.line.part(start, end)
        is_near = "\n" not in self.text.keys[mention.end : start]
        is_asked = "? " in said and (is_near or len(said.split()) <= 2 * _SHORT)
        if phrase("{taken_back}").search(said) or is_asked:
            return True
        if last.is_foreign and phrase("{taken_back_in_latin}").search(said):
            return True
        words = [key for key in self.text.keys[start:end] if key not in SOFT]
        if words[:1] == ["not"] and (denied := self.naming.at(start + 1)):
            is_all = set(words) <= {"not", "nor", "or", "and", *self.naming.choices.by_letter}
            return denied.choice == mention.choice or not is_all
        is_reason = self.text.keys[start] in {"because", "since"}
        if is_own and not is_reason and phrase("{softens}").search(said):
            return True
        is_closing = end == self.sentences[-1][1] and number < last.sentence + 3
        is_next = number <= last.sentence + 1
        is_beside = number > last.sentence and (is_next and is_near or is_closing)
        if is_beside and self._is_fragment(words, said):
            return True
        if self.naming.interjects and self._denies_interjection(words, mention, is_own=is_own):
            return True
        is_lone = mention.is_by_letter and not mention.is_confirmed and number == last.sentence + 1
        return any(
            self._speaks_against(
                at, said, last, is_near=is_near and is_next, is_lone=is_lone and is_near
            )
            for at in range(start, end)
            if self.text.keys[at] in self.naming.first_words
        )

    def _past_soft(self, at: int) -> int:
        while at < len(self.text) and self.text.keys[at] in SOFT:
            at += 1
        return at

    def _is_fragment(self, words: list[str], said: str) -> bool:
        """Tell whether a sentence is too short to be a reason: "Only at night."."""
        is_short = 0 < sum(map(str.isalnum, words)) <= _SHORT
        return is_short and ": " not in said and not phrase("{verb}").search(said)

    def _denies_interjection(self, words: list[str], mention: Mention, *, is_own: bool) -> bool:
        if is_own and phrase("{abstains}").search(" ".join(words)):
            return True
        if self.naming.choices[mention.choice].words == ("no",):
            return not _WRONG.isdisjoint(words)  # "No, there is no lesion" says it twice
        is_short = is_own or len(words) <= 2 * _SHORT
        return is_short and not _ABSENT.isdisjoint(words)

    def _speaks_against(
        self, at: int, said: str, last: _Statement, *, is_near: bool, is_lone: bool
    ) -> bool:
        """Tell whether a choice is named here that is denied, or another one that may be meant."""
        mention = last.mention
        assert mention is not None
        try:
            named = self.naming.at(at)
        except NotCertain:
            return True
        if named is None:
            return False
        before = self.text.keys[at - 1] if at else ""
        is_refuted = self.line.after("{refuted} ", named.end) is not None
        if named.choice == mention.choice:
            is_named = not named.is_by_letter or before in _LETTER_CONTEXT
            return is_named and (is_refuted or before == "not")
        if self.naming.interjects and not named.is_by_letter:
            return False
        is_against = is_refuted or before == "not"
        if last.is_answer or mention.is_confirmed or not named.is_by_letter:
            is_against = is_against or bool(phrase("{against}").search(said))
        around = self.line.part(max(at - 3, 0), min(named.end + 4, len(self.text)))
        is_far = not is_near if not named.is_by_letter else len(said.split()) > 2 * _SHORT
        is_for = bool(phrase("{for_another}").search(around if is_far else said))
        if named.is_by_letter:
            if self._is_key(at):
                return False
            is_item = self.text.keys[named.end : named.end + 1] != (".",) and not is_for
            is_listed = named.is_confirmed or self.naming.is_list_mark(named.end)
            is_named = is_listed or before in _LETTER_CONTEXT
            return is_named and not is_against and not (is_item and len(said) > 30)
        return not is_against and (is_for or is_lone)
