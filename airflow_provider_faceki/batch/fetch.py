# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fetch the records of many identifiers into tables.

What is fetched goes into a journal, under ``_journal/<run>`` in ``output_path``, and a further try of the same run
goes on after it. When all is there it is put together to one file a table, named by the run: a reader sees a table
of this run as it was or as it is, and a rerun replaces its own files and nobody else's.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_faceki import __version__, api, storage
from airflow_provider_faceki.api.tables import TABLES, table_rows
from airflow_provider_faceki.batch import outcomes
from airflow_provider_faceki.batch.journal import Journal, counted
from airflow_provider_faceki.batch.known import row_key, shown_key
from airflow_provider_faceki.batch.manifest import Row
from airflow_provider_faceki.batch.outcomes import Failed, Finished, Later, Outcome, Stopped
from airflow_provider_faceki.batch.patience import insist, looking_up
from airflow_provider_faceki.batch.progress import Progress
from airflow_provider_faceki.batch.shift import Job, Shift, leave_if
from airflow_provider_faceki.batch.tables import (
    TABLE_FORMATS,
    ColumnPolicy,
    NdjsonWriter,
    TableWriter,
    table_writer,
)

if TYPE_CHECKING:
    from airflow_provider_faceki.hooks.faceki import FacekiHook

#: Seconds for which a further try believes what an earlier one has fetched. Records change: people review them.
JOURNAL_LIFETIME = 24 * 3600.0

Read = Callable[[], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to go about it.

    :param by: ``record_identifier``, ``request_id``, ``link`` or ``face_id``: what the identifiers are.
    :param concurrency: Requests in flight at once.
    :param policy: What becomes of each column.
    :param format: ``ndjson`` or ``parquet``.
    :param output_path: URI of the folder.
    :param output_conn_id: Connection for that storage.
    :param run: What names this run's files; letters, digits and ``-``.
    :param partition: A folder between table and file, such as ``date=2026-01-31``, or nothing.
    :param partitions: All those in which an earlier try of this run may have left files.
    :param max_error_rate: Share of error rows above which it ends early.
    """

    by: str
    concurrency: int
    policy: ColumnPolicy
    format: str
    output_path: str
    output_conn_id: str | None
    run: str
    partition: str
    partitions: tuple[str, ...]
    max_error_rate: float

    @property
    def mark(self) -> str:
        """What is fetched in one way is no use to a run that would fetch it in another, such as without names."""
        told = [__version__, self.by, dict(self.policy.choices), self.policy.hash_key]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(slots=True)
class BatchFetch:
    """One try at fetching.

    :param hook: Whom to ask.
    :param options: How to go about it.
    :param killed: Whether the task is to end.
    """

    hook: FacekiHook
    options: FetchOptions
    killed: Callable[[], bool]
    #: Records by decision, and rows by the code of their error, once all is written.
    decisions: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    #: Rows that could not be fetched, and why.
    unfinished: int = 0
    problem: Exception | None = None
    journal: Journal = field(init=False)
    _shift: Shift = field(init=False)
    _rows: int = 0

    def __post_init__(self) -> None:
        root = f"{self.options.output_path.rstrip('/')}/_journal/{self.options.run}"
        self.journal = Journal(root, self.options.output_conn_id, self._is_usable)

    def run(self, read: Read, progress: Progress) -> None:
        """Fetch all and write the tables.

        :param read: Reads the identifiers, from their beginning.
        :param progress: What is told.
        :raises Exception: why it ended early; what was fetched is kept for the next try.
        """
        options = self.options
        self._shift = Shift(
            options.concurrency, self.journal, progress, self.killed, options.max_error_rate, self._put_off
        )
        with self._shift:
            self._fetch(read(), again=False)
            if self.unfinished and not self._shift.stopped:
                self.unfinished = 0
                self._fetch(read(), again=True)
        if self._shift.stopped:
            raise self._shift.stopped
        if not self.unfinished:
            self._publish()

    def uri(self, table: str) -> str:
        """Return the URI of this run's file of a table, or of its ``errors``."""
        return self._uri(table, self.options.format if table in TABLES else "ndjson", self.options.partition)

    def _uri(self, table: str, ending: str, partition: str) -> str:
        root = self.options.output_path.rstrip("/")
        parts = (root, table, partition, f"part-{self.options.run}.{ending}")
        return "/".join(part for part in parts if part)

    def _fetch(self, rows: Iterator[Row], *, again: bool) -> None:
        for row in looking_up(rows, self._shift.look_up):
            if self._shift.stopped:
                return
            if (key := self._sorted(row, again=again)) is not None:
                self._shift.give(Job(partial(self._ask, row, key), Later(row, None, sent_by=None)))
        self._shift.drain()

    def _sorted(self, row: Row, *, again: bool) -> str | None:
        """Return the key of a row that is to be fetched; note one that is an error."""
        known = self.journal.known
        bad = outcomes.bad_row(row)
        line: Mapping[str, object] | None = outcomes.of_bad_row(row, bad) if bad else None
        key = _key(row.number, None if bad else row.values["record_identifier"])
        is_first = known.is_first(key, reading=1 + again)
        if line is None and not is_first:
            line, key = outcomes.of_duplicate(row), _key(row.number, None)
            is_first = known.is_first(key, reading=1 + again)
        self._rows += is_first and not again
        entry = known.entry(key)
        if entry.is_done or (again and not entry.again):
            return None
        if line is not None:
            self._shift.failed(self._error_line(key, line))
            return None
        return key

    def _ask(self, row: Row, key: str) -> Outcome:
        try:
            records = self.hook.call(api.FetchRecords(**{self.options.by: row.values["record_identifier"]}))
            if not records:
                raise api.NotFoundError("FACEKI has no such record")
        except api.FacekiError as error:
            if outcomes.is_for_all(error):
                return Stopped(row, error, sent_by=None)
            if outcomes.is_passing(error):
                return Later(row, error, sent_by=None)
            return Failed(self._error_line(key, outcomes.of_error(row, error)))
        told = [
            [table, self.options.policy.row(table, values)]
            for record in records
            for table, values in table_rows(record)
        ]
        decisions = [counted(record.decision) for record in records]
        return Finished({**self._head(key), "decisions": decisions, "rows": told})

    def _error_line(self, key: str, line: Mapping[str, object]) -> Mapping[str, object]:
        told = {name: value for name, value in line.items() if name != "record_identifier"}
        # What the tables may not tell the errors may not either; the row's number has to do then.
        by = self.options.by
        shown = self.options.policy.row("verifications", {by: line["record_identifier"]})
        named = {by: shown[by]} if by in shown else {}
        return {**self._head(key), "error": {"row": told.pop("row"), **named, **told}, "code": line["code"]}

    def _head(self, key: str) -> dict[str, object]:
        return {"key": key, "mark": self.options.mark, "at": round(time.time())}

    def _is_usable(self, line: Mapping[str, object]) -> bool:
        at = line.get("at")
        fresh = isinstance(at, int) and time.time() - at < JOURNAL_LIFETIME
        return fresh and line.get("mark") == self.options.mark

    def _put_off(self, later: Later) -> None:
        self.unfinished += 1
        self.problem = later.error or self.problem
        self.journal.known.put_off(_key(later.row.number, later.row.values["record_identifier"]))

    def _publish(self) -> None:
        """Put the tables together from the journal, write each in one step, and drop what is of no use any more."""
        policy = self.options.policy
        files: dict[str, TableWriter] = {
            table: table_writer(policy.columns(table), self.options.format) for table in TABLES
        }
        files["errors"] = NdjsonWriter()
        if self._put_together(files) != self._rows:
            raise OSError(
                "what was fetched has gone from the output's _journal; the next try fetches it again"
            )
        # The verifications come last: whoever finds one finds its documents.
        for table in reversed(files):
            with files[table].finish() as file:
                insist(partial(self._write, table, file))
        self._delete_others()
        self.journal.delete()

    def _delete_others(self) -> None:
        """Delete what this run wrote in another format, or with or without its date, or readers would find it twice."""
        for table in (*TABLES, "errors"):
            for ending in TABLE_FORMATS:
                for partition in self.options.partitions:
                    uri = self._uri(table, ending, partition)
                    if uri != self.uri(table) and insist(partial(self._is_there, uri)):
                        insist(partial(storage.delete, uri, self.options.output_conn_id))

    def _is_there(self, uri: str) -> bool:
        try:
            storage.size(uri, self.options.output_conn_id)
        except api.ValidationError:
            return False
        return True

    def _write(self, table: str, file: BinaryIO) -> None:
        file.seek(0)
        storage.write_file(self.uri(table), file, self.options.output_conn_id)

    def _put_together(self, files: Mapping[str, TableWriter]) -> int:
        known, found = self.journal.known, 0
        for parts in (self.journal.results, self.journal.errors):
            for line in looking_up(parts.lines(), lambda: leave_if(self.killed)):
                key = str(line.get("key"))
                # Two tries may have fetched the same, and an earlier one what is asked for no more.
                if not self._is_usable(line) or known.is_recorded(key) or not known.is_met(key):
                    continue
                known.recorded(key)
                found += 1
                self._take_in(line, files)
        return found

    def _take_in(self, line: Mapping[str, object], files: Mapping[str, TableWriter]) -> None:
        error, rows, decisions = line.get("error"), line.get("rows"), line.get("decisions")
        if isinstance(error, dict):
            files["errors"].add(error)
            self.failures[str(line.get("code"))] += 1
        for table, row in rows if isinstance(rows, list) else ():
            files[table].add(row)
        self.decisions.update(decisions if isinstance(decisions, list) else ())


def _key(number: int, identifier: str | None) -> str:
    return shown_key(row_key(number, identifier))
