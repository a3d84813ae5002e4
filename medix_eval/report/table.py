"""How a terminal's table and the lines beside it are put together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text


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

    The first column and those named in `words` stand left, numbers right; `totals` stand below a
    gap. Where the terminal is too narrow, `words` and `broken` take several lines first. Text is
    shown as it is: in `medqa[fallback=x]` the brackets are no markup.
    """
    from rich import box  # noqa: PLC0415 (rich only where a table is shown)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(title=strong(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD)
    for number, name in enumerate(header):
        justify: Literal["left", "right"] = "left" if number == 0 or name in words else "right"
        made.add_column(name, justify=justify, no_wrap=name not in {*words, *broken})
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
