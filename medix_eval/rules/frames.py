"""The wordings in which an answer is given, such as "The answer is" or "I would choose".

Patterns run over the tokens of a text joined by single spaces (see `text.py`), so punctuation
stands alone, apostrophes are gone (`its`, `id`) and everything is in lower case. A wording that is
not here is not understood, and what is not understood is not decided: to teach the rules a
wording, add it here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import accumulate

from medix_eval.rules.text import Text

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
"""What denies the option before it, and says nothing of another one."""

GIVES_ANSWER = re.compile(rf"\b(?:answer|option|choice) (?:{_IS}|:) ")
"""The heart of a strong frame; where it stands outside one, the text is not plain."""


@dataclass(frozen=True)
class Line:
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
    end = Line(text).after(_STRICT, 0) or 0
    return Text(raw=text.raw[end:], keys=text.keys[end:])
