# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Verify everybody in a manifest: many at once, each billed once, nothing lost when it is interrupted.

One try reads the manifest up to twice. First, whoever is new is sent, and whoever an earlier try may have sent is
looked for. Then, when FACEKI has had its time, whoever is still open is looked for once more and sent if there is
nothing. Nothing is remembered of a row in between but what the journal knows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_faceki import api
from airflow_provider_faceki.batch import outcomes
from airflow_provider_faceki.batch.journal import Journal
from airflow_provider_faceki.batch.known import Entry, row_key
from airflow_provider_faceki.batch.manifest import Row
from airflow_provider_faceki.batch.outcomes import Later
from airflow_provider_faceki.batch.patience import looking_up
from airflow_provider_faceki.batch.person import LoadImage, People
from airflow_provider_faceki.batch.progress import Progress
from airflow_provider_faceki.batch.shift import Job, Shift
from airflow_provider_faceki.batch.turn import Turn
from airflow_provider_faceki.batch.work import Work, row_of

if TYPE_CHECKING:
    from airflow_provider_faceki.hooks.faceki import FacekiHook

log = logging.getLogger(__name__)

#: Rows whose identifiers are written down together before the first of them is sent: so many for each that is in
#: flight at once, since a crash leaves open what became of all of them, and so many at the most.
ROWS_BEGUN_A_THREAD = 4
ROWS_BEGUN_AT_ONCE = 200

Read = Callable[[], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a batch goes about it.

    :param concurrency: Verifications in flight at once.
    :param workflow_id: Workflow of the rows that name none.
    :param include_records: Whether full records, with personal data, are fetched and written too.
    :param check_rules: Whether documents are held against the workflow's rules before paying.
    :param resubmit_after: Seconds that FACEKI is given to finish what may have been sent.
    :param lookup_timeout: Seconds to look for a record right after its answer was lost.
    :param max_error_rate: Share of error rows above which the batch ends early.
    :param resubmit: ``if_absent`` or ``never``: whether somebody who may have been sent is sent again if FACEKI has
        no record.
    """

    concurrency: int
    workflow_id: str | None
    include_records: bool
    check_rules: bool
    resubmit_after: float
    lookup_timeout: float
    max_error_rate: float
    resubmit: str

    @property
    def rows_begun_at_once(self) -> int:
        """How many rows are written down together before the first of them is sent."""
        return min(ROWS_BEGUN_AT_ONCE, ROWS_BEGUN_A_THREAD * self.concurrency)


@dataclass(slots=True)
class BatchVerification:
    """One try at a batch.

    :param hook: Whom to ask.
    :param load_image: Gives a checked image for a name and a URI.
    :param journal: What earlier tries have done, loaded.
    :param turn: This try's turn, taken.
    :param options: How to go about it.
    :param killed: Whether the task is to end.
    """

    hook: FacekiHook
    load_image: LoadImage
    journal: Journal
    turn: Turn
    options: BatchOptions
    killed: Callable[[], bool]
    #: Rows of which this try does not know what became of them, and why.
    unfinished: int = 0
    problem: Exception | None = None
    _work: Work = field(init=False)
    _shift: Shift = field(init=False)
    _sent_by: float = 0.0

    def __post_init__(self) -> None:
        people = People(
            self.hook,
            self.load_image,
            self.options.workflow_id,
            self.options.check_rules,
            self.options.lookup_timeout,
        )
        self._work = Work(
            people, time.time(), self.options.resubmit, has_results=lambda: bool(self.journal.decisions)
        )

    def run(self, read: Read, progress: Progress) -> None:
        """Go through the manifest.

        :param read: Reads it, from its beginning.
        :param progress: What is told.
        :raises Exception: why the batch ended early; everything finished is written.
        """
        self._shift = Shift(
            size=self.options.concurrency,
            journal=self.journal,
            progress=progress,
            killed=self.killed,
            max_error_rate=self.options.max_error_rate,
            put_off=self._put_off,
            watch=self._watch,
        )
        with self._shift:
            self._send_new(read())
            if self.unfinished and not self._shift.stopped:
                self._settle(read())
            if self.options.include_records and not self._shift.stopped:
                self._keep_records()
        if self._shift.stopped:
            raise self._shift.stopped

    def _send_new(self, rows: Iterator[Row]) -> None:
        new: list[Row] = []
        for row in looking_up(rows, self._shift.look_up):
            entry = self._sorted(row)
            if entry is None:
                continue
            if entry.first is not None:
                self._shift.give(Job(partial(self._work.look, row, entry.first), self._work.still_open(row)))
            else:
                new.append(row)
            if len(new) >= self.options.rows_begun_at_once:
                self._send(new)
            if self._shift.stopped:
                return
        self._send(new)
        self._shift.drain()

    def _sorted(self, row: Row) -> Entry | None:
        """Return what is known of a row that is to be done; note one that is an error."""
        bad = outcomes.bad_row(row)
        identifier = None if bad else row.values["record_identifier"]
        key = row_key(row.number, identifier)
        line: Mapping[str, object] | None = outcomes.of_bad_row(row, bad) if bad else None
        if identifier is not None and not self.journal.known.is_first(key):
            key, line = row_key(row.number, None), outcomes.of_duplicate(row)
        entry = self.journal.known.entry(key)
        if entry.is_done:
            return None
        if line is not None:
            self._shift.failed(line)
            return None
        return entry

    def _send(self, rows: list[Row], firsts: Mapping[str, float] | None = None) -> None:
        """Write down who is about to be sent, and have them sent.

        :param rows: They; none when this returns.
        :param firsts: The second time: since when those may have been sent who are to be looked for before, by
            identifier.
        """
        if not rows or self._shift.stopped:
            return
        self.journal.begin(row.values["record_identifier"] for row in rows)
        try:
            self._shift.insist(self._write_begun)
        except api.ValidationError as error:
            # Nothing is taken back: what was written of it is not known, so they may count as sent.
            self._shift.stop(error)
            return
        now = time.time()
        for row in rows:
            first = firsts.get(row.values["record_identifier"]) if firsts is not None else None
            work = (
                partial(self._work.verify, row, now, is_last=firsts is not None)
                if first is None
                else partial(self._work.settle, row, first)
            )
            # Where the batch has to end meanwhile, the rest is noted as not sent.
            self._shift.give(Job(work, Later(row, None, sent_by=None)))
        rows.clear()

    def _write_begun(self) -> None:
        self.journal.write_begun()
        self.turn.check()

    def _settle(self, rows: Iterator[Row]) -> None:
        """See to the rows that may have been sent: when FACEKI has had its time, what is not there was not."""
        log.info(
            "%d row(s) are open: not sent yet, or sent without an answer; settling them", self.unfinished
        )
        self._shift.pause_until(self._sent_by + self.options.resubmit_after)
        self.unfinished = 0
        open_rows: list[Row] = []
        firsts: dict[str, float] = {}
        for row in looking_up(rows, self._shift.look_up):
            if self._shift.stopped:
                return
            if outcomes.bad_row(row):
                continue
            key = row_key(row.number, row.values["record_identifier"])
            entry = self.journal.known.entry(key)
            if entry.is_done or not entry.again or not self.journal.known.is_first(key, reading=2):
                continue
            open_rows.append(row)
            if entry.first is not None:
                firsts[row.values["record_identifier"]] = entry.first
            if len(open_rows) >= self.options.rows_begun_at_once:
                self._send(open_rows, firsts)
                firsts.clear()
        self._send(open_rows, firsts)
        self._shift.drain()

    def _keep_records(self) -> None:
        self._shift.drain()
        self._shift.insist(self.journal.flush)
        self.journal.load_records(self._shift.look_up)
        for line in looking_up(self.journal.results.lines(), self._shift.look_up):
            key = row_key(0, str(line.get("record_identifier")))
            if not self.journal.known.is_recorded(key):
                self.journal.known.recorded(key)
                self._shift.give(Job(partial(self._work.record, line), self._work.still_open(row_of(line))))
            if self._shift.stopped:
                return
        self._shift.drain()

    def _put_off(self, later: Later) -> None:
        identifier = later.row.values["record_identifier"]
        self.unfinished += 1
        self.problem = later.error or self.problem
        self.journal.known.put_off(row_key(0, identifier))
        if later.sent_by is None:
            self.journal.take_back(identifier)
        else:
            self._sent_by = max(self._sent_by, later.sent_by)

    def _watch(self) -> None:
        try:
            # A list that fails tells nothing; before anything is begun it is asked for until it does not.
            with suppress(OSError):
                self.turn.check()
        except api.ValidationError as error:
            self._shift.stop(error)
