r"""How MedEvalKit finds the letter of an answer to MMMU, for comparison with published figures.

It looks for `<answer>` or `\boxed{}` first, then for `(B)`, then for ` B `, then for the text of
an option in an answer of more than five words; of several found the last one counts. Where it
finds none it draws a letter at random: that is no answer, so here it is no letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

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
