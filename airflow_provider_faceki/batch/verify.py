# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Verify the rows of a manifest: each is billed once, and nothing is lost when a try is interrupted.

A try reads the manifest up to twice. The first pass sends new rows and looks up rows that an earlier try may have
sent. The second pass starts when FACEKI has had time to finish what was sent: it looks up the rows that are still open,
and sends those of which there is no record. Between the passes the journal alone knows the rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_faceki import api
from airflow_provider_faceki.batch import outcomes
from airflow_provider_faceki.batch.clock import Clock
from airflow_provider_faceki.batch.journal import Journal
from airflow_provider_faceki.batch.lease import Lease
from airflow_provider_faceki.batch.manifest import Row
from airflow_provider_faceki.batch.outcomes import Deferred
from airflow_provider_faceki.batch.row_index import RowState, row_key
from airflow_provider_faceki.batch.row_processor import (
    LoadImage,
    RowProcessor,
    VerificationGateway,
    row_of,
)
from airflow_provider_faceki.batch.runner import BatchRunner, Job, MakePool, Progress, make_thread_pool
from airflow_provider_faceki.batch.store import with_checkpoints

if TYPE_CHECKING:
    from airflow_provider_faceki.hooks.faceki import FacekiHook

log = logging.getLogger(__name__)

#: Rows whose intents are written together before the first of them is sent: for each thread, and in all. After a crash
#: all of them may have been sent.
INTENTS_PER_THREAD = 4
MAX_INTENTS_AT_ONCE = 200

ReadRows = Callable[[], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Options of a batch; see the operator's parameters of the same names."""

    concurrency: int
    workflow_id: str | None
    include_records: bool
    check_rules: bool
    resubmit: str
    assume_new: bool
    resubmit_after: float
    lookup_timeout: float
    max_error_rate: float
    max_verifications: int | None

    @property
    def intents_at_once(self) -> int:
        """Number of rows whose intents are written together."""
        return min(MAX_INTENTS_AT_ONCE, INTENTS_PER_THREAD * self.concurrency)


@dataclass(slots=True)
class BatchVerification:
    """One try of a batch.

    :param hook: Calls FACEKI.
    :param load_image: Returns a checked image for a name and a URI.
    :param journal: The batch's journal, loaded.
    :param lease: This try's lease, acquired.
    :param options: The batch's options.
    :param is_killed: Whether the task is to end.
    :param clock: The clocks.
    :param make_pool: Makes the worker pool.
    """

    hook: FacekiHook
    load_image: LoadImage
    journal: Journal
    lease: Lease
    options: BatchOptions
    is_killed: Callable[[], bool]
    clock: Clock = field(default_factory=Clock)
    make_pool: MakePool = make_thread_pool
    #: Rows that this try leaves open, and the last error of one of them.
    unfinished: int = 0
    problem: Exception | None = None
    #: Rows that ``max_verifications`` leaves open.
    over_ceiling: int = 0
    _processor: RowProcessor = field(init=False)
    _runner: BatchRunner = field(init=False)
    _sent_by: float = 0.0
    _charged_at_most: int = 0

    def __post_init__(self) -> None:
        options = self.options
        gateway = VerificationGateway(
            self.hook,
            self.load_image,
            options.workflow_id,
            options.check_rules,
            options.lookup_timeout,
            options.resubmit_after,
            self.lease.ensure_fresh,
            self.clock,
        )
        self._processor = RowProcessor(
            gateway, self.lease, self.clock.time(), options.resubmit, options.assume_new, self.clock
        )

    def run(self, read: ReadRows, progress: Progress) -> None:
        """Process the manifest.

        :param read: Reads the manifest from its beginning.
        :param progress: Logs the progress.
        :raises Exception: the reason why the batch ended early; what is done is written.
        """
        self._runner = BatchRunner(
            size=self.options.concurrency,
            journal=self.journal,
            progress=progress,
            is_killed=self.is_killed,
            max_error_rate=self.options.max_error_rate,
            on_deferred=self._on_deferred,
            on_flush=self._check_lease,
            clock=self.clock,
            make_pool=self.make_pool,
        )
        self._charged_at_most = self.journal.charged
        with self._runner:
            self._first_pass(read())
            if self.unfinished and not self._runner.aborted_by:
                self._second_pass(read())
            if self.options.include_records and not self._runner.aborted_by:
                self._write_records()
        if self._runner.aborted_by:
            raise self._runner.aborted_by

    def _first_pass(self, rows: Iterator[Row]) -> None:
        new: list[Row] = []
        for row in with_checkpoints(rows, self._runner.checkpoint):
            state = self._triage(row)
            if state is None:
                continue
            if state.sent_since is not None and self.options.resubmit != "always":
                work = partial(self._processor.look_up, row, state.sent_since)
                self._runner.submit(Job(work, self._processor.still_open(row)))
            else:
                new.append(row)
            if len(new) >= self.options.intents_at_once:
                self._send(new)
            if self._runner.aborted_by:
                return
        self._send(new)
        self._runner.drain()

    def _triage(self, row: Row) -> RowState | None:
        """Return the state of a row that is to be processed; write the error of one that cannot be."""
        problem = outcomes.check_row(row)
        identifier = None if problem else row.values["record_identifier"]
        key = row_key(row.number, identifier)
        line: Mapping[str, object] | None = outcomes.bad_row_line(row, problem) if problem else None
        if identifier is not None and not self.journal.index.mark_seen(key):
            key, line = row_key(row.number, None), outcomes.duplicate_line(row)
        state = self.journal.index.state(key)
        if state.is_done:
            return None
        if line is not None:
            self._runner.fail_row({**line, "billed": False})
            return None
        return state

    def _send(self, rows: list[Row], since_by_identifier: Mapping[str, float] | None = None) -> None:
        """Write the intents of rows and submit them, as far as ``max_verifications`` allows.

        :param rows: The rows; empty when this returns.
        :param since_by_identifier: Only in the second pass: the Unix time since which a row may have been sent.
        """
        counted = since_by_identifier or {}
        # A row that may have been sent counts already.
        ready = [row for row in rows if row.values["record_identifier"] in counted]
        new = [row for row in rows if row.values["record_identifier"] not in counted]
        rows.clear()
        while (ready or new) and not self._runner.aborted_by:
            room = self._room_below_ceiling(len(new))
            ready += new[:room]
            del new[:room]
            if not ready:
                self.over_ceiling += len(new)
                return
            self._send_slice(ready, since_by_identifier)
            ready = []

    def _room_below_ceiling(self, wanted: int) -> int:
        """Return how many of ``wanted`` rows may be sent below ``max_verifications``."""
        ceiling = self.options.max_verifications
        if ceiling is None:
            return wanted
        if self._charged_at_most + wanted > ceiling:
            # Rows in flight may turn out not to be billed.
            self._runner.drain()
            self._charged_at_most = self.journal.charged
        room = max(0, min(wanted, ceiling - self._charged_at_most))
        self._charged_at_most += room
        return room

    def _send_slice(self, rows: list[Row], since_by_identifier: Mapping[str, float] | None) -> None:
        self.journal.log_intents(row.values["record_identifier"] for row in rows)
        try:
            self._runner.retry_storage(self._flush_intents)
        except api.ValidationError as error:
            # No intent is cancelled: it is not known which of them were written, so the rows may count as sent.
            self._runner.abort(error)
            return
        now = self.clock.time()
        for row in rows:
            since = (since_by_identifier or {}).get(row.values["record_identifier"])
            if since is not None:
                work = partial(self._processor.reconcile, row, since)
            else:
                work = partial(self._processor.verify, row, now, is_last=since_by_identifier is not None)
            self._runner.submit(Job(work, Deferred(row, None, sent_by=None)))

    def _flush_intents(self) -> None:
        self.journal.flush_intents()
        self.lease.ensure_held()

    def _second_pass(self, rows: Iterator[Row]) -> None:
        """Reconcile the rows that may have been sent, when FACEKI has had time to finish them."""
        log.info("%d row(s) are open: not sent, or sent without an answer; reconciling them", self.unfinished)
        self._runner.wait_until(self._sent_by + self.options.resubmit_after)
        self.unfinished = 0
        open_rows: list[Row] = []
        since_by_identifier: dict[str, float] = {}
        for row in with_checkpoints(rows, self._runner.checkpoint):
            if self._runner.aborted_by:
                return
            state = self._state_if_deferred(row)
            if state is None:
                continue
            open_rows.append(row)
            if state.sent_since is not None:
                since_by_identifier[row.values["record_identifier"]] = state.sent_since
            if len(open_rows) >= self.options.intents_at_once:
                self._send(open_rows, since_by_identifier)
                since_by_identifier = {}
        self._send(open_rows, since_by_identifier)
        self._runner.drain()

    def _state_if_deferred(self, row: Row) -> RowState | None:
        if outcomes.check_row(row):
            return None
        key = row_key(row.number, row.values["record_identifier"])
        state = self.journal.index.state(key)
        is_open = state.is_deferred and not state.is_done
        return state if is_open and self.journal.index.mark_seen(key, reading=2) else None

    def _write_records(self) -> None:
        self._runner.drain()
        self._runner.retry_storage(self.journal.flush)
        self.journal.load_records(self._runner.checkpoint)
        for line in with_checkpoints(self.journal.results.lines(), self._runner.checkpoint):
            key = row_key(0, str(line.get("record_identifier")))
            if not self.journal.index.is_recorded(key):
                self.journal.index.mark_recorded(key)
                work = partial(self._processor.record, line)
                self._runner.submit(Job(work, self._processor.still_open(row_of(line))))
            if self._runner.aborted_by:
                return
        self._runner.drain()

    def _on_deferred(self, deferred: Deferred) -> None:
        identifier = deferred.row.values["record_identifier"]
        self.unfinished += 1
        self.problem = deferred.error or self.problem
        self.journal.index.mark_deferred(row_key(0, identifier))
        if deferred.sent_by is None:
            self.journal.cancel_intent(identifier)
        if deferred.sent_by is not None or deferred.is_pending:
            self._sent_by = max(self._sent_by, deferred.sent_by or self._processor.started)

    def _check_lease(self) -> None:
        try:
            # A list that fails says nothing. Before a charged call it is retried until it succeeds.
            with suppress(OSError):
                self.lease.ensure_held()
        except api.ValidationError as error:
            self._runner.abort(error)
