# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What a batch has done so far: parts that are written once and never changed, so that it works on any storage.

Under ``output_path``::

    results/part-….ndjson   one line a verified person: a summary
    errors/part-….ndjson    one line a row that cannot be verified: number, identifier, code, what to do
    records/part-….ndjson   full records, only if asked for
    begun/part-….ndjson     identifiers about to be sent, written before the first of them is

A row that stands in ``results`` or ``errors`` is finished. One that stands only in ``begun`` may have been sent
and billed, so FACEKI is asked about it first. All others have never been sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from airflow_provider_faceki import storage

FINISHED = ("results", "errors")
FOLDERS = (*FINISHED, "records", "begun")

_SEEN, _BEGUN, _DONE = 1, 2, 3


class Begun(NamedTuple):
    """When a row may have been sent, in Unix time: its record is no older than ``first``, and FACEKI has had its
    time when that has passed since ``last``."""

    first: float
    last: float


class Known:
    """What is known of each row, in a temporary file of its own, so that memory stays flat.

    Rows go by a hash of their key: an identifier, or the number of a row that has none.
    """

    def __init__(self) -> None:
        # An empty name makes a private database on disk that goes when it is closed.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute(
            "CREATE TABLE known (key BLOB PRIMARY KEY, state INT, first REAL, last REAL, seen INT) WITHOUT ROWID"
        )

    def begun(self, key: str, at: float) -> None:
        """Note that the row may have been sent, at Unix time ``at``."""
        self._put(key, _BEGUN, at)

    def done(self, key: str) -> None:
        """Note that the row is finished."""
        self._put(key, _DONE, 0.0)

    def is_done(self, key: str) -> bool:
        """Whether the row is finished."""
        return self._get(key)[0] == _DONE

    def begun_at(self, key: str) -> Begun | None:
        """Return when the row may have been sent by earlier tries, or ``None``."""
        state, first, last = self._get(key)
        return Begun(first, last) if state == _BEGUN else None

    def is_first(self, key: str) -> bool:
        """Whether the manifest has not had this key before; remembers it."""
        hashed = _hashed(key)
        changed = self._database.execute(
            "INSERT INTO known VALUES (?, ?, 0, 0, 1) ON CONFLICT (key) DO UPDATE SET seen = 1 WHERE seen = 0",
            (hashed, _SEEN),
        )
        return changed.rowcount == 1

    def close(self) -> None:
        """Throw it away."""
        self._database.close()

    def _put(self, key: str, state: int, at: float) -> None:
        self._database.execute(
            "INSERT INTO known VALUES (?, ?, ?, ?, 0) ON CONFLICT (key) DO UPDATE SET state = excluded.state, "
            "first = min(known.first, excluded.first), last = max(known.last, excluded.last) "
            "WHERE excluded.state >= known.state",
            (_hashed(key), state, at, at),
        )

    def _get(self, key: str) -> tuple[int, float, float]:
        asked = self._database.execute("SELECT state, first, last FROM known WHERE key = ?", (_hashed(key),))
        found = asked.fetchone()
        return (int(found[0]), float(found[1]), float(found[2])) if found else (0, 0.0, 0.0)


class Journal:
    """The parts of a batch.

    :param output_path: URI of the folder.
    :param conn_id: Connection for that storage.
    """

    def __init__(self, output_path: str, conn_id: str | None = None) -> None:
        self._root = output_path.rstrip("/")
        self._conn_id = conn_id
        # Sorts by time, and no two tries on whatever workers share one.
        self._try = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.urandom(4).hex()}"
        self._written = Counter[str]()
        self._waiting: dict[str, list[Mapping[str, object]]] = {folder: [] for folder in FOLDERS}
        self.known = Known()
        #: Finished rows by decision, and by error, over all tries.
        self.decisions = Counter[str]()
        self.errors = Counter[str]()

    def folder(self, name: str) -> str:
        """Return the URI of one of the folders."""
        return f"{self._root}/{name}"

    def load(self) -> None:
        """Read what earlier tries have left."""
        for line in self._lines("begun"):
            at = line.get("at")
            self.known.begun(_key(line), float(at) if isinstance(at, int | float) else 0.0)
        for folder in FINISHED:
            for line in self._lines(folder):
                key = _key(line)
                if not self.known.is_done(key):
                    self._count(folder, line)
                self.known.done(key)

    def begin(self, identifiers: Iterable[str]) -> None:
        """Write down, before anything is sent, who is about to be."""
        now = time.time()
        lines: list[Mapping[str, object]] = [
            {"record_identifier": identifier, "at": now} for identifier in identifiers
        ]
        self._write("begun", lines)

    def finish(self, folder: str, line: Mapping[str, object]) -> None:
        """Note a finished row; it is written with the next :meth:`flush`."""
        self._waiting[folder].append(line)
        if folder in FINISHED:
            self._count(folder, line)

    @property
    def waiting(self) -> int:
        """How many finished rows are not written yet."""
        return sum(len(self._waiting[folder]) for folder in FINISHED)

    def flush(self) -> None:
        """Write what is waiting; what cannot be written goes on waiting.

        Records go before results: a row counts as finished only when everything about it is there.
        """
        for folder in ("records", "errors", "results"):
            lines = self._waiting[folder]
            if lines:
                self._write(folder, lines)
                self._waiting[folder] = []

    def _count(self, folder: str, line: Mapping[str, object]) -> None:
        if folder == "results":
            self.decisions[str(line.get("decision"))] += 1
        else:
            self.errors[str(line.get("code"))] += 1

    def _write(self, folder: str, lines: Iterable[Mapping[str, object]]) -> None:
        self._written[folder] += 1
        content = "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in lines).encode()
        name = f"part-{self._try}-{self._written[folder]:06d}.ndjson"
        storage.write_bytes(f"{self.folder(folder)}/{name}", content, self._conn_id)

    def _lines(self, folder: str) -> Iterator[Mapping[str, object]]:
        for uri in storage.list_files(self.folder(folder), self._conn_id):
            with storage.open_binary(uri, self._conn_id) as file:
                for line in file:
                    try:
                        document = json.loads(line)
                    except ValueError:
                        # A part that a store has cut: what it held counts as begun, and is asked about.
                        continue
                    if isinstance(document, dict):
                        yield document


def row_key(number: int, identifier: str | None) -> str:
    """Return what a row goes by: its identifier, or its number if it has none of its own."""
    return f"id {identifier}" if identifier is not None else f"row {number}"


def _key(line: Mapping[str, object]) -> str:
    if line.get("code") == "DUPLICATE_IDENTIFIER":
        return f"row {line.get('row')}"
    identifier = line.get("record_identifier")
    return f"id {identifier}" if isinstance(identifier, str) else f"row {line.get('row')}"


def _hashed(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()
