"""Find the part of a completion that is judged.

A reasoning model thinks, then answers. Only the answer counts: what it thought on the way may name
every option. Where the tags are broken, the reading is the one that cannot count a thought.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from medix_eval.rules.text import data_of

Pairs = tuple[tuple[str, str], ...]
"""Openings and closings of thinking, as a protocol adds them to those of `thinking.yaml`."""
_ANSWER = re.compile(r"<(/?)answer\s{0,9}>", re.IGNORECASE)
_ENDS_IN_BLOCK = re.compile(
    r"(?is)<answer\s{0,9}>\s*+(?!</answer)(?:(?!</?answer).)*+</answer\s{0,9}>\s*\Z"
)
_MODALITY = re.compile(r"(?:\s*<[A-Z][A-Z0-9_-]{0,39}>)*")
"""What MediX-R1 models write first, such as `<CT_SCAN>`."""


def extract_answer(completion: str, *, more: Pairs = ()) -> str:
    """Return the part of a completion that is judged; empty if there is none.

    - The answer comes after the last mark that closes thinking. Its opening may be in the prompt,
      and they are not counted against each other: models write about them while they think.
    - A closing with nothing behind it is a stray one, if an earlier closing stands before it with
      no opening between, or if there are no other marks and an `<answer>` block ends before it.
    - Thinking that is opened and not closed has no answer, whatever stands before it.
    - Of several `<answer>` blocks the last complete one counts, and of two nested openings the
      inner one. An empty block is an empty answer.
    - A block that is opened and never closed, with no complete one, is read to the end.
    - Without any block the whole text counts, but for a modality tag in front.

    >>> extract_answer("<CT_SCAN><thinking>A or B?</thinking><answer> B </answer>")
    'B'
    >>> extract_answer("It may be B</think>"), extract_answer("<think>A or B?</think>B</think>")
    ('', 'B')
    """
    spoken = after_thinking(completion, more=more) or ""
    start = block = None
    for tag in _ANSWER.finditer(spoken):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            block, start = spoken[start : tag.start()], None
    if block is not None:
        return block.strip()
    text = spoken[start:] if start is not None else _MODALITY.sub("", spoken, count=1)
    for mark in _marks(more)[-1]:
        text = text.strip().removesuffix(mark).removeprefix(mark)
    return text.strip()


def may_think(completion: str) -> bool:
    r"""Tell whether a text begins as thinking in plain words does, and no such words end it.

    >>> may_think("## Thinking\n\nA or B?"), may_think("## Thinking\nA?\n## Answer\nB")
    (True, False)
    """
    _, _, words, _ = _marks(())
    begins = any(first.match(completion) for _, _, first, _, _ in words)
    return begins and not any(closes for _, _, closes in _marks_in(completion, ()))


def thinking_of(completion: str, *, more: Pairs = ()) -> str:
    """Return the part of a completion that is thinking, tags included; the rest was said aloud.

    >>> thinking_of("<think>A or B?</think>B")
    '<think>A or B?</think>'
    """
    return completion[: _said_at(completion, more).start]


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
    return None if said.stop is None else completion[said]


def _said_at(text: str, more: Pairs) -> slice:
    """Return where the text stands that is no thinking, without an end while it still thinks."""
    marks, end = _marks_in(text, more), len(text)
    while len(marks) > 1 and marks[-2][2] and marks[-1][2] and not text[marks[-1][1] : end].strip():
        end = marks.pop()[0]
    if not marks:
        return slice(0, end)
    start, begin, closes = marks[-1]
    is_last = closes and not text[begin:end].strip()
    if is_last and not marks[1:] and _ENDS_IN_BLOCK.search(text[:start]):
        return slice(0, start)
    if is_last and marks[1:] and not marks[-2][2]:  # an answer, and reasons in marks behind it
        said = slice(marks[-3][1] if marks[2:] else 0, marks[-2][0])
        return said if text[said].strip() else slice(begin, end)
    return slice(begin, end) if closes else slice(len(text), None)


@cache
def _marks(more: Pairs) -> Any:
    """Return patterns of any mark and of closing ones, families of words, and what is around."""
    listed = data_of("thinking.yaml")
    pairs = [*listed["pairs"], *(map(re.escape, pair) for pair in more)]
    opening, closing = map("|".join, zip(*pairs, strict=True))
    words = []
    for one in listed["words"]:
        patterns = rf"{_MODALITY.pattern}\s*(?:{one['opening']})", one["elsewhere"], one["closing"]
        compiled = [re.compile(f"(?im){pattern}") for pattern in patterns]
        words.append((one["cues"], one.get("may_stay_open", False), *compiled))
    tags = re.compile(f"(?i){opening}|{closing}"), re.compile(f"(?i){closing}")
    return *tags, words, listed["around_the_answer"]


def _marks_in(text: str, more: Pairs) -> list[tuple[int, int, bool]]:
    """Return where each mark of thinking begins and ends, and whether it closes, in order."""
    (tag, closing, words, _), low = _marks(more), text.lower()
    marks = [(*one.span(), bool(closing.match(text, one.start()))) for one in tag.finditer(text)]
    for cues, may_stay_open, first, elsewhere, end in words:
        is_cued = any(cue in low for cue in cues)
        opening = first.match(text) or (elsewhere.search(text) if is_cued else None)
        if opening is None:
            continue
        ends = [*end.finditer(text, opening.end())]
        if ends or (opening.re is first and may_stay_open):
            final = [one for one in ends if "final" in one[0].lower()]
            marks += [(*opening.span(), False)]
            marks += [(*one.span(), True) for one in final[-1:] or ends[:1]]
    return sorted(marks)


_EDGES = ",.!?;:'"
_FEW_WORDS = 5


def letter_of(completion: str, options: Sequence[str]) -> str | None:
    """Return the letter that is found, or None where one would be drawn at random.

    >>> letter_of("It is (A) or rather (C).", ["lung", "liver", "spleen"])
    'C'
    >>> letter_of("I cannot tell.", ["lung", "liver"]) is None
    True
    """
    _, _, opened = completion.partition("<answer>")
    tagged, closing, _ = opened.partition("</answer>")
    text = _boxed(tagged.strip() if closing else completion)
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
    low, lettered = text.lower(), zip(letters, options, strict=True)
    return _last({letter: low.rfind(option.lower()) for letter, option in lettered})


def _last(places: dict[str, int]) -> str | None:
    """Return the letter that stands last; of several at one place the first letter."""
    letter = max(places, key=lambda one: places[one])
    return letter if places[letter] >= 0 else None


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
