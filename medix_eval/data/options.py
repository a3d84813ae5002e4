"""Where a table has its options, and which of them an answer names, in the layouts people use.

What can be read in two ways is refused, never guessed: a score would depend on it.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from string import ascii_uppercase
from typing import Any, NamedTuple

UNDERSTOOD = (
    "the first row names the columns, in any case: question, answer; optional: options (or "
    "choices) or one for each option (A, B …; option_a …; choice1 …; opa …), image, kind, id, "
    "cluster, group…; others are kept"
)
GOLD = re.compile(r"(right)?answer.*|correct.*|gold.*|cop|key|label|reference|solution|target")
"""Columns that may hold the right answer and are not taken for it."""
YES_NO = frozenset({"yes", "no"})
EMPTY = frozenset({"", "nan", "NaN", "<NA>", "NaT"})
_KNOWN = frozenset({"question", "answer", "options", "image", "kind", "id", "cluster"})
_ALIASES = {"images": "image"} | dict.fromkeys(
    ("choices", "option", "choice", "answeroptions", "answerchoices"), "options"
)
_STEMS = frozenset({"", "option", "choice", "opt", "op"})
_COUNTS = ([*ascii_uppercase.lower()], [*map(str, range(26))], [*map(str, range(1, 27))])
_LABEL = re.compile(r"\(?([A-Za-z])[.):]\s*(?=\S)")
_LABELS = re.compile(r"(?:^|(?<=[\s,;]))\(?([A-Z])[.):]\s+")
_LETTER = re.compile(r"\(?([A-Za-z])(?:[.):]+\s*(.*))?")
_QUOTED = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(\s+(?=['"]))?""", re.DOTALL)


class Layout(NamedTuple):
    """The columns of a table: `known` by our names; `alike` only look as those of options do."""

    known: dict[str, str]
    options: list[str]
    alike: list[str]
    others: list[str]


def short(name: str) -> str:
    """Return a column's name without case and separators: `Option_A` is `optiona`."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def layout_of(names: Sequence[str]) -> tuple[Layout, list[str]]:
    """Return what the columns are, and all that is wrong with their names."""
    same: dict[str, list[str]] = {}
    for name in names:
        first = re.sub(r"\.\d+$", "", name)  # pandas counts equal names
        key = short(first if first in names else name) or name
        same.setdefault(_ALIASES.get(key, key), []).append(name)
    faults = [
        f"columns {', '.join(map(repr, some))}: {'one meaning, keep one' if key else 'no name'}"
        for key, some in same.items()
        if some[1:] or not key
    ]
    if missing := [repr(one) for one in ("question", "answer") if one not in same]:
        shown = ", ".join(name[:40] for name in names)
        faults.append(f"the table has no column {' and no '.join(missing)}, only {shown}")
        golds = ", ".join(some[0] for key, some in same.items() if GOLD.fullmatch(key))
        if golds and "answer" not in same:
            faults.append(f"{golds}: call it `answer` if it has letters or texts, not numbers")
    known = {key: some[0] for key, some in same.items() if key in _KNOWN}
    options, alike = [known["options"]] if "options" in known else [], list[str]()
    families: dict[str, dict[str, str]] = {}
    for key, (name, *_) in same.items():
        if key not in known and (found := re.fullmatch(r"(.*?)([a-z]|\d\d?)", key)):
            families.setdefault(found[1], {})[found[2]] = name
    for stem, family in families.items():
        columns = _in_order(family)
        is_named = stem in _STEMS and (stem or not family.keys().isdisjoint("ab12"))
        if len(family) > 1 and is_named:
            if options or not columns:
                why = "hold options twice" if options else "look like options, but one is missing"
                faults.append(f"columns {', '.join([*options, *family.values()])} {why}")
            options = options or columns
        elif len(family) > 1 and not stem.startswith("group"):
            alike += columns
    others = [name for name in names if name not in {*known.values(), *options}]
    return Layout(known, ["options"] if "options" in known else options, alike, others), faults


def options_of(cells: Sequence[str]) -> tuple[str, ...]:
    """Return the options that one cell holds, or several; `ValueError` where it is not certain."""
    found = _parts(cells[0]) if len(cells) == 1 else cells
    options = ["" if one in EMPTY else one for one in found]
    while options and not options[-1]:
        options.pop()  # a table with room for five
    if "" in options:
        number = options.index("") + 1
        raise ValueError(f"option {number} is empty, so letters behind it may name another option")
    labels = [label for label in map(_LABEL.match, options) if label]
    letters, expected = [one[1].upper() for one in labels], [*ascii_uppercase[: len(options)]]
    if letters == expected:
        options = [label.string[label.end() :] for label in labels]
    elif sorted(letters) == expected:
        raise ValueError(f"the options are lettered {', '.join(letters)}, not in order")
    if options and not 1 < len({*map(_same, options)}) == len(options) <= len(ascii_uppercase):
        said = "two or more options are needed, all different (in one cell: w | x)"
        raise ValueError(f"{said}: {str(tuple(options))[:200]}")
    return tuple(options)


def readings(answer: str, options: Sequence[str]) -> dict[str, str]:
    """Return the options that an answer may name, by the way it is read.

    >>> readings("D", ["C", "D", "E", "A"])
    {'text': 'D', 'letter': 'A'}
    """
    found: dict[str, str] = {}
    loose = [one for one in options if _same(one).casefold() == _same(answer).casefold()]
    if answer in options or len(loose) == 1:
        found["text"] = answer if answer in options else loose[0]
    if letter := _LETTER.fullmatch(_same(answer)):
        named = dict(zip(ascii_uppercase, options, strict=False)).get(letter[1].upper())
        if named and letter[2] in {None, "", _same(named)}:
            found["letter"] = named
    if number := re.fullmatch(r"([0-9]{1,2})(\.0)?", answer):
        places = {f"number from {first}": int(number[1]) - first for first in (0, 1)}
        found |= {way: options[at] for way, at in places.items() if 0 <= at < len(options)}
    return found


def sure_ways(rows: Iterable[tuple[str, Sequence[str]]]) -> set[str]:
    """Return the ways in which answers are read that can be read in one way only."""
    found: set[str] = set()
    for answer, cells in rows:
        with suppress(ValueError):
            ways = readings(answer, options_of(cells))
            found |= ways.keys() & {"text", "letter"} if len(ways) == 1 else set()
    return found


def right_answer(
    row: Mapping[str, str], layout: Layout, options: Sequence[str], *, sure: set[str]
) -> str:
    """Return the answer of a row: the text of an option if there are some.

    If it can be read in two ways, the one way (`sure`) of all other rows decides.
    """
    answer = row["answer"]
    ways = readings(answer, options or ascii_uppercase)
    if not options:
        cells = {name: listed(row[name]) for name in layout.others}
        places = [
            name
            for name, cell in cells.items()
            for texts in [cell if isinstance(cell, list) else str(cell).split("|")]
            if (texts[1:] or name in layout.alike) and answer in {str(one).strip() for one in texts}
        ]
        is_number = layout.alike and answer in map(str, range(len(layout.alike) + 1))
        is_unsure = "letter" in ways or is_number or (places and answer.lower() not in YES_NO)
        if is_unsure and not row.get("kind"):
            where = ", ".join(places or layout.alike)
            seen = f" (are they in {where}?)" if where else ""
            why = f"seems to name an option, but none is found{seen}; if it is a text, add a column"
            raise ValueError(f"the answer {answer[:99]!r} {why} `kind`: open")
        if not isinstance(listed(answer), str):
            raise ValueError(f"the answer is a list, not a text: {answer[:99]}")
        return answer
    words = {way: ways[way] for way in ways if way in {"text", "letter"}}
    if words and sure:
        ways = {way: words[way] for way in words if way in sure} or words
    if not ways:
        sign = "" if answer.isascii() or answer[1:] else f" ({unicodedata.name(answer, '?')})"
        raise ValueError(f"the answer {answer[:99]!r}{sign} is not an option, by text or by letter")
    if not words or len({*ways.values()}) > 1:
        read = " or ".join(f"{way} ({option!r})" for way, option in ways.items())
        raise ValueError(f"the answer {answer!r} can be read as {read}: write a letter as (A)")
    return next(iter(ways.values()))


def listed(cell: str) -> Any:
    """Return the list or mapping that a cell is, as JSON, Python or numpy write it, or the cell."""
    if re.fullmatch(r"\[.*\]|\{.*\}", cell, re.DOTALL):
        # Numpy puts no comma between strings, and Python would join them.
        commas = _QUOTED.sub(lambda one: one[1] + ("," if one[2] else ""), cell)
        for read, text in ((json.loads, cell), (ast.literal_eval, commas)):
            with suppress(ValueError, SyntaxError, TypeError, RecursionError):
                return read(text)
    return cell


def _parts(cell: str) -> list[str]:
    """Take one cell apart, at the first of the separators that it has."""
    held = listed(cell)
    if isinstance(held, dict):
        named = {short(str(key)): value for key, value in held.items()}
        held = (len(named) == len(held) and _in_order(named)) or [held]
    if isinstance(held, list):
        if any(isinstance(one, list | dict) for one in held):
            raise ValueError(
                f"the options are neither a list of texts nor named A, B …: {cell[:200]}"
            )
        return ["" if one is None else str(one).strip() for one in held]
    if separator := next((one for one in "|\n" if one in cell), ""):
        return [part.strip() for part in cell.split(separator)]
    parts = [part.strip() for part in cell.rstrip(" ;").split(";")]
    before, *lettered = _LABELS.split(cell)
    letters = lettered[::2]
    if letters[1:] and not before.strip() and letters == [*ascii_uppercase[: len(letters)]]:
        if len(parts) not in {1, len(letters)}:
            raise ValueError(f"the options can be parted at letters or at `;`: {cell[:200]!r}")
        return [part.strip(" ,;\t") for part in lettered[1::2]]
    return parts


def _in_order(family: Mapping[str, Any]) -> list[Any]:
    """Return what is named a, b … or 0, 1 … or 1, 2 …, in this order; nothing if one is missing."""
    names = sorted(family, key=lambda name: (len(name), name))
    is_counted = any(names == count[: len(names)] for count in _COUNTS)
    return [family[name] for name in names] if is_counted else []


def _same(text: str) -> str:
    """Return a text as it is seen: without other forms of characters and hidden ones."""
    if not text.isascii():
        shown = "".join(one for one in text if unicodedata.category(one) != "Cf")
        text = unicodedata.normalize("NFKC", shown)
    return " ".join(text.split())
