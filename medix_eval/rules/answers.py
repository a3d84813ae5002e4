"""Find the part of a completion that is judged.

A reasoning model thinks, then answers. Only the answer counts: what it thought on the way may name
every option. Where the tags are broken, the reading is the one that cannot count a thought.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

Pairs = tuple[tuple[str, str], ...]
"""Openings and closings of thinking, as a protocol adds them to those of `thinking.yaml`."""
_ANSWER = re.compile(r"<(/?)answer\s{0,9}>", re.IGNORECASE)
_MODALITY = re.compile(r"(?:\s*<[A-Z][A-Z0-9_-]{0,39}>)*")
"""What MediX-R1 models write first, such as `<CT_SCAN>`."""


def extract_answer(completion: str, *, more: Pairs = ()) -> str:
    """Return the part of a completion that is judged; empty if there is none.

    - The answer comes after the last mark that closes thinking. An opening is not needed: some
      chat templates put it at the end of the prompt. Marks are not counted against each other,
      because models write about them while they think.
    - A closing with nothing behind it is a stray one where an answer stands before it: text after
      an earlier closing, or a complete `<answer>` block that no opening precedes.
    - Thinking that is opened and not closed has no answer, whatever stands before it.
    - Of several `<answer>` blocks the last complete one counts, and of two nested openings the
      inner one. An empty block is an empty answer.
    - A block that is opened and never closed, with no complete one, is read to the end.
    - Without any block the whole text counts, but for a modality tag in front.

    >>> extract_answer("<CT_SCAN><thinking>A or B?</thinking><answer> B </answer>")
    'B'
    >>> extract_answer("<think>It may be B"), extract_answer("It may be B</think>")
    ('', '')
    >>> extract_answer("<think>A or B?</think>B</think>")
    'B'
    """
    spoken = after_thinking(completion, more=more) or ""
    blocks = list(_answer_blocks(spoken))
    if blocks:
        return blocks[-1].strip()
    opened = _after_last_opening(spoken)
    text = spoken if opened is None else opened
    text = _MODALITY.sub("", text, count=1).strip()
    for mark in _marks(more).around:
        text = text.removesuffix(mark).removeprefix(mark).strip()
    return text


def thinking_of(completion: str) -> str:
    """Return the part of a completion that is thinking, tags included; the rest was said aloud.

    >>> thinking_of("<think>A or B?</think>B")
    '<think>A or B?</think>'
    """
    said = _said_at(completion, ())
    return completion if said is None else completion[: said.start]


def has_answer_block(completion: str, *, more: Pairs = ()) -> bool:
    """Tell whether a complete `<answer>` block with words is what counts of a completion.

    >>> has_answer_block("<answer>B</answer> Let me expl")
    True
    """
    return any(map(str.strip, _answer_blocks(after_thinking(completion, more=more) or "")))


def published_answer(completion: str) -> str:
    """Return what the published evaluation shows its judge: all that follows the thinking.

    Answer tags stay, and a completion that never closes its thinking is judged whole.

    >>> published_answer("<thinking>A or B?</thinking><answer>B</answer>")
    '<answer>B</answer>'
    >>> published_answer("<think>It may be B")
    '<think>It may be B'
    """
    for closing in ("</think>", "</thinking>"):
        if closing in completion:
            return completion.rpartition(closing)[2]
    return completion


def after_thinking(completion: str, *, more: Pairs = ()) -> str | None:
    """Return what follows the last thinking, or None if the model was still thinking."""
    said = _said_at(completion, more)
    return None if said is None else completion[said]


def _said_at(text: str, more: Pairs) -> slice | None:
    """Return where the text stands that is no thinking; None while the model still thinks."""
    marks, end = _marks_in(text, more), len(text)
    if not marks:
        return slice(0, end)
    while marks[-1].closes and not text[marks[-1].end : end].strip():
        stray = marks.pop()
        begin, end = marks[-1].end if marks else 0, stray.start
        if marks and not marks[-1].closes:
            break  # only thoughts stand before it
        if text[begin:end].strip() if marks else _ends_in_block(text[:end]):
            return slice(begin, end)
        if not marks:
            break
    else:
        return slice(marks[-1].end, end) if marks[-1].closes else None
    return slice(len(text), len(text))


class _Mark(NamedTuple):
    start: int
    end: int
    closes: bool


class _Words(NamedTuple):
    """A family that marks its thinking by words."""

    cues: tuple[str, ...]
    opening: re.Pattern[str]
    elsewhere: re.Pattern[str] | None
    closing: re.Pattern[str]


class _Marks(NamedTuple):
    tags: re.Pattern[str]
    """Any mark but words; those that end thinking match a group."""
    words: tuple[_Words, ...]
    around: tuple[str, ...]
    """What stands around an answer and says nothing."""


@cache
def _marks(more: Pairs) -> _Marks:
    """Read `thinking.yaml`, and add a protocol's own pairs."""
    import yaml  # noqa: PLC0415 (10 ms, which most commands need not take)

    text = Path(__file__).with_name("thinking.yaml").read_text(encoding="utf-8")
    listed = yaml.load(text, Loader=yaml.CSafeLoader)
    names, channels = "|".join(map(re.escape, listed["tags"])), listed["channels"]
    openings, closings = zip(*listed["pairs"], *more, strict=True)
    around_names = r"(?<=[<\uff1c\u25c1])(?i:{}(?:{}){})[>\uff1e\u25b7]"
    ends = [around_names.format("/", names, r"\s{0,9}"), f"(?<=<)(?i:{channels['closing']})"]
    begins = [around_names.format("", names, r"(?:\s[^<>]{0,99})?")]
    begins.append(f"(?<=<)(?i:{channels['opening']})")
    ends += map(_behind_its_first, closings)
    begins += map(_behind_its_first, openings)
    # Few pairs of characters begin a mark, which makes the search fast.
    first = _one_of("<\uff1c\u25c1", *(one[0] for one in openings + closings))
    initials = (name[0] + name[0].upper() for name in listed["tags"])
    second = _one_of("/|", *(one[1] for one in openings + closings), *initials)
    tags = f"{first}(?={second})(?:(?P<end>{'|'.join(ends)})|{'|'.join(begins)})"
    words = [
        _Words(
            tuple(one.get("cues", ())),
            re.compile(rf"(?im){_MODALITY.pattern}\s*(?:{one['opening']})"),
            re.compile(f"(?im){one['elsewhere']}") if "elsewhere" in one else None,
            re.compile(f"(?im){one['closing']}"),
        )
        for one in listed["words"]
    ]
    return _Marks(re.compile(tags), tuple(words), tuple(listed["around_the_answer"]))


def _one_of(*characters: str) -> str:
    return f"[{re.escape(''.join(sorted({*''.join(characters)})))}]"


def _behind_its_first(mark: str) -> str:
    return f"(?<={re.escape(mark[0])}){re.escape(mark[1:])}"


def _marks_in(text: str, more: Pairs) -> list[_Mark]:
    """Return the marks of thinking in order."""
    tags, words, _ = _marks(more)
    marks = [_Mark(*one.span(), bool(one.lastgroup)) for one in tags.finditer(text)]
    low = text.lower()
    for family in words:
        opening = begin = family.opening.match(text)
        if not begin and family.elsewhere and any(cue in low for cue in family.cues):
            begin = family.elsewhere.search(text)
        if begin:
            ends = [*family.closing.finditer(text, begin.end())]
            final = [one for one in ends if "final" in one[0].lower()]
            if ends or opening:
                marks.append(_Mark(*begin.span(), closes=False))
            marks += [_Mark(*one.span(), closes=True) for one in (final[-1:] or ends[:1])]
    return sorted(marks)


def _ends_in_block(text: str) -> bool:
    tags = [*_ANSWER.finditer(text)]
    is_last = bool(tags) and bool(tags[-1][1]) and not text[tags[-1].end() :].strip()
    return is_last and any(map(str.strip, _answer_blocks(text)))


def _answer_blocks(spoken: str) -> Iterator[str]:
    start: int | None = None
    for tag in _ANSWER.finditer(spoken):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            yield spoken[start : tag.start()]
            start = None


def _after_last_opening(spoken: str) -> str | None:
    """Return the text after the last `<answer>` that no `</answer>` follows."""
    tags = [*_ANSWER.finditer(spoken)]
    return spoken[tags[-1].end() :] if tags and not tags[-1][1] else None


_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_EDGES = ",.!?;:'"
_FEW_WORDS = 5


def letter_of(completion: str, options: Sequence[str]) -> str | None:
    """Return the letter that is found, or None where one would be drawn at random.

    >>> letter_of("It is (A) or rather (C).", ["lung", "liver", "spleen"])
    'C'
    >>> letter_of("I cannot tell.", ["lung", "liver"]) is None
    True
    """
    text = _boxed(_tagged(completion))
    for edge in _EDGES:
        text = text.strip(edge)
    text = f" {text} "
    letters = [chr(ord("A") + number) for number in range(len(options))]
    for form in ("({})", " {} "):
        places = {letter: text.rfind(form.format(letter)) for letter in letters}
        if found := _last(places):
            return found
    if len(text.split()) <= _FEW_WORDS:
        return None
    low = text.lower()
    return _last(
        {letter: low.rfind(option.lower()) for letter, option in zip(letters, options, strict=True)}
    )


def _last(places: dict[str, int]) -> str | None:
    """Return the letter that stands last; of several at one place the first letter."""
    letter = max(places, key=lambda one: places[one])
    return letter if places[letter] >= 0 else None


def _tagged(text: str) -> str:
    found = _TAGGED.search(text)
    return found[1].strip() if found else text


def _boxed(text: str) -> str:
    r"""Return what the last `\boxed{}` holds, or the text where there is none.

    >>> _boxed(r"so \boxed{\text{B}}")
    '\\text{B}'
    """
    start = text.rfind("\\boxed{")
    if start < 0:
        return text
    depth, inside = 0, text[start + len("\\boxed") :]
    for at, character in enumerate(inside):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return inside[1:at]
    return text
