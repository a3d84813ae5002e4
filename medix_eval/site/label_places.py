"""Where a name can stand beside its point so that it touches no other mark; in points of 1/72 inch.

Widths are estimated: the page's own font draws the text, and nobody knows it when the site is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

_LETTER = 5.6
"""Width of a letter at nine points, on the generous side."""
_HALF_HEIGHT = 5.5
_NEAR, _FAR = 8.0, 16.0


class Box(NamedTuple):
    """A rectangle: left, bottom, right, top."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Tell whether two boxes share any ground.

        >>> Box(0, 0, 2, 2).meets(Box(1, 1, 3, 3)), Box(0, 0, 1, 1).meets(Box(2, 0, 3, 1))
        (True, False)
        """
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def holds(self, other: Box) -> bool:
        """Tell whether another box is wholly inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a name stands, from its point."""

    offset: tuple[float, float]
    align: Literal["left", "center", "right"]
    box: Box


def free_place(x: float, y: float, *, text: str, taken: Iterable[Box], frame: Box) -> Place | None:
    """Return the nearest place that is free, right of the point first; None if there is none."""
    width = _LETTER * len(text)
    obstacles = list(taken)
    for distance in (_NEAR, _FAR):
        for across, up in ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1)):
            dx, dy = across * distance, up * (distance + 3)
            left = x + dx - {1: 0.0, 0: width / 2, -1: width}[across]
            box = Box(left, y + dy - _HALF_HEIGHT, left + width, y + dy + _HALF_HEIGHT)
            if frame.holds(box) and not any(box.meets(other) for other in obstacles):
                align: Literal["left", "center", "right"] = "center"
                if across:
                    align = "left" if across > 0 else "right"
                return Place(offset=(dx, dy), align=align, box=box)
    return None
