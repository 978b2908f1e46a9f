# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Batches on S3 whose worker is killed or frozen, or runs the same task twice: each person is billed once."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.distributed.host import WORKERS
from tests.distributed.site import FAST_SECONDS, SLOW_SECONDS, Batch, Site

pytestmark = pytest.mark.airflow

PEOPLE = 240
#: Number of bills after which something happens to the worker.
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
    batch, host, pid = _begin(site, "frozen")
    frozen = site.cluster.suspend(host)
    try:
        batch.wait_for_try(2)
        batch.wait_for_bills(len(batch.ledger) + 1)
    finally:
        for process in frozen:
            process.resume()
    _finish(batch)
    site.cluster.wait("the older try to end", lambda: not psutil.pid_exists(pid))
    batch.check()


def test_two_executions_of_one_task_instance(site: Site) -> None:
    batch, _, pid = _begin(site, "doubled")
    supervisor = psutil.Process(pid).ppid()
    # Airflow gets no heartbeats any more, so it starts the task again. The task does not notice and works on.
    os.kill(supervisor, signal.SIGSTOP)
    try:
        batch.wait_for_try(2)
        assert psutil.pid_exists(pid)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    _finish(batch)
    site.cluster.wait("the older try to end", lambda: not psutil.pid_exists(pid))
    batch.check()
