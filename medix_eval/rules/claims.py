"""Find which one of several choices an answer gives, or that this is not certain.

An answer is read clause by clause. A clause may give a choice: alone ("B.", "B) warfarin"), in a
frame ("The answer is warfarin") or before one ("B is correct"). All clauses that give one must give
the same, and nothing else in the answer may take it back. Naming a choice is not giving it:
"Aspirin is tempting" gives nothing. Whatever is not understood leaves the answer undecided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from itertools import accumulate

from medix_eval.rules.mentions import Choices, Mention, Naming, NotCertain
from medix_eval.rules.text import Text, listed

_LIKELY = "likely|appropriate|probable|suitable|accurate|fitting|plausible"
_BEST = (
    rf"(?:final|correct|right|best|single|true|real|actual|overall|preferred|proper"
    rf"|likely|appropriate|most (?:{_LIKELY}))"
)
_IS = r"(?:is|was|would be|must be|should be|will be|has to be)"
LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|but|and|yet|overall|finally|consequently|accordingly"
    r"|in (?:conclusion|summary|short|this case)|to (?:conclude|summari[sz]e)|based on this"
    r"|(?:i|we) (?:think|believe|conclude|am confident)(?: that)?)(?: ,| :| --)? ){0,4}"
)
"""What may stand before an answer without changing it."""
FILLER = re.compile(
    r"(?:(?:therefore|thus|hence|clearly|definitely|certainly|indeed|likely|probably"
    r"|most (?:likely|probably)|that|to|:|--|\n) ){0,3}"
)
"""What may stand between a frame and the answer: it may be sure or not, but it names one."""
_ANSWER = (
    rf"(?:(?:the|my|our) )?(?:{_BEST} ){{0,3}}(?:answer|option|choice|response|diagnosis)"
    rf"(?: choice| option| letter)?"
    rf"(?: here| in this case| for this patient| to (?:this|the) question)?"
    rf" (?:{_IS}|:|=|--|\n)"
)
_CHOOSE = (
    r"(?:i|id|ill|i (?:would|will|shall|must|am going to))(?: therefore| thus)?"
    r" (?:choose|chose|pick|picked|select|selected|go with|answer|say|opt for)"
)
_IT_IS = rf"(?:its|thats|(?:it|this|that) {_IS})"
_BEST_THING = (
    rf"(?:the )(?:single )?(?:next )?(?:{_BEST}|most (?:{_LIKELY}|effective|common|important))"
    rf"(?: [^\W_]+){{1,12}}? (?:{_IS}|are)"
)
_HAS = r"(?:this|the) patient (?:most likely|probably) has"


class Strength(Enum):
    """How much it says that a frame is followed by something we cannot read."""

    STRONG = "an answer is given here, so it must be readable"
    WEAK = "this may be an answer or any other remark"


_FRAMES = re.compile(
    rf"(?:(?P<strong>{_ANSWER}|{_CHOOSE})|(?P<weak>{_BEST_THING}|{_HAS}|{_IT_IS})) "
)
_STRICT = re.compile(rf"(?:{_ANSWER}|{_CHOOSE}|{_IT_IS}) (?:(?::|--|\n) )?")
_NOT_BEST = re.compile(
    r"\b(?:not|wrong|incorrect|false|least|except|no|never|other|second|alternative|differential"
    r"|mistake|error|distractor|misconception|trap|exclude|excluded|avoid|contraindicated)\b"
)
REVERSE = re.compile(
    rf"{_IS} (?:correct|right|(?:the|my|our) (?:{_BEST} ){{0,3}}(?:answer|option|choice|diagnosis)"
    rf"|(?:the )?(?:{_BEST} ){{1,3}}one) "
)
"""What makes an answer of the option before it: "B is correct"."""
REFUTED = re.compile(
    rf"{_IS} (?:incorrect|wrong|false|not (?:correct|right"
    r"|the (?:correct|right|best) (?:answer|option|choice))) "
)
"""What denies the option before it, and says nothing about another one."""
GIVES_ANSWER = re.compile(rf"\b(?:answer|option|choice) (?:{_IS}|:) ")
"""The heart of a strong frame; where it stands outside one, the text is not plain."""


@dataclass(frozen=True)
class TokenLine:
    """A text as one line of tokens, on which patterns are tried at a token."""

    text: Text

    @cached_property
    def joined(self) -> str:
        """The tokens in lower case, each followed by one space."""
        return "".join(f"{key} " for key in self.text.keys)

    @cached_property
    def _starts(self) -> dict[int, int]:
        ends = accumulate((len(key) + 1 for key in self.text.keys), initial=0)
        return {start: token for token, start in enumerate(ends)}

    @cached_property
    def _offsets(self) -> list[int]:
        return list(self._starts)

    def after(self, pattern: re.Pattern[str], at: int) -> int | None:
        """Return the token after the pattern, if the pattern matches at this token."""
        match = pattern.match(self.joined, self._offsets[at])
        return self._starts[match.end()] if match else None

    def frame(self, at: int) -> tuple[int, Strength] | None:
        """Return where the frame that starts at this token ends, and its strength."""
        match = _FRAMES.match(self.joined, self._offsets[at])
        if match is None or _NOT_BEST.search(match[0]):
            return None
        strength = Strength.STRONG if match["strong"] else Strength.WEAK
        return self._starts[match.end()], strength


def unframed(text: Text) -> Text:
    """Return what a whole-sentence answer names: "It is 5 mg." becomes "5 mg."."""
    end = TokenLine(text).after(_STRICT, 0) or 0
    return Text(raw=text.raw[end:], keys=text.keys[end:])


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
    def line(self) -> TokenLine:
        return TokenLine(self.text)

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
        at = self.line.after(LEAD, start) or start
        if is_sentence and at > start and (bare := self.naming.clean_at(at, is_bare=True)):
            return replace(bare, start=start)
        if frame := self.line.frame(at):
            return self._given_in_frame(*frame, start=start)
        return self._given_before_frame(at, start=start)

    def _given_in_frame(self, at: int, strength: Strength, *, start: int) -> Mention | None:
        # First as it stands: "probably benign" may be an option beside "benign".
        for candidate in (at, self.line.after(FILLER, at) or at):
            if mention := self.naming.clean_at(candidate):
                return replace(mention, start=start, is_framed=True)
        is_denial = self.text.keys[at : at + 1] == ("not",) and self.naming.at(at + 1) is not None
        if strength is Strength.STRONG and not is_denial:
            raise NotCertain
        return None

    def _given_before_frame(self, at: int, *, start: int) -> Mention | None:
        named = self.naming.at(at)
        end = self.line.after(REVERSE, named.end) if named else None
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
            or GIVES_ANSWER.search(rest)
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
        end = self.line.after(REFUTED, subject.end) if subject else None
        return subject if end is not None and at < end else None
