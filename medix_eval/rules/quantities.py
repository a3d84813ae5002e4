"""Read numbers with their units, exactly, and compare them across units.

Values are fractions, so 0.1 mg is 100 mcg to the last digit. A unit that is not listed is a word
like any other: it must then be the same word on both sides.

A dot parts decimals, a comma with three digits behind it thousands: 1.5 and 1,500. As some write it
the other way, "1.500 mg" is 1500 mg too, is compared with no other number that both readings do not
decide alike, and "1,5" may be 1.5 or two numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

from medix_eval.rules.text import DECIMAL_COMMA, FRACTION, SKIPPED, Text, listed, terms

_LONGEST_NUMBER = 30  # digits; a longer row of them is no measurement

_ONES = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    " fifteen sixteen seventeen eighteen nineteen"
)
_TENS = listed("twenty thirty forty fifty sixty seventy eighty ninety")
NUMBER_WORDS = {word: value for value, word in enumerate(_ONES)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value in the base unit of its dimension."""

    value: Fraction
    step: Fraction
    """What one in the last written digit means: 0.1 for `2.5`."""
    dimension: tuple[str, ...] = ()
    """The base units, the divisors with a slash; empty for a bare number."""
    may_be_thousands: bool = False
    """Whether it has three decimals: then 1.500 may be meant as 1500."""
    may_be_two: bool = False
    """Whether it has a decimal comma."""

    def equals(self, other: Quantity) -> bool | None:
        """Compare two quantities; None where units differ, or where one may be the other rounded.

        >>> from medix_eval.rules.text import read
        >>> left, right = (items_of(read(text))[0] for text in ("0.5 g", "500 mg"))
        >>> left.equals(right)
        True
        """
        if self.dimension != other.dimension:
            return None
        is_dotted = self.may_be_thousands != other.may_be_thousands
        if self.value == other.value:
            # The same digits with another unit, or 1.500 mL for 1.5 mL: then why the zeros?
            return None if is_dotted and self.step != other.step else True
        if self.may_be_two or other.may_be_two:
            return None
        if is_dotted:
            dotted, plain = (self, other) if self.may_be_thousands else (other, self)
            if dotted.value * 1000 == plain.value and dotted.step * 1000 == plain.step:
                return True if dotted.value / dotted.step % 10 == 0 else None
        gap = abs(self.value - other.value)
        return None if 2 * gap <= max(self.step, other.step) else False


@dataclass(frozen=True, slots=True)
class _Unit:
    dimension: tuple[str, ...] = ()
    factor: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)


@cache
def _units() -> dict[str, _Unit]:
    return {
        name: _Unit((base,), Fraction(factor), Fraction(*offset))
        for base, factor, names, *offset in terms()["units"]
        for name in names.split()
    }


Item = str | Quantity


def items_of(text: Text) -> tuple[Item, ...]:
    """Return the words of a text with its quantities read.

    >>> from medix_eval.rules.text import read
    >>> items_of(read("about 2 lesions"))[::2]
    ('about', 'lesions')
    """
    raw = list(_respelt([word for word in text.raw if word.casefold() not in SKIPPED]))
    items: list[Item] = []
    at = 0
    while at < len(raw):
        quantity, at = _quantity_at(raw, at)
        if quantity is not None:
            items.append(quantity)
            continue
        if raw[at] != DECIMAL_COMMA:
            items.append(raw[at].casefold())
        at += 1
    return tuple(items)


def _respelt(raw: Sequence[str]) -> Iterator[str]:
    respellings, at = terms()["respelt"], 0
    while at < len(raw):
        pair = " ".join(raw[at : at + 2]).casefold()
        found = next((one for one in (pair, raw[at].casefold()) if one in respellings), None)
        yield from (raw[at],) if found is None else listed(respellings[found])
        at += 1 if found is None else len(listed(found))


def _quantity_at(raw: Sequence[str], at: int) -> tuple[Quantity | None, int]:
    number, end = _number_at(raw, at)
    if number is None:
        return None, at
    unit, end = _unit_at(raw, end)
    value, step = number.value * unit.factor + unit.offset, number.step * unit.factor
    return replace(number, value=value, step=step, dimension=unit.dimension), end


def _number_at(raw: Sequence[str], at: int) -> tuple[Quantity | None, int]:
    word = raw[at].casefold()
    if word in NUMBER_WORDS:
        after = raw[at + 1].casefold() if word in _TENS and at + 1 < len(raw) else ""
        ones = NUMBER_WORDS[after] if after in _ONES[1:10] else 0
        value = Fraction(NUMBER_WORDS[word] + ones)
        return Quantity(value=value, step=Fraction(1)), at + (2 if ones else 1)
    if not (word[-1].isdecimal() and _is_number(word)):
        return None, at
    whole, _, decimals = word.lstrip("-").partition(".")
    number = Quantity(
        value=Fraction(word),
        step=Fraction(1, 10 ** len(decimals)),
        may_be_thousands=len(decimals) == 3 and len(whole) <= 3 and whole > "0",  # noqa: PLR2004
    )
    return _extended(number, word, raw[at + 1 : at + 5], at)


def _is_number(word: str) -> bool:
    digits = word.lstrip("-").replace(".", "", 1)
    return digits.isdecimal() and digits.isascii() and len(word) <= _LONGEST_NUMBER


def _extended(number: Quantity, word: str, follows: Sequence[str], at: int) -> tuple[Quantity, int]:
    """Read a power of ten, a fraction or decimals behind a number."""
    match follows:
        case ["x", "10", "^", power] if _is_number(power) and len(power) <= len("-99"):
            scale = Fraction(10) ** int(Fraction(power))
            return Quantity(value=number.value * scale, step=number.step * scale), at + 5
        case [bar, low, *_] if bar == FRACTION and _are_whole(word, low):
            return Quantity(value=Fraction(int(word), int(low)), step=Fraction(0)), at + 3
        case [top, bar, low, *_] if bar == FRACTION and _are_whole(word, top, low):
            mixed = int(word) + Fraction(int(top), int(low))
            return Quantity(value=mixed, step=Fraction(0)), at + 4
        case [comma, low, *_] if comma == DECIMAL_COMMA and _are_whole(f"1{word}", low):
            step = Fraction(1, 10 ** len(low))
            return Quantity(value=Fraction(f"{word}.{low}"), step=step, may_be_two=True), at + 3
    return number, at + 1


def _are_whole(*numbers: str) -> bool:
    """Tell whether these are whole numbers, none of them zero or negative."""
    return all(one.isdecimal() and one.strip("0") for one in numbers)


def _unit_at(raw: Sequence[str], at: int) -> tuple[_Unit, int]:
    """Read a unit such as `mg/kg/day`; a bare number has factor 1 and no dimension."""
    unit, end = _simple_unit_at(raw, at) or _Unit(), at
    end += bool(unit.dimension)
    while end + 1 < len(raw) and raw[end] in {"/", "per"}:
        divisor = _simple_unit_at(raw, end + 1)
        if divisor is None:
            break
        dimension = sorted([*unit.dimension, f"/{divisor.dimension[0]}"])
        unit = _Unit(tuple(dimension), unit.factor / divisor.factor, unit.offset)
        end += 2
    return unit, end


def _simple_unit_at(raw: Sequence[str], at: int) -> _Unit | None:
    word = raw[at] if at < len(raw) else ""
    # Mg is magnesium and mM a concentration: two letters count only as they are listed.
    if word not in _units() and (len(word) > 2 or (len(word) == 2 and word.isupper())):  # noqa: PLR2004
        word = word.casefold()
    return _units().get(word)
