# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fetch the FACEKI records of many identifiers and write them as tables in NDJSON or Parquet.

The fetched data is first written to a journal in ``_journal/<run>`` below ``output_path``. A later try of the same run
continues with this journal. When all records are fetched, one file for each table and one file for the errors are
written. The file names contain the name of the run.

Each file is replaced atomically, so a reader sees either the old file or the new file of this run. A repeated run
replaces or deletes only the files that this run wrote earlier, and no files of other runs.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_faceki import __version__, api, metrics, storage
from airflow_provider_faceki.api.tables import TABLES, table_rows
from airflow_provider_faceki.batch.airflow_store import AirflowObjectStore, write_file
from airflow_provider_faceki.batch.error_guard import is_systemic, is_transient
from airflow_provider_faceki.batch.journal import Journal, counted_as, hashed_key
from airflow_provider_faceki.batch.manifest_schema import TABLE_FORMATS
from airflow_provider_faceki.batch.rows import (
    Abort,
    Deferred,
    Failed,
    Outcome,
    ReadRows,
    Row,
    Succeeded,
    error_line,
    row_key,
    triage,
    with_checkpoints,
)
from airflow_provider_faceki.batch.runner import BatchRunner, Job, raise_if_killed
from airflow_provider_faceki.batch.table_writers import (
    ColumnPolicy,
    NdjsonWriter,
    ParquetWriter,
    TableWriter,
)
from airflow_provider_faceki.storage_interface import retry_storage

if TYPE_CHECKING:
    from airflow_provider_faceki.hooks.faceki import FacekiHook

#: Age limit in seconds of fetched data in the journal. A later try reuses younger data. It fetches older data again,
#: because a reviewer can have changed the record in the meantime.
JOURNAL_TTL_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of an export of records.

    ``FacekiBatchFetchRecordsOperator`` describes the parameters that are not listed here.

    :param policy: Rules that define which columns are written, dropped or hashed.
    :param format: ``ndjson`` or ``parquet``.
    :param run: Name of this run in file names. It consists of letters, digits and ``-``.
    :param partition: Folder below the folder of each table, such as ``date=2026-01-31``. This run writes its file for
        the table to this folder. An empty text means that the file is written directly to the folder of the table.
    :param partitions: All partitions in which an earlier try of this run possibly wrote files.
    :param max_error_rate: Share of error rows (0 to 1) above which the export stops early.
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
    def fingerprint(self) -> str:
        """Hash of the version of this package and of the options that change the fetched data.

        Each journal line contains this hash. If the hash in a line is different, a later try ignores the line, and
        fetches the records of its row again.
        """
        options = [__version__, self.by, dict(self.policy.choices), self.policy.hash_key]
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(slots=True)
class RecordExport:
    """One try of an export of records, that is one execution of the Airflow task.

    :param hook: Hook for the calls to FACEKI.
    :param options: Options of the export.
    :param is_killed: Function that returns whether Airflow has killed the task.
    """

    hook: FacekiHook
    options: ExportOptions
    is_killed: Callable[[], bool]
    #: Number of records by decision, and number of failed rows by error code. Both are counted when the tables are
    #: written.
    decisions: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    #: Number of table rows that were written to each table and to ``errors``.
    written: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys((*TABLES, "errors"), 0)))
    #: Number of input rows whose records this try could not fetch.
    unfinished: int = 0
    #: Last exception that prevented this try from fetching records.
    problem: Exception | None = None
    journal: Journal = field(init=False)
    _store: AirflowObjectStore = field(init=False)
    _runner: BatchRunner = field(init=False)
    _rows: int = 0

    def __post_init__(self) -> None:
        self._store = AirflowObjectStore(self.options.output_conn_id)
        root = f"{self.options.output_path.rstrip('/')}/_journal/{self.options.run}"
        self.journal = Journal(root, self._store, self._is_usable)

    def check(self) -> None:
        """Check that the tables can be created and that the output is writable. Call this before the first request.

        :raises ConfigurationError: if a required package is not installed.
        :raises ValidationError: if the path of the output is wrong.
        :raises OSError: if the storage failed, or refused to write.
        """
        self._new_tables()
        probe = f"{self.journal.root}/_journal/writable"
        retry_storage(partial(self._store.write, probe, b""))
        with suppress(OSError, api.ValidationError):
            self._store.delete(probe)

    def run(self, read: ReadRows, total: int) -> None:
        """Fetch all records and write the tables.

        If the records of some rows could not be fetched after two attempts, no table is written. The attribute
        ``unfinished`` then contains the number of these rows.

        :param read: Function that reads the identifiers from their beginning. It is called once for the first attempt.
            If some records could not be fetched, it is called once more for a second attempt.
        :param total: Number of input rows.
        :raises Exception: The error that stopped the export early, or that prevented the writing of a table. The next
            try uses the fetched records that are in the journal, and does not fetch them again.
        """
        self._runner = BatchRunner(
            self.options.concurrency,
            self.journal,
            total,
            self.is_killed,
            self.options.max_error_rate,
            self._on_deferred,
            metrics.count_row,
        )
        with self._runner:
            self._fetch(read(), is_second_pass=False)
            if self.unfinished and not self._runner.aborted_by:
                self.unfinished = 0
                self._fetch(read(), is_second_pass=True)
        if self._runner.aborted_by:
            raise self._runner.aborted_by
        if not self.unfinished:
            self._publish()

    def uri(self, table: str) -> str:
        """Return the URI of the file that this run writes for ``table``.

        :param table: Name of a table, or ``errors``. The file for ``errors`` contains the errors of the failed rows.
        """
        return self._uri(table, self.options.format if table in TABLES else "ndjson", self.options.partition)

    def _uri(self, table: str, suffix: str, partition: str) -> str:
        root = self.options.output_path.rstrip("/")
        parts = (root, table, partition, f"part-{self.options.run}.{suffix}")
        return "/".join(part for part in parts if part)

    def _fetch(self, rows: Iterator[Row], *, is_second_pass: bool) -> None:
        for row in with_checkpoints(rows, self._runner.checkpoint):
            if self._runner.aborted_by:
                return
            if (key := self._triage(row, is_second_pass=is_second_pass)) is not None:
                self._runner.submit(
                    Job(partial(self._fetch_row, row, key), Deferred(row, None, sent_by=None))
                )
        self._runner.drain()

    def _triage(self, row: Row, *, is_second_pass: bool) -> str | None:
        """Return the journal key of an input row if its records have to be fetched now. Otherwise return ``None``.

        The records are not fetched if the row already has a result or an error, or if the row is not valid. The error
        of a row that is not valid is written to the journal. If the input is read a second time, records are fetched
        only for the rows that the first reading has postponed.
        """
        index = self.journal.index
        mark_seen = partial(index.mark_seen, reading=1 + is_second_pass)
        key, line, is_first = triage(row, mark_seen, hashed_key)
        self._rows += is_first and not is_second_pass
        state = index.state(key)
        if state.is_done or (is_second_pass and not state.is_deferred):
            return None
        if line is not None:
            self._runner.fail_row(self._error_line(key, line))
            return None
        return key

    def _fetch_row(self, row: Row, key: str) -> Outcome:
        try:
            records = self.hook.call(api.FetchRecords(**{self.options.by: row.values["record_identifier"]}))
            if not records:
                raise api.NotFoundError("FACEKI has no such record")
        except api.FacekiError as error:
            if is_systemic(error):
                return Abort(row, error, sent_by=None)
            if is_transient(error):
                return Deferred(row, error, sent_by=None)
            return Failed(self._error_line(key, error_line(row, error)))
        rows = [
            [table, self.options.policy.row(table, values)]
            for record in records
            for table, values in table_rows(record)
        ]
        decisions = [counted_as(record.decision) for record in records]
        return Succeeded({**self._head(key), "decisions": decisions, "rows": rows})

    def _error_line(self, key: str, line: Mapping[str, object]) -> Mapping[str, object]:
        content = {name: value for name, value in line.items() if name != "record_identifier"}
        # The identifier is treated in the same way as in the tables: it is written unchanged, hashed or left out. The
        # error always contains the row number, so that users can find the row without the identifier.
        by = self.options.by
        shown = self.options.policy.row("verifications", {by: line["record_identifier"]})
        named = {by: shown[by]} if by in shown else {}
        error = {"row": content.pop("row"), **named, **content}
        # The row number, the code and the problem are in ``error``. The journal line also contains a copy of them
        # outside ``error``: the batch runner logs the copy, and the journal counts the errors by the code in the copy.
        shown = {name: line[name] for name in ("row", "code", "problem")}
        return {**self._head(key), "error": error, **shown}

    def _head(self, key: str) -> dict[str, object]:
        return {"key": key, "fingerprint": self.options.fingerprint, "at": round(time.time())}

    def _is_usable(self, line: Mapping[str, object]) -> bool:
        at = line.get("at")
        is_fresh = isinstance(at, int) and time.time() - at < JOURNAL_TTL_SECONDS
        return is_fresh and line.get("fingerprint") == self.options.fingerprint

    def _on_deferred(self, deferred: Deferred) -> None:
        self.unfinished += 1
        self.problem = deferred.error or self.problem
        row = deferred.row
        self.journal.index.mark_deferred(hashed_key(row_key(row.values["record_identifier"])))

    def _new_tables(self) -> dict[str, TableWriter]:
        def writer(table: str) -> TableWriter:
            is_parquet = self.options.format == "parquet"
            return ParquetWriter(self.options.policy.columns(table)) if is_parquet else NdjsonWriter()

        return {**{table: writer(table) for table in TABLES}, "errors": NdjsonWriter()}

    def _publish(self) -> None:
        """Create the tables from the journal, and write the file of each table atomically.

        After that, delete the journal, and the files that an earlier try of this run wrote in another format or
        partition.

        :raises OSError: if the storage failed, or if lines have disappeared from the journal.
        """
        tables = self._new_tables()
        if self._fill(tables) != self._rows:
            raise OSError(
                "fetched records are missing from the output's _journal; the next try fetches them again"
            )
        # The table of verifications is written last. If a reader finds a verification in this table, the other tables
        # already contain the documents of the verification.
        for table in reversed(tables):
            with tables[table].finish() as file:
                write_file(self.uri(table), file, self.options.output_conn_id)
        self._delete_replaced()
        self.journal.delete()

    def _delete_replaced(self) -> None:
        """Delete the files that an earlier try of this run wrote in another format or partition.

        If the old files remained, readers would find the same rows in the old and in the new files.
        """
        for table in (*TABLES, "errors"):
            for suffix in TABLE_FORMATS:
                for partition in self.options.partitions:
                    uri = self._uri(table, suffix, partition)
                    if uri != self.uri(table) and retry_storage(partial(self._exists, uri)):
                        retry_storage(partial(self._store.delete, uri))

    def _exists(self, uri: str) -> bool:
        try:
            storage.size(uri, self.options.output_conn_id)
        except api.ValidationError:
            return False
        return True

    def _fill(self, tables: Mapping[str, TableWriter]) -> int:
        """Add the lines of the journal to the tables. Return the number of input rows that these lines represent."""
        index, count = self.journal.index, 0
        for segment_log in (self.journal.results, self.journal.errors):
            for line in with_checkpoints(segment_log.lines(), lambda: raise_if_killed(self.is_killed)):
                key = str(line.get("key"))
                # A line of the journal is skipped in three cases:
                #
                # - The line is too old, or was written with other options or another version of this package.
                # - The input of this try does not contain the row to which the line belongs.
                # - An earlier line already contains the data of the same row.
                if self._is_usable(line) and index.state(key).was_seen and index.mark_recorded(key):
                    count += 1
                    self._add(line, tables)
        return count

    def _add(self, line: Mapping[str, object], tables: Mapping[str, TableWriter]) -> None:
        error, rows, decisions = line.get("error"), line.get("rows"), line.get("decisions")
        if isinstance(error, dict):
            tables["errors"].add(error)
            self.written["errors"] += 1
            self.failures[str(line.get("code"))] += 1
        for table, row in rows if isinstance(rows, list) else ():
            tables[table].add(row)
            self.written[table] += 1
        self.decisions.update(decisions if isinstance(decisions, list) else ())
