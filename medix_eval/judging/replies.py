"""Read a judge's reply strictly: the last verdict counts, and only a number that was offered.

A reply without a usable verdict raises; it must never count for or against the candidate.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from medix_eval.errors import ReplyUnusable
from medix_eval.rules.answers import published_answer

_KEY = '"score"'
_OBJECT = re.compile(r"\{[^{}]*\}")
_THINKING_ENDS = re.compile(r"</think(?:ing)?>")
_THINKING_STARTS = re.compile(r"<think(?:ing)?>")
_AROUND_A_LABEL = " \t\r\n.*'\"`"


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
    """Return the points of the last `{"score": N}` after the judge's thinking.

    The last one wins because a reply may quote the `answer` it grades, and then decide. Raises
    `ReplyUnusable` for no verdict, a verdict cut off, a number off the scale, one that is not a
    whole number, and for several claims of which the one that was read may be the answer's own.

    >>> read_points('The student wrote {"score": 1}. Verdict: {"score": 0}', scale=(0, 1))
    0
    """
    said = _after_thinking(reply)
    verdicts = _verdicts(said)
    if not verdicts:
        raise ReplyUnusable(f"no verdict in the reply: {_tail(reply)}")
    try:
        points = json.loads(verdicts[-1], object_pairs_hook=_without_repeats)["score"]
    except (ValueError, KeyError) as error:
        raise ReplyUnusable(f"the verdict is not JSON: {_tail(verdicts[-1])}") from error
    lowest, highest = scale
    if type(points) is not int or not lowest <= points <= highest:
        raise ReplyUnusable(f"score {points!r} is not one of {lowest} to {highest}")
    # Also what stands before a `</think>`: that may be part of the answer as well.
    claims = _verdicts(reply)
    differ = len({_without_blanks(claim) for claim in claims}) > 1
    # `{"score": 0, "why": "it says {"score": 1}"}`: only what is quoted is an object by itself.
    is_nested = reply.count(_KEY) > len(claims)
    if (differ or is_nested) and "score" in answer.casefold() and str(points) in answer:
        raise ReplyUnusable(f"two verdicts, and the last may be the answer's: {_tail(reply)}")
    return points


def _verdicts(text: str) -> list[str]:
    return [found for found in _OBJECT.findall(text) if _KEY in found]


def _without_blanks(text: str) -> str:
    return "".join(text.split())


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
    said = _THINKING_ENDS.split(reply)[-1]
    if _THINKING_STARTS.search(said):
        raise ReplyUnusable(f"the reply ends while thinking: {_tail(reply)}")
    return said


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a verdict that says two things at once."""
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _tail(text: str) -> str:
    return repr(text[-120:])
