"""Find which one of several choices an answer states, or that this is not certain.

An answer is read sentence by sentence. A clause may state a choice: alone ("B.", "B) warfarin"), in
a frame ("The answer is warfarin") or before one ("B is correct"). The last statement counts, if it
corrects or concludes those that differ, and if no sentence from it on takes it back, doubts it or
speaks for another choice (no sentence at all, where it is a bare name). Naming a choice is not
stating it: "Aspirin is tempting" states nothing. What is not understood leaves an answer undecided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from medix_eval.rules.mentions import Choices, Mention, Naming, NotCertain, TokenLine, phrase
from medix_eval.rules.text import SOFT, Text, terms_of

_LEAD = r"(?:{lead}(?: ,| :| --| \n| !| \.)? ){0,4}(?:\{ )?"
_FILLER = r"(?:{filler} ){0,3}"
_FRAMES = r"(?:(?P<answer>{answer}|(?P<latin>{answer_in_latin})|(?P<key>{key}))|{remark}) "
_WHOLE_FRAME = r"(?:{answer}|{it_is}) (?:(?::|--|\n) )?"
_EXPLAINS = frozenset({"--", ":"})
_MARKS = _EXPLAINS | {"\n"}
"""Of a list, or of a heading that stands above."""
_CLAUSE_ENDS = _EXPLAINS | {",", ";", "}"}
_LONGEST_LEAD = 12  # words before an answer in the line that gives it; a longer one argues
_SHORT = 5
"""Words of a sentence that must be understood; a longer one is a reason."""
_CLOSING = 2
"""Sentences behind an answer among which the last one of a text belongs to it."""
_AROUND = 4  # words around the name of another option that may speak for it
_ITEM = 30
"""Characters of a sentence that tells about another option, where a shorter one may choose it."""


def unframed(text: Text) -> Text:
    """Return what a whole-sentence answer names: "It is 5 mg." becomes "5 mg."."""
    end = TokenLine(text).after(_WHOLE_FRAME, 0) or 0
    return Text(raw=text.raw[end:], keys=text.keys[end:])


def concluded(text: Text) -> Text | None:
    """Return what a text ends with as its answer: "… So the answer is 5 mg." gives "5 mg."."""
    answer = _Answer(text=text, naming=Naming(text=text, choices=Choices(()), interjects=False))
    found: list[tuple[str, int]] = []
    place, last = len(text), len(answer.sentences) - 1
    asked = answer.line.joined.rpartition("? ")[0]
    if phrase(r"[.!\n] ").search(asked) or phrase(r"\n {new_turn} ").search(answer.line.joined):
        return None  # another question behind an answer
    for number, (start, end) in reversed([*enumerate(answer.sentences)]):
        if end < place if found else number < last - 1:
            break  # a new paragraph, or too far from the end
        place = start
        if (at := answer.concludes(number)) is not None:
            found.append((answer.line.part(at, end).strip(" .!"), at))
    if len({said for said, _ in found}) != 1:
        return None  # two answers in one paragraph are none
    at, end = found[0][1], answer.sentences[-1][1]
    return Text(raw=text.raw[at:end], keys=text.keys[at:end])


def find_claim(text: Text, choices: Choices, *, interjects: bool = False) -> Mention | None:
    """Return the choice that the answer states; None if it states none or that is unclear.

    `interjects` is for yes and no, which stand before a comma: "No, the lungs are clear."
    """
    naming = Naming(text=text, choices=choices, interjects=interjects)
    return _Answer(text=text, naming=naming).claim()


def may_change(text: Text, choices: Choices) -> bool:
    """Tell whether what follows a statement may change it: it names a choice, or takes back."""
    naming = Naming(text=text, choices=choices, interjects=False)
    changes = "{taken_back}|{rechecks}|{corrected}|{softens}|{turns}|{adds}|{gives_answer}"
    try:
        is_named = any(map(naming.at, range(len(text))))
    except NotCertain:
        return True
    return is_named or phrase(changes).search(TokenLine(text).joined) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """A clause that states a choice."""

    mention: Mention | None = None
    """What is named, with its frame; None where an answer is stated that cannot be read."""
    is_answer: bool = True
    """Whether it says that this is the answer; else it is a bare name or perhaps a remark."""
    is_foreign: bool = False
    """Whether it is in a language whose words mean other things in English."""
    sentence: int = 0
    is_limited: bool = False
    """Whether words before it may make it conditional or somebody else's."""


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """Reads what the sentences of an answer state."""

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
            if (self.text.ends_sentence(at) and not self.naming.is_list_mark(at))
            or (self.text.keys[at] == ";" and not self._is_in_brackets(at))
        ]
        return [
            (start, end)
            for start, end in zip([0, *ends], [*ends, len(self.text)], strict=True)
            if not SOFT.issuperset(self.text.keys[start:end])
            and not phrase("{courtesy} ?").fullmatch(self.line.part(start, end))
        ]

    def named(self, at: int) -> Mention | None:
        """Return the choice that is named at a token, if that is certain."""
        try:
            return self.naming.at(at)
        except NotCertain:
            return None

    def is_key(self, at: int) -> bool:
        """Tell whether this is the key of a book that a reason quotes: "Ans. C"."""
        return at > 1 and self.text.keys[at - 2] in {"ans", "answer"}

    def claim(self) -> Mention | None:
        """Return the choice that is stated, by its letter if any statement of it gives one."""
        stated = self._without_items(list(self._all_statements()))
        if not stated or (mention := stated[-1].mention) is None or stated[-1].is_limited:
            return None
        last = stated[-1]
        alike = [one for one in stated if one.mention and one.mention.choice == mention.choice]
        others = [one for one in stated if one not in alike]
        if others and (self._turns(stated) or not self._overrules(mention, last, others[-1])):
            return None
        # A bare name counts only beside nothing that speaks against it, from the first word on.
        is_answer = any(one.is_answer and not one.is_limited for one in alike)
        first = last.sentence if others or last.is_answer else alike[0].sentence if is_answer else 0
        beside = (self._beside(last, mention, at) for at in range(first, len(self.sentences)))
        if any(one.unsettles() for one in beside):
            return None
        is_by_letter = any(one.mention.is_by_letter for one in alike if one.mention)
        return replace(mention, is_by_letter=is_by_letter)

    def concludes(self, number: int) -> int | None:
        """Return where the answer stands that the last frame of a sentence gives."""
        start, end = self.sentences[number]
        for at in range(end - 1, start - 1, -1):
            is_boxed = self.text.keys[at - 1 : at + 2] == (",", "answer", ":")
            follows = self.line.after("(?:{lead} )*{so} ", at) is not None
            if at == start or is_boxed or follows:
                frame = self._frame(self.line.after(_LEAD, at) or at)
                if frame is not None and frame[0]["answer"]:
                    is_limited = self._is_limited(start, at, number)
                    return None if is_limited else self.line.after(_FILLER, frame[1])
        return None

    def _beside(self, statement: _Statement, mention: Mention, number: int) -> _Beside:
        start, end = self.sentences[number]
        place = number - statement.sentence
        start = self.naming.past(start if place < 0 else max(start, mention.end), SOFT)
        # "B. Warfarin is too weak": what follows is said of the text of the option.
        again = None if place or not mention.is_by_letter else self.named(start)
        if again is not None and again.choice == mention.choice:
            start = self.naming.past(again.end, SOFT)
        return _Beside(
            answer=self, statement=statement, mention=mention, start=start, end=end, place=place
        )

    def _is_in_brackets(self, at: int) -> bool:
        near = self.text.keys[max(at - _LONGEST_LEAD, 0) : at]
        return near.count("(") > near.count(")")

    def _overrules(self, mention: Mention, last: _Statement, other: _Statement) -> bool:
        """Tell whether a statement replaces others, which differ: as a correction or at the end."""
        start, before = (self.sentences[one.sentence][0] for one in (last, other))
        if not last.is_answer:
            return False
        first = min(other.mention.end if other.mention else before, start)
        follows = other.mention is None and self.line.match("{so} ", mention.start)
        if follows or phrase("{corrected}").search(self.line.part(first, mention.end)):
            return True
        is_apart = start > 0 and self.text.keys[start - 1] == "\n"
        return is_apart and mention.start < start + _LONGEST_LEAD and self._is_last(mention.end)

    def _is_last(self, end: int) -> bool:
        return SOFT.issuperset(self.text.keys[end : self.sentences[-1][1]])

    def _turns(self, stated: list[_Statement]) -> bool:
        """Tell whether the text goes on with another question between two statements."""
        first, last = (self.sentences[stated[place].sentence][0] for place in (0, -1))
        between = self.line.part(first, min(last + 3, len(self.text)))  # with "Question 2:"
        is_asked = self.naming.interjects and "? " in between
        return is_asked or phrase(r"\n {new_turn} ").search(between) is not None

    def _without_items(self, stated: list[_Statement]) -> list[_Statement]:
        """Leave out what only lists why the others are wrong: "- A. aspirin: too weak"."""
        telling = [
            one
            for one in stated
            if one.is_answer
            or one.mention is None
            or self.naming.interjects
            or self.naming.past(one.mention.end, SOFT) >= self.sentences[one.sentence][1]
        ]
        opens = bool(stated) and stated[0] in telling and not stated[0].sentence
        return telling if opens or any(one.is_answer for one in stated) else stated

    def _all_statements(self) -> Iterator[_Statement]:
        end = 0  # of what was stated: "B. aspirin" are two sentences and one statement
        for number, (start, _) in enumerate(self.sentences):
            for one in self._statements(number, max(start, end)):
                end = one.mention.end if one.mention else end
                yield one

    def _statements(self, number: int, start: int) -> Iterator[_Statement]:
        end = self.sentences[number][1]
        at = rest = start = self.naming.past(start, _MARKS)
        while at < end:
            try:
                found = self._stated(at, start)
            except NotCertain:
                # "A. aspirin - incorrect, too weak" states no answer; another unclear one may.
                is_against = phrase("{against}").search(self.line.part(start, end)) is not None
                found = None if is_against and self._frame(at) is None else _Statement()
            if found is not None:
                is_limited = self._is_limited(start, at, number)
                yield replace(found, sentence=number, is_limited=is_limited)
                at = rest = max(found.mention.end if found.mention else end, at + 1)
            while at < end and self.text.keys[at] not in _CLAUSE_ENDS:
                at += 1
            at += 1
        if phrase("{gives_answer}").search(self.line.part(rest, end)):
            yield _Statement(sentence=number)

    def _frame(self, at: int) -> tuple[re.Match[str], int] | None:
        frame = self.line.match(_FRAMES, at)
        is_of_none = frame is not None and phrase(r"\b{not_best}\b").search(frame[0][0])
        return None if is_of_none else frame

    def _stated(self, start: int, sentence: int) -> _Statement | None:
        """Return what the clause that starts here states."""
        at = self.line.after(_LEAD, start) or start
        is_quoted = self.is_key(start) and start > len(("ans", "."))  # not where the text begins
        if start == sentence and not is_quoted:
            for place in dict.fromkeys((start, at)):
                if bare := self.naming.clean_at(place, is_bare=True):
                    lead = phrase(r"\b{so}\b").search(self.line.part(start, place))
                    mention = replace(bare, start=start)
                    return _Statement(mention=mention, is_answer=lead is not None)
        frame = self._frame(at)
        return self._framed(*frame, start) if frame else self._before_frame(at, start)

    def _framed(self, match: re.Match[str], at: int, start: int) -> _Statement | None:
        is_answer, is_foreign = match["answer"] is not None, match["latin"] is not None
        # First as it stands: "probably benign" may be an option beside "benign".
        for candidate in (at, self.line.after(_FILLER, at) or at):
            if mention := self.naming.clean_at(candidate):
                is_quoted = match["key"] and start and not self._is_last(mention.end)
                mention = replace(mention, start=start)
                stated = _Statement(mention=mention, is_answer=is_answer, is_foreign=is_foreign)
                return None if is_quoted else stated
        is_denial = self.text.keys[at : at + 1] == ("not",) and self.naming.at(at + 1) is not None
        return _Statement() if is_answer and not is_denial and not match["key"] else None

    def _before_frame(self, at: int, start: int) -> _Statement | None:
        named = self.naming.at(at)
        end = self.line.after("{is_answer} ", named.end) if named else None
        if named is None or end is None:
            return None
        mention = replace(named, start=start, end=end)
        if not self.naming.ends_cleanly(mention):
            raise NotCertain
        is_answer = at > start or self.text.keys[end - 1] in {"answer", "option", "choice"}
        return _Statement(mention=mention, is_answer=is_answer)

    def _is_limited(self, start: int, at: int, number: int) -> bool:
        """Tell whether what stands before a clause, up to the heading above it, may limit it."""
        before = self.sentences[number - 1] if number else (0, 0)
        label = self.line.part(*before)
        is_label = _is_short(label) and phrase("{mislabels}").search(label) is not None
        is_label = is_label and not phrase("{corrected}").search(label)  # "Wait, that is wrong."
        if is_label and not any(map(self.named, range(*before))):
            return True
        is_heading = label.endswith((": \n ", ": "))
        said = self.line.part(before[0] if is_heading else start, at)
        for place in range(start, at):
            is_denied = place > 0 and self.text.keys[place - 1] in terms_of("denied_by")
            if is_denied and (denied := self.named(place)):  # "Not B, the answer is C"
                said = self.line.part(min(denied.end, at), at)
        is_labelled = said.rstrip(";, ").endswith(":") and phrase("{mislabels}").search(said)
        if is_labelled or phrase("{limits}").search(said):
            return True
        follows = self.line.match("(?:{lead} )?{so} ", at) or phrase("{so} [,;:] $").search(said)
        return not follows and phrase("{denies}").search(said) is not None


@dataclass(frozen=True, kw_only=True)
class _Beside:
    """A sentence beside a statement, or the rest of its own: it may deny or change it."""

    answer: _Answer
    statement: _Statement
    mention: Mention
    start: int
    end: int
    place: int
    """How many sentences behind the statement it stands; 0 for the rest of its own."""

    def unsettles(self) -> bool:
        """Tell whether it may take it back, doubt it or speak for another choice."""
        checks = (self._takes_back, self._limits, self._denies_yes_or_no, self._names)
        return self.start < self.end and any(check() for check in checks)

    @cached_property
    def said(self) -> str:
        return self.answer.line.part(self.start, self.end)

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(key for key in self.answer.text.keys[self.start : self.end] if key not in SOFT)

    @cached_property
    def is_near(self) -> bool:
        """Whether it stands in the same paragraph."""
        return "\n" not in self.answer.text.keys[self.mention.end : self.start]

    @property
    def _is_supposed(self) -> bool:
        """Whether it may be a supposition: "B would be best. But she is pregnant: heparin."."""
        return "would be " in self.answer.line.part(self.mention.start, self.mention.end)

    def _takes_back(self) -> bool:
        is_foreign = self.statement.is_foreign and self.is_near and self.place <= 1
        is_asked = "? " in self.said and (self.is_near or _is_short(self.said))
        return bool(
            is_asked
            or phrase("{taken_back}").search(self.said)
            or (self.place >= 0 and phrase("{rechecks}").search(self.said))
            or (is_foreign and phrase("{taken_back_in_latin}").search(self.said))
            or (not self.place and self.answer.line.match("{refuted} ", self.start))
        )

    def _limits(self) -> bool:
        """Tell whether what follows may limit it: "if she is pregnant", "Only at night."."""
        opening = self.words[:1]
        denied = self.answer.named(self.start + 1) if opening == ("not",) else None
        is_reason = denied is not None and denied.choice != self.mention.choice
        if not self.place:
            is_reason = is_reason or opening in {("because",), ("since",)}
            return not is_reason and phrase("{softens}").search(self.said) is not None
        is_next = self.place == 1 and self.is_near
        is_remark = is_next and not self.statement.is_answer
        if is_remark and phrase("^(?:but|however|although|though|yet) ").search(self.said):
            return True
        is_closing = 0 < self.place <= _CLOSING and self.end == self.answer.sentences[-1][1]
        is_reason = is_reason or ": " in self.said or bool(phrase("{verb}").search(self.said))
        is_short = 0 < sum(map(str.isalnum, self.words)) <= _SHORT
        return (is_closing or is_next) and is_short and not is_reason

    def _denies_yes_or_no(self) -> bool:
        naming = self.answer.naming
        if not naming.interjects:
            return False
        is_telling = not self.place or _is_short(" ".join(self.words))
        if is_telling and self.place <= 1 and phrase("{abstains}").search(" ".join(self.words)):
            return True
        if naming.choices.all[self.mention.choice].words == ("no",):
            # "No, there is no lesion" says it twice.
            return not terms_of("contradicts_no").isdisjoint(self.words)
        return is_telling and not terms_of("contradicts_yes").isdisjoint(self.words)

    def _names(self) -> bool:
        """Tell whether the choice is denied by its name, or another one may be meant."""
        keys, names = self.answer.text.keys, self.answer.naming.first_words
        if not self.is_near and self.answer.line.match("{quoted_key} ", self.start):
            return False
        if self.is_near and not self.mention.is_by_letter and self._completes():
            return True
        places = (at for at in range(self.start, self.end) if keys[at] in names)
        return any(self._speaks_against(at) for at in places)

    def _completes(self) -> bool:
        """Tell whether words make another option of it: "HIV. TB is present." of "HIV and TB"."""
        choices = self.answer.naming.choices.all
        own = set(choices[self.mention.choice].words)
        more = [{*one.words} - own for one in choices if own < {*one.words}]
        return any(not words.isdisjoint(self.words) for words in more)

    def _speaks_against(self, at: int) -> bool:
        keys = self.answer.text.keys
        try:
            named = self.answer.naming.at(at)
        except NotCertain:
            return True
        if named is None:
            return False
        before = keys[at - 1] if at else "\n"
        # "The knee (A) …" names it by the way, and "option (A)" does not.
        opening = keys[at - 2] if before == "(" and at > 1 else before
        is_marked = opening == "\n" or opening in terms_of("before_a_letter")
        is_refuted = before == "not" or self.answer.line.match("{refuted} ", named.end) is not None
        if named.choice == self.mention.choice:
            return is_refuted and (is_marked or not named.is_by_letter)
        if named.is_by_letter:
            return not is_refuted and self._is_letter_meant(named, is_marked=is_marked)
        return not is_refuted and self._is_meant(named)

    def _is_letter_meant(self, named: Mention, *, is_marked: bool) -> bool:
        keys, naming = self.answer.text.keys, self.answer.naming
        is_clear = self.statement.is_answer or self.mention.is_confirmed
        is_listed = named.is_confirmed or naming.is_list_mark(named.end)
        is_named = (is_listed or is_marked) and not self.answer.is_key(named.start)
        if not is_named or (is_clear and phrase("{against}").search(self.said)):
            return False
        if self.is_near and self._is_supposed:
            return True
        is_explained = is_listed and not _EXPLAINS.isdisjoint(keys[named.end : self.end])
        is_item = is_explained or len(self.said) > _ITEM
        is_fragment = keys[named.end : named.end + 1] == (".",)
        return not is_item or is_fragment or self._is_favoured(named)

    def _is_meant(self, named: Mention) -> bool:
        """Tell whether another option that is named by its words may be the answer."""
        keys, naming = self.answer.text.keys, self.answer.naming
        is_item = naming.is_list_mark(named.start - 1) or keys[: named.start][-1:] == ("--",)
        is_explained = is_item and not _EXPLAINS.isdisjoint(keys[named.end : self.end])
        if naming.interjects or is_explained or phrase("{against}").search(self.said):
            return False
        is_described = self.answer.line.match("{describes} ", named.end) is not None
        is_told = _is_short(self.said) and self.place <= _CLOSING and not is_described
        is_lone = self.mention.is_by_letter and not self.mention.is_confirmed
        is_weak = (is_lone or self._is_supposed) and self.is_near and self.place > 0
        return is_told or is_weak or self._is_favoured(named)

    def _is_favoured(self, named: Mention) -> bool:
        """Tell whether words that speak for an option stand in its sentence, or around it."""
        is_whole = _is_short(self.said)
        if not named.is_by_letter:
            is_whole = self.place <= 1 and (self.is_near or is_whole)
        if is_whole:
            return phrase("{for_another}").search(self.said) is not None
        part = self.answer.line.part
        before = part(max(named.start - _AROUND, self.start), max(named.start, self.start))
        behind = part(named.end, min(named.end + _AROUND, max(self.end, named.end)))
        return phrase("{favoured}").search(f"{before}| {behind}") is not None


def _is_short(said: str) -> bool:
    return len(said.split()) <= 2 * _SHORT
