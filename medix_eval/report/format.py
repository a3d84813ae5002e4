"""How a number reads, and how a table is put together; each is written here once."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

NOTHING = "–"
"""What a page shows where there is no number; plain text has `-` or nothing."""
_TINY = 0.001
_Show = Callable[[float | None], str]
_Ends = tuple[float, float] | None


def counted(num: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, for a message.

    >>> counted(1, "row"), counted(1200, "row"), counted(2, "image is", "images are")
    ('1 row', '1,200 rows', '2 images are')
    """
    return f"{num:,} {noun if num == 1 else plural or f'{noun}s'}"


def percent(value: float | None, none: str = "-") -> str:
    """Return a share from 0 to 1 in percent.

    >>> percent(0.7345), percent(None)
    ('73.5', '-')
    """
    return none if value is None else f"{100 * value:.1f}"


def points(difference: float | None, none: str = "-") -> str:
    """Return a difference of two shares in points, with its sign.

    >>> points(0.0312)
    '+3.1'
    """
    return none if difference is None else f"{100 * difference:+.1f}"


def decimal(value: float | None, none: str = "-") -> str:
    """Return a number such as a kappa with two decimals."""
    return none if value is None else f"{value:.2f}"


def p_value(value: float | None, none: str = "") -> str:
    """Return a p value with three decimals.

    >>> p_value(0.0004), p_value(0.0312)
    ('<.001', '0.031')
    """
    return none if value is None else "<.001" if value < _TINY else f"{value:.3f}"


def span(ends: _Ends, none: str = "", *, show: _Show = percent) -> str:
    """Return an interval.

    >>> span((0.61, 0.735)), span((-0.01, 0.02), show=points)
    ('61.0 to 73.5', '-1.0 to +2.0')
    """
    return f"{show(ends[0])} to {show(ends[1])}" if ends else none


def with_span(value: float | None, ends: _Ends, none: str = "-", *, show: _Show = percent) -> str:
    """Return a number with its interval, if it has one; a sentence needs words for `none`.

    >>> with_span(0.7, (0.61, 0.735)), with_span(None, None, "not measured")
    ('70.0 (61.0 to 73.5)', 'not measured')
    """
    shown = none if value is None else show(value)
    return f"{shown} ({span(ends, show=show)})" if ends else shown


def quantity(value: float) -> str:
    """Return a large number as people say it.

    >>> [quantity(value) for value in (8e9, 5e8, 440_000, 20)]
    ['8B', '500M', '440k', '20']
    """
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def short(name: str, length: int = 32) -> str:
    """Cut a name so that a picture or a table holds it, and drop what cannot be printed.

    >>> short("a" * 40, 10)
    'aaaaaaaaa…'
    """
    visible = "".join(letter for letter in name if letter.isprintable())
    return visible if len(visible) <= length else f"{visible[: length - 1]}…"


def csv_of(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a column for each field."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    totals: Iterable[Sequence[str]] = (),
    *,
    title: str | None = None,
    words: Collection[str] = (),
    broken: Collection[str] = (),
) -> Table:
    """Return a table for a terminal; it reads the same without colour.

    The first column and those in `words` are left-aligned, numbers right; `totals` are below a
    gap. Where the terminal is too narrow, `words` and `broken` take several lines first. Text is
    shown as it is: in `medqa[fallback=x]` the brackets are not markup.
    """
    from rich import box  # noqa: PLC0415 (rich only where a table is shown)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(title=strong(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD)
    for number, name in enumerate(header):
        justify: Literal["left", "right"] = "left" if number == 0 or name in words else "right"
        whole = name not in {*words, *broken}
        over: Literal["ellipsis", "fold"] = "ellipsis" if whole else "fold"
        made.add_column(name, justify=justify, no_wrap=whole, overflow=over)
    for row in rows:
        made.add_row(*map(Text, row))
    made.add_section()
    for row in totals:
        made.add_row(*map(Text, row), style="bold")
    return made


def strong(line: str) -> Text:
    """Return a line that stands out from those beside it."""
    from rich.text import Text  # noqa: PLC0415

    return Text(line, style="bold")


def stacked(*parts: RenderableType, notes: Iterable[str] = ()) -> Group:
    """Put tables and lines below each other, and notes at the end in grey."""
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    lines = (Text(part) if isinstance(part, str) else part for part in parts)
    return Group(*lines, *(Text(note, style="dim") for note in notes))
