# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A worker that is suspended (SIGSTOP) while another try takes over sends nothing more after it resumes."""

from __future__ import annotations

import os
import signal

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.batch.conftest import Connect
from tests.batch.dying import begun
from tests.batch.harness import BatchHarness, names, once
from tests.sandbox_delays import HeldDelays
from tests.waiting import wait_until

pytestmark = pytest.mark.process

CONCURRENCY = 16


@pytest.mark.parametrize("assume_new", [pytest.param(False, id="looked up"), pytest.param(True, id="new")])
def test_a_suspended_worker_that_resumes_bills_no_row_again(
    faceki_sandbox: FacekiSandbox,
    connect: Connect,
    harness: BatchHarness,
    held_delays: HeldDelays,
    assume_new: bool,
) -> None:
    connect(timeout=60, upload_timeout=60)
    # All threads wait for a response when the process is suspended.
    faceki_sandbox.add_fault("slow", route="verify", delay=1.0, count=CONCURRENCY)
    everybody = names(150)
    manifest = harness.everybody(*everybody)
    options = {"concurrency": CONCURRENCY, "assume_new": assume_new}
    # Only the check before each row is tested. The main thread's periodic check is disabled by a long interval, because
    # on a local disk it could detect the other try first.
    with begun(harness, manifest, max_unchecked=0.5, flush_seconds=600.0, **options) as older:
        wait_until(lambda: len(held_delays.begun) == CONCURRENCY)
        assert older.pid is not None
        os.kill(older.pid, signal.SIGSTOP)
        try:
            # FACEKI finishes these rows after the newer try has looked them up for the first time.
            held_delays.end_after_polls(faceki_sandbox, CONCURRENCY)
            done = harness.verify(manifest, resubmit_after=6.0, **options)
            assert done["decisions"] == {"ACCEPTED": len(everybody)}
        finally:
            os.kill(older.pid, signal.SIGCONT)
        older.join(120)
        assert older.exitcode == 1
    assert "another try has begun to work on this output_path" in (harness.folder / "try.log").read_text()
    assert faceki_sandbox.ledger == once(everybody)
    assert {line["record_identifier"] for line in harness.lines("results")} == set(everybody)
