"""Read numbers with their units, exactly, and compare them across units.

Values are fractions, so 0.1 mg is 100 mcg to the last digit. A unit that is not listed is a word
like any other: it must then be the same word on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from medix_eval.rules.text import SKIPPED, Text, listed

_LONGEST_NUMBER = 30
"""Digits of no measurement; a longer row of them is read as a word."""

_ONES = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    " fifteen sixteen seventeen eighteen nineteen"
)
_TENS = listed("twenty thirty forty fifty sixty seventy eighty ninety")
NUMBER_WORDS = {word: value for value, word in enumerate(_ONES)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A value in the base unit of its dimension."""

    value: Fraction
    step: Fraction
    """What one in the last written digit means: 0.1 for `2.5`."""
    dimension: tuple[str, ...] = ()
    """The base units, the divisors with a slash; empty for a bare number."""

    def equals(self, other: Quantity) -> bool | None:
        """Compare two quantities; None where units differ, or where one may be the other rounded.

        >>> from medix_eval.rules.text import read
        >>> left, right = (items_of(read(text))[0] for text in ("0.5 g", "500 mg"))
        >>> left.equals(right)
        True
        """
        if self.dimension != other.dimension:
            return None
        if self.value == other.value:
            return True
        gap = abs(self.value - other.value)
        return None if 2 * gap <= max(self.step, other.step) else False


@dataclass(frozen=True, slots=True)
class _Unit:
    base: str
    factor: Fraction
    offset: Fraction = Fraction(0)


def _units() -> dict[str, _Unit]:
    milli, micro, nano = Fraction(1, 10**3), Fraction(1, 10**6), Fraction(1, 10**9)
    table: tuple[tuple[str, Fraction | int, str], ...] = (
        ("g", 1000, "kg Kg kilogram kilograms"),
        ("g", 1, "g gram grams"),
        ("g", milli, "mg milligram milligrams"),
        ("g", micro, "mcg ug μg microgram micrograms"),
        ("g", nano, "ng nanogram nanograms"),
        ("m", 1, "m meter meters metre metres"),
        ("m", Fraction(1, 100), "cm centimeter centimeters centimetre centimetres"),
        ("m", milli, "mm millimeter millimeters millimetre millimetres"),
        ("m", micro, "um μm micron microns micrometer micrometers micrometre micrometres"),
        ("m", nano, "nm nanometer nanometers nanometre nanometres"),
        ("l", 1, "l L liter liters litre litres"),
        ("l", Fraction(1, 10), "dl dL deciliter deciliters decilitre decilitres"),
        ("l", milli, "ml mL cc milliliter milliliters millilitre millilitres"),
        ("l", micro, "ul uL μl μL microliter microliters microlitre microlitres"),
        ("s", milli, "ms millisecond milliseconds"),
        ("s", 1, "s sec secs second seconds"),
        ("s", 60, "min mins minute minutes"),
        ("s", 3600, "h hr hrs hour hours"),
        ("s", 86400, "d day days"),
        ("s", 7 * 86400, "wk wks week weeks"),
        ("month", 1, "month months"),
        ("month", 12, "yr yrs year years"),
        ("mol", 1, "mol mole moles"),
        ("mol", milli, "mmol millimole millimoles"),
        ("mol", micro, "umol μmol micromole micromoles"),
        ("mol", nano, "nmol nanomole nanomoles"),
        ("eq", milli, "meq milliequivalent milliequivalents"),
        ("iu", 1, "iu"),
        ("unit", 1, "unit units U"),
        ("mmhg", 1, "mmhg"),
        ("gy", 1, "gy Gy gray grays"),
        ("gy", Fraction(1, 100), "cgy"),
        ("gy", milli, "mgy"),
        ("hz", 1, "hz Hz hertz"),
        ("hz", 1000, "khz"),
        ("hz", 10**6, "mhz"),
        ("%", 1, "% percent"),
        ("beat", 1, "beat beats"),
    )
    units = {
        name: _Unit(base, Fraction(factor))
        for base, factor, names in table
        for name in names.split()
    }
    fahrenheit = _Unit("celsius", Fraction(5, 9), Fraction(-160, 9))
    return units | {"celsius": _Unit("celsius", Fraction(1)), "fahrenheit": fahrenheit}


UNITS = _units()
_RESPELT = {
    ("mm", "hg"): ("mmhg",),
    ("°", "c"): ("celsius",),
    ("°", "f"): ("fahrenheit",),
    ("degrees", "celsius"): ("celsius",),
    ("degrees", "fahrenheit"): ("fahrenheit",),
    ("bpm",): ("beats", "/", "min"),
}
"""Units that are written as several tokens, or that mean several."""

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
        if quantity is None:
            items.append(raw[at].casefold())
            at += 1
        else:
            items.append(quantity)
    return tuple(items)


def _respelt(raw: Sequence[str]) -> Iterator[str]:
    at = 0
    while at < len(raw):
        pair = tuple(word.casefold() for word in raw[at : at + 2])
        found = next((start for start in (pair, pair[:1]) if start in _RESPELT), None)
        yield from (raw[at],) if found is None else _RESPELT[found]
        at += 1 if found is None else len(found)


def _quantity_at(raw: Sequence[str], at: int) -> tuple[Quantity | None, int]:
    number, end = _number_at(raw, at)
    if number is None:
        return None, at
    value, step = number
    factor, offset, dimension, end = _unit_at(raw, end)
    quantity = Quantity(value=value * factor + offset, step=step * factor, dimension=dimension)
    return quantity, end


def _number_at(raw: Sequence[str], at: int) -> tuple[tuple[Fraction, Fraction] | None, int]:
    word = raw[at].casefold()
    if word in NUMBER_WORDS:
        value = NUMBER_WORDS[word]
        if word in _TENS and at + 1 < len(raw) and raw[at + 1].casefold() in _ONES[1:10]:
            return (Fraction(value + NUMBER_WORDS[raw[at + 1].casefold()]), Fraction(1)), at + 2
        return (Fraction(value), Fraction(1)), at + 1
    if word[-1].isdecimal() and word[-1].isascii() and len(word) <= _LONGEST_NUMBER:
        digits = word.lstrip("-").replace(".", "", 1)
        if digits.isdecimal():
            _, _, decimals = word.partition(".")
            return (Fraction(word), Fraction(1, 10 ** len(decimals))), at + 1
    return None, at


def _unit_at(raw: Sequence[str], at: int) -> tuple[Fraction, Fraction, tuple[str, ...], int]:
    """Read a unit such as `mg/kg/day`; a bare number has factor 1 and no dimension."""
    unit, end = _simple_unit_at(raw, at)
    factor, offset = (unit.factor, unit.offset) if unit else (Fraction(1), Fraction(0))
    dimension = [unit.base] if unit else []
    while end + 1 < len(raw) and raw[end] in {"/", "per"}:
        divisor, after = _simple_unit_at(raw, end + 1)
        if divisor is None:
            break
        factor /= divisor.factor
        dimension.append(f"/{divisor.base}")
        end = after
    return factor, offset, tuple(sorted(dimension)), end


def _simple_unit_at(raw: Sequence[str], at: int) -> tuple[_Unit | None, int]:
    if at >= len(raw):
        return None, at
    word = raw[at]
    # Mg is magnesium and mM a concentration: two letters count only as they are listed.
    if word not in UNITS and (len(word) > 2 or (len(word) == 2 and word.isupper())):  # noqa: PLR2004
        word = word.casefold()
    return (UNITS[word], at + 1) if word in UNITS else (None, at)
