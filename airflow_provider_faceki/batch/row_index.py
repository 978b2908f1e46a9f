# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Index of the rows of a batch in a temporary SQLite file, so that memory use does not grow with the number of rows."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import NamedTuple

_TABLE = """
CREATE TABLE rows (
    key BLOB PRIMARY KEY,
    done INT NOT NULL DEFAULT 0,
    intents INT NOT NULL DEFAULT 0,
    sent_since REAL NOT NULL DEFAULT 1e18,
    seen INT NOT NULL DEFAULT 0,
    deferred INT NOT NULL DEFAULT 0,
    recorded INT NOT NULL DEFAULT 0
) WITHOUT ROWID
"""


class RowState(NamedTuple):
    """State of a row.

    :param is_done: Whether the row has a result or an error.
    :param sent_since: Unix time since which the row was possibly sent; ``None`` if it was certainly not sent.
    :param is_deferred: Whether this try has deferred the row to its second pass.
    """

    is_done: bool
    sent_since: float | None
    is_deferred: bool


class RowIndex:
    """State of each row, stored under the hash of the row's key; see :func:`row_key`."""

    def __init__(self) -> None:
        # An empty name creates a private database on disk, which SQLite deletes when it is closed.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute(_TABLE)

    def state(self, key: str) -> RowState:
        """Return the state of a row."""
        found = self._database.execute(
            "SELECT done, intents, sent_since, deferred FROM rows WHERE key = ?", (_digest(key),)
        )
        done, intents, since, deferred = found.fetchone() or (0, 0, 0.0, 0)
        return RowState(bool(done), float(since) if intents > 0 else None, bool(deferred))

    def add_intent(self, key: str, at: float) -> None:
        """Record that the row is possibly sent from Unix time ``at`` on."""
        self._put(
            key,
            "intents, sent_since",
            (1, at),
            "intents = intents + 1, sent_since = min(sent_since, excluded.sent_since)",
        )

    def cancel_intent(self, key: str) -> None:
        """Record that the row was not sent after the last intent."""
        self._put(key, "intents", (-1,), "intents = intents - 1")

    def mark_done(self, key: str) -> None:
        """Record that the row has a result or an error."""
        self._put(key, "done", (1,), "done = 1")

    def mark_deferred(self, key: str) -> None:
        """Record that the row is left for the second pass of this try."""
        self._put(key, "deferred", (1,), "deferred = 1")

    def mark_recorded(self, key: str) -> None:
        """Record that the row's full record is written."""
        self._put(key, "recorded", (1,), "recorded = 1")

    def is_recorded(self, key: str) -> bool:
        """Return whether the row's full record is written."""
        found = self._database.execute("SELECT recorded FROM rows WHERE key = ?", (_digest(key),))
        return bool((found.fetchone() or (0,))[0])

    def mark_seen(self, key: str, reading: int = 1) -> bool:
        """Record that the row was read; return whether it is the first time in this reading of the manifest."""
        changed = self._database.execute(
            "INSERT INTO rows (key, seen) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET seen = excluded.seen WHERE seen < excluded.seen",
            (_digest(key), reading),
        )
        return changed.rowcount == 1

    def was_seen(self, key: str) -> bool:
        """Return whether the row was read in any reading of the manifest."""
        found = self._database.execute("SELECT seen FROM rows WHERE key = ?", (_digest(key),))
        return bool((found.fetchone() or (0,))[0])

    def count_open(self) -> int:
        """Return the number of rows that were possibly sent and have neither a result nor an error."""
        found = self._database.execute("SELECT count(*) FROM rows WHERE intents > 0 AND done = 0")
        return int(found.fetchone()[0])

    def close(self) -> None:
        """Delete the index."""
        self._database.close()

    def _put(self, key: str, columns: str, values: tuple[float, ...], update: str) -> None:
        marks = ", ".join("?" * (len(values) + 1))
        self._database.execute(
            f"INSERT INTO rows (key, {columns}) VALUES ({marks}) ON CONFLICT (key) DO UPDATE SET {update}",  # noqa: S608 - constants only
            (_digest(key), *values),
        )


def row_key(number: int, identifier: str | None) -> str:
    """Return the key of a row: its identifier, or its number if it has no identifier of its own."""
    return f"id {identifier}" if identifier is not None else f"row {number}"


def hashed_key(key: str) -> str:
    """Return ``key`` in a form that does not reveal the identifier, because the identifier is possibly a link."""
    return _digest(key).hex()


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()
