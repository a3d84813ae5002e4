"""The verdict cache: one SQLite file beside the runs, shared by runs, models and training.

It is keyed by everything that can affect a vote. A cache that cannot be read is renamed and
replaced by a new one: losing it costs calls, never a result.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from medix_eval.errors import ConfigError
from medix_eval.records import Vote

_LOG = logging.getLogger(__name__)
CACHE_FILE = Path(".cache/verdicts.sqlite")
"""Where the folder of runs keeps its cache."""
_LARGEST_BYTES = 1 << 30
"""Above this, the oldest third of the votes makes room when the cache is opened."""
_EVICT = "DELETE FROM votes WHERE rowid <= (SELECT min(rowid) + count(*) / 3 FROM votes)"
_SCHEMA = "CREATE TABLE IF NOT EXISTS votes (key TEXT PRIMARY KEY, points REAL, reply TEXT)"
_REFUSALS = "CREATE TABLE IF NOT EXISTS refusals (key TEXT PRIMARY KEY)"
_LABELS = "CREATE TABLE IF NOT EXISTS labels (key TEXT PRIMARY KEY, labels TEXT)"
"""The votes that say `refused`, or more than points: in tables of their own, so that 0.2 can read
and write the other."""


@dataclass(frozen=True, slots=True)
class VerdictCache:
    """Votes by the digest of what was asked; `with VerdictCache.at(path) as cache`."""

    connection: sqlite3.Connection
    under_way: dict[str, asyncio.Future[Vote]] = field(default_factory=dict)
    """Votes that are asked but not yet kept: a second sample that needs one waits for it."""

    @classmethod
    def at(cls, path: Path, *, hint: str = "--no-cache runs without it") -> Self:
        """Open the cache, or begin it; `hint` says how its caller does without."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return cls(_opened(path))
        except (OSError, sqlite3.OperationalError) as error:
            said = f"the verdict cache {path} cannot be used: {error}"
            raise ConfigError(said, hint=hint) from error
        except sqlite3.DatabaseError:
            aside = path.with_suffix(".corrupt")
            path.replace(aside)
            _LOG.warning("unreadable verdict cache renamed to %s, starting a new one", aside)
            return cls(_opened(path))

    def find(self, key: str) -> dict[str, Any] | None:
        """Return what is known of a vote that was asked before, by the fields of `Vote`."""
        query = (
            "SELECT points, reply, EXISTS (SELECT 1 FROM refusals WHERE refusals.key = votes.key),"
            " labels FROM votes LEFT JOIN labels USING (key) WHERE key = ?"
        )
        rows = self.connection.execute(query, (key,))
        for points, reply, is_refusal, labels in rows:
            known = {"points": points, "reply": reply, "is_refusal": bool(is_refusal)}
            return {**known, "labels": tuple((labels or "").split()), "cached": True}
        return None

    def keep(self, votes: Collection[Vote], *, restricted: bool) -> None:
        """Keep valid votes by key; of restricted data only points and labels, never the words."""
        for vote in votes:
            self.under_way.pop(vote.key, None)
        new = [vote for vote in votes if vote.points is not None and not vote.cached]
        if not new:
            return
        try:
            with self.connection:
                execute = self.connection.execute
                for vote in new:
                    said = (vote.key, vote.points, None if restricted else vote.reply)
                    if not execute("INSERT OR IGNORE INTO votes VALUES (?, ?, ?)", said).rowcount:
                        continue  # another process was first: what it said stays together
                    if vote.is_refusal:
                        execute("INSERT OR REPLACE INTO refusals VALUES (?)", (vote.key,))
                    labels = (vote.key, " ".join(vote.labels))
                    execute("INSERT OR REPLACE INTO labels VALUES (?, ?)", labels)
        except sqlite3.OperationalError as error:  # locked for long, or the disk is full
            _LOG.warning("the verdict cache was not written: %s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


_SPENT_NOTHING = {"calls": 0, "seconds": 0.0, "tokens": 0, "thinking_tokens": 0}


async def remembered(
    cache: VerdictCache | None, vote: Vote, ask: Callable[[], Awaitable[Vote]]
) -> Vote:
    """Return a vote from the cache or from a request in flight, or ask."""
    if cache is None:
        return await ask()
    if (known := cache.find(vote.key)) is not None:
        return vote.model_copy(update=known)
    if (other := cache.under_way.get(vote.key)) is not None:
        shared = await asyncio.shield(other)
        return shared.model_copy(update={**_SPENT_NOTHING, "cached": True})
    asked = cache.under_way[vote.key] = asyncio.get_running_loop().create_future()
    try:
        vote = await ask()
    except BaseException:
        asked.cancel()
        del cache.under_way[vote.key]  # what was cut off is asked again
        raise
    asked.set_result(vote)
    return vote


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_SCHEMA)
        connection.execute(_REFUSALS)
        connection.execute(_LABELS)
        if path.stat().st_size > _LARGEST_BYTES:
            connection.execute(_EVICT)
            for table in ("refusals", "labels"):
                connection.execute(f"DELETE FROM {table} WHERE key NOT IN (SELECT key FROM votes)")  # noqa: S608
            connection.commit()
            connection.execute("VACUUM")
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
