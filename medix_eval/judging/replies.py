"""Read a judge's reply strictly: one verdict that stands by itself, a number that was offered.

A reply without a usable verdict raises; it must never count for or against the candidate.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from medix_eval.errors import ReplyUnusable
from medix_eval.rules.answers import after_thinking, published_answer

_KEY = "score"
_CLAIM = re.compile(
    r"""["'\u201c\u201d{]\s{0,9}score["'\u201c\u201d]{0,3}\s{0,9}:\s{0,9}(\w*)""", re.IGNORECASE
)
_WHOLE = re.compile(r"\s*-?[0-9]{1,3}(?:\.0+)?\s*")
_HEADING = re.compile(
    r"^(?:#{1,6} *|\*\*)(?P<thinks>(?:my )?(?:thinking|thoughts?)(?: process)?[:*#\s]*$)?",
    re.IGNORECASE | re.MULTILINE,
)
_AROUND_A_LABEL = " \t\r\n.*'\"`"
_QUOTES = r"\"'\u201c\u201d\u2018\u2019"
_MARKS = rf"```\w*|[\s*_`|${_QUOTES}]|<\|\w+\|>|</?(?:answer|verdict|response|output|json)>"
"""What may stand around a verdict without a meaning: a code fence, bold type, quotes, a tag."""
_BEFORE = re.compile(rf"(?:{_MARKS}|[(\[{{]|\\boxed)*+\Z")
_AFTER = re.compile(rf"(?:{_MARKS}|[)\]}}])*+")
_ASIDE = re.compile(r"\{[^{}]*\}|\([^()]*\)|\[[^\[\]]*\]")
_QUOTED = re.compile(r"(?:\A|\n)\s*>[^\n]*\Z|~~\Z")
_UNFINISHED = re.compile(
    r"(?:[:\uff1a]|\b(?:g[ai]ves?|writes?|wrote|says?|said|is|be|was|reply|replied|with|to|or|and|not))\Z"
)
_OWN_VERDICT = re.compile(
    r"(?:(?:and|so|then|therefore|thus|hence|finally|overall|sure|okay|ok|conclusion)\b ?)*"
    r"(?:(?:here (?:i?s )?|this is|i (?:d |ll |will |would |therefore |thus |\w+ly )*"
    r"(?:give|assign|award|grade|rate|score|conclude|choose|go with)(?: it| this)?)\b ?)?"
    r"(?:(?:the|my|our|a|final|overall|json|in)\b ?)*(?:verdict|score|grade|grading|rating|result|"
    r"judge?ment|decision|output|assessment|evaluation|conclusion|answer|response|reply|summary)?"
    r" ?(?:is|json)?"
)
"""The words of a clause that leads to the judge's own verdict; any other may quote somebody's."""
_HEDGED = re.compile(
    r"\b(?:if|unless|when|whether|had|were|tempt(?:ing|ed)|normally|usually|otherwise|example|"
    r"instance|suppose|not)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
_NEW_SENTENCE = re.compile(r"[^\x00-\x7f]|[A-Z({.!;:-]|,? ?(?:because|since|as)\b(?! an?\b)|\Z")
_TAKEN_BACK = re.compile(
    r"\A\W{0,9}(?:but|however|if|no(?! \w))\b|(?:\A|[.!?\n])\W{0,9}(?:but )?(?:wait|hmm+|actually|"
    r"scratch that|correction|on (?:second|reflection))\b|(?:not|n['\u2019]t) (?:decided?|sure)\b",
    re.IGNORECASE,
)
_LONGEST_SENTENCE = 400


def verdict_schema(scale: tuple[int, int]) -> dict[str, Any]:
    """Return the JSON schema of a reply, for servers that can enforce one."""
    lowest, highest = scale
    return {
        "type": "object",
        "properties": {"score": {"type": "integer", "enum": list(range(lowest, highest + 1))}},
        "required": ["score"],
        "additionalProperties": False,
    }


def read_points(reply: str, *, scale: tuple[int, int], answer: str = "") -> int:
    """Return the points of the one `{"score": N}` after the judge's thinking.

    Prose may stand around it, but not make it a quotation, a condition or one of several options:
    it stands by itself, or a clause such as "so my verdict is" leads to it. Raises
    `ReplyUnusable` for anything else, for a number off the scale, and for a reply that may quote
    its verdict from the `answer` it grades.

    >>> read_points('The same drug. Verdict: {"score": 1}', scale=(0, 1))
    1
    """
    said = _after_thinking(reply)
    found = list(_objects(said))
    verdicts = [one for one in found if one.scores]
    ends = [0, *(one.end for one in found)]
    spoken = [said[at : one.start] for at, one in zip(ends, found, strict=False)]
    if not verdicts:
        raise ReplyUnusable(f"no verdict in the reply: {_tail(reply)}")
    if any(map(_CLAIM.search, [*spoken, said[ends[-1] :]])):
        raise ReplyUnusable(f"the verdict is not JSON: {_tail(said)}")
    if any(one.is_nested for one in verdicts) or len({_points(one, scale) for one in verdicts}) > 1:
        raise ReplyUnusable(f"more than one verdict: {_tail(said)}")
    points = _points(verdicts[-1], scale)
    if not any(
        _stands_alone(said[: one.start], said[one.end :]) for one in (*verdicts[:1], verdicts[-1])
    ):
        raise ReplyUnusable(f"a verdict within a sentence may be a quotation: {_tail(said)}")
    # A `</think>` may be the answer's as well, and the judge's own verdict stand before it.
    thought = {claim[1] for claim in _CLAIM.finditer(reply[: len(reply) - len(said)])}
    if thought - {str(points)} and _KEY in answer.casefold() and str(points) in answer:
        raise ReplyUnusable(f"two verdicts, and the last may be the answer's: {_tail(reply)}")
    return points


class _Object(NamedTuple):
    """A JSON object in a reply, and what it gives for a score at any depth."""

    start: int
    end: int
    scores: tuple[Any, ...]
    is_nested: bool


def _objects(text: str) -> Iterator[_Object]:
    """Yield the outermost objects; braces inside their texts are none."""
    scores: list[Any] = []

    def seen(pairs: list[tuple[str, Any]]) -> list[Any]:
        own = [value for key, value in pairs if key.strip().casefold() == _KEY]
        scores.extend(own)
        return own

    scanner, start = json.JSONDecoder(object_pairs_hook=seen), text.find("{")
    while start >= 0:
        scores.clear()
        end = start + 1
        try:
            own, end = scanner.raw_decode(text, start)
        except (ValueError, RecursionError):
            pass
        else:
            yield _Object(start, end, tuple(scores), len(own) != 1 or len(scores) > 1)
        start = text.find("{", end)


def _points(verdict: _Object, scale: tuple[int, int]) -> int:
    """Return a score that is a whole number: 1, 1.0 or "1"."""
    points = verdict.scores[-1]
    if isinstance(points, str) and _WHOLE.fullmatch(points):
        points = float(points)
    if isinstance(points, float) and points.is_integer():
        points = int(points)
    lowest, highest = scale
    if type(points) is not int or not lowest <= points <= highest:
        raise ReplyUnusable(f"score {points!r} is not one of {lowest} to {highest}")
    return points


def _stands_alone(before: str, after: str) -> bool:
    """Tell whether a verdict is the judge's own: not part of a sentence about another one."""
    reason = _AFTER.sub("", after, count=1)
    is_last_in_line = "\n" in after[: len(after) - len(reason)]
    if _TAKEN_BACK.search(reason) or not (is_last_in_line or _NEW_SENTENCE.match(reason)):
        return False
    before = before[-_LONGEST_SENTENCE:]
    lead = _BEFORE.sub("", before)
    is_first_in_line = "\n" in before[len(lead) :] and not _UNFINISHED.search(lead)
    if is_first_in_line or not lead or lead[-1] in ".!?":
        return not _QUOTED.search(lead)
    sentence = _ASIDE.sub(" ", re.split(r"[.!?]\s|\n", lead.rstrip(":\uff1a"))[-1])
    words = " ".join(re.findall(r"\w+", re.split(r"[,;:]", sentence)[-1].casefold()))
    return not (_QUOTED.search(lead) or _HEDGED.search(sentence)) and bool(
        _OWN_VERDICT.fullmatch(words)
    )


def read_label(reply: str, *, labels: Mapping[str, int]) -> int:
    """Return the points of a reply that is one of the offered words and nothing else.

    A full stop, quotes and bold type around the word are how models write. Raises `ReplyUnusable`
    for any further word: "NO, not YES" says both.

    >>> read_label("**Yes.**", labels={"YES": 1, "NO": 0})
    1
    """
    said = _after_thinking(reply).strip(_AROUND_A_LABEL).casefold()
    offered = {word.casefold(): points for word, points in labels.items()}
    if said not in offered:
        raise ReplyUnusable(f"the reply is not one of {', '.join(labels)}: {_tail(reply)}")
    return offered[said]


def read_published(reply: str, *, is_report: bool) -> float:
    """Return what the published code counts a reply for: any JSON, of any size.

    All from the first brace to the last is one object. Of a question only a score that equals 1
    counts, which the text "1" does not; a report's score is a number of any size, true being 1.
    Raises `ReplyUnusable` where that code raises, and where the score is not a finite number.

    >>> read_published('{"score": "1"}', is_report=False)
    0.0
    >>> read_published('{"score": 7}', is_report=True)
    7.0
    """
    said = published_answer(reply)
    try:
        verdict = json.loads(said[max(said.find("{"), 0) : said.rfind("}") + 1])
    except (ValueError, RecursionError) as error:
        raise ReplyUnusable(f"no JSON in the reply: {_tail(reply)}") from error
    if not isinstance(verdict, dict) or "score" not in verdict:
        raise ReplyUnusable(f"no score in the reply: {_tail(reply)}")
    score = verdict["score"]
    if not is_report:
        return 1.0 if score == 1 else 0.0
    try:
        points = float(score) if isinstance(score, int | float) else math.nan
    except OverflowError:
        points = math.inf
    if not math.isfinite(points):
        raise ReplyUnusable(f"score {_tail(str(score))} is not a number")
    return points


def _after_thinking(reply: str) -> str:
    """Return what follows the last thinking; a reply that ends inside it says nothing."""
    said = after_thinking(reply)
    is_thought, start = False, 0
    for heading in _HEADING.finditer(said or ""):
        if is_thought:
            start = heading.start()
        is_thought = bool(heading["thinks"])
    if said is None or is_thought:
        raise ReplyUnusable(f"the reply ends while thinking: {_tail(reply)}")
    return said[start:]


def _tail(text: str) -> str:
    return repr(text[-120:])
