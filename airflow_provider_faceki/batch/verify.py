# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Verify the rows of a manifest. By default, each row is billed only once, even if a try is interrupted.

A try is one execution of the Airflow task. The operator has already read the manifest once, to count the rows. A try
then reads it once or twice more:

1. In the first reading, the try sends the new rows to FACEKI. By default, it looks up the record of each row before it
   sends the row. If an earlier try possibly sent a row, this try only looks up its record, except with
   ``resubmit="always"``.
2. The second reading is necessary only if some rows have neither a result nor an error after the first reading. If one
   of these rows was possibly sent, the try first waits until FACEKI has had time to finish it. Then it reads the
   manifest again, and processes these rows. ``RowProcessor.reconcile`` lists the conditions for sending a row again.

The state of each row is stored only in the journal, so the memory does not grow with the number of rows. The journal
consists of files below ``output_path`` and of a temporary file on the local disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.journal import Journal, RowState
from airflow_provider_faceki.batch.lease import Clock, Lease
from airflow_provider_faceki.batch.row_processor import (
    BatchHook,
    BatchOptions,
    LoadImage,
    RowProcessor,
    VerificationGateway,
    row_of,
)
from airflow_provider_faceki.batch.rows import (
    Deferred,
    ReadRows,
    Row,
    check_row,
    row_key,
    triage,
    with_checkpoints,
)
from airflow_provider_faceki.batch.runner import (
    BatchRunner,
    Job,
    MakePool,
    OnDone,
    WorkerPool,
)

log = logging.getLogger(__name__)

#: An intent is a journal entry for a row that is about to be sent. The intents of several rows are written together in
#: one file, before the first of these rows is sent. The file contains at most ``INTENTS_PER_THREAD`` intents for each
#: worker thread, and at most ``MAX_INTENTS_AT_ONCE`` intents in total. The limits are small, because after a crash the
#: next try must look up each row that has an intent and no outcome.
INTENTS_PER_THREAD = 4
MAX_INTENTS_AT_ONCE = 200


@dataclass(slots=True)
class BatchVerification:
    """One try of a batch verification, that is one execution of the Airflow task.

    :param hook: Hook for the calls to FACEKI.
    :param load_image: Function that loads and checks an image.
    :param journal: Journal of the batch, already loaded.
    :param lease: Lease of this try, already acquired. Only the try with the newest lease is allowed to send rows.
    :param options: Options of the batch.
    :param is_killed: Function that returns whether Airflow has killed the task.
    :param on_done: Function that is called for each row that is done.
    :param clock: Clock of this machine. Tests replace it.
    :param make_pool: Function that creates the worker threads. Tests replace it.
    """

    hook: BatchHook
    load_image: LoadImage
    journal: Journal
    lease: Lease
    options: BatchOptions
    is_killed: Callable[[], bool]
    on_done: OnDone = lambda outcome, line: None
    clock: Clock = field(default_factory=Clock)
    make_pool: MakePool = WorkerPool
    #: Number of rows that this try could not finish, or whose full record it could not fetch. Rows that were not read
    #: because the batch stopped are not counted. Rows that ``over_ceiling`` counts are not counted either. The second
    #: reading counts again from 0.
    unfinished: int = 0
    #: Last exception that prevented this try from processing a row.
    problem: Exception | None = None
    #: Number of rows that were not sent, because the limit ``max_verifications`` was reached.
    over_ceiling: int = 0
    _processor: RowProcessor = field(init=False)
    _runner: BatchRunner = field(init=False)
    _intents_at_once: int = field(init=False)
    # The latest Unix time at which one of the unfinished rows was possibly sent.
    _sent_by: float = 0.0
    # Maximum number of billed rows, over all tries. Rows that are being processed count as billed.
    _charged_at_most: int = 0

    def __post_init__(self) -> None:
        gateway = VerificationGateway(
            self.hook, self.load_image, self.options, self.lease.ensure_fresh_while_sending, self.clock
        )
        self._processor = RowProcessor(
            gateway,
            self.lease,
            self.clock.time(),
            self.options,
            self.clock,
            lambda: self._runner.is_stopping,
        )
        self._intents_at_once = min(MAX_INTENTS_AT_ONCE, INTENTS_PER_THREAD * self.options.concurrency)

    def run(self, read: ReadRows, total: int) -> None:
        """Verify the rows of the manifest, which is read once or twice.

        :param read: Function that reads the manifest from its beginning. It is called once, and again if some rows have
            no outcome after the first reading.
        :param total: Number of rows in the manifest.
        :raises Exception: The error that stopped the batch early. The results of the finished rows are already written.
            If the storage of the output has failed, some of these results can be missing.
        """
        self._runner = BatchRunner(
            size=self.options.concurrency,
            journal=self.journal,
            total=total,
            is_killed=self.is_killed,
            max_error_rate=self.options.max_error_rate,
            on_deferred=self._on_deferred,
            on_done=self.on_done,
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
            if len(new) >= self._intents_at_once:
                self._send(new)
            if self._runner.aborted_by:
                return
        self._send(new)
        self._runner.drain()
        if not self._runner.aborted_by and (missing := self.journal.index.count_missing()):
            log.warning(
                "%d row(s) were possibly sent, have no result, and are not in this manifest; to "
                "continue with them, run the batch with the manifest that contains them",
                missing,
            )

    def _triage(self, row: Row) -> RowState | None:
        """Return the state of a row in the journal. If the row must not be processed, return ``None``.

        A row must not be processed if it already has a result or an error. A row that is not valid must not be
        processed either. The error of a row that is not valid is written to the journal.
        """
        key, line, _ = triage(row, self.journal.index.mark_seen)
        state = self.journal.index.state(key)
        if state.is_done:
            return None
        if line is not None:
            self._runner.fail_row({**line, "billed": False, "key": key})
            return None
        return state

    def _send(self, rows: list[Row], since_by_identifier: Mapping[str, float] | None = None) -> None:
        """Write an intent for each row to the journal, and then submit the rows to the worker threads.

        An intent is a journal entry for a row that is about to be sent. If the limit ``max_verifications`` is reached,
        the remaining rows are counted in ``over_ceiling`` and not submitted.

        :param rows: Rows to send. This method empties the list.
        :param since_by_identifier: Mapping with the rows that were possibly sent before. The key is the row's
            identifier. The value is a Unix time before which the row was certainly not sent. ``None`` in the first
            reading of the manifest.
        """
        counted = since_by_identifier or {}
        # In the second reading, the limit ``max_verifications`` does not apply to a row that was possibly sent before,
        # because this row is already counted as billed.
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
        """Return how many of ``wanted`` new rows fit within ``max_verifications``. Count these rows as billed."""
        ceiling = self.options.max_verifications
        if ceiling is None:
            return wanted
        if self._charged_at_most + wanted > ceiling:
            # Every row that is being processed is counted as billed until its outcome is known. Some of the outcomes
            # can show that a row was not billed. Therefore the method waits for all outcomes and counts again.
            self._runner.drain()
            self._charged_at_most = self._count_charged()
        room = max(0, min(wanted, ceiling - self._charged_at_most))
        self._charged_at_most += room
        return room

    def _count_charged(self) -> int:
        """Return the number of rows, over all tries, that were billed or possibly billed.

        The method starts from ``journal.charged``. This number includes the sent rows that have no result and no error
        in the journal. Some of them were not billed: FACEKI has refused them, and ``error_guard.py`` keeps their
        errors in memory until it knows whether the whole batch is the cause. The method subtracts a refused row if both
        conditions are true:

        - FACEKI has not processed the last request for the row (``sent_by`` is ``None``).
        - There was no earlier request. In this case the journal contains only one intent of the row, which is a note
          that the row is about to be sent.
        """
        refused = (row for row in self._runner.refused if row.sent_by is None)
        keys = (row_key(deferred.row.values["record_identifier"]) for deferred in refused)
        return self.journal.charged - sum(self.journal.index.state(key).intents == 1 for key in keys)

    def _send_slice(self, rows: list[Row], since_by_identifier: Mapping[str, float] | None) -> None:
        self.journal.log_intents(row.values["record_identifier"] for row in rows)
        try:
            self._runner.retry_storage(self._flush_intents)
        except ValidationError as error:
            # The rows are not sent, because the path of the output folder is wrong, or because a newer try has started.
            # The intents of these rows (notes that a row is about to be sent) are not cancelled, because it is not
            # known whether the storage contains them. A cancellation does not name an intent. It only reduces the
            # number of the row's intents by one. If the new intent of a row is missing in the storage, the cancellation
            # would cancel the intent of an earlier try, which possibly sent the row.
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
        """Wait until FACEKI has had time to finish the sent rows. Then look up or send each row without an outcome."""
        log.info("%d row(s) are open: not sent, or sent without an answer; reconciling them", self.unfinished)
        self._runner.wait_until(self._reconcilable_from())
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
            if len(open_rows) >= self._intents_at_once:
                self._send(open_rows, since_by_identifier)
                since_by_identifier = {}
        self._send(open_rows, since_by_identifier)
        self._runner.drain()
        if not self._runner.aborted_by and (unread := self.journal.index.count_unread()):
            self.unfinished += unread
            self.problem = ValidationError("the manifest has changed while the batch ran")

    def _reconcilable_from(self) -> float:
        """Return the Unix time at which the second reading of the manifest can start.

        The second reading processes the rows that have no outcome after the first reading. If at least one of these
        rows was possibly sent or waits for FACEKI's decision, the second reading starts when FACEKI has had time to
        finish these rows. In all other cases, the result is 0, so the second reading starts at once.
        """
        if not self._sent_by:
            return 0.0
        # The second reading sends a possibly sent row again if FACEKI has no record of it. With
        # ``resubmit="if_absent"``, it first tests whether FACEKI stores records of the workflow at all. To do so, it
        # looks up a row that got the decision ACCEPTED. Therefore the second reading starts only when FACEKI has had
        # time to store the record of the accepted row.
        testable_from = self._processor.gateway.records_testable_from()
        return max(
            self._sent_by + self.options.resubmit_after,
            testable_from if self.options.resubmit == "if_absent" else 0.0,
        )

    def _state_if_deferred(self, row: Row) -> RowState | None:
        if check_row(row):
            return None
        key = row_key(row.values["record_identifier"])
        state = self.journal.index.state(key)
        is_open = state.is_deferred and not state.is_done
        return state if is_open and self.journal.index.mark_seen(key, reading=2) else None

    def _write_records(self) -> None:
        self._runner.drain()
        self._runner.retry_storage(self.journal.flush)
        self.journal.load_records(self._runner.checkpoint)
        for line in with_checkpoints(self.journal.results.lines(), self._runner.checkpoint):
            key = row_key(str(line.get("record_identifier")))
            if self.journal.index.mark_recorded(key):
                work = partial(self._processor.record, line)
                self._runner.submit(Job(work, self._processor.still_open(row_of(line))))
            if self._runner.aborted_by:
                return
        self._runner.drain()

    def _on_deferred(self, deferred: Deferred) -> None:
        identifier = deferred.row.values["record_identifier"]
        self.unfinished += 1
        self.problem = deferred.error or self.problem
        self.journal.index.mark_deferred(row_key(identifier))
        if deferred.sent_by is None:
            self.journal.cancel_intent(identifier)
        if deferred.sent_by is not None or deferred.is_pending:
            self._sent_by = max(self._sent_by, deferred.sent_by or self._processor.started)

    def _check_lease(self) -> None:
        try:
            # Each try writes a lease file when it starts. ``ensure_held`` lists these files to find out whether a newer
            # try has started. If the storage cannot list the files now, it raises an OSError. This error is ignored,
            # because it does not mean that a newer try has started. No row is sent without a recent successful check:
            # if the last one is too old, the check is repeated before a row is sent.
            with suppress(OSError):
                self.lease.ensure_held()
        except ValidationError as error:
            self._runner.abort(error)
