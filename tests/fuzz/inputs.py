"""What Hypothesis makes inputs of: real files bent a little, and text that readers trip over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

TOKENS = """
A | (A) | B. | B) warfarin | ( | [ | { | ) | ] | } | ** | <think> | </think> | <answer> |
</answer> | <answer | not | no | yes | , | ; | . | ? | ! | : | -- | - | 1 | 1.5 | 1,5 | 5 mg |
10^9/L | x 10 | 1/2 | ½ | {"score": 1} | {"score": | "score" | "relation": "same" | \\boxed{B} |
\\boxed{ | \\frac{1}{2} | ```json | the answer is | so | wait | verdict: | liver | the lung |
left | no lesion | é | 漢 | \uff21 | < | a | > | assistantfinal | ## Thinking | # | > | " | ' | `
| $ | _ | \u0301 | \u200b | \u202e | \ud83d | \x00 | \x85 | - | & | =cmd | -1 | NaN | 1e999 |
null | true | [] | 99999999999999999999999999 | Final answer: | I cannot | unable to tell |
<CT_SCAN>
""".replace("\n", " ").split("|")
WORDS = [one.strip(" ") for one in TOKENS] + ["<|a|>", " ", "\n", "\r\n", "\t", "\ufeff"]
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 0.5, 2.0, 1e308, -1e308, 10**30, float("nan"), float("inf"), "",
    "x", "A", "yes", "NaN", "\x00", "\u202e", "x" * 2000, "2026-13-01", [], [[]], [None], ["a", 1],
    {}, {"": None}, {"a": []},
]  # fmt: skip


def texts(*, valid: bool = False) -> st.SearchStrategy[str]:
    """Text of tricky words, some repeated many times; `valid` text can be written as UTF-8."""
    word = st.sampled_from(WORDS) | st.text(max_size=8)
    many = st.tuples(word, st.integers(1, 4000)).map(lambda one: (one[0] * one[1])[:40_000])
    plain = st.lists(word, max_size=30).map(" ".join)
    found = st.lists(word | many, max_size=8).map("".join) | plain
    return found.map(lambda text: text.encode(errors="replace").decode()) if valid else found


@st.composite
def bent(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Bytes of a real file with some of them changed, cut, doubled or put elsewhere."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 40)))
        how = draw(st.integers(0, 5))
        if how == 0:
            data[at:end] = draw(st.binary(max_size=40))
        elif how == 1:
            data[at:end] = draw(st.sampled_from(WORDS)).encode(errors="replace")
        elif how == 2:
            data[at:at] = data[at:end] * draw(st.integers(1, 50))
        elif how == 3 and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == 4:
            del data[at:]
        else:
            del data[at:end]
    return bytes(data)


@st.composite
def odd(draw: st.DrawFn, seeds: Sequence[Any]) -> Any:
    """A value like one of these, with some of its parts replaced, left out or doubled."""
    value = json.loads(json.dumps(draw(st.sampled_from(seeds))))
    for _ in range(draw(st.integers(0, 3))):
        value = _changed(draw, value)
    return value


def _changed(draw: st.DrawFn, value: Any) -> Any:
    parts: Any = (
        [*value]
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    if not parts or draw(st.integers(0, 3)) == 0:
        drawn = draw(st.sampled_from(ODD) | texts(valid=True).map(lambda text: text[:500]))
        return json.loads(json.dumps(drawn))  # a list of its own
    at = draw(st.sampled_from([*parts]))
    if draw(st.integers(0, 5)) == 0:
        del value[at]
    else:
        value[at] = _changed(draw, value[at])
    return value


def files(*seeds: bytes, values: Sequence[Any] = ()) -> st.SearchStrategy[bytes]:
    """Bytes of a file: bent ones, and JSON (which is YAML too) of odd values."""
    found = bent([*seeds, *(json.dumps(one).encode() for one in values)])
    if values:
        found |= odd(values).map(lambda one: json.dumps(one).encode())
    return found | texts(valid=True).map(str.encode)
