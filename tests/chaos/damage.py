"""What happens to files that a run keeps: rotten, torn, edited.

Each damage returns the sample that it edited, if it is one that a hand may have meant.
"""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

Dice = random.Random


def sqlite_of(path: Path) -> str:
    """Return all that a database holds, as text; nothing if it cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
            return "\n".join(opened.iterdump())
    except sqlite3.DatabaseError:
        return ""


def rot(path: Path, rng: random.Random) -> str:
    """Write random bytes over some of it."""
    held = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 20)):
        at = rng.randrange(len(held))
        part = rng.randbytes(rng.randint(1, 2000))
        held[at : at + len(part)] = part
    path.write_bytes(held)
    return ""


def replace_schema(path: Path, rng: random.Random) -> str:
    """Put a database of somebody else in its place."""
    path.unlink()
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute(f"CREATE TABLE votes (id{rng.randint(0, 9)} INTEGER, other TEXT)")
    return ""


def raise_points(path: Path, rng: random.Random) -> str:
    """Give votes points that no scale has."""
    with closing(sqlite3.connect(path)) as opened, opened:
        odd = rng.choice((99, -1, 0.5, "many", float("inf")))
        opened.execute("UPDATE votes SET points = ?", (odd,))
    return ""


def tear(path: Path, rng: random.Random) -> str:
    """Lose the end of the last line."""
    held = path.read_bytes()
    last = held.rindex(b"\n", 0, len(held) - 1) + 1
    path.write_bytes(held[: rng.randrange(last + 1, len(held))])
    return ""


def garble(path: Path, rng: random.Random) -> str:
    """Make a line in the middle one that nothing can read."""
    lines = path.read_bytes().splitlines(keepends=True)
    at = rng.randrange(len(lines) - 1)
    cut = rng.randrange(1, len(lines[at]) - 1)
    lines[at] = lines[at][:cut] + b"\n"
    path.write_bytes(b"".join(lines))
    return ""


def edit(path: Path, rng: random.Random) -> str:
    """Change a line by hand: another answer, another score. Return its sample."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    line = lines[rng.randrange(len(lines))]
    if "outcome" in line:
        line["outcome"], line["score"] = ("wrong", 0.0) if line["score"] else ("correct", 1.0)
    else:
        line["completion"] = "It is something else."
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return str(line["sample_id"])
