# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Batches on S3 whose worker is killed or suspended, or runs the same task twice: each person is billed once.

A single verification on S3, which runs twice, is also billed once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psutil
import pytest

from tests.airflow.running import AIRFLOW_3, HAS_STATE_STORE
from tests.distributed.host import WORKERS
from tests.distributed.site import FAST_SECONDS, SLOW_SECONDS, Batch, Site, Verification

pytestmark = pytest.mark.airflow

PEOPLE = 240
#: Number of bills after which a test kills or suspends the worker, or stops its heartbeats.
BILLED = 40


def _begin(site: Site, name: str) -> tuple[Batch, str, int]:
    """Start a batch that is slow, and return its host and its process id when some rows are billed."""
    site.slow_down(SLOW_SECONDS)
    batch = Batch(site, name, PEOPLE)
    batch.begin()
    batch.wait_for_bills(BILLED)
    found = batch.running
    assert found is not None
    host, pid = found
    assert host in WORKERS
    return batch, host, pid


def _finish(batch: Batch) -> None:
    assert len(batch.ledger) < PEOPLE
    batch.site.slow_down(FAST_SECONDS)
    batch.wait_for_end()


def test_a_killed_worker(site: Site) -> None:
    batch, host, _ = _begin(site, "killed")
    site.cluster.end(host, signal.SIGKILL)
    batch.wait_for_try(2)
    site.cluster.start(host)
    _finish(batch)
    batch.check()
    assert set(batch.results.values()) == {1}


def test_a_suspended_worker_that_resumes_after_a_newer_try_started(site: Site) -> None:
    batch, host, pid = _begin(site, "suspended")
    suspended = site.cluster.suspend(host)
    try:
        batch.wait_for_try(2)
        batch.wait_for_bills(len(batch.ledger) + 1)
    finally:
        for process in suspended:
            process.resume()
    _finish(batch)
    site.cluster.wait("the older try to end", lambda: not psutil.pid_exists(pid))
    if AIRFLOW_3:
        batch.check()
    else:
        # The tries of Airflow 2.11 share one row of the database. An older try that ends changes the state of the newer
        # one, so the run can end before the last try has returned its result.
        assert set(batch.ledger.values()) == {1}


@dataclass(frozen=True)
class Doubled:
    """Two runs that have ended. Airflow ran the task of each of them twice at the same time."""

    batch: Batch
    #: `None` on a version of Airflow without a task state store.
    verification: Verification | None
    #: The marks of the verification while two tries of it existed.
    marks: Sequence[Mapping[str, object]] = ()


@contextmanager
def _without_heartbeats(pid: int) -> Iterator[None]:
    """Suspend the supervisor of a task. At the end, the task must still be alive.

    Airflow gets no heartbeats any more, so it starts the task again. The task does not notice and works on.
    """
    supervisor = psutil.Process(pid).ppid()
    os.kill(supervisor, signal.SIGSTOP)
    try:
        yield
        assert psutil.pid_exists(pid)
    finally:
        os.kill(supervisor, signal.SIGCONT)


@pytest.fixture(scope="module")
def doubled(site: Site) -> Doubled:
    """A batch and a verification at the same time, because Airflow needs long to notice missing heartbeats."""
    verification = Verification(site, "verified-twice") if HAS_STATE_STORE else None
    marks, older = [], []
    with ExitStack() as stack:
        if verification is not None:
            site.slow_down(FAST_SECONDS)
            older.append(verification.begin())
            stack.enter_context(_without_heartbeats(older[0]))
        batch, _, pid = _begin(site, "doubled")
        older.append(pid)
        stack.enter_context(_without_heartbeats(pid))
        batch.wait_for_try(2)
        if verification is not None:
            verification.wait_for_next_try()
            marks = verification.marks
    _finish(batch)
    if verification is not None:
        verification.wait_for_end()
    site.cluster.wait("the older tries to end", lambda: not any(map(psutil.pid_exists, older)))
    # The older try possibly ends before the sandbox has processed its verification, so wait for the sandbox, too.
    site.cluster.wait("the last answer", lambda: site.counters["in_flight"] == 0)
    return Doubled(batch, verification, marks)


def test_two_executions_of_one_batch(doubled: Doubled) -> None:
    doubled.batch.check()


@pytest.mark.skipif(not HAS_STATE_STORE, reason="before Airflow 3.3 there is no task state store")
def test_two_executions_of_one_verification(doubled: Doubled, site: Site) -> None:
    """The newer try finds the mark of the older try, so the newer try only waits for the record.

    Meanwhile the older try still waits for FACEKI's answer.
    """
    verification = doubled.verification
    assert verification is not None
    assert (verification.run.state, site.ledger[verification.name]) == ("success", 1)
    assert verification.run.xcom("verify")["decision"] == "ACCEPTED"
    assert [mark["try_number"] for mark in doubled.marks] == [1]
    # An execution replaces the mark before it sends. The mark has not changed, so the newer try has sent nothing.
    assert verification.marks == doubled.marks
