"""Find which one of several choices an answer gives, or that this is not certain.

An answer is read clause by clause. A clause may give a choice: alone ("B.", "B) warfarin"), in a
frame ("The answer is warfarin") or before one ("B is correct"). All clauses that give one must give
the same, and nothing else in the answer may take it back. To name a choice is not to give it:
"Aspirin is tempting" gives nothing. Whatever is not understood leaves the answer undecided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from medix_eval.rules import frames
from medix_eval.rules.mentions import Choices, Mention, Naming, NotCertain
from medix_eval.rules.text import Text, listed

_CLAUSE_ENDS = frozenset({",", ";", "--"})

_DOUBT = re.compile(
    r"\b(?:sorry|kidding|jok(?:e|ing)|pretend|unsure|uncertain|undecided|no idea|guess(?:ing)?"
    r"|(?:cannot|can not|cant) (?:say|tell|determine|decide)|(?:not|never) (?:sure|certain)"
    r"|(?:dont|do not) know|opposite|ignore|disregard|hypothetically|supposedly|allegedly"
    r"|if|unless|suppose|assuming)\b"
)
"""In an answer that is certain, these stand nowhere."""
_TAKEN_BACK = re.compile(
    r"\b(?:actually|wait|hold on|correction|instead|rather|however|but|although|though|yet"
    r"|alternatively|otherwise|either|neither|unclear|maybe|perhaps|possibly|may|might|could"
    r"|equally|also|too|better|changed|reconsider\w*|second thought|revis\w+|mistaken?|error"
    r"|reject\w*|retract\w*|scratch|nope|both|a lie|trick)\b|\?|(?:^|[,.!;\n] )(?:or|no [,.]) "
)
"""After an answer was given, these may take it back or add a second one."""
_REPORTED = frozenset(
    listed(
        "some many others people students say says said believe believes think thinks thought claim"
        " claims argue argues suggest suggests myth according"
    )
)
"""In front of an answer, these may make it someone else's."""
_WRONG = frozenset({"wrong", "incorrect", "false", "untrue"})
_NEGATIVE = _WRONG | frozenset(
    listed("not isnt wasnt cannot cant dont doesnt never nor hardly unlikely")
)
_ABSENT = frozenset(listed("no none without absent negative"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The choice that an answer gives, by its index."""

    choice: int
    is_by_letter: bool


def find_claim(text: Text, choices: Choices, *, interjects: bool = False) -> Claim | None:
    """Return the choice that the answer gives; None if it gives none, several or is unclear.

    `interjects` is for yes and no, which stand before a comma: "No, the lungs are clear."
    """
    clauses = _Clauses(text=text, naming=Naming(text=text, choices=choices, interjects=interjects))
    try:
        given = list(clauses.given())
        if len({mention.choice for mention in given}) != 1 or clauses.cast_doubt_on(given):
            return None
    except NotCertain:
        return None
    is_by_letter = any(mention.is_by_letter for mention in given)
    return Claim(choice=given[0].choice, is_by_letter=is_by_letter)


@dataclass(frozen=True, kw_only=True)
class _Clauses:
    text: Text
    naming: Naming

    @cached_property
    def line(self) -> frames.Line:
        return frames.Line(self.text)

    def given(self) -> Iterator[Mention]:
        """Yield what each clause gives; such a mention spans its frame too."""
        at = sentence = 0
        while at < len(self.text):
            mention = self._given_by_clause(at, is_sentence=at == sentence)
            if mention is not None:
                if not _REPORTED.isdisjoint(self.text.keys[sentence:at]):
                    raise NotCertain
                yield mention
                at = mention.end
            while at < len(self.text) and not self._ends_clause(at):
                at += 1
            at += 1
            if at < len(self.text) and self.text.ends_sentence(at - 1):
                sentence = at

    def _ends_clause(self, at: int) -> bool:
        return self.text.keys[at] in _CLAUSE_ENDS or self.text.ends_sentence(at)

    def _given_by_clause(self, start: int, *, is_sentence: bool) -> Mention | None:
        if is_sentence and (bare := self.naming.clean_at(start, is_bare=True)):
            return bare
        at = self.line.after(frames.LEAD, start) or start
        if is_sentence and at > start and (bare := self.naming.clean_at(at, is_bare=True)):
            return replace(bare, start=start)
        if frame := self.line.frame(at):
            return self._given_in_frame(*frame, start=start)
        return self._given_before_frame(at, start=start)

    def _given_in_frame(self, at: int, strength: frames.Strength, *, start: int) -> Mention | None:
        # First as it stands: "probably benign" may be an option beside "benign".
        for candidate in (at, self.line.after(frames.FILLER, at) or at):
            if mention := self.naming.clean_at(candidate):
                return replace(mention, start=start, is_framed=True)
        is_denial = self.text.keys[at : at + 1] == ("not",) and self.naming.at(at + 1) is not None
        if strength is frames.Strength.STRONG and not is_denial:
            raise NotCertain
        return None

    def _given_before_frame(self, at: int, *, start: int) -> Mention | None:
        named = self.naming.at(at)
        end = self.line.after(frames.REVERSE, named.end) if named else None
        if named is None or end is None:
            return None
        mention = replace(named, start=start, end=end, is_framed=True)
        if not self.naming.ends_cleanly(mention):
            raise NotCertain
        return mention

    def cast_doubt_on(self, given: Sequence[Mention]) -> bool:
        """Tell whether anything around what was given may deny it or take it back."""
        inside = {at for mention in given for at in range(mention.start, mention.end)}
        outside = [at for at in range(len(self.text)) if at not in inside]
        if not outside:
            return False
        rest = self._joined(outside)
        # A frame says what the answer is, whatever else was weighed; a bare name does not.
        is_framed = any(mention.is_framed for mention in given)
        if not is_framed and self._speaks_of_others(outside, choice=given[0].choice):
            return True
        first = given[0].end if given[0].is_framed else 0
        later = self._joined([at for at in outside if at >= first])
        return bool(
            _DOUBT.search(rest)
            or frames.GIVES_ANSWER.search(rest)
            or _TAKEN_BACK.search(later)
            or any(self._denies(at, given) for at in outside)
        )

    def _speaks_of_others(self, outside: Sequence[int], *, choice: int) -> bool:
        return any(
            (named := self.naming.at(at)) is not None and named.choice != choice
            for at in outside
            if at > 0 and self.text.ends_sentence(at - 1)
        )

    def _joined(self, tokens: Sequence[int]) -> str:
        return "".join(f"{self.text.keys[at]} " for at in tokens)

    def _denies(self, at: int, given: Sequence[Mention]) -> bool:
        """Tell whether a word is there that may deny what was given."""
        key = self.text.keys[at]
        choice = given[0].choice
        words = self.naming.choices[choice].words
        if self.naming.interjects and words == ("no",):
            return key in _WRONG or key == "yes"  # "No, there is no lesion" says it twice
        is_negative = key in _NEGATIVE or (
            self.naming.interjects and words == ("yes",) and key in _ABSENT
        )
        if not is_negative:
            return False
        if denied := self.naming.at(at + 1) or self._refuted_before(at):
            return denied.choice == choice
        # Before the answer, and in a sentence of its own, a denial is about something else.
        is_before = at < given[0].start
        return not (is_before and any(map(self.text.ends_sentence, range(at, given[0].start))))

    def _refuted_before(self, at: int) -> Mention | None:
        """Return the choice of a sentence such as "A is incorrect" around this token."""
        start = at
        while start and not self.text.ends_sentence(start - 1):
            start -= 1
        subject = self.naming.at(start)
        end = self.line.after(frames.REFUTED, subject.end) if subject else None
        return subject if end is not None and at < end else None
