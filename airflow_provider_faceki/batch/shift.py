# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""One try's work, whatever is worked at: keep a crew busy, write and tell what is due, and end when it has to end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_faceki import api
from airflow_provider_faceki.batch.crew import Crew
from airflow_provider_faceki.batch.doubt import Doubt
from airflow_provider_faceki.batch.journal import Journal
from airflow_provider_faceki.batch.outcomes import Broken, Failed, Finished, Later, Outcome, Recorded, Stopped
from airflow_provider_faceki.batch.patience import insist
from airflow_provider_faceki.batch.progress import Progress

log = logging.getLogger(__name__)

#: Lines, and seconds, after which a part is written. What a crash costs is asked about again, not sent
#: again; where FACEKI keeps no record that would tell, it costs the result.
LINES_A_PART = 1000
SECONDS_A_PART = 2.0
#: Lines that may wait for a store that fails; with more, the try ends.
LINES_IN_WAITING = 10 * LINES_A_PART
#: Seconds for which rows in flight may still finish when the task is killed. Airflow 3 ends a process five seconds
#: after it has asked it to.
KILL_GRACE = 2.5
#: Seconds between two looks whether the task is killed.
LOOK = 0.25
#: Failures without an answer, one after another, after which FACEKI counts as down and the try ends.
FAILURES_BEFORE_DOWN = 50
#: Rows that are done before the share of errors among them counts.
ROWS_BEFORE_SHARE = 100


@dataclass(frozen=True, slots=True)
class Job:
    """Something for the crew.

    :param work: What to do.
    :param undone: What becomes of the row if that is never done.
    """

    work: Callable[[], Outcome]
    undone: Later


@dataclass(slots=True)
class Shift:
    """One try's work; a context manager, so that however it ends, what is finished is written.

    :param size: How many threads.
    :param journal: Where what is finished goes.
    :param progress: What is told.
    :param killed: Whether the task is to end.
    :param max_error_rate: Share of error rows above which the batch ends early.
    :param put_off: Called for rows that are for later.
    :param watch: Called each time that something has been written.
    """

    size: int
    journal: Journal
    progress: Progress
    killed: Callable[[], bool]
    max_error_rate: float
    put_off: Callable[[Later], None]
    watch: Callable[[], None] = lambda: None
    #: Why the batch ends early.
    stopped: Exception | None = None
    _halted: bool = False
    _failures_in_a_row: int = 0
    _last_flush: float = field(default_factory=time.monotonic)
    _crew: Crew[Job, Outcome] = field(init=False)
    _doubt: Doubt = field(init=False)

    def __enter__(self) -> Self:
        self.progress.begin(self.journal.done)
        self._doubt = Doubt(is_over=bool(self.journal.decisions))
        self._crew = Crew(self.size, self._do, Broken)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(KILL_GRACE if error is not None else None)
        if error is None:
            self._leave_if_killed()

    def give(self, job: Job) -> bool:
        """Have this done when there is room; whether it will be, which it will not if the batch has to end."""
        # Twice as many wait as work, so that a pause for writing leaves nobody idle.
        self._work_off(2 * self.size - 1)
        if self.stopped:
            self.put_off(job.undone)
            return False
        self._crew.give(job)
        return True

    def drain(self) -> None:
        """Wait until all that was given is done."""
        self._work_off(0)

    def pause_until(self, moment: float) -> None:
        """Wait until Unix time ``moment``, or until the batch has to end, still seeing to what is due."""
        while (left := moment - time.time()) > 0 and not self.stopped:
            self._see_to_things()
            time.sleep(min(LOOK, left))

    def insist(self, write: Callable[[], None]) -> None:
        """Write what the work cannot go on without, even if the store fails now and then.

        :raises OSError: it fails again and again.
        """
        insist(write, self._pause)

    def look_up(self) -> None:
        """See to what is due, however long nothing was given to the crew."""
        self._see_to_things()

    def failed(self, line: Mapping[str, object]) -> None:
        """Take in a row that is an error before anything is done for it."""
        self._note(Failed(line))

    def stop(self, error: Exception) -> None:
        """Have the batch end early; the first reason counts."""
        self.stopped = self.stopped or error
        for job in self._crew.dismiss():
            self.put_off(job.undone)

    def _do(self, job: Job) -> Outcome:
        # Whoever finds the wallet empty stops the others, who are quicker than whoever takes in what was found.
        if self._halted:
            return job.undone
        outcome = job.work()
        if isinstance(outcome, Stopped):
            self._halted = True
        return outcome

    def _work_off(self, most: int) -> None:
        while self._crew.pending > most:
            outcome = self._crew.take(LOOK)
            if outcome is not None:
                self._note(outcome)
            self._see_to_things()
        self._see_to_things()

    def _note(self, outcome: Outcome) -> None:
        self._count_failures(outcome)
        match outcome:
            case Finished(line):
                self._be_sure()
                self.journal.finish(self.journal.results, line)
            case Failed(line) if not self._doubt.holds(outcome):
                self.journal.finish(self.journal.errors, line)
            case Failed():
                if not self.stopped and (verdict := self._doubt.verdict):
                    self.stop(verdict)
            case Recorded(line):
                self.journal.records.add(line)
            case Later(_, error, _):
                self.put_off(outcome)
                if error is not None and self._failures_in_a_row >= FAILURES_BEFORE_DOWN:
                    self.stop(error)
            case Stopped(row, error, sent_by):
                self.put_off(Later(row, None, sent_by))
                self.stop(error)
            case Broken(problem):
                self.stop(problem)

    def _be_sure(self) -> None:
        for line in self._doubt.dispelled():
            self.journal.finish(self.journal.errors, line)

    def _count_failures(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Later) or outcome.error is None:
            self._failures_in_a_row = 0
        elif isinstance(outcome.error, api.FacekiError) and not isinstance(
            outcome.error, api.ValidationError
        ):
            self._failures_in_a_row += 1
        # A picture that cannot be read says nothing about FACEKI.

    def _leave_if_killed(self) -> None:
        leave_if(self.killed)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._leave_if_killed()
            time.sleep(min(LOOK, left))

    def _see_to_things(self) -> None:
        self._leave_if_killed()
        if self._is_due():
            self._flush()
            self.watch()
        self.progress.tell(self.journal.done, self.journal.decisions, self.journal.failures)
        if not self.stopped:
            self._judge_errors(ROWS_BEFORE_SHARE)

    def _is_due(self) -> bool:
        return self.journal.waiting >= LINES_A_PART or time.monotonic() - self._last_flush >= SECONDS_A_PART

    def _flush(self) -> None:
        self._last_flush = time.monotonic()
        try:
            self.journal.flush()
        except OSError as error:
            if self.journal.waiting > LINES_IN_WAITING:
                raise
            log.warning("Storage fails to take a part; it is written later: %s", type(error).__name__)

    def _judge_errors(self, after: int) -> None:
        failed, done = self.journal.failures.total(), self.journal.done
        if done >= after and failed > self.max_error_rate * done:
            self.stop(
                api.ValidationError(
                    f"{failed} of {done} rows are errors, more than max_error_rate={self.max_error_rate:g}"
                )
            )

    def _end(self, grace: float | None) -> None:
        """Have nothing more begun, wait for what is in flight, and write everything."""
        for job in self._crew.dismiss():
            self.put_off(job.undone)
        # What is there already is safe before anything else is waited for.
        with suppress(OSError):
            self.journal.flush()
        deadline = time.monotonic() + grace if grace is not None else None
        while self._crew.pending and (deadline is None or time.monotonic() < deadline):
            if self.killed() and deadline is None:
                deadline = time.monotonic() + KILL_GRACE
            outcome = self._crew.take(LOOK)
            if outcome is not None:
                self._note(outcome)
        if self.stopped or grace is not None or self.killed():
            for later in self._doubt.confirmed():
                self.put_off(later)
        else:
            self._be_sure()
            self._judge_errors(1)
        if self.killed():
            self.journal.flush()
        else:
            self.insist(self.journal.flush)
        self.progress.end(self.journal.done, self.journal.decisions, self.journal.failures)


def leave_if(killed: Callable[[], bool]) -> None:
    """End if the task is killed.

    :raises AirflowException: it is.
    """
    if killed():
        raise AirflowException("the task was killed; what is finished is written")
