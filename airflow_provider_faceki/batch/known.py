# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What is known of each row, in a temporary file, so that memory stays flat however many there are."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import NamedTuple

_TABLE = """
CREATE TABLE known (
    key BLOB PRIMARY KEY,
    done INT NOT NULL DEFAULT 0,
    begun INT NOT NULL DEFAULT 0,
    first REAL NOT NULL DEFAULT 1e18,
    seen INT NOT NULL DEFAULT 0,
    again INT NOT NULL DEFAULT 0,
    recorded INT NOT NULL DEFAULT 0
) WITHOUT ROWID
"""


class Entry(NamedTuple):
    """What is known of a row.

    :param is_done: Whether it has a result or an error.
    :param first: Unix time since which it may have been sent; ``None`` if it surely never was.
    :param again: Whether this try has put it off.
    """

    is_done: bool
    first: float | None
    again: bool


class Known:
    """The rows of a batch, each by a hash of its key: an identifier, or the number of a row that has none."""

    def __init__(self) -> None:
        # An empty name makes a private database on disk that goes when it is closed.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute(_TABLE)

    def entry(self, key: str) -> Entry:
        """Return what is known of a row."""
        asked = self._database.execute(
            "SELECT done, begun, first, again FROM known WHERE key = ?", (_hashed(key),)
        )
        done, begun, first, again = asked.fetchone() or (0, 0, 0.0, 0)
        return Entry(bool(done), float(first) if begun > 0 else None, bool(again))

    def begun(self, key: str, at: float) -> None:
        """Note that it may be sent from Unix time ``at`` on."""
        self._put(key, "begun, first", (1, at), "begun = begun + 1, first = min(first, excluded.first)")

    def taken_back(self, key: str) -> None:
        """Note that what was begun last was surely not sent."""
        self._put(key, "begun", (-1,), "begun = begun - 1")

    def done(self, key: str) -> None:
        """Note that it has a result or an error."""
        self._put(key, "done", (1,), "done = 1")

    def put_off(self, key: str) -> None:
        """Note that it is for the end of this try."""
        self._put(key, "again", (1,), "again = 1")

    def recorded(self, key: str) -> None:
        """Note that its whole record is kept."""
        self._put(key, "recorded", (1,), "recorded = 1")

    def is_recorded(self, key: str) -> bool:
        """Whether its whole record is kept."""
        asked = self._database.execute("SELECT recorded FROM known WHERE key = ?", (_hashed(key),))
        return bool((asked.fetchone() or (0,))[0])

    def is_first(self, key: str, reading: int = 1) -> bool:
        """Whether this reading of the manifest has not met the key before; remembers it."""
        changed = self._database.execute(
            "INSERT INTO known (key, seen) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET seen = excluded.seen WHERE seen < excluded.seen",
            (_hashed(key), reading),
        )
        return changed.rowcount == 1

    def is_met(self, key: str) -> bool:
        """Whether any reading of the manifest has met the key."""
        asked = self._database.execute("SELECT seen FROM known WHERE key = ?", (_hashed(key),))
        return bool((asked.fetchone() or (0,))[0])

    def close(self) -> None:
        """Throw it away."""
        self._database.close()

    def _put(self, key: str, columns: str, values: tuple[float, ...], update: str) -> None:
        marks = ", ".join("?" * (len(values) + 1))
        self._database.execute(
            f"INSERT INTO known (key, {columns}) VALUES ({marks}) ON CONFLICT (key) DO UPDATE SET {update}",  # noqa: S608 - our own words
            (_hashed(key), *values),
        )


def row_key(number: int, identifier: str | None) -> str:
    """Return what a row goes by: its identifier, or its number if it has none of its own."""
    return f"id {identifier}" if identifier is not None else f"row {number}"


def shown_key(key: str) -> str:
    """Return a form of ``key`` that tells nobody the identifier, which may be a link."""
    return _hashed(key).hex()


def _hashed(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()
