# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run one try of a batch: pass rows to worker threads, write their outcomes to the journal, and log the progress.

The run ends early if the task is killed, if too many rows have errors, or if an error probably concerns every row. It
also ends early if the processing of a row raises an unexpected exception.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.error_guard import SystemicErrorGuard
from airflow_provider_faceki.batch.journal import Journal
from airflow_provider_faceki.batch.lease import Clock
from airflow_provider_faceki.batch.rows import (
    Abort,
    Crashed,
    Deferred,
    Failed,
    Outcome,
    Recorded,
    Succeeded,
)
from airflow_provider_faceki.storage_interface import retry_storage

log = logging.getLogger(__name__)

#: Function that is called for each row that is done, for example to count the row. Its arguments are ``succeeded`` or
#: ``failed``, and the line of the row in the journal.
OnDone = Callable[[str, Mapping[str, object]], None]

#: The results and errors of rows are buffered. They are written to the storage after this number of lines, or after
#: this number of seconds. If the process crashes, the buffered lines are lost. But the storage contains an intent (a
#: note that the row is about to be sent) for each sent row. So the next try knows which rows it has to look up at
#: FACEKI. If FACEKI stores no records, the lost results cannot be restored.
FLUSH_LINES = 1000
FLUSH_SECONDS = 2.0
#: Maximum number of journal lines that are buffered while the storage fails. If there are more, the try ends.
MAX_BUFFERED_LINES = 10 * FLUSH_LINES
#: Time in seconds for which a killed task waits for the rows that are being processed. It must be short: Airflow 3
#: first sends a signal to the process of the task, and ends the process five seconds later.
KILL_GRACE_SECONDS = 2.5
#: Maximum seconds between two checks whether the task was killed.
POLL_SECONDS = 0.25
#: While the batch runs, ``max_error_rate`` is checked only if at least this number of rows are done. With fewer rows,
#: the share of errors is not reliable. At the end of the batch, ``max_error_rate`` is checked for any number of rows.
MIN_ROWS_FOR_ERROR_RATE = 100
#: Seconds between two log lines about the progress.
PROGRESS_SECONDS = 10.0
#: Maximum number of rows with errors that one try logs individually.
MAX_LOGGED_ERRORS = 10
# Maximum length of a text from FACEKI in a log line.
_MAX_WORD_LENGTH = 40


class TaskKilledError(Exception):
    """Error: Airflow has killed the task. The results of the finished rows are written before the task ends."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job for the worker pool.

    :param work: Function that processes the row and returns its outcome.
    :param if_cancelled: The outcome of the row if ``work`` is never called.
    """

    work: Callable[[], Outcome]
    if_cancelled: Deferred


class WorkerPool:
    """Pool of daemon threads that process jobs. Only the thread that created the pool is allowed to call its methods.

    ``ThreadPoolExecutor`` is not used, because Python waits for its threads when the process ends. One running upload
    would delay the end of a killed task for minutes.
    """

    def __init__(self, size: int, work: Callable[[Job], Outcome]) -> None:
        self._work = work
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._size = size
        #: Number of submitted jobs whose outcome :meth:`next_result` has not returned yet. Cancelled jobs are not
        #: counted.
        self.pending = 0
        for number in range(size):
            threading.Thread(target=self._run, name=f"faceki-batch-{number}", daemon=True).start()

    def submit(self, job: Job) -> None:
        """Add a job to the queue."""
        self.pending += 1
        self._jobs.put(job)

    def next_result(self, timeout: float) -> Outcome | None:
        """Return the outcome of one finished job. If no job finishes within ``timeout`` seconds, return ``None``."""
        try:
            outcome = self._outcomes.get(timeout=timeout)
        except Empty:
            return None
        self.pending -= 1
        return outcome

    def cancel_pending(self) -> list[Job]:
        """Remove the jobs that no thread has started, and return them. Each thread ends after its current job."""
        cancelled: list[Job] = []
        with suppress(Empty):
            while True:
                if (job := self._jobs.get_nowait()) is not None:
                    cancelled.append(job)
        self.pending -= len(cancelled)
        for _ in range(self._size):
            self._jobs.put(None)
        return cancelled

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                outcome = self._work(job)
            except Exception as error:  # noqa: BLE001 - the outcome passes the exception to the main thread
                outcome = Crashed(error)
            except BaseException as error:  # noqa: BLE001 - without an outcome, the main thread would wait for ever
                # For example, a panic in a Rust library raises a BaseException. ``Crashed`` needs an Exception, because
                # the main thread raises the error as the reason why the batch stops.
                outcome = Crashed(RuntimeError(f"{type(error).__name__} in a worker thread"))
            self._outcomes.put(outcome)
            # These two names are deleted before the thread waits for its next job. If they were not deleted, the last
            # job and its outcome, and possibly an image, would stay in memory during the wait.
            del job, outcome


MakePool = Callable[[int, Callable[[Job], Outcome]], WorkerPool]


class Progress:
    """Logger of the progress of a batch: counts, rows per second and remaining time.

    The time measurement of this try starts when the object is created.

    :param total: Number of rows in the manifest.
    :param done_before: Number of rows that earlier tries have finished.
    :param clock: Clock of this machine. Tests replace it.
    """

    def __init__(self, total: int, done_before: int, clock: Clock) -> None:
        self.total = total
        self._done_before = done_before
        self._clock = clock
        self._logged_errors = 0
        self._began = self._logged_at = clock.monotonic()

    def log_error(self, line: Mapping[str, object]) -> None:
        """Log the error of a row. After ``MAX_LOGGED_ERRORS`` errors, log once that no further errors are logged."""
        self._logged_errors += 1
        if self._logged_errors <= MAX_LOGGED_ERRORS:
            log.warning("Row %s is an error: %s: %s", line.get("row"), line.get("code"), line.get("problem"))
        elif self._logged_errors == MAX_LOGGED_ERRORS + 1:
            log.warning("Further error rows are not logged one by one; see errors below output_path")

    def log_if_due(self, done: int, decisions: Mapping[str, int], failures: Mapping[str, int]) -> None:
        """Log the progress if the last log line about it is older than ``PROGRESS_SECONDS``."""
        now = self._clock.monotonic()
        if now - self._logged_at < PROGRESS_SECONDS:
            return
        self._logged_at = now
        rate = (done - self._done_before) / max(now - self._began, 0.001)
        left = max(0, self.total - done)
        log.info(
            "%d of %d rows done, %.1f a second; %s; %d error(s); time left: %s",
            done,
            self.total,
            rate,
            ", ".join(f"{count} {_printable(name)}" for name, count in sorted(decisions.items()))
            or "no decision yet",
            sum(failures.values()),
            _duration(left / rate) if rate else "unknown",
        )

    def end(self, done: int, decisions: Mapping[str, int], failures: Mapping[str, int]) -> None:
        """Log the number of rows for each decision and each error code. If there are errors, the level is WARNING."""
        seconds = self._clock.monotonic() - self._began
        lines = [
            f"{done} of {self.total} rows done, {done - self._done_before} of them by this try in "
            f"{_duration(seconds)}"
        ]
        for title, counts in (("decision", decisions), ("error", failures)):
            if counts:
                ordered = sorted(counts.items(), key=lambda item: -item[1])
                lines += [
                    f"  {title:<40} rows",
                    *(f"  {_printable(name):<40} {count}" for name, count in ordered),
                ]
        log.log(logging.WARNING if failures else logging.INFO, "%s", "\n".join(lines))


@dataclass(slots=True)
class BatchRunner:
    """Runner of one try of a batch: it passes jobs to worker threads and writes their outcomes to the journal.

    The runner is a context manager. At the end of the ``with`` block, it writes the finished rows, even if the block
    raises an error.

    :param size: Number of worker threads.
    :param journal: Journal of the batch, already loaded.
    :param total: Number of rows in the manifest.
    :param is_killed: Function that returns whether Airflow has killed the task.
    :param max_error_rate: Share of rows with errors (0 to 1) above which the batch stops early.
    :param on_deferred: Function that is called for each deferred row, that is a row to be processed again later.
    :param on_done: Function that is called for each row that is done.
    :param on_flush: Function that :meth:`checkpoint` calls after it has tried to write the journal to the storage.
    :param clock: Clock of this machine. Tests replace it.
    :param make_pool: Function that creates the worker threads. Tests replace it.
    """

    size: int
    journal: Journal
    total: int
    is_killed: Callable[[], bool]
    max_error_rate: float
    on_deferred: Callable[[Deferred], None]
    on_done: OnDone = lambda outcome, line: None
    on_flush: Callable[[], None] = lambda: None
    clock: Clock = field(default_factory=Clock)
    make_pool: MakePool = WorkerPool
    #: The error that stops the batch early. It is ``None`` while the batch can continue.
    aborted_by: Exception | None = None
    _is_aborting: bool = False
    _last_flush: float = 0.0
    _progress: Progress = field(init=False)
    _pool: WorkerPool = field(init=False)
    _guard: SystemicErrorGuard = field(init=False)

    def __enter__(self) -> Self:
        self._progress = Progress(self.total, self.journal.done, self.clock)
        self._last_flush = self.clock.monotonic()
        self._guard = SystemicErrorGuard(is_released=bool(self.journal.decisions))
        self._pool = self.make_pool(self.size, self._work)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(KILL_GRACE_SECONDS if error is not None else None)
        if error is None:
            raise_if_killed(self.is_killed)

    def submit(self, job: Job) -> None:
        """Wait until the queue has room, and submit a job.

        If the batch has to stop, the job is not submitted, and its row is left to a later try.
        """
        # The queue contains one additional job for each thread, so that no thread is idle while the journal is written.
        self._process(max_pending=2 * self.size - 1)
        if self.aborted_by:
            self.on_deferred(job.if_cancelled)
        else:
            self._pool.submit(job)

    def drain(self) -> None:
        """Wait until all submitted jobs are done."""
        self._process(max_pending=0)

    def wait_until(self, at: float) -> None:
        """Wait until the Unix time ``at``, or until the batch has to stop.

        During the wait, this method calls :meth:`checkpoint` regularly.
        """
        while (left := at - self.clock.time()) > 0 and not self.aborted_by:
            self.checkpoint()
            self.clock.sleep(min(POLL_SECONDS, left))

    def retry_storage(self, operation: Callable[[], None]) -> None:
        """Call a storage operation without which the batch cannot continue. If the operation fails, repeat it.

        :raises OSError: if the last attempt also failed.
        """
        retry_storage(operation, self._sleep)

    def checkpoint(self) -> None:
        """Write the journal to the storage, log the progress, and stop the batch if too many rows have errors.

        Long loops call this method often, so each step has a condition:

        - The journal is written if ``FLUSH_LINES`` lines are buffered, or if ``FLUSH_SECONDS`` have passed since the
          last attempt to write it.
        - The progress is logged if ``PROGRESS_SECONDS`` have passed since the last log line about the progress.
        - The batch stops if the share of errors exceeds ``max_error_rate``, and at least ``MIN_ROWS_FOR_ERROR_RATE``
          rows are done.

        :raises TaskKilledError: if the task was killed.
        :raises OSError: if the storage fails, and more than ``MAX_BUFFERED_LINES`` lines are buffered.
        """
        raise_if_killed(self.is_killed)
        waited = self.clock.monotonic() - self._last_flush
        if self.journal.buffered >= FLUSH_LINES or waited >= FLUSH_SECONDS:
            self._flush()
            self.on_flush()
        self._progress.log_if_due(self.journal.done, self.journal.decisions, self.journal.failures)
        if not self.aborted_by:
            self._check_error_rate(MIN_ROWS_FOR_ERROR_RATE)

    def fail_row(self, line: Mapping[str, object]) -> None:
        """Add the error of a row to the buffered lines of the journal, log it and count it."""
        self._progress.log_error(line)
        self.journal.finish(self.journal.errors, line)
        self.on_done("failed", line)

    @property
    def is_stopping(self) -> bool:
        """Whether the batch is stopping. While it stops, no further row is sent."""
        return self._is_aborting or self.aborted_by is not None or self.is_killed()

    @property
    def refused(self) -> list[Deferred]:
        """The refused rows whose errors are not written yet; see ``error_guard.py``."""
        return self._guard.held_rows

    def abort(self, error: Exception) -> None:
        """Stop the batch early and cancel the jobs that no thread has started.

        :param error: Reason why the batch stops. If this method is called several times, the first error is reported.
        """
        self.aborted_by = self.aborted_by or error
        for job in self._pool.cancel_pending():
            self.on_deferred(job.if_cancelled)

    def _work(self, job: Job) -> Outcome:
        # If a worker thread finds an error that stops the whole batch, such as used-up credit, it sets a flag. The
        # other threads read the flag and start no further job. The main thread handles the error later.
        if self.is_stopping:
            return job.if_cancelled
        outcome = job.work()
        if isinstance(outcome, Abort):
            self._is_aborting = True
        return outcome

    def _process(self, max_pending: int) -> None:
        while self._pool.pending > max_pending:
            outcome = self._pool.next_result(POLL_SECONDS)
            if outcome is not None:
                self._handle(outcome)
            self.checkpoint()
        self.checkpoint()

    def _handle(self, outcome: Outcome) -> None:
        self._guard.note(outcome)
        match outcome:
            case Succeeded(line):
                self._release_guard()
                self.journal.finish(self.journal.results, line)
                self.on_done("succeeded", line)
            case Failed(line):
                if not self._guard.hold(outcome):
                    self.fail_row(line)
            case Recorded(line):
                self.journal.records.add(line)
            case Deferred():
                self.on_deferred(outcome)
            case Abort(row, error, sent_by):
                self.on_deferred(Deferred(row, None, sent_by))
                self.abort(error)
            case Crashed(error):
                self.abort(error)
        if not self.aborted_by and (systemic := self._guard.systemic_error()):
            self.abort(systemic)

    def _release_guard(self) -> None:
        for line in self._guard.release():
            self.fail_row(line)

    def _sleep(self, seconds: float) -> None:
        until = self.clock.monotonic() + seconds
        while (left := until - self.clock.monotonic()) > 0:
            raise_if_killed(self.is_killed)
            self.clock.sleep(min(POLL_SECONDS, left))

    def _flush(self) -> None:
        self._last_flush = self.clock.monotonic()
        try:
            self.journal.flush()
        except OSError as error:
            if self.journal.buffered > MAX_BUFFERED_LINES:
                raise
            log.warning(
                "A segment could not be written to the storage; it is written later: %s", type(error).__name__
            )

    def _check_error_rate(self, min_rows: int) -> None:
        # The guard (error_guard.py) keeps the refused rows until it knows whether the cause is in the rows or in the
        # whole batch. This check counts the kept rows as errors.
        failed = self.journal.failures.total() + self._guard.held
        done = self.journal.done + self._guard.held
        if done >= min_rows and failed > self.max_error_rate * done:
            self.abort(
                ValidationError(
                    f"{failed} of {done} rows are errors, more than max_error_rate={self.max_error_rate:g}"
                )
            )

    def _end(self, grace: float | None) -> None:
        """Start no further jobs, wait for the running jobs, and write all buffered lines of the journal.

        :param grace: Maximum time in seconds to wait for the running jobs. ``None`` means no maximum. If Airflow kills
            the task during the wait, ``KILL_GRACE_SECONDS`` applies.
        """
        # If the main thread has raised an exception, the batch stops. The worker threads read this flag, so a thread
        # that is just looking up a row does not send the row after the lookup.
        self._is_aborting |= grace is not None
        # This call also tells the threads to end. So it is necessary even if there are no pending jobs.
        for job in self._pool.cancel_pending():
            self.on_deferred(job.if_cancelled)
        # The buffered lines are written before the wait, because Airflow possibly ends the process during the wait.
        with suppress(OSError):
            self.journal.flush()
        self._await_in_flight(grace)
        if self.aborted_by or grace is not None or self.is_killed():
            for deferred in self.refused:
                self.on_deferred(deferred)
        else:
            self._release_guard()
            self._check_error_rate(1)
        if self.is_killed():
            self.journal.flush()
        else:
            self.retry_storage(self.journal.flush)
        self._progress.end(self.journal.done, self.journal.decisions, self.journal.failures)

    def _await_in_flight(self, grace: float | None) -> None:
        deadline = self.clock.monotonic() + grace if grace is not None else None
        while self._pool.pending and (deadline is None or self.clock.monotonic() < deadline):
            if self.is_killed() and deadline is None:
                deadline = self.clock.monotonic() + KILL_GRACE_SECONDS
            outcome = self._pool.next_result(POLL_SECONDS)
            if outcome is not None:
                self._handle(outcome)


def raise_if_killed(is_killed: Callable[[], bool]) -> None:
    """Raise :class:`TaskKilledError` if Airflow has killed the task."""
    if is_killed():
        raise TaskKilledError("the task was killed; the finished rows are written")


def _printable(name: str) -> str:
    # FACEKI can report any text as a decision. Characters such as line breaks are replaced, so that each log entry
    # stays on one line.
    return "".join(each if each.isprintable() else "?" for each in name[:_MAX_WORD_LENGTH])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
