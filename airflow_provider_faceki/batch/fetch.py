# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fetch the records of many identifiers into tables, chunk by chunk.

Each chunk makes one part a table, named by the run and the chunk, so that a rerun of the same run replaces its own
parts and nobody else's. A chunk that is done leaves a note, and a further try of the same run goes on after it; when
all are done the notes go, so that a rerun fetches afresh.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING

from airflow_provider_faceki import api, storage
from airflow_provider_faceki.batch.journal import Begun
from airflow_provider_faceki.batch.manifest import Row
from airflow_provider_faceki.batch.outcomes import Failed, Outcome, Stopped, Unsettled, bad_row, failure
from airflow_provider_faceki.batch.progress import Progress
from airflow_provider_faceki.batch.table_files import encoded
from airflow_provider_faceki.batch.tables import TABLES, Policy, table_rows

if TYPE_CHECKING:
    from airflow_provider_faceki.hooks.faceki import FacekiHook

#: Identifiers of one chunk: what is in memory at once, and what a crash may cost is fetched again.
ROWS_A_CHUNK = 1000

_NOT_SENT = Begun(0.0, 0.0)
_Fetched = Outcome | tuple["api.VerificationRecord", ...]


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to go about it.

    :param by: ``record_identifier``, ``request_id``, ``link`` or ``face_id``: what the identifiers are.
    :param concurrency: Requests in flight at once.
    :param policy: What becomes of each column.
    :param format: ``ndjson`` or ``parquet``.
    :param output_path: URI of the folder.
    :param output_conn_id: Connection for that storage.
    :param run: What names this run's parts; letters, digits and ``-``.
    :param partition: A folder between table and part, such as ``date=2026-01-31``, or nothing.
    """

    by: str
    concurrency: int
    policy: Policy
    format: str
    output_path: str
    output_conn_id: str | None
    run: str
    partition: str


@dataclass(slots=True)
class BatchFetch:
    """One try at fetching.

    :param hook: Whom to ask.
    :param options: How to go about it.
    :param killed: Set when the task is to end.
    """

    hook: FacekiHook
    options: FetchOptions
    killed: Event
    decisions: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)

    def run(self, rows: Iterator[Row], progress: Progress) -> None:
        """Fetch all.

        :raises FacekiError: FACEKI cannot be asked; the chunks that are done stay done.
        """
        number = 0
        with ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="faceki-batch") as pool:
            while chunk := list(islice(rows, ROWS_A_CHUNK)):
                number += 1
                fingerprint = _fingerprint(chunk)
                if not self._recall(number, fingerprint):
                    self._fetch(chunk, number, fingerprint, pool)
                progress.tell(self.decisions, self.errors)
        self._tidy(number)
        progress.tell(self.decisions, self.errors, now=True)

    def folder(self, table: str) -> str:
        """Return the URI of a table's folder for this run."""
        parts = [self.options.output_path.rstrip("/"), table, self.options.partition]
        return "/".join(part for part in parts if part)

    def _fetch(self, chunk: Sequence[Row], number: int, fingerprint: str, pool: ThreadPoolExecutor) -> None:
        rows: dict[str, list[Mapping[str, object]]] = {table: [] for table in (*TABLES, "errors")}
        decisions, errors = Counter[str](), Counter[str]()
        for fetched in pool.map(self._ask, chunk):
            if self.killed.is_set():
                pool.shutdown(wait=False, cancel_futures=True)
                raise KeyboardInterrupt("the task was killed; the chunks that are done stay done")
            match fetched:
                case Stopped(error) | Unsettled(error=error):
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise error
                case Failed(line):
                    rows["errors"].append(line)
                    errors[str(line["code"])] += 1
                case tuple():
                    for record in fetched:
                        decisions[str(record.decision)] += 1
                        for table, values in table_rows(record):
                            rows[table].append(self.options.policy.row(table, values))
        self._write(rows, number)
        note = {"fingerprint": fingerprint, "decisions": decisions, "errors": errors}
        note["rows"] = {table: len(found) for table, found in rows.items()}
        storage.write_json(self._note(number), note, self.options.output_conn_id)
        self._count(note)

    def _ask(self, row: Row) -> _Fetched:
        problem = bad_row(row, is_first=True)
        if problem is not None:
            return problem
        try:
            records = self.hook.ask(api.FetchRecords(**{self.options.by: row.values["record_identifier"]}))
            if not records:
                raise api.NotFoundError("FACEKI has no such record")
        except api.FacekiError as error:
            return failure(row, error, _NOT_SENT)
        return records

    def _write(self, rows: Mapping[str, Sequence[Mapping[str, object]]], number: int) -> None:
        for table, found in rows.items():
            is_table = table in TABLES
            form = self.options.format if is_table else "ndjson"
            uri = f"{self.folder(table)}/{self._part(number)}.{form}"
            if found:
                columns = self.options.policy.columns(table) if is_table else ()
                storage.write_bytes(uri, encoded(found, columns, form), self.options.output_conn_id)
            else:
                storage.delete(uri, self.options.output_conn_id)

    def _recall(self, number: int, fingerprint: str) -> bool:
        try:
            with storage.open_binary(self._note(number), self.options.output_conn_id) as file:
                note = json.loads(file.read())
        except (api.InputError, FileNotFoundError, ValueError):
            return False
        if not isinstance(note, dict) or note.get("fingerprint") != fingerprint:
            return False
        self._count(note)
        return True

    def _count(self, note: Mapping[str, Mapping[str, int]] | Mapping[str, object]) -> None:
        for total, name in ((self.decisions, "decisions"), (self.errors, "errors"), (self.written, "rows")):
            counts = note.get(name)
            total.update(counts if isinstance(counts, Mapping) else {})

    def _tidy(self, last: int) -> None:
        """Delete what an earlier, longer run of the same name has left, and the notes."""
        for table in (*TABLES, "errors"):
            for uri in storage.list_files(self.folder(table), self.options.output_conn_id):
                found = re.search(rf"/part-{re.escape(self.options.run)}-(\d+)\.", uri)
                if found and int(found[1]) > last:
                    storage.delete(uri, self.options.output_conn_id)
        for number in range(1, last + 1):
            with suppress(api.InputError):
                storage.delete(self._note(number), self.options.output_conn_id)

    def _part(self, number: int) -> str:
        return f"part-{self.options.run}-{number:06d}"

    def _note(self, number: int) -> str:
        return f"{self.options.output_path.rstrip('/')}/done/{self._part(number)}.json"


def rows_of(identifiers: Iterable[object]) -> Iterator[Row]:
    """Return identifiers as rows."""
    for number, identifier in enumerate(identifiers, 1):
        if isinstance(identifier, str) and identifier:
            yield Row(number, {"record_identifier": identifier})
        else:
            yield Row(number, {}, f"an identifier must be text, not {type(identifier).__name__}")


def _fingerprint(chunk: Sequence[Row]) -> str:
    told = json.dumps([[row.number, dict(row.values), row.problem] for row in chunk], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
