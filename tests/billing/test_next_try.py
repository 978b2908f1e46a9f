# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The next try after a call that was possibly sent, with and without Airflow's task state store."""

from __future__ import annotations

import errno
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred

from airflow_provider_faceki import api, storage
from airflow_provider_faceki.charged_call import ChargedCallState
from airflow_provider_faceki.hooks import workflow_rules
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.operators import verification as operator
from airflow_provider_faceki.operators.verification import derived_identifier
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW, Workflow
from tests.airflow.fakes import TaskInstance
from tests.billing.conftest import Connect, Verify
from tests.billing.image_files import verification
from tests.billing.tries import FileStateStore, Tries, mark
from tests.sandbox_delays import HeldDelays

WAYS = ["sleeping", "deferred", "deferred, and resumed as if begun anew"]
#: Value of ``resubmit_after`` in seconds that is long enough for FACEKI to finish a verification, even on a slow
#: machine.
LONG = 600.0


@pytest.fixture(autouse=True)
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll every half second instead of every five seconds."""
    monkeypatch.setattr(operator, "MIN_RECONCILE_INTERVAL_SECONDS", 0.5)
    monkeypatch.setattr(operator, "MAX_RECONCILE_INTERVAL_SECONDS", 0.5)


@pytest.fixture(params=WAYS)
def waits(request: pytest.FixtureRequest, verify: Verify) -> Verify:
    """Function like ``verify``. Each test runs once for each way in ``WAYS`` to wait for an earlier call."""

    def task(record_identifier: str, **arguments: Any) -> Tries:
        made = verify(record_identifier, deferrable=request.param != "sleeping", **arguments)
        made.start_moves = request.param.endswith("anew")
        return made

    return task


def lose(task: Tries) -> None:
    """Run a try whose outcome stays unknown."""
    with pytest.raises(api.OutcomeUnknownError):
        task.go()


def test_a_verification_that_finishes_late_is_found(
    sandbox: FacekiSandbox, waits: Verify, held_delays: HeldDelays, request: pytest.FixtureRequest
) -> None:
    # The order is realistic: FACEKI finishes after the first try, while the second try polls.
    sandbox.add_fault("reset_then_process", route="verify")
    task = waits("declined-1", lookup_timeout=0.4, resubmit_after=LONG)
    lose(task)
    assert sandbox.ledger == {}
    held_delays.end_after_polls(sandbox)
    assert task.go()["decision"] == "DECLINED"
    assert sandbox.ledger == {"declined-1": 1}
    assert sandbox.counters.requests["verify"] == 1
    deferred = {deferral.method_name for deferral in task.deferrals}
    assert deferred == (set() if "sleeping" in request.node.name else {"resume_reconciliation"})


def test_what_never_arrived_is_sent_again_after_resubmit_after(sandbox: FacekiSandbox, waits: Verify) -> None:
    sandbox.add_fault("reset_after_body", route="verify")
    task = waits("accepted-1", lookup_timeout=0.2, resubmit_after=1.5)
    lose(task)
    began = time.time()
    assert task.go()["decision"] == "ACCEPTED"
    assert time.time() - began >= 1.5
    assert sandbox.ledger == {"accepted-1": 1}
    assert sandbox.counters.requests["verify"] == 2


def test_a_try_that_was_held_before_its_last_byte(
    sandbox: FacekiSandbox, verify: Verify, held_delays: HeldDelays
) -> None:
    # The simulated try stored its marker an hour ago, was suspended, and sent its last byte just before it died.
    task = verify("accepted-1", resubmit_after=LONG)
    if task.store is not None:
        mark(task.store, time.time() - 3600.0, "accepted-1")
    task.ti.try_number = 1
    sandbox.add_fault("reset_then_process", route="verify")
    with pytest.raises(api.OutcomeUnknownError):
        FacekiHook().call(verification("accepted-1", DEFAULT_WORKFLOW, lookup_timeout=0.0))
    held_delays.end_after_polls(sandbox)
    assert task.go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-1": 1}
    assert sandbox.counters.requests["verify"] == 1


def test_many_lost_tries(sandbox: FacekiSandbox, verify: Verify) -> None:
    sandbox.add_fault("status", route="verify", status=502, count=3)
    sandbox.add_fault("truncated", route="verify")
    task = verify("accepted-1", lookup_timeout=0.1, resubmit_after=0.5)
    for _ in range(3):
        lose(task)
    assert task.go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-1": 1}
    assert sandbox.counters.requests["verify"] == 4


def test_never_resubmit(sandbox: FacekiSandbox, verify: Verify) -> None:
    sandbox.add_fault("reset_after_body", route="verify")
    task = verify("accepted-1", lookup_timeout=0.1, resubmit_after=0.5, resubmit="never")
    lose(task)
    with pytest.raises(AirflowFailException, match="resubmit='never'") as told:
        task.go()
    # A callback that sends alerts can search for this cause.
    assert isinstance(told.value.__cause__, api.OutcomeUnknownError)
    assert sandbox.ledger == {}
    assert sandbox.counters.requests["verify"] == 1


def test_never_resubmit_finds_what_was_made(
    sandbox: FacekiSandbox, verify: Verify, held_delays: HeldDelays
) -> None:
    sandbox.add_fault("reset_then_process", route="verify")
    task = verify("accepted-1", lookup_timeout=0.1, resubmit_after=LONG, resubmit="never")
    lose(task)
    held_delays.end_after_polls(sandbox)
    assert task.go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-1": 1}


@pytest.mark.parametrize("check_rules", [True, False])
def test_without_kept_records_a_missing_record_allows_no_resubmit(
    sandbox: FacekiSandbox, verify: Verify, monkeypatch: pytest.MonkeyPatch, check_rules: bool
) -> None:
    rules = Workflow.rules
    monkeypatch.setattr(Workflow, "rules", lambda self, url: {**rules(self, url), "store_data": False})
    sandbox.add_fault("process_then_reset", route="verify")
    sandbox.add_fault("code", route="records", code=8013, count=None)
    task = verify("accepted-1", lookup_timeout=0.1, resubmit_after=0.5, check_rules=check_rules)
    lose(task)
    if not check_rules:
        # Without the rules, the operator does not know that the workflow stores no records, so it sends a second call.
        assert task.go()["decision"] == "ACCEPTED"
        assert sandbox.ledger == {"accepted-1": 2}
        return
    with pytest.raises(AirflowFailException, match="stores no records .* resubmit='always'") as told:
        task.go()
    assert isinstance(told.value.__cause__, api.OutcomeUnknownError)
    assert sandbox.ledger == {"accepted-1": 1}


@pytest.mark.parametrize("deferrable", [False, True])
def test_without_rules_a_possibly_sent_call_is_not_repeated(
    sandbox: FacekiSandbox, verify: Verify, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    rules = Workflow.rules
    monkeypatch.setattr(Workflow, "rules", lambda self, url: {**rules(self, url), "store_data": False})
    sandbox.add_fault("process_then_reset", route="verify")
    sandbox.add_fault("code", route="records", code=8013, count=None)
    task = verify("accepted-1", lookup_timeout=0.1, resubmit_after=0.5, deferrable=deferrable)
    lose(task)
    # The next try is in another process, which has not read the rules.
    monkeypatch.setattr(workflow_rules, "_cache", {})
    sandbox.add_fault("status", route="rules", status=503, count=None)
    with pytest.raises(api.ServiceError):
        task.go()
    assert sandbox.ledger == {"accepted-1": 1}
    sandbox.clear_faults()
    sandbox.add_fault("code", route="records", code=8013, count=None)
    monkeypatch.setattr(workflow_rules, "_cache", {})
    with pytest.raises(AirflowFailException, match="stores no records"):
        task.go()
    assert sandbox.ledger == {"accepted-1": 1}


def test_where_there_are_no_rules_records_count_as_kept(
    sandbox: FacekiSandbox, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow_rules, "_cache", {})
    sandbox.add_fault("status", route="rules", status=404, count=None)
    sandbox.add_fault("reset_after_body", route="verify")
    task = verify("accepted-1", lookup_timeout=0.1, resubmit_after=0.5)
    lose(task)
    assert task.go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-1": 1}


def test_without_kept_records_the_response_is_stored(
    sandbox: FacekiSandbox, verify: Verify, monkeypatch: pytest.MonkeyPatch, store: FileStateStore | None
) -> None:
    rules = Workflow.rules
    monkeypatch.setattr(Workflow, "rules", lambda self, url: {**rules(self, url), "store_data": False})
    sandbox.add_fault("code", route="records", code=8013, count=None)
    task = verify("declined-1", resubmit_after=0.5)
    assert task.go()["decision"] == "DECLINED"
    if store is not None:
        assert task.go()["decision"] == "DECLINED"
    else:
        with pytest.raises(AirflowFailException, match="stores no records"):
            task.go()
    assert sandbox.ledger == {"declined-1": 1}


def test_always_resubmit(sandbox: FacekiSandbox, verify: Verify) -> None:
    sandbox.add_fault("process_then_reset", route="verify", skip=1)
    task = verify("accepted-1", resubmit="always")
    first, second = task.go(), task.go()
    # The second response was lost. The lookup must find the second verification, and not the first.
    assert first["request_id"] != second["request_id"]
    assert sandbox.ledger == {"accepted-1": 2}


def test_an_existing_record_is_the_result_without_a_charge(sandbox: FacekiSandbox, verify: Verify) -> None:
    made = sandbox.add_record("accepted-1", "DECLINED")
    summary = verify("accepted-1").go()
    assert (summary["request_id"], summary["decision"]) == (made["requestId"], "DECLINED")
    assert sandbox.bills == ()
    assert "verify" not in sandbox.counters.requests


def test_a_finished_task_that_is_run_again_returns_what_it_has(
    sandbox: FacekiSandbox, verify: Verify
) -> None:
    task = verify("code-8009-x")
    first, second = task.go(), task.go()
    alike = ("request_id", "decision", "record_identifier", "retake_selfie", "error_codes")
    assert [first[key] for key in alike] == [second[key] for key in alike]
    assert sandbox.ledger == {"code-8009-x": 1}


def test_a_later_try_needs_no_images_of_a_processed_call(
    sandbox: FacekiSandbox, verify: Verify, held_delays: HeldDelays, images: dict[str, Any]
) -> None:
    sandbox.add_fault("reset_then_process", route="verify")
    task = verify("accepted-1", lookup_timeout=0.1, resubmit_after=LONG)
    lose(task)
    held_delays.end_after_polls(sandbox)
    Path(images["selfie"].removeprefix("file://")).unlink()
    assert task.go()["decision"] == "ACCEPTED"


def no_space_left(*_: object) -> str:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_result_that_could_not_be_written_is_not_paid_for_again(
    sandbox: FacekiSandbox, verify: Verify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This is a rejection without an id in FACEKI's response, and FACEKI stores no record of it.
    sandbox.settings.rejection_result = "missing"
    sandbox.add_fault("code", route="records", code=8013, count=None)
    task = verify("code-5004-x", output_path=str(tmp_path / "record.json"), resubmit_after=0.5)
    with monkeypatch.context() as full:
        full.setattr(storage, "write_json", no_space_left)
        with pytest.raises(OSError, match="No space left"):
            task.go()
    summary = task.go() if task.store is not None else None
    if summary is not None:
        assert summary["decision"] == "DECLINED"
        assert summary["error_codes"] == [{"code": 5004, "name": "SELFIE_LIVENESS_FAILED"}]
        assert summary["retake_selfie"] is True
    assert sandbox.ledger == {"code-5004-x": 1}


def test_polls_that_fail_while_it_reconciles_are_tolerated(
    sandbox: FacekiSandbox, verify: Verify, held_delays: HeldDelays
) -> None:
    sandbox.add_fault("reset_then_process", route="verify")
    task = verify("accepted-1", lookup_timeout=0.1, resubmit_after=LONG)
    lose(task)
    # The next try looks for the record and finds nothing. Then its first poll fails: one request and its repetition.
    sandbox.add_fault("status", route="records", status=502, skip=1, count=2)
    held_delays.end_after_polls(sandbox, 4)
    assert task.go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-1": 1}


def test_nothing_is_sent_while_faceki_cannot_be_asked(
    sandbox: FacekiSandbox, verify: Verify, store: FileStateStore | None
) -> None:
    sandbox.add_fault("status", route="records", status=503, count=None)
    for _ in range(2):
        with pytest.raises(api.ServiceError):
            verify("accepted-1").go()
    assert "verify" not in sandbox.counters.requests


def test_nothing_is_sent_with_a_wrong_records_path(
    sandbox: FacekiSandbox, verify: Verify, connect: Connect
) -> None:
    connect(sandbox, records_path="/api/v3/records")
    with pytest.raises(AirflowFailException, match="AuthenticationError"):
        verify("accepted-1").go()
    assert "verify" not in sandbox.counters.requests


def test_a_record_without_a_decision_is_waited_for(sandbox: FacekiSandbox, waits: Verify) -> None:
    sandbox.add_fault("reset_after_body", route="verify")
    task = waits("accepted-1", lookup_timeout=0.1, resubmit_after=1.5)
    lose(task)
    sandbox.add_record("accepted-1", "ACCEPTED", fields={"decision": ""})
    began = time.time()
    # The record belongs to this task, so nothing is sent again. But FACEKI gets time to make the decision.
    assert task.go()["decision"] is None
    assert time.time() - began >= 1.0
    assert sandbox.counters.requests["verify"] == 1


def test_a_killed_first_try_that_sent_nothing_costs_time_only(
    sandbox: FacekiSandbox, verify: Verify, store: FileStateStore | None
) -> None:
    sandbox.add_fault("status", route="token", status=503, count=2)
    # With a store, the operator knows that nothing was sent. Without a store, a later try must assume that the
    # verification was sent, so it waits.
    resubmit_after = 1.0 if store is None else 120.0
    task = verify("accepted-1", resubmit_after=resubmit_after)
    with pytest.raises(api.ServiceError):
        task.go()
    began = time.time()
    assert task.go()["decision"] == "ACCEPTED"
    assert (time.time() - began >= resubmit_after) is (store is None)
    assert sandbox.ledger == {"accepted-1": 1}


AHEAD, BEHIND = 3600.0, -1.0


@pytest.mark.parametrize(
    ("until", "event", "waits_on"),
    [
        pytest.param(BEHIND, None, False, id="over"),
        pytest.param(AHEAD, {"status": "timeout"}, True, id="not over, whatever the event says"),
        pytest.param(None, {"status": "timeout"}, False, id="lost, but the trigger waited it out"),
        pytest.param(None, None, True, id="lost"),
        pytest.param(float("nan"), None, True, id="no number"),
        pytest.param(float("-inf"), None, True, id="since ever"),
        pytest.param("0", None, True, id="a text"),
        pytest.param(True, None, True, id="true"),
        pytest.param([0], None, True, id="a list"),
    ],
)
def test_the_resubmit_time_passed_by_a_deferral_is_validated(
    sandbox: FacekiSandbox, verify: Verify, until: Any, event: Any, waits_on: bool
) -> None:
    task = verify("accepted-1", resubmit_after=60.0, deferrable=True)
    now, task.ti.try_number = time.time(), 2
    context: Any = {"ti": task.ti, "params": {}}
    if task.store is not None:
        mark(task.store, now - 60.0, "accepted-1")
        context["task_state_store"] = task.store
    if isinstance(until, float):
        until += now
    if not waits_on:
        assert task.make().resume_reconciliation(context, event, until)["decision"] == "ACCEPTED"
        return
    with pytest.raises(TaskDeferred) as deferred:
        task.make().resume_reconciliation(context, event, until)
    # ``resubmit_at`` is never later than the time that the task itself would compute.
    assert now < (deferred.value.kwargs or {})["resubmit_at"] < now + 70.0
    assert "verify" not in sandbox.counters.requests


@pytest.mark.parametrize(
    ("fault", "requests"), [("reset_then_process", 2), ("reset_after_body", 3)], ids=["arrived", "lost"]
)
def test_a_cleared_try_that_starts_as_a_resumption_charges_once(
    sandbox: FacekiSandbox, verify: Verify, held_delays: HeldDelays, fault: str, requests: int
) -> None:
    sandbox.add_fault("reset_after_body", route="verify")
    task = verify("accepted-1", lookup_timeout=0.1, resubmit_after=2.5, deferrable=True)
    lose(task)
    # The second try waits, resumes and sends. Then a user clears the task. Airflow begins the third try with the method
    # and the arguments with which the second try resumed.
    sandbox.add_fault(fault, route="verify")
    lose(task)
    if requests == 2:
        task.make = verify("accepted-1", lookup_timeout=0.1, resubmit_after=LONG, deferrable=True).make
        held_delays.end_after_polls(sandbox)
    began = time.time()
    assert task.run_after_clear()["decision"] == "ACCEPTED"
    assert requests == 2 or time.time() - began >= 2.5
    assert sandbox.ledger == {"accepted-1": 1}
    assert sandbox.counters.requests["verify"] == requests


def test_a_resumption_that_is_executed_twice(
    sandbox: FacekiSandbox, verify: Verify, held_delays: HeldDelays, store: FileStateStore | None
) -> None:
    sandbox.add_fault("reset_after_body", route="verify")
    task = verify("accepted-1", lookup_timeout=0.1, resubmit_after=2.0, deferrable=True)
    lose(task)
    sandbox.add_fault("reset_then_process", route="verify")
    lose(task)
    if store is not None:
        task.make = verify("accepted-1", lookup_timeout=0.1, resubmit_after=LONG, deferrable=True).make
        held_delays.end_after_polls(sandbox)
    assert task.resume_twice()["decision"] == "ACCEPTED"
    # Before Airflow 3.3, nothing shows that the first execution has sent the verification, so the second execution
    # sends it again.
    assert sandbox.counters.requests["verify"] == (3 if store is None else 2)


def test_own_identifier() -> None:
    first = TaskInstance(dag_id="d", task_id="t", run_id="r", map_index=3)
    again = TaskInstance(dag_id="d", task_id="t", run_id="r", map_index=3, try_number=7)
    others = [
        TaskInstance(dag_id="d2", task_id="t", run_id="r", map_index=3),
        TaskInstance(dag_id="d", task_id="t2", run_id="r", map_index=3),
        TaskInstance(dag_id="d", task_id="t", run_id="r2", map_index=3),
        TaskInstance(dag_id="d", task_id="t", run_id="r", map_index=4),
        TaskInstance(dag_id="d", task_id="tr", run_id="", map_index=3),
    ]
    assert derived_identifier(first) == derived_identifier(again)
    assert len({derived_identifier(each) for each in [first, *others]}) == 6
    assert derived_identifier(first).isascii()


def test_own_identifier_is_sent(sandbox: FacekiSandbox, verify: Verify) -> None:
    sandbox.add_fault("process_then_reset", route="verify")
    sandbox.add_fault("status", route="records", status=502, skip=1, count=2)
    task = verify(None, lookup_timeout=0.0, resubmit_after=2.0)
    lose(task)
    summary = task.go()
    assert summary["record_identifier"] == derived_identifier(task.ti)
    assert sandbox.ledger == {derived_identifier(task.ti): 1}


MARKED = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("started_after", "resubmit_allowed_after"),
    [
        pytest.param(10, 160, id="killed and tried again at once: the last byte may have left just before"),
        pytest.param(3600, 3750, id="tried again much later: nothing says how long the last one was held"),
        pytest.param(-5, 150, id="clocks that differ"),
    ],
)
def test_resubmit_at_is_computed_from_the_mark_and_the_start(
    tmp_path: Path, started_after: int, resubmit_allowed_after: int
) -> None:
    store = FileStateStore(tmp_path / "store.json")
    mark(store, MARKED.timestamp(), "mine")
    ti = TaskInstance(try_number=2, start_date=MARKED + timedelta(seconds=started_after))
    context: Any = {"ti": ti, "task_state_store": store}
    assert ti.start_date is not None
    resubmit_at = ChargedCallState(context, "mine").resubmit_at(150.0, ti.start_date.timestamp())
    assert resubmit_at == MARKED.timestamp() + resubmit_allowed_after


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"faceki_submitting_since": "soon", "faceki_outcome": [1]}, id="something else"),
        pytest.param({"faceki_submitting_since": {"at": "soon"}, "faceki_outcome": {}}, id="words"),
    ],
)
def test_invalid_state_store_values_are_ignored(tmp_path: Path, kept: dict[str, object]) -> None:
    (tmp_path / "store.json").write_text(json.dumps(kept))
    context: Any = {
        "ti": TaskInstance(try_number=2),
        "task_state_store": FileStateStore(tmp_path / "store.json"),
    }
    state = ChargedCallState(context)
    assert state.resubmit_at(150.0, time.time()) is None
    assert state.load() is None


def test_nothing_is_sent_if_the_intent_cannot_be_stored(
    sandbox: FacekiSandbox, verify: Verify, tmp_path: Path
) -> None:
    class Full(FileStateStore):
        def set(self, key: str, value: object) -> None:
            raise AirflowException("the store is full")

    task = verify("accepted-1")
    task.store = Full(tmp_path / "full.json")
    with pytest.raises(AirflowException, match="the store is full"):
        task.go()
    assert "verify" not in sandbox.counters.requests
