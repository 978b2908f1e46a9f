# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A try that is killed (``kill -9``) while it waits or fetches records is continued by the next try."""

from __future__ import annotations

from collections import Counter

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.batch.dying import die
from tests.batch.harness import BatchHarness, begin, names, once

pytestmark = pytest.mark.process


def asked(faceki: FacekiSandbox, route: str) -> int:
    return faceki.counters.requests.get(route, 0)


def test_killed_while_it_waits_to_reconcile_rows_that_were_possibly_sent(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    faceki.add_record("accepted-0")
    begin(harness, *names(3))
    manifest = harness.everybody(*names(6))
    # Three rows are new and are sent. The other three rows were possibly sent and are looked up: the try finds the
    # record of one row, and waits for the records of the other two.
    die(harness, manifest, lambda: len(harness.lines("results")) == 4, resubmit_after=120.0)
    assert faceki.ledger == once(names(6)[3:])
    asked_before = asked(faceki, "verify")
    done = harness.verify(manifest)
    assert (done["decisions"], asked(faceki, "verify") - asked_before) == ({"ACCEPTED": 6}, 2)
    assert faceki.ledger == once(names(6)[1:])


def test_killed_while_it_fetches_records(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    manifest = harness.everybody(*names(40))
    faceki.add_fault("slow", route="records", delay=0.3, count=None)
    die(
        harness,
        manifest,
        lambda: asked(faceki, "records") >= 20,
        include_records=True,
        concurrency=4,
        assume_new=True,
    )
    assert len(harness.results()) == 40
    faceki.clear_faults()
    harness.verify(manifest, include_records=True)
    kept = Counter(line["record_identifier"] for line in harness.lines("records"))
    assert (kept, asked(faceki, "verify")) == (once(names(40)), 40)
    assert faceki.ledger == once(names(40))


def test_two_kills_before_results_are_stored_bill_no_row_twice(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    faceki.settings.latency = 0.05
    manifest = harness.everybody(*names(200))
    for billed in (20, 120):
        die(harness, manifest, lambda billed=billed: len(faceki.ledger) >= billed, resubmit_after=6.0)  # type: ignore[misc]
    # 6 s are enough, because FACEKI needs much less time for the rows of the killed tries, also on a busy machine.
    assert harness.verify(manifest, resubmit_after=6.0)["decisions"] == {"ACCEPTED": 200}
    assert faceki.ledger == once(names(200))
