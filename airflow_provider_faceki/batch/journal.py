# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Journal of a batch: append-only logs of the rows that were sent and of the rows that are done.

A log consists of segments. A segment is a file that is written once and never changed, which is possible in any
storage. Before a row is sent, an entry for the row is written to the log ``intents``. This entry is called an intent.
If the row is postponed, and FACEKI has certainly not verified it since then, an entry in the log ``cancelled`` cancels
the intent. The folders under ``output_path`` are::

    results/part-….ndjson               one line for each verified row: a summary
    errors/part-….ndjson                one line for each row that cannot be verified: the reason and an advice
    records/part-….ndjson               full records, only if they are requested
    _journal/intents/part-….ndjson      identifiers of rows that are about to be sent
    _journal/cancelled/part-….ndjson    identifiers of rows whose intents are cancelled
    _journal/tombstones/part-….ndjson   names of segments to ignore; only an export of records writes this log
    _journal/tries/try-….json           one file for each try, so that only the newest try sends rows (lease.py)

Each row is in one of three states:

- Done: the row has a line in ``results`` or ``errors``.
- Possibly sent and billed: the row is not done, and it has more intents than cancelled intents. By default, the batch
  looks up the row at FACEKI before it sends the row again.
- Not verified: all other rows.

An export of records (``export.py``) also uses this journal, in a folder of its own and without intents. When the rows
of the segments in ``results`` and ``errors`` are written to tables, the export lists the names of these segments in
``tombstones``, and then deletes the segments.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.lease import Clock
from airflow_provider_faceki.batch.rows import row_key, with_checkpoints
from airflow_provider_faceki.storage_interface import ObjectStore, retry_storage

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Name under which the records without a decision are counted.
UNDECIDED = "UNDECIDED"

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


class SegmentLog:
    """Append-only log of JSON lines in one folder. It consists of segments, which are files that are written only once.

    :param store: Storage of the folder.
    :param folder: URI of the folder.
    :param writer: Name of this writer, which is part of the names of its segments. Each try is one writer. In sorted
        order, the name of a later try comes after the names of earlier tries.
    :param clock: Clock for the pauses between retries.
    """

    def __init__(self, store: ObjectStore, folder: str, writer: str, clock: Clock) -> None:
        self.folder = folder
        self._store = store
        self._writer = writer
        self._clock = clock
        self._number = 0
        self._lines: list[bytes] = []
        self._segment: tuple[str, list[bytes]] | None = None
        #: Names of the segments (files of this log) that are not read, because an export has already written their rows
        #: to tables.
        self.tombstones: set[str] = set()

    def add(self, line: Mapping[str, object]) -> None:
        """Add a line to the buffer. :meth:`write` writes the buffer to the storage."""
        self._lines.append(json.dumps(line, allow_nan=False).encode() + b"\n")

    @property
    def buffered(self) -> int:
        """Number of lines that are in the buffer, but not in the storage yet."""
        return len(self._lines) + (len(self._segment[1]) if self._segment else 0)

    def write(self) -> None:
        """Write the buffered lines to the storage as a segment. If this fails, the lines stay in the buffer.

        A storage sometimes reports an error although it has written the file. Therefore the next call of this method
        writes the failed segment again, with the same name and the same lines.

        :raises OSError: if the storage failed. The next call can succeed.
        :raises ValidationError: if the path of the folder is wrong.
        """
        while self._segment or self._lines:
            if self._segment is None:
                name = f"{self.folder}/part-{self._writer}-{self._number:06d}.ndjson"
                self._number += 1
                # A single assignment moves all buffered lines to the segment, which is the next file of this log.
                # Airflow's task timeout can raise an exception between any two statements. If two statements moved the
                # lines, an exception between them would lose lines or write them twice.
                self._segment, self._lines = (name, self._lines), []
            self._store.write(self._segment[0], b"".join(self._segment[1]))
            self._segment = None

    def lines(self) -> Iterator[Mapping[str, object]]:
        """Yield the lines that all tries have written to the storage, but not those of files in ``tombstones``."""
        for uri in self._uris():
            if _name(uri) in self.tombstones:
                continue
            for line in self._retry(partial(self._store.read, uri)).splitlines():
                try:
                    document = json.loads(line)
                except ValueError:
                    # An incompletely written line is ignored. If it contained the result of a row, this row counts as
                    # unfinished, and the batch processes it again. By default, the batch first asks FACEKI whether a
                    # record of the row exists, and sends the row only if there is none.
                    continue
                if isinstance(document, dict):
                    yield document

    def names(self) -> list[str]:
        """Return the names of all segments (files) of this log, from all tries."""
        return [_name(uri) for uri in self._uris()]

    def delete(self) -> None:
        """Delete all segments (files) of this log, from all tries."""
        for uri in self._uris():
            self._retry(partial(self._store.delete, uri))

    def _uris(self) -> list[str]:
        return self._retry(partial(self._store.list, self.folder))

    def _retry(self, operation: Callable[[], T]) -> T:
        return retry_storage(operation, self._clock.sleep)


class RowState(NamedTuple):
    """State of a manifest row according to the journal.

    :param is_done: Whether the row has a result or an error.
    :param sent_since: Unix time before which the row was certainly not sent. It is the time of the row's first intent
        (a note that the row is about to be sent). ``None`` if there is no intent, or if all intents are cancelled.
    :param is_deferred: Whether this try has postponed the row to its second reading of the manifest.
    :param intents: Number of intents of the row that are not cancelled.
    :param was_seen: Whether this try has read the row from the manifest, in its first or second reading.
    """

    is_done: bool
    sent_since: float | None
    is_deferred: bool
    intents: int
    was_seen: bool


class RowIndex:
    """Index of the states of all rows.

    The state of a row is stored under the hash of the row's key; see :func:`~.rows.row_key`. The states are in a
    temporary SQLite file, so that the memory does not grow with the number of rows.
    """

    def __init__(self) -> None:
        # An empty name creates a private database on disk. SQLite deletes this database when the connection is
        # closed.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute(_TABLE)

    def state(self, key: str) -> RowState:
        """Return the state of a row."""
        found = self._database.execute(
            "SELECT done, sent_since, deferred, intents, seen FROM rows WHERE key = ?", (_digest(key),)
        )
        done, since, deferred, intents, seen = found.fetchone() or (0, 0.0, 0, 0, 0)
        return RowState(bool(done), since if intents > 0 else None, bool(deferred), intents, bool(seen))

    def add_intent(self, key: str, at: float) -> None:
        """Record an intent: a note that the row is about to be sent, at the Unix time ``at`` or later."""
        self._database.execute(
            "INSERT INTO rows (key, intents, sent_since) VALUES (?, 1, ?) ON CONFLICT (key) DO UPDATE "
            "SET intents = intents + 1, sent_since = min(sent_since, excluded.sent_since)",
            (_digest(key), at),
        )

    def cancel_intent(self, key: str) -> None:
        """Reduce the number of the row's intents by one. An intent is a note that the row is about to be sent.

        If a row has more intents than cancelled intents, a later try treats the row as possibly sent. Call this method
        only if FACEKI has certainly not verified the row after its last intent was written.
        """
        self._database.execute(
            "INSERT INTO rows (key, intents) VALUES (?, -1) ON CONFLICT (key) DO UPDATE SET intents = intents - 1",
            (_digest(key),),
        )

    def mark_done(self, key: str) -> bool:
        """Record that the row has a result or an error. If this was already recorded, return ``False``."""
        return self._raise_to("done", key)

    def mark_deferred(self, key: str) -> None:
        """Record that this try has postponed the row to its second reading of the manifest."""
        self._raise_to("deferred", key)

    def mark_recorded(self, key: str) -> bool:
        """Mark the row, so that its data is not written to the output twice. If it is already marked, return ``False``.

        A batch verification marks a row when it starts to fetch the full FACEKI record of the row, or when an earlier
        try has already written this record. An export marks a row when it adds the data of the row to the tables.
        """
        return self._raise_to("recorded", key)

    def mark_seen(self, key: str, reading: int = 1) -> bool:
        """Record that the row was read from the manifest. If this reading has already found the row, return ``False``.

        :param key: Key of the row.
        :param reading: 1 if this try reads the manifest for the first time, 2 if it reads it for the second time.
        """
        return self._raise_to("seen", key, reading)

    def count_unread(self) -> int:
        """Return the number of postponed rows that the second reading of the manifest has not found.

        Rows that already have a result or an error are not counted. If the number is not 0, the manifest has changed.
        """
        return self._count("deferred = 1 AND done = 0 AND seen < 2")

    def count_missing(self) -> int:
        """Return the number of possibly sent rows that have no result and no error, and are not in the manifest."""
        return self._count("intents > 0 AND done = 0 AND seen = 0")

    def count_open(self) -> int:
        """Return the number of rows that were possibly sent and have neither a result nor an error."""
        return self._count("intents > 0 AND done = 0")

    def _count(self, condition: str) -> int:
        found = self._database.execute(f"SELECT count(*) FROM rows WHERE {condition}")  # noqa: S608 - constants only
        return int(found.fetchone()[0])

    def _raise_to(self, column: str, key: str, value: int = 1) -> bool:
        """Set a database column of the row to ``value``, and return ``True``.

        If the column already has this or a higher value, change nothing, and return ``False``.
        """
        changed = self._database.execute(
            f"INSERT INTO rows (key, {column}) VALUES (?, ?) ON CONFLICT (key) DO UPDATE "  # noqa: S608 - constants only
            f"SET {column} = excluded.{column} WHERE {column} < excluded.{column}",
            (_digest(key), value),
        )
        return changed.rowcount == 1


class Journal:
    """Journal of a batch: its logs, and an index of the row states that are computed from the logs.

    :param root: URI of the folder of the batch.
    :param store: Storage of the folder.
    :param is_usable: Function that returns whether a line of an earlier try is still valid. Default: every line is
        valid.
    :param clock: Clock of this machine. Tests replace it.
    """

    def __init__(
        self,
        root: str,
        store: ObjectStore,
        is_usable: Callable[[Mapping[str, object]], bool] = lambda line: True,
        clock: Clock | None = None,
    ) -> None:
        self.root = root.rstrip("/")
        self._is_usable = is_usable
        self._clock = clock or Clock()
        # Each try is one writer. The names of its segments (files) contain the name of the writer. The writer's name
        # begins with a time stamp, so in sorted order the segments of a later try come after those of earlier tries. A
        # random part makes the writer's name unique, even if two workers start a try at the same time.
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._clock.time()))
        writer = f"{stamp}-{os.urandom(4).hex()}"

        def segment_log(folder: str) -> SegmentLog:
            return SegmentLog(store, f"{self.root}/{folder}", writer, self._clock)

        self.results, self.errors = segment_log("results"), segment_log("errors")
        self.records = segment_log("records")
        self._intents, self._cancelled = segment_log("_journal/intents"), segment_log("_journal/cancelled")
        self._tombstones = segment_log("_journal/tombstones")
        self.index = RowIndex()
        #: Number of decisions by name, and number of failed rows by error code, over all tries. An exported row has one
        #: decision for each of its records. A verified row has one decision.
        self.decisions = Counter[str]()
        self.failures = Counter[str]()
        #: ``done`` is the number of done rows over all tries. ``found`` is the number of done rows that were not
        #: billed, because FACEKI already had a verification of the row.
        self.done = 0
        self.found = 0
        self._charged = 0

    @property
    def leases(self) -> str:
        """URI of the folder with the lease files. Only the try that wrote the newest file is allowed to send rows."""
        return f"{self.root}/_journal/tries"

    def load(self, checkpoint: Callable[[], object] = lambda: None) -> None:
        """Read the logs that earlier tries have written, and compute the states of the rows.

        :param checkpoint: Function that is called at intervals, for example to stop a killed task.
        """
        for line in self._tombstones.lines():
            names = line.get("segments")
            for segment_log in (self.results, self.errors):
                segment_log.tombstones.update(map(str, names if isinstance(names, list) else ()))
        for line in with_checkpoints(self._intents.lines(), checkpoint):
            at = line.get("at")
            self.index.add_intent(_key(line), float(at) if isinstance(at, int | float) else 0.0)
        for line in with_checkpoints(self._cancelled.lines(), checkpoint):
            self.index.cancel_intent(_key(line))
        for segment_log in (self.results, self.errors):
            for line in with_checkpoints(segment_log.lines(), checkpoint):
                if self._is_usable(line) and self.index.mark_done(_key(line)):
                    self._count(segment_log, line)

    def load_records(self, checkpoint: Callable[[], object]) -> None:
        """Read the full records that earlier tries have written, so that they are not fetched again."""
        for line in with_checkpoints(self.records.lines(), checkpoint):
            self.index.mark_recorded(_key(line))

    def delete(self) -> None:
        """Delete the files of ``results`` and ``errors``. An export calls this method when its tables contain the rows.

        Before the deletion, a tombstone is written, which is a file with the names of the files to delete. A later try
        ignores these files, so a file that cannot be deleted does no harm. When all these files are deleted, the
        tombstone is deleted too. If a deletion fails, a warning is logged, and the tombstone remains.

        :raises OSError: if the tombstone cannot be written. In this case no file is deleted.
        """
        self._tombstones.add({"segments": self.results.names() + self.errors.names()})
        retry_storage(self._tombstones.write, self._clock.sleep)
        try:
            for segment_log in (self.results, self.errors, self._tombstones):
                segment_log.delete()
        except (OSError, ValidationError) as error:
            log.warning("The output's _journal could not be deleted: %s", type(error).__name__)

    def log_intents(self, identifiers: Iterable[str]) -> None:
        """Record an intent for each row: a note that the row is about to be sent.

        :meth:`flush_intents` writes the intents to the storage.
        """
        now = self._clock.time()
        for identifier in identifiers:
            self._intents.add({"record_identifier": identifier, "at": now})
            self.index.add_intent(row_key(identifier), now)

    def flush_intents(self) -> None:
        """Write the intents of :meth:`log_intents` to the storage. The caller must send the rows only after this call.

        :raises OSError: if the storage failed. The next call can succeed.
        """
        self._intents.write()

    def cancel_intent(self, identifier: str) -> None:
        """Reduce the number of the row's intents by one. An intent is a note that the row is about to be sent.

        Call this method only if FACEKI has certainly not verified the row after its last intent was written. The next
        :meth:`flush` writes the cancellation to the storage.
        """
        self._cancelled.add({"record_identifier": identifier})
        self.index.cancel_intent(row_key(identifier))

    def finish(self, segment_log: SegmentLog, line: Mapping[str, object]) -> None:
        """Record that a row is done. The next :meth:`flush` writes the line of the row.

        :param segment_log: ``results`` or ``errors``.
        :param line: The result or the error of the row.
        """
        segment_log.add(line)
        self.index.mark_done(_key(line))
        self._count(segment_log, line)

    @property
    def charged(self) -> int:
        """Number of rows, over all tries, that were billed or possibly billed."""
        return self._charged + self.index.count_open()

    @property
    def buffered(self) -> int:
        """Number of lines that are in the buffer, but not in the storage yet."""
        return sum(segment_log.buffered for segment_log in self._flushed)

    def flush(self) -> None:
        """Write the buffered results, errors, records and cancelled intents to the storage.

        If the storage fails, the lines stay in the buffer. This method does not write new intents (notes that a row is
        about to be sent). :meth:`flush_intents` writes them.

        :raises OSError: if the storage failed. The next call can succeed.
        """
        for segment_log in self._flushed:
            segment_log.write()

    @property
    def _flushed(self) -> tuple[SegmentLog, ...]:
        return (self.results, self.errors, self.records, self._cancelled)

    def _count(self, segment_log: SegmentLog, line: Mapping[str, object]) -> None:
        is_billed = line.get("billed", True) is not False
        self.done += 1
        self._charged += is_billed
        if segment_log is self.errors:
            self.failures[str(line.get("code"))] += 1
            return
        self.found += not is_billed
        # The line of a verified row contains one decision. The line of an exported row contains a list of decisions,
        # one for each fetched record.
        decisions = line.get("decisions", [line.get("decision")])
        self.decisions.update(map(counted_as, decisions if isinstance(decisions, list) else ()))


def counted_as(decision: object) -> str:
    """Return the name under which a decision is counted: the decision itself, or ``UNDECIDED``."""
    return UNDECIDED if decision is None else str(decision)


def hashed_key(key: str) -> str:
    """Return the hash of a row's key. The key is a text that identifies the row.

    The journal of an export contains the hash instead of the key, because the key can contain a verification link. A
    link must stay secret.
    """
    return _digest(key).hex()


def _key(line: Mapping[str, object]) -> str:
    key = line.get("key")
    return key if isinstance(key, str) else row_key(str(line.get("record_identifier")))


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()
