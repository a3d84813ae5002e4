"""The verdict cache: one SQLite file beside the runs, shared by runs, models and training.

It is keyed by everything that can affect a vote. A cache that cannot be read is renamed and
replaced by a new one: losing it costs calls, never a result.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
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


_FIND = (
    "SELECT points, reply, EXISTS (SELECT 1 FROM refusals WHERE refusals.key = votes.key),"
    " labels, typeof(points) = 'real' AND typeof(reply) IN ('text', 'null')"
    " AND typeof(labels) IN ('text', 'null') FROM votes LEFT JOIN labels USING (key) WHERE key = ?"
)
Fits = Callable[[Mapping[str, Any]], bool]
_OF_THE_DISK = "BUSY LOCKED READONLY FULL IOERR CANTOPEN PERM NOMEM"
_PASSING = {getattr(sqlite3, f"SQLITE_{name}") for name in _OF_THE_DISK.split()}
"""Errors of the disk, of rights and of another process: the file itself may be whole."""


@dataclass(slots=True)
class VerdictCache:
    """Votes by the digest of what was asked; `with VerdictCache.at(path) as cache`."""

    path: Path
    connection: sqlite3.Connection
    inode: int
    """Of the open file: another process may have set it aside meanwhile."""
    under_way: dict[str, asyncio.Future[Vote]] = field(default_factory=dict)
    """Votes that are asked but not yet kept: a second sample that needs one waits for it."""

    @classmethod
    def at(cls, path: Path, *, hint: str = "--no-cache runs without it") -> Self:
        """Open the cache, or begin it; `hint` says how its caller does without."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return cls(path, *_opened(path))
        except (OSError, sqlite3.Error) as error:
            said = f"the verdict cache {path} cannot be used: {error}"
            raise ConfigError(said, hint=hint) from error

    def find(self, key: str, fits: Fits = lambda _: True) -> dict[str, Any] | None:
        """Return what is known of a vote that was asked before, by the fields of `Vote`.

        One that does not fit what was asked is dropped: the file is damaged, or of others' making.
        """
        found = self._done(lambda cache: cache.execute(_FIND, (key,)).fetchone())
        if found is None:
            return None
        points, reply, is_refusal, labels, is_sound = found
        known = {"points": points, "reply": reply, "is_refusal": bool(is_refusal), "cached": True}
        if is_sound and fits(known := known | {"labels": tuple((labels or "").split())}):
            return known
        _LOG.warning("a vote in the verdict cache cannot be one: it is asked again")
        drop = "DELETE FROM votes WHERE key = ?", "DELETE FROM refusals WHERE key = ?"
        self._done(lambda cache: [cache.execute(one, (key,)) for one in drop])
        return None

    def keep(self, votes: Collection[Vote], *, restricted: bool) -> None:
        """Keep valid votes by key; of restricted data only points and labels, never the words."""
        for vote in votes:
            self.under_way.pop(vote.key, None)
        new = [vote for vote in votes if vote.points is not None and not vote.cached]

        def write(cache: sqlite3.Connection) -> None:
            for vote in new:
                said = (vote.key, vote.points, None if restricted else vote.reply)
                if not cache.execute("INSERT OR IGNORE INTO votes VALUES (?, ?, ?)", said).rowcount:
                    continue  # another process was first: what it said stays together
                if vote.is_refusal:
                    cache.execute("INSERT OR REPLACE INTO refusals VALUES (?)", (vote.key,))
                labels = (vote.key, " ".join(vote.labels))
                cache.execute("INSERT OR REPLACE INTO labels VALUES (?, ?)", labels)

        if new:
            self._done(write)

    def _done(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do this in one transaction; one that cannot be read is replaced, and holds none."""
        try:
            with self.connection:
                return work(self.connection)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):  # locked for long, or the disk is full
                _LOG.warning("the verdict cache was not used: %s", error)
                return None
        self.connection.close()
        try:
            self.connection, self.inode = _opened(self.path, damaged=self.inode)
        except (OSError, sqlite3.Error) as error:
            _LOG.warning("no new verdict cache can be written: %s", error)
            self.connection = _prepared(Path(":memory:"))
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


_SPENT_NOTHING = {"calls": 0, "seconds": 0.0, "tokens": 0, "thinking_tokens": 0}


async def remembered(
    cache: VerdictCache | None,
    vote: Vote,
    ask: Callable[[], Awaitable[Vote]],
    fits: Fits = lambda _: True,
) -> Vote:
    """Return a vote from the cache, if it `fits`, or from a request in flight, or ask."""
    if cache is None:
        return await ask()
    if (known := cache.find(vote.key, fits)) is not None:
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


def _is_damage(error: sqlite3.Error) -> bool:
    if isinstance(error, sqlite3.ProgrammingError):
        raise error  # ours
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF not in _PASSING or code == sqlite3.SQLITE_IOERR_SHORT_READ


def _opened(path: Path, *, damaged: int | None = None) -> tuple[sqlite3.Connection, int]:
    """Open the file, or set it aside and begin a new one; also if it is still the damaged one."""
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed: another process may be just as far
        if not path.exists() or path.stat().st_ino != damaged:
            try:
                return _prepared(path), path.stat().st_ino
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
        aside = path.with_suffix(".corrupt")
        for end in ("-wal", "-shm", ""):  # a log beside a new file would be taken for its own
            Path(f"{aside}{end}").unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                Path(f"{path}{end}").replace(f"{aside}{end}")
        _LOG.warning("unreadable verdict cache renamed to %s, starting a new one", aside)
        return _prepared(path), path.stat().st_ino


def _prepared(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_SCHEMA)
        connection.execute(_REFUSALS)
        connection.execute(_LABELS)
        connection.execute(_FIND, ("",)).fetchone()
        if path.exists() and path.stat().st_size > _LARGEST_BYTES:
            connection.execute(_EVICT)
            for table in ("refusals", "labels"):
                connection.execute(f"DELETE FROM {table} WHERE key NOT IN (SELECT key FROM votes)")  # noqa: S608
            connection.commit()
            connection.execute("VACUUM")
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
