"""Find the part of a completion that is judged.

A reasoning model thinks, then answers. Only the answer counts: what it thought on the way may name
every option. Where the tags are broken, the reading is the one that cannot count a thought.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_NAMES = r"(?:seed:)?think(?:ing)?|thoughts?|reasoning"
_TAGS = (
    r"[<\uff1c\u25c1\[](?:(?P<end>"
    rf"(?<=<)/(?:{_NAMES})\s{{0,9}}>|(?<=\uff1c)/(?:{_NAMES})\uff1e|(?<=\u25c1)/think\u25b7|"
    r"(?<=<)\|end_(?:of_thought|thinking)\|>|(?<=<)\|channel\|>final\b[^<]{0,99}<\|message\|>|"
    r"(?-i:(?<=\[)/THINK\]))|"
    rf"(?<=<)(?:{_NAMES})(?:\s[^<>]{{0,99}})?>|(?<=\uff1c)(?:{_NAMES})\uff1e|(?<=\u25c1)think\u25b7|"
    r"(?<=<)\|(?:begin_of_thought|start_thinking)\|>|"
    r"(?<=<)\|channel\|>\w{1,20}[^<]{0,99}<\|message\|>|(?-i:(?<=\[)THINK\]))"
)
"""How models mark where thinking begins and ends; a few first characters make the search fast."""
_THINKING = re.compile(f"(?i){_TAGS}")
_STRIPPED = re.compile(rf"(?i){_TAGS}|(?P<final>assistantfinal)|(?-i:\Aanalysis(?=[A-Z]))")
"""The same where a server left of a channel's marks only the words."""
_ANSWER = re.compile(r"<(/?)answer\s{0,9}>", re.IGNORECASE)
_MODALITY = re.compile(r"(?:\s*<[A-Z][A-Z0-9_-]{0,39}>)*")
"""What MediX-R1 models write first, such as `<CT_SCAN>`."""


def extract_answer(completion: str) -> str:
    """Return the part of a completion that is judged; empty if there is none.

    - The answer comes after the last `</think>` or `</thinking>`. An opening tag is not needed:
      some chat templates put it at the end of the prompt. Tags are not counted against each other,
      because models write about them while they think.
    - Thinking that is opened and not closed has no answer, whatever stands before it.
    - Of several `<answer>` blocks the last complete one counts, and of two nested openings the
      inner one. An empty block is an empty answer.
    - A block that is opened and never closed, with no complete one, is read to the end.
    - Without any block the whole text counts, but for a modality tag in front.

    >>> extract_answer("<CT_SCAN><thinking>A or B?</thinking><answer> B </answer>")
    'B'
    >>> extract_answer("<think>It may be B")
    ''
    """
    spoken = after_thinking(completion) or ""
    blocks = list(_answer_blocks(spoken))
    if blocks:
        return blocks[-1].strip()
    opened = _after_last_opening(spoken)
    text = spoken if opened is None else opened
    return _MODALITY.sub("", text, count=1).strip()


def thinking_of(completion: str) -> str:
    """Return the part of a completion that is thinking, tags included; the rest was said aloud.

    >>> thinking_of("<think>A or B?</think>B")
    '<think>A or B?</think>'
    """
    return completion[: len(completion) - len(after_thinking(completion) or "")]


def has_final_answer(completion: str) -> bool:
    """Tell whether a completion that was cut off still holds an answer that can be judged.

    It does with a complete answer block, or with text after closed thinking. Plain text that was
    cut off may have said anything next; so may an answer block that was never closed.

    >>> has_final_answer("<answer>B</answer> Let me expl")
    True
    >>> has_final_answer("The most likely diagnosis is a")
    False
    """
    spoken = after_thinking(completion) or ""
    if any(block.strip() for block in _answer_blocks(spoken)):
        return True
    was_thinking = any(tag.lastgroup for tag in _thinking_marks(completion))
    is_cut_block = _after_last_opening(spoken) is not None
    return was_thinking and not is_cut_block and bool(extract_answer(completion))


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


def after_thinking(completion: str) -> str | None:
    """Return what follows the last thinking, or None if the model was still thinking."""
    tags = _thinking_marks(completion)
    if not tags:
        return completion
    return completion[tags[-1].end() :] if tags[-1].lastgroup else None


def _thinking_marks(completion: str) -> list[re.Match[str]]:
    """Return the marks of thinking in order; those that end it match a group."""
    may_be_stripped = "ntf" in completion.casefold() or completion.startswith("analysis")
    return [*(_STRIPPED if may_be_stripped else _THINKING).finditer(completion)]


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
