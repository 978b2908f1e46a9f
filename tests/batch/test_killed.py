# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A try that is killed (``kill -9``) while it waits or fetches records is continued by the next try."""

from __future__ import annotations

from collections import Counter

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.batch.dying import die
from tests.batch.people import People, begin, names, once

pytestmark = pytest.mark.process


def asked(faceki: FacekiSandbox, route: str) -> int:
    return faceki.counters.requests.get(route, 0)


def test_killed_while_it_waits_to_reconcile_rows_that_were_possibly_sent(
    faceki: FacekiSandbox, people: People
) -> None:
    faceki.add_record("accepted-0")
    begin(people, *names(3))
    manifest = people.everybody(*names(6))
    # Three rows are sent, and three are looked up. One of these is found, so two remain to be waited for.
    die(people, manifest, lambda: len(people.lines("results")) == 4, resubmit_after=120.0)
    assert faceki.ledger == once(names(6)[3:])
    asked_before = asked(faceki, "verify")
    done = people.verify(manifest)
    assert (done["decisions"], asked(faceki, "verify") - asked_before) == ({"ACCEPTED": 6}, 2)
    assert faceki.ledger == once(names(6)[1:])


def test_killed_while_it_fetches_records(faceki: FacekiSandbox, people: People) -> None:
    manifest = people.everybody(*names(40))
    faceki.add_fault("slow", route="records", delay=0.3, count=None)
    die(
        people,
        manifest,
        lambda: asked(faceki, "records") >= 20,
        include_records=True,
        concurrency=4,
        assume_new=True,
    )
    assert len(people.results()) == 40
    faceki.clear_faults()
    people.verify(manifest, include_records=True)
    kept = Counter(line["record_identifier"] for line in people.lines("records"))
    assert (kept, asked(faceki, "verify")) == (once(names(40)), 40)
    assert faceki.ledger == once(names(40))


def test_killed_twice_between_what_was_sent_and_its_result(faceki: FacekiSandbox, people: People) -> None:
    faceki.settings.latency = 0.05
    manifest = people.everybody(*names(200))
    for billed in (20, 120):
        die(people, manifest, lambda billed=billed: len(faceki.ledger) >= billed)  # type: ignore[misc]
    assert people.verify(manifest)["decisions"] == {"ACCEPTED": 200}
    assert faceki.ledger == once(names(200))
