# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A further try continues where the previous try stopped, whatever stopped it, and bills no row twice."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_faceki import api
from airflow_provider_faceki.batch.lease import LeaseLostError
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.clock import Clock
from tests.airflow.fakes import TaskInstance, context
from tests.batch.conftest import FEW_ATTEMPTS, Connect
from tests.batch.harness import BatchHarness, begin, names, once
from tests.batch.stores import StoreDown, attached, intermittent_failures
from tests.billing.image_files import image_bytes
from tests.sandbox_delays import HeldDelays
from tests.waiting import wait_until


def asked(faceki: FacekiSandbox, route: str) -> int:
    return faceki.counters.requests.get(route, 0)


def forget_results(harness: BatchHarness) -> None:
    for part in harness.parts("results"):
        part.unlink()


def test_a_finished_row_is_neither_looked_up_nor_billed_again(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    manifest = harness.everybody(*names(20))
    first = harness.verify(manifest)
    before = faceki.counters.requests
    assert harness.verify(manifest) == first
    assert faceki.counters.requests == before
    assert len(harness.results()) == 20


def test_a_row_with_a_lost_result_is_found_without_waiting(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    manifest = harness.everybody(*names(10))
    harness.verify(manifest)
    forget_results(harness)
    began = time.monotonic()
    done = harness.verify(manifest, resubmit_after=60)
    assert time.monotonic() - began < 60, "it waited for resubmit_after"
    assert done["decisions"] == {"ACCEPTED": 10}
    assert faceki.ledger == once(names(10))
    assert set(harness.results()) == set(names(10))


def test_a_row_with_an_intent_is_resubmitted_after_resubmit_after(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    # The intents announce that the rows will be sent. They are old, but the previous try possibly sent the rows shortly
    # before this try. So `resubmit_after` must count from the beginning of this try.
    begin(harness, *names(40), at=time.time() - 3600)
    began = time.time()
    done = harness.verify(harness.everybody(*names(45)), resubmit_after=4.0)
    assert done["decisions"] == {"ACCEPTED": 45}
    assert faceki.ledger == once(names(45))
    sent = {bill.record_identifier: bill.at for bill in faceki.bills}
    first_sent_again = min(sent[name] for name in names(40))
    assert first_sent_again >= began + 4.0
    # The other rows did not wait for the rows with intents.
    assert max(sent[name] for name in names(45)[40:]) < first_sent_again


@pytest.mark.parametrize("resubmit", ["if_absent", "never"])
def test_an_old_record_with_the_same_identifier_is_not_a_result(
    faceki: FacekiSandbox, harness: BatchHarness, resubmit: str
) -> None:
    faceki.add_record("a", "DECLINED", fields={"createdAt": "2026-01-01T00:00:00.000Z"})
    begin(harness, "a")
    done = harness.verify(
        harness.everybody("a", "b"), include_records=True, resubmit=resubmit, assume_new=True
    )
    assert (harness.results(), done["errors"]) == ({"b": "ACCEPTED"}, {"OUTCOME_UNKNOWN": 1})
    (error,) = harness.lines("errors")
    assert "belongs to another verification, or FACEKI's clock and this clock differ" in error["problem"]
    assert "under a new identifier" in error["what_to_do"]
    assert faceki.ledger == once("b")


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["process_then_reset", "reset_then_process"])
@pytest.mark.parametrize(
    ("behind", "outcome"),
    [
        pytest.param(-86400.0, ({"ACCEPTED": 2}, {}), id="FACEKI's clock is a day ahead"),
        pytest.param(200.0, ({"ACCEPTED": 2}, {}), id="behind by less than the margin"),
        pytest.param(600.0, ({"ACCEPTED": 1}, {"OUTCOME_UNKNOWN": 1}), id="behind by more"),
    ],
)
def test_clock_skew_bills_no_row_twice(
    harness: BatchHarness, monkeypatch: pytest.MonkeyPatch, behind: float, outcome: object, fault: str
) -> None:
    with FacekiSandbox(clock=Clock(start=time.time() - behind)) as faceki:
        monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(faceki.connection(**FEW_ATTEMPTS)))
        faceki.add_fault(fault, route="verify", record_identifier="accepted-0")
        done = harness.verify(harness.everybody(*names(2)), assume_new=True)
        assert (done["decisions"], done["errors"]) == outcome
        assert faceki.ledger == once(names(2))


def test_several_tries_may_be_interrupted(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    for number in range(3):
        # The first rows are verified but their results are lost; one more row has an intent but was never sent.
        harness.verify(harness.everybody(*names(3 * number + 2)))
        forget_results(harness)
        begin(harness, names(9)[3 * number + 2])
    done = harness.verify(harness.everybody(*names(9)))
    assert done["decisions"] == {"ACCEPTED": 9}
    assert faceki.ledger == once(names(9))


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "process_then_reset"}, id="answers lost"),
        pytest.param({"kind": "reset_then_process", "delay": 1.5}, id="FACEKI finishes later"),
        pytest.param({"kind": "reset_after_body"}, id="nothing processed"),
        pytest.param({"kind": "status", "status": 502, "processed": True}, id="502 after processing"),
        pytest.param({"kind": "status", "status": 503}, id="503 before processing"),
        pytest.param({"kind": "truncated"}, id="half of an answer"),
    ],
)
def test_lost_answers_are_reconciled_in_the_same_try(
    faceki: FacekiSandbox, harness: BatchHarness, held_delays: HeldDelays, fault: dict[str, Any]
) -> None:
    faceki.add_fault(route="verify", count=12, skip=3, **fault)
    # FACEKI finishes the 12 rows with a fault only after 24 rows have been sent. At this time, the lookups of most of
    # the 12 rows have given up.
    held_delays.end_when(lambda: asked(faceki, "verify") >= 24)
    manifest = harness.everybody(*names(40))
    done = harness.verify(manifest, resubmit_after=4.0, lookup_timeout=0.3, concurrency=4)
    assert done["decisions"] == {"ACCEPTED": 40}
    assert faceki.ledger == once(names(40))
    assert set(harness.results()) == set(names(40))


def test_rows_that_cannot_be_reconciled_are_left_to_the_next_try(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    manifest = harness.everybody(*names(5))
    faceki.add_fault("reset_after_body", route="verify", record_identifier="accepted-3", count=None)
    with pytest.raises(
        api.OutcomeUnknownError, match=r"1 of 5 rows could not be finished .*the next try continues"
    ):
        harness.verify(manifest, lookup_timeout=0.1)
    assert set(harness.results()) == set(names(5)) - {"accepted-3"}
    faceki.clear_faults()
    assert harness.verify(manifest)["decisions"] == {"ACCEPTED": 5}
    assert faceki.ledger == once(names(5))


def test_a_rejected_lookup_leaves_rows_open(
    faceki_sandbox: FacekiSandbox, connect: Connect, harness: BatchHarness
) -> None:
    connect(records_path="/kycverify/api/kycverify/records")
    begin(harness, "a")
    with pytest.raises(api.OutcomeUnknownError, match="1 of 2 rows"):
        harness.verify(harness.everybody("a", "b"), assume_new=True)
    assert harness.errors() == {}
    assert faceki_sandbox.ledger == once("b")
    with pytest.raises(api.OutcomeUnknownError, match="2 of 3 rows"):
        harness.verify(harness.everybody("a", "b", "c"))
    # A row that cannot be looked up is not sent.
    assert faceki_sandbox.ledger == once("b")


def test_faceki_down_ends_the_try_soon(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    faceki.add_fault("status", route="verify", status=429, retry_after=0, count=None)
    manifest = harness.everybody(*names(300))
    with pytest.raises(api.RateLimitError, match="300 of 300 rows are left"):
        harness.verify(manifest, assume_new=True)
    assert asked(faceki, "verify") < 200
    faceki.clear_faults()
    assert harness.verify(manifest, assume_new=True)["decisions"] == {"ACCEPTED": 300}
    # FACEKI reported that it did nothing, so a lookup was not necessary.
    assert asked(faceki, "records") == 0
    assert faceki.ledger == once(names(300))


@pytest.mark.parametrize(
    ("code", "kind"), [pytest.param(5003, "wallet", id="no credit"), pytest.param(8017, "limit", id="limit")]
)
def test_missing_credit_stops_the_batch_and_a_later_try_resumes(
    faceki: FacekiSandbox, harness: BatchHarness, code: int, kind: str
) -> None:
    faceki.add_fault("code", route="verify", code=code, skip=30, count=None)
    manifest = harness.everybody(*names(100))
    with pytest.raises(AirflowFailException, match=f"QuotaError.* 70 of 100 rows are left.*{code}"):
        harness.verify(manifest, concurrency=8, assume_new=True)
    assert asked(faceki, "verify") <= 30 + 8
    assert len(harness.results()) == 30
    faceki.clear_faults()
    began = time.monotonic()
    done = harness.verify(manifest, resubmit_after=60, assume_new=True)
    assert time.monotonic() - began < 60, "it waited for resubmit_after"
    assert done["decisions"] == {"ACCEPTED": 100}
    assert asked(faceki, "records") == 0
    assert faceki.ledger == once(names(100))


def test_a_kill_keeps_finished_rows_and_does_not_wait_for_slow_ones(
    faceki_sandbox: FacekiSandbox, connect: Connect, harness: BatchHarness, held_delays: HeldDelays
) -> None:
    connect(upload_timeout=60, timeout=60)
    faceki_sandbox.add_fault("slow", route="verify", record_identifier="slow", delay=10.0, count=None)
    manifest = harness.everybody(
        *names(30), "slow-1", "slow-2", *(f"later-{number}" for number in range(200))
    )
    operator = harness.batch(manifest, concurrency=4)

    def kill() -> None:
        wait_until(lambda: len(faceki_sandbox.ledger) >= 60)
        operator.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(AirflowException, match="the task was killed"):
        operator.execute(context())
    killer.join()
    # The task did not wait for the slowest responses. Otherwise it would have looked them up again after the timeout.
    assert not {"slow-1", "slow-2"} & set(harness.results())
    polls = [len(faceki_sandbox.polls(record_identifier=name)) for name in ("slow-1", "slow-2")]
    assert polls == [1, 1]
    assert set(harness.results()) == set(faceki_sandbox.ledger)
    assert held_delays.begun == [10.0, 10.0]
    assert faceki_sandbox.counters.in_flight == 2
    faceki_sandbox.clear_faults()
    # FACEKI finishes the slow rows after the next try has looked them up for the first time.
    held_delays.end_after_polls(faceki_sandbox, 4)
    assert sum(harness.verify(manifest, resubmit_after=6.0)["decisions"].values()) == 232
    assert set(faceki_sandbox.ledger.values()) == {1}
    wait_until(lambda: faceki_sandbox.counters.in_flight == 0)


class _TryOnAirflow2(TaskInstance):
    """Task instance of Airflow 2, whose row in the database another process has changed.

    :param stored_try_number: Number of the try in the database.
    """

    def __init__(self, stored_try_number: int) -> None:
        super().__init__()
        self.try_number = 1
        self._stored = stored_try_number

    def refresh_from_db(self) -> None:
        self.try_number = self._stored


@pytest.mark.parametrize(
    ("ti", "error"),
    [
        pytest.param(
            TaskInstance(), AirflowFailException, id="Airflow 3, which ignores the end of an older try"
        ),
        pytest.param(
            _TryOnAirflow2(2), LeaseLostError, id="Airflow 2 and a newer try of the same task instance"
        ),
        pytest.param(_TryOnAirflow2(1), AirflowFailException, id="Airflow 2 and another DAG run"),
    ],
)
def test_two_tries_at_the_same_time(
    faceki: FacekiSandbox, harness: BatchHarness, ti: TaskInstance, error: type[Exception]
) -> None:
    faceki.settings.latency = 0.05
    manifest = harness.everybody(*names(300))
    failures: list[BaseException] = []

    def older() -> None:
        operator: Any = harness.batch(manifest, concurrency=4, resubmit_after=4)
        try:
            # In Airflow 2.11 `execute` has a guard that works only in the thread that imported it, so the guard is
            # bypassed.
            type(operator).execute.__wrapped__(operator, context(ti=ti))
        except error as failure:
            failures.append(failure)

    thread = threading.Thread(target=older)
    thread.start()
    wait_until(lambda: len(faceki.ledger) >= 50)
    done = harness.verify(manifest, concurrency=8, resubmit_after=8)
    thread.join()
    assert ["another try has begun to work on this output_path" in str(failure) for failure in failures] == [
        True
    ]
    assert faceki.ledger == once(names(300))
    assert done["rows"] == 300
    # A set is compared, because results can exist twice with the same content: the older try possibly wrote results
    # after the newer try had read the journal.
    assert {line["record_identifier"] for line in harness.lines("results")} == set(names(300))


def test_a_manifest_that_changes_between_tries(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    harness.verify(
        harness.manifest([harness.line("a"), {}, harness.line("b", selfie=None), harness.line("c")])
    )
    changed = [
        harness.line("new"),
        harness.line("c"),
        harness.line("b", selfie=None),
        {},
        harness.line("d"),
        {},
    ]
    done = harness.verify(harness.manifest(changed))
    assert set(harness.results()) == {"a", "c", "new", "d"}
    assert done["errors"] == {"NO_IDENTIFIER": 3, "INVALID_INPUT": 1}
    assert faceki.ledger == once(["a", "c", "new", "d"])


# Storages that fail


def flaky(harness: BatchHarness, **arguments: Any) -> dict[str, Any]:
    return {"output_path": "flaky://bucket/out", "resubmit_after": 2.0, **arguments}


def test_intermittent_write_failures_are_tolerated(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    store = attached()
    store.fails = intermittent_failures(0.15, 1, ("write", "write done", "list"))
    manifest = harness.everybody(*names(200), names(200)[7])
    done = harness.verify(manifest, **flaky(harness))
    found = [json.loads(line)["record_identifier"] for line in store.texts("results")]
    assert sorted(found) == sorted(names(200))
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 200}, {"DUPLICATE_IDENTIFIER": 1})
    assert faceki.ledger == once(names(200))


def test_a_store_that_is_down_for_results_ends_the_try_and_loses_nothing(
    faceki: FacekiSandbox, harness: BatchHarness
) -> None:
    store = attached()

    def down(operation: str, path: str) -> None:
        if operation == "write" and "/results/" in path:
            raise StoreDown("no")

    store.fails = down
    manifest = harness.everybody(*names(50))
    with pytest.raises(OSError, match="cannot write to 'flaky://bucket/out/results/.*' now: StoreDown"):
        harness.verify(manifest, **flaky(harness))
    assert faceki.ledger == once(names(50))
    store.fails = lambda operation, path: None
    assert harness.verify(manifest, **flaky(harness))["decisions"] == {"ACCEPTED": 50}
    assert faceki.ledger == once(names(50))


def test_no_row_is_sent_without_a_stored_intent(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    store = attached()

    def down(operation: str, path: str) -> None:
        if operation == "write" and "/intents/" in path:
            raise StoreDown("no")

    store.fails = down
    with pytest.raises(OSError, match="StoreDown"):
        harness.verify(harness.everybody(*names(50)), **flaky(harness))
    assert faceki.ledger == {}


def test_images_in_a_store_that_fails_now_and_then(faceki: FacekiSandbox, harness: BatchHarness) -> None:
    store = attached()
    uris = {}
    for name in ("selfie", "document_1_front", "document_1_back"):
        store.pipe_file(f"/bucket/{name}.jpg", image_bytes())
        uris[name] = f"flaky://bucket/{name}.jpg"
    store.fails = intermittent_failures(0.05, 2, ("open",))
    manifest = harness.manifest(harness.line(name, **uris) for name in names(100))
    done = harness.verify(manifest)
    assert (done["decisions"], done["errors"]) == ({"ACCEPTED": 100}, {})
    assert faceki.ledger == once(names(100))
