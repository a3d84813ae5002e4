"""Read a judge's reply strictly: one verdict that stands by itself, a number that was offered.

A reply without a usable verdict raises; it must never count for or against the candidate.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from medix_eval.errors import ReplyUnusable
from medix_eval.rules.answers import Pairs, after_thinking, may_think, published_answer, thinking_of
from medix_eval.storage.bundled import bundled, read_mapping

_FORMS = read_mapping(bundled("judges") / "rubric" / "replies.yaml", what="forms of a reply")
RELATIONS: Mapping[str, int] = _FORMS["points"]
"""How an answer may stand to its reference, and its points: as `judges/rubric` says."""
_LISTS = ("missing", "contradicted", "invented")
FINDING_TAGS = {*_LISTS, *(f"{one}_urgent" for one in _LISTS), *_FORMS["tags"].values()}
_STRING = r'"(?:[^"\\]++|\\.)*+"'
_LIST = rf'\[(?:[^{{}}\[\]"]++|{_STRING}|\{{(?:[^{{}}"]++|{_STRING})*+\}})*+\]'
_OBJECT = re.compile(rf'\{{(?:[^{{}}\[\]"]++|{_STRING}|{_LIST})*+\}}', re.DOTALL)
"""A JSON object, with the objects in its lists."""
_CLAIM = re.compile(r"""(?i)["'\u201c{]\s{0,9}score["'\u201d]?\s{0,9}:\s{0,9}(\w*)""")
_NOUN = r"score|grade|grading|rating|verdict|评分|得分|分数|スコア|採点|оценка|bewertung|punktzahl"
_SAID = re.compile(
    rf"(?i)(?:{_NOUN})(?:\W{{0,9}}(?:is|of|was)\b|[为は是])?\W{{0,9}}(\d+|incorrect|wrong)\b"
)
_KEY = re.compile(rf"(?i)(?:{_NOUN}|correct)")
"""A key of an object that gives a verdict."""
_RELATION = re.compile(r'(?i)"\s*relation\s*"\s*:\W*(\w*)')
_NOTHING = frozenset({"none", "nothing", "no", "n/a", "-"})
"""In place of an empty list."""
_SERIOUS = 2
"""Points that a report has at most where one of its errors is serious, as report.txt says."""
_REFUSED = "refused"
"""In place of a number: the answer declines to answer."""
_AROUND_A_LABEL = " \t\r\n.*'\"`"
_MARKS = (
    r"(?:```\w*|[\s*_`|$\"'\u201c\u201d\u2018\u2019()\[\]{}]|\\boxed|<\|\w+\|>|"
    r"</?(?:answer|verdict|response|output|json|s)>)*+"
)
"""What may stand around a verdict without a meaning: a code fence, bold type, quotes, a tag."""
_BEFORE, _AFTER = re.compile(rf"{_MARKS}\Z"), re.compile(_MARKS)
_LEADS_ON = re.compile(
    r"(?i)(?:[:\uff1a]|\b(?:g[ai]ves?|wr\w+|sa\w+|is|be|was|repl\w+|with|or|not|as|like|receive|text|"
    r"contains?|rubric|e\.g\.|enth\u00e4lt|\u00e9crit)|\u3051\u308c\u3070)\Z"
)
_OWN_VERDICT = re.compile(
    r"(?:(?:and|so|then|therefore|thus|hence|finally|overall|sure|okay|ok)\b ?)*"
    r"(?:(?:here (?:i?s )?|this is|i (?:d |ll |will |would |therefore |thus |\w+ly )*"
    r"(?:give|assign|award|grade|rate|score|conclude|choose|go with)(?: it| this)?)\b ?)?"
    r"(?:(?:the|my|our|a|final|overall|json|in|meine|ma|mi|la|因此|最终)\b ?)*"
    rf"(?:{_NOUN}|note|nota|result|judge?ment|decision|output|assessment|evaluation|conclusion|"
    r"answer|response|reply|summary|"
    r"urteil|veredicto)? ?(?:is|json|为|lautet|est|es)?"
)
"""The words of a clause that leads to the judge's own verdict; any other may quote somebody's."""
_FOREIGN = re.compile(r"(?i)\A\s*>|~~\Z|[\"']\Z|\b(?:if|unless|when|had|were|tempt\w+|example)\b")
_NEW_SENTENCE = re.compile(r"[A-Z.!>\u3002\uff01]|,? ?(?:because|since|as)\b(?! an?\b)|\Z")
_TAKEN_BACK = re.compile(
    r"(?i)\A\W{0,9}(?:but|however|if|no(?! \w))\b|(?:\A|[.!?\n])\W{0,9}(?:but )?(?:wait|hmm+|"
    r"actually|scratch|correction|sorry|on (?:second|reflection))\b|"
    r"n[o'\u2019]t (?:decided?|sure)\b|\b(?:above|an example|example of|would be|(?:that|it) back|"
    r"not graded|inject\w+|which i)\b"
)


@cache
def verdict_schema(scale: tuple[int, int], reply: str = "score") -> dict[str, Any]:
    """Return the JSON schema of a reply, for servers that can enforce one; the reason is first."""
    lowest, highest = scale
    values = [*range(lowest, highest + 1), _REFUSED]
    score = {"type": ["integer", "string"], "enum": values}
    properties = {**_FORMS[reply], "score": score}
    closed = {"required": [*properties], "additionalProperties": False}
    return {"type": "object", "properties": properties, **closed}


def details_of(reply: str, more: Pairs = ()) -> dict[str, Any]:
    """Return what a reply gives besides its score: reason, relation or lists; `{}` if nothing."""
    said = after_thinking(reply, more=more) or ""
    found = [one[0] for one in _OBJECT.finditer(said) if _CLAIM.search(one[0])]
    with suppress(ValueError, RecursionError):
        of_text: Any = {"parse_constant": str, "parse_float": str}  # no page can hold a NaN
        verdict = json.loads(found[-1], strict=False, **of_text) if found else {}
        # Half a surrogate pair, which an escape can spell, no file can hold.
        whole = json.dumps(verdict, ensure_ascii=False).encode(errors="replace")
        return {key: value for key, value in json.loads(whole).items() if not _KEY.search(key)}
    return {}


def labels_of(reply: str, more: Pairs = ()) -> tuple[str, ...]:
    """Return what a verdict says in words of its schema: the relation, or a report's errors."""
    details = details_of(reply, more)
    labels = {one for one in _relations(details.items()) if one in RELATIONS}
    for name, error in _errors(details.items()):
        by = error.get("by", "")
        is_only_vague = name == "missing" and by not in {"", "presence"}  # its side or site
        is_urgent = error.get("urgency") == "urgent" and not is_only_vague
        labels |= {name, f"{name}_urgent" if is_urgent else name}
        if name == "contradicted":
            labels.add(_FORMS["tags"].get(by, name))
    return tuple(sorted(labels))


def _relations(pairs: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield the relations that a verdict's pairs give, each by its first word."""
    for key, value in pairs:
        for one in (value or [None]) if isinstance(value, list) else [value]:
            if key.strip().casefold() == "relation":
                yield next(iter(re.findall(r"\w+", str(one).casefold())), "")


def _errors(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the errors of a report by their list, in lower case; one that is text has no words."""

    def plain(text: object) -> str:
        return str(text).strip().casefold()

    for key, value in pairs:
        for one in value if isinstance(value, list) else [value]:
            if plain(key) in _LISTS and one and plain(one) not in _NOTHING:
                told = one.items() if isinstance(one, dict) else ()
                yield plain(key), {plain(k): plain(v) for k, v in told if v is not None}


def read_points(
    reply: str, *, scale: tuple[int, int], answer: str = "", more: Pairs = ()
) -> int | None:
    """Return the points of the one `{"score": N}` after the judge's thinking; None for "refused".

    Prose may stand around it, but not make it a quotation, a condition or one of several options:
    it stands by itself, or a clause such as "so my verdict is" leads to it. Raises
    `ReplyUnusable` for anything else, for a number off the scale, and for a reply that may quote
    its verdict from the `answer` it grades. `more` are marks of thinking that a protocol adds.

    >>> read_points('The same drug. Verdict: {"score": 1}', scale=(0, 1))
    1
    """
    said = _after_thinking(reply, more)
    verdicts = [found for found in _OBJECT.finditer(said) if _CLAIM.search(found[0])]
    if not verdicts:
        raise ReplyUnusable(f"no verdict in the reply: {_tail(reply)}")
    points, *others = {_points(one[0], scale) for one in verdicts}
    _check_relations(_RELATION.findall(said), points, scale=scale)
    prose = _OBJECT.sub(lambda one: "|" if _CLAIM.search(one[0]) else one[0], said)
    told = {one if one.isdigit() else "0" for one in map(str.casefold, _SAID.findall(prose))}
    keys = re.finditer(r'"([^"]*)(?="\s*:)', prose.casefold())
    is_other = any(_KEY.search(one[1]) for one in keys)
    if others or is_other or _CLAIM.search(prose) or told - {str(points)}:
        raise ReplyUnusable(f"more than one verdict: {_tail(said)}")
    if not _stands_alone(said[: verdicts[-1].start()], said[verdicts[-1].end() :]):
        raise ReplyUnusable(f"a verdict within a sentence may be a quotation: {_tail(said)}")
    # A `</think>` may be the answer's as well, and the judge's own verdict stand before it.
    thought = {claim[1] for claim in _CLAIM.finditer(thinking_of(reply, more=more))}
    if thought - {str(points)} and "score" in answer.casefold() and str(points) in answer:
        raise ReplyUnusable(f"two verdicts, and the last may be the answer's: {_tail(reply)}")
    return points


def _points(verdict: str, scale: tuple[int, int]) -> int | None:
    """Return the one score of a JSON object, a whole number: 1, 1.0 or "1"; None for "refused"."""
    levels: list[list[tuple[str, Any]]] = []  # the objects of its lists first

    def kept(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        levels.append(pairs)
        return dict(pairs)

    try:
        json.loads(verdict, strict=False, object_pairs_hook=kept)
        *inner, found = levels
        beside = [pair for one in inner for pair in one if re.fullmatch(f"(?i){_NOUN}", pair[0])]
        ((_, score),) = [*beside, *(pair for pair in found if _KEY.search(pair[0]))]
        is_refusal = str(score).casefold() == _REFUSED
        is_number = not isinstance(score, bool) and "_" not in str(score)
        points = scale[0] if is_refusal else float(score) if is_number else math.nan
    except (ValueError, TypeError, OverflowError) as error:
        raise ReplyUnusable(f"the verdict is not JSON with one score: {_tail(verdict)}") from error
    if points not in range(scale[0], scale[1] + 1):
        raise ReplyUnusable(f"score {score!r:.40} is not one of {scale[0]} to {scale[1]}")
    read = None if is_refusal else int(points)
    if why := _misfit(found, read, scale):
        raise ReplyUnusable(f"the verdict contradicts itself: {why}, and score {score}")
    _check_relations(_relations(found), read, scale=scale)
    return read


def _misfit(pairs: Sequence[tuple[str, Any]], points: int | None, scale: tuple[int, int]) -> str:
    """Return what a report's lists say that its score does not; empty if they agree."""
    errors, lists = [*_errors(pairs)], {key.strip().casefold() for key, _ in pairs}
    if points is None or points == scale[1]:
        return "errors" if errors else ""
    if not errors and lists.issuperset(_LISTS) and points != scale[0]:
        return "no error"
    serious = any(
        (error.get("urgency") == "urgent" and error.get("by", "presence") == "presence")
        or (name, error.get("by")) == ("contradicted", "side")
        for name, error in errors
    )
    return "a serious error" if serious and points > _SERIOUS else ""


def _check_relations(
    relations: Iterable[str], points: int | None, *, scale: tuple[int, int]
) -> None:
    """Raise `ReplyUnusable` for a relation that is none, or has other points."""
    for relation in map(str.casefold, relations) if scale == (0, 1) else ():
        if relation not in RELATIONS:
            raise ReplyUnusable(f"relation {relation!r} is not one of {', '.join(RELATIONS)}")
        fits = relation == "undecided" if points is None else RELATIONS[relation] == points
        if not fits:
            given = _REFUSED if points is None else points
            raise ReplyUnusable(f"the verdict contradicts itself: {relation} with score {given}")


def _stands_alone(before: str, after: str) -> bool:
    """Tell whether a verdict is the judge's own: not part of a sentence about another one."""
    reason = _AFTER.sub("", after, count=1)
    gap = after[: len(after) - len(reason)]
    is_over = re.search(r"[\n({]|\s[\"\u201c]", gap) or _NEW_SENTENCE.match(reason)
    if not is_over or _TAKEN_BACK.search(reason):
        return False
    before = before[-400:]  # no sentence is longer
    lead = _BEFORE.sub("", before)
    is_new = re.search(r"[\n)}]", before[len(lead) :]) and not _LEADS_ON.search(lead)
    if is_new or not lead or lead[-1] in ".!?\u3002\uff01\uff1f":
        return True
    sentence = re.split(r"[.!?]\s|\n", lead.rstrip(":\uff1a"))[-1]
    words = re.findall(r"\w+", re.split(r"[,;:]", sentence)[-1].casefold())
    return not _FOREIGN.search(sentence) and bool(_OWN_VERDICT.fullmatch(" ".join(words)))


def read_label(reply: str, *, labels: Mapping[str, int], more: Pairs = ()) -> int:
    """Return the points of a reply that is one of the offered words and nothing else.

    A full stop, quotes and bold type around the word are how models write. Raises `ReplyUnusable`
    for any further word: "NO, not YES" says both.

    >>> read_label("**Yes.**", labels={"YES": 1, "NO": 0})
    1
    """
    said = _after_thinking(reply, more).strip(_AROUND_A_LABEL).casefold()
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


def _after_thinking(reply: str, more: Pairs) -> str:
    """Return what follows the last thinking; a reply that ends inside it says nothing."""
    said = "" if may_think(reply) else after_thinking(reply, more=more) or ""
    if not said and reply.strip():
        raise ReplyUnusable(f"the reply ends while thinking: {_tail(reply)}")
    return said


def _tail(text: str) -> str:
    return repr(text[-120:])
