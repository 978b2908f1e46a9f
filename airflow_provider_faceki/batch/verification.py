# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Verify everybody in a manifest: many at once, each billed once, nothing lost when it is interrupted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from airflow_provider_faceki import api
from airflow_provider_faceki.batch.journal import Begun, Journal, row_key
from airflow_provider_faceki.batch.manifest import Row
from airflow_provider_faceki.batch.outcomes import (
    Failed,
    Finished,
    Outcome,
    Stopped,
    Unsettled,
    bad_row,
    failure,
)
from airflow_provider_faceki.batch.progress import Progress

if TYPE_CHECKING:
    from airflow_provider_faceki.hooks.faceki import FacekiHook

log = logging.getLogger(__name__)

#: Rows whose identifiers are written down together before the first of them is sent.
ROWS_BEGUN_AT_ONCE = 200
#: Finished rows, and seconds, after which a part is written: what a crash may cost is asked for again, not billed.
ROWS_A_PART = 1000
SECONDS_A_PART = 5.0
#: Seconds for which rows in flight may still finish when the task is killed; Airflow kills for good soon after.
KILL_GRACE = 3.0
#: Rows in a row that fail without an answer, after which FACEKI counts as down and the try ends.
FAILURES_BEFORE_DOWN = 50
#: Rows that are done before their errors count as a share.
ROWS_BEFORE_SHARE = 100
#: Seconds by which FACEKI's clock may differ from ours.
CLOCK_MARGIN = 300.0

LoadImage = Callable[[str, str], "api.Image"]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a batch goes about it.

    :param concurrency: Verifications in flight at once.
    :param workflow_id: Workflow of the rows that name none.
    :param include_records: Whether full records, with personal data, are fetched and written too.
    :param check_rules: Whether documents are held against the workflow's rules before paying.
    :param settle_seconds: Seconds that FACEKI is given to finish what may have been sent.
    :param patience: Seconds to look for a record right after its answer was lost.
    :param max_error_share: Share of error rows above which the batch ends early.
    """

    concurrency: int
    workflow_id: str | None
    include_records: bool
    check_rules: bool
    settle_seconds: float
    patience: float
    max_error_share: float


@dataclass(slots=True)
class BatchVerification:
    """One try at a batch.

    :param hook: Whom to ask.
    :param load_image: Gives a checked image for a name and a URI.
    :param journal: What earlier tries have done, loaded.
    :param options: How to go about it.
    :param killed: Set when the task is to end.
    """

    hook: FacekiHook
    load_image: LoadImage
    journal: Journal
    options: BatchOptions
    killed: Event
    _pending: set[Future[Outcome]] = field(default_factory=set)
    _unsettled: list[tuple[Row, Begun]] = field(default_factory=list)
    _stopped: Exception | None = None
    _unfinished: int = 0
    _failures_in_a_row: int = 0
    _last_flush: float = field(default_factory=time.monotonic)

    def run(self, rows: Iterator[Row], progress: Progress) -> int:
        """Go through the manifest; return how many rows of it this try has looked at.

        :raises Exception: why the batch ended early; everything finished is written.
        """
        seen = 0
        pool = ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="faceki-batch")
        try:
            fresh: list[Row] = []
            for row in rows:
                seen += 1
                self._sort_in(row, fresh, pool, progress)
                if len(fresh) >= ROWS_BEGUN_AT_ONCE:
                    self._begin(fresh, pool, progress)
                if self._stopped:
                    break
            if not self._stopped:
                self._begin(fresh, pool, progress)
            self._wait_for(0, progress)
            self._settle(pool, progress)
        except BaseException:
            self._end(pool, KILL_GRACE, progress)
            raise
        self._end(pool, None, progress)
        if self._stopped:
            raise self._stopped
        return seen

    @property
    def unfinished(self) -> int:
        """Rows of which it is not known what became of them."""
        return self._unfinished + len(self._unsettled)

    def _sort_in(self, row: Row, fresh: list[Row], pool: ThreadPoolExecutor, progress: Progress) -> None:
        identifier = row.values.get("record_identifier")
        problem = bad_row(
            row, is_first=identifier is None or self.journal.known.is_first(row_key(0, identifier))
        )
        if problem is not None:
            if not self.journal.known.is_done(row_key(row.number, problem.key_identifier)):
                self._note(problem)
            return
        key = row_key(row.number, identifier)
        begun = self.journal.known.begun_at(key)
        if begun is not None:
            self._submit(pool, partial(self._look, row, begun), progress)
        elif not self.journal.known.is_done(key):
            fresh.append(row)

    def _begin(self, fresh: list[Row], pool: ThreadPoolExecutor, progress: Progress) -> None:
        if not fresh:
            return
        self._write_begun(fresh)
        for row in fresh:
            if self._stopped:
                break
            self._submit(pool, partial(self._verify, row), progress)
        fresh.clear()

    def _submit(self, pool: ThreadPoolExecutor, work: Callable[[], Outcome], progress: Progress) -> None:
        # Twice as many wait as run, so that a pause for writing leaves no thread idle.
        self._wait_for(self.options.concurrency * 2 - 1, progress)
        if not self._stopped:
            self._pending.add(pool.submit(work))

    def _wait_for(self, most: int, progress: Progress) -> None:
        """Wait until at most so many rows are pending; write and tell what is due meanwhile."""
        while len(self._pending) > most:
            done, self._pending = wait(self._pending, timeout=1.0, return_when=FIRST_COMPLETED)
            self._take(done)
            self._check(progress)
        self._check(progress)

    def _take(self, done: set[Future[Outcome]]) -> None:
        for future in done:
            if not future.cancelled():
                self._note(future.result())

    def _note(self, outcome: Outcome) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if isinstance(outcome, Unsettled) else 0
        match outcome:
            case Finished(line, record):
                if record is not None:
                    self.journal.finish("records", record)
                self.journal.finish("results", line)
            case Failed(line):
                self.journal.finish("errors", line)
            case Unsettled(row, begun, error):
                self._unsettled.append((row, begun))
                if self._failures_in_a_row >= FAILURES_BEFORE_DOWN:
                    self._stopped = error
            case Stopped(error):
                self._stopped = self._stopped or error

    def _check(self, progress: Progress) -> None:
        if self.killed.is_set():
            raise KeyboardInterrupt("the task was killed; what is finished is written")
        due = time.monotonic() - self._last_flush >= SECONDS_A_PART
        if self.journal.waiting >= ROWS_A_PART or (due and self.journal.waiting):
            self._flush()
        progress.tell(self.journal.decisions, self.journal.errors)
        errors, decided = self.journal.errors.total(), self.journal.decisions.total()
        done = errors + decided
        if done >= ROWS_BEFORE_SHARE and errors / done > self.options.max_error_share and not self._stopped:
            self._stopped = api.InputError(
                f"{errors} of {done} rows are errors, more than max_error_share={self.options.max_error_share}"
            )

    def _write_begun(self, rows: Iterable[Row]) -> None:
        identifiers = [row.values["record_identifier"] for row in rows]
        # Nothing may be sent that is not written down, so a store that fails now and then is asked again.
        insist = Retrying(
            stop=stop_after_attempt(4),
            wait=wait_exponential(max=4.0),
            retry=retry_if_exception_type(OSError),
            reraise=True,
        )
        insist(self.journal.begin, identifiers)

    def _flush(self) -> None:
        self._last_flush = time.monotonic()
        try:
            self.journal.flush()
        except OSError as error:
            # It goes on waiting, and the last flush of all raises.
            log.warning("Storage does not take a part; it is written later: %s", type(error).__name__)

    def _settle(self, pool: ThreadPoolExecutor, progress: Progress) -> None:
        """See to the rows that may have been sent: when FACEKI has had its time, what is not there was not."""
        rest, self._unsettled = self._unsettled, []
        if self._stopped or not rest:
            self._unsettled = rest
            return
        log.info("%d row(s) may have been sent without an answer; settling them", len(rest))
        settled_at = max(begun.last for _, begun in rest) + self.options.settle_seconds
        while (left := settled_at - time.time()) > 0:
            self._check(progress)
            time.sleep(min(1.0, left))
        self._write_begun(row for row, _ in rest)
        for row, begun in rest:
            self._submit(pool, partial(self._look_then_verify, row, begun), progress)
        self._wait_for(0, progress)

    def _end(self, pool: ThreadPoolExecutor, grace: float | None, progress: Progress) -> None:
        pool.shutdown(wait=False, cancel_futures=True)
        done, late = wait(self._pending, timeout=grace)
        self._take(done)
        self._unfinished += len(late) + sum(future.cancelled() for future in done)
        self._pending = set()
        self.journal.flush()
        progress.tell(self.journal.decisions, self.journal.errors, now=True)

    def _look(self, row: Row, begun: Begun) -> Outcome:
        found = self._found(row, begun)
        return found or Unsettled(row, begun, api.OutcomeUnknownError("sent, and not to be found yet"))

    def _look_then_verify(self, row: Row, begun: Begun) -> Outcome:
        return self._found(row, begun) or self._verify(row, begun)

    def _found(self, row: Row, begun: Begun) -> Outcome | None:
        try:
            records = self.hook.ask(api.FetchRecords(record_identifier=row.values["record_identifier"]))
            made = api.newest_since(records, begun.first - CLOCK_MARGIN)
            return self._finished(row, made) if made is not None else None
        except api.FacekiError as error:
            return failure(row, error, begun)

    def _verify(self, row: Row, earlier: Begun | None = None) -> Outcome:
        now = time.time()
        first = earlier.first if earlier else now
        try:
            return self._finished(row, self.hook.ask(self._endpoint(row, first)))
        except api.FacekiError as error:
            # What surely never left needs no time to settle.
            return failure(row, error, Begun(first, now if error.may_have_acted else 0.0))

    def _endpoint(self, row: Row, begun_at: float) -> api.PerformKycVerification:
        workflow_id = self.hook.workflow(row.values.get("workflow_id") or self.options.workflow_id)
        documents = list(self._documents(row.values))
        if self.options.check_rules:
            self._check_documents(workflow_id, documents)
        return api.PerformKycVerification(
            workflow_id=workflow_id,
            selfie=self.load_image("selfie", row.values.get("selfie", "")),
            documents=documents,
            record_identifier=row.values["record_identifier"],
            patience=self.options.patience,
            not_before=begun_at - CLOCK_MARGIN,
        )

    def _documents(self, values: Mapping[str, str]) -> Iterator[api.Document]:
        for number in (1, 2, 3):
            front, back = f"document_{number}_front", f"document_{number}_back"
            if front in values:
                back_image = self.load_image(back, values[back]) if back in values else None
                yield api.Document(self.load_image(front, values[front]), back_image)

    def _check_documents(self, workflow_id: str, documents: Sequence[api.Document]) -> None:
        try:
            rules = self.hook.workflow_rules(workflow_id)
        except (api.NotFoundError, api.UnexpectedAnswerError):
            return
        api.check_documents(rules, documents)

    def _finished(self, row: Row, made: api.KycVerification) -> Finished:
        record = self._record(row, made) if self.options.include_records else None
        return Finished({"row": row.number, **made.summary()}, record)

    def _record(self, row: Row, made: api.KycVerification) -> Mapping[str, object]:
        document = made.record.document
        if not made.is_whole and made.record.request_id:
            whole = api.latest(self.hook.ask(api.FetchRecords(request_id=made.record.request_id)))
            document = whole.document if whole is not None else document
        return {"record_identifier": row.values["record_identifier"], "record": dict(document)}
