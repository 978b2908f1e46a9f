# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Deferred sensor: what it passes to the triggerer, and how it reacts to the returned event."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_faceki import api
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from airflow_provider_faceki.task_mixin import DEFERRAL_SLACK_SECONDS
from airflow_provider_faceki.triggers.faceki import DecisionEvent
from tests.airflow.conftest import Connect
from tests.airflow.fakes import TaskInstance, context
from tests.airflow.running import AIRFLOW_3

EVENTS = [
    pytest.param({"status": "decided", "request_id": "some-id"}, id="decided"),
    pytest.param({"status": "timeout", "request_id": None}, id="timeout"),
    pytest.param({"status": "failed", "request_id": None}, id="failed"),
    pytest.param({"status": "refused", "request_id": None}, id="refused"),
    pytest.param(None, id="nothing"),
    pytest.param("decided", id="a text"),
    pytest.param(["decided"], id="a list"),
    pytest.param({}, id="an empty object"),
    pytest.param({"status": "DECIDED"}, id="an unknown status"),
    pytest.param({"status": ["decided"]}, id="a status that cannot be hashed"),
    pytest.param({"v": 2, "outcome": {"status": "decided"}}, id="of another version"),
]
UNREADABLE = EVENTS[4:]


def sensor(**given: Any) -> Any:
    given = {"record_identifier": "customer-1", "deferrable": True, "timeout": 100, **given}
    return FacekiKycDecisionSensor(task_id="wait", **given)


def deferred(what: Any, *arguments: Any, **more: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as raised:
        what(*arguments, **more)
    return raised.value


def test_the_trigger_gets_the_arguments_of_the_sensor(faceki_sandbox: FacekiSandbox) -> None:
    before = time.time()
    given = {
        "wait_for_review": False,
        "max_failures": 3,
        "poke_interval": 7,
        "max_wait": 70,
        "exponential_backoff": True,
    }
    told = deferred(sensor(**given).execute, context())
    path, arguments = told.trigger.serialize()
    deadline = arguments.pop("deadline")
    assert before + 100 <= deadline <= time.time() + 100
    assert arguments == {
        "faceki_conn_id": "faceki_default",
        "link": None,
        "request_id": None,
        "record_identifier": "customer-1",
        "wait_for_review": False,
        "poke_interval": 7,
        "max_wait": 70,
        "exponential_backoff": True,
        "max_failures": 3,
        "failed_polls": 0,
    }
    assert path == "airflow_provider_faceki.triggers.faceki.FacekiKycDecisionTrigger"
    assert (told.method_name, told.kwargs) == (
        "execute_complete",
        {"deadline": deadline, "parameter": "timeout", "try_number": 1},
    )
    # Airflow's own timeout is only the fallback if the triggerer no longer runs.
    assert told.timeout is not None
    assert told.timeout.total_seconds() == pytest.approx(100 + DEFERRAL_SLACK_SECONDS, abs=30)


def test_an_existing_decision_is_returned_without_deferring(faceki_sandbox: FacekiSandbox) -> None:
    faceki_sandbox.add_record("customer-1")
    assert sensor().execute(context())["decision"] == "ACCEPTED"


def test_the_failed_polls_are_passed_to_the_trigger(faceki_sandbox: FacekiSandbox, connect: Connect) -> None:
    connect(faceki_sandbox)
    faceki_sandbox.add_fault("status", status=503, route="records")
    assert deferred(sensor().execute, context()).trigger.serialize()[1]["failed_polls"] == 1


@pytest.mark.parametrize("event", EVENTS)
def test_a_decision_is_found_with_any_event(faceki_sandbox: FacekiSandbox, event: object) -> None:
    record = faceki_sandbox.add_record("customer-1", "DECLINED")
    summary = sensor().execute_complete(context(), event, deadline=0.0)
    assert (summary["decision"], summary["request_id"]) == ("DECLINED", record["requestId"])


@pytest.mark.parametrize("event", [*UNREADABLE, EVENTS[0]])
def test_without_a_decision_the_wait_goes_on_to_the_same_deadline(
    faceki_sandbox: FacekiSandbox, event: object
) -> None:
    deadline = time.time() + 50
    again = deferred(sensor().execute_complete, context(), event, deadline=deadline)
    assert again.trigger.serialize()[1]["deadline"] == deadline
    assert again.kwargs == {"deadline": deadline, "parameter": "timeout", "try_number": 1}


def test_a_later_try_waits_anew(faceki_sandbox: FacekiSandbox) -> None:
    # If a resumed task is cleared while it runs, Airflow 3 gives its next try the event, the arguments and the start
    # time of the earlier try. The next try must ignore this old deadline.
    ti = TaskInstance(try_number=2, start_date=datetime.now(UTC) - timedelta(hours=1))
    old = {"deadline": time.time() - 1, "parameter": "timeout", "try_number": 1}
    waiting = sensor(execution_timeout=timedelta(seconds=60))
    again = deferred(waiting.execute_complete, context(ti=ti), {"status": "timeout"}, **old)
    assert again.trigger.serialize()[1]["deadline"] == pytest.approx(time.time() + 60, abs=15)
    assert (again.kwargs or {})["try_number"] == 2


@pytest.mark.parametrize("event", EVENTS)
def test_without_a_decision_the_wait_ends_at_the_deadline(
    faceki_sandbox: FacekiSandbox, event: object
) -> None:
    with pytest.raises(AirflowSensorTimeout, match="not decided within timeout=1 minute 40 seconds"):
        sensor().execute_complete(context(), event, deadline=time.time() - 1)


def test_a_timeout_error_names_the_failure_of_the_last_poll(
    faceki_sandbox: FacekiSandbox, connect: Connect
) -> None:
    connect(faceki_sandbox)
    faceki_sandbox.add_fault("status", status=503, route="records", count=None)
    with pytest.raises(AirflowSensorTimeout, match=r"within timeout=.*; the last poll failed: .*HTTP 503"):
        sensor().execute_complete(context(), {"status": "timeout"}, deadline=time.time() - 1)


@pytest.mark.parametrize("lost", [pytest.param(None, id="lost"), pytest.param("soon", id="unreadable")])
def test_a_timeout_event_counts_without_a_deadline(faceki_sandbox: FacekiSandbox, lost: object) -> None:
    # dag.test() passes only the event, without the deadline. In Airflow 3.0 to 3.2 the deadline cannot be computed
    # again either, because each deferral changes the start time of the task. So a timeout event alone must end the
    # wait.
    with pytest.raises(AirflowSensorTimeout):
        sensor().execute_complete(context(), {"status": "timeout"}, deadline=lost)
    again = deferred(sensor().execute_complete, context(), None, deadline=lost)
    assert again.trigger.serialize()[1]["deadline"] > time.time() + 90


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        pytest.param("refused", api.ConfigurationError, "same connection 'faceki_default'", id="may not"),
        pytest.param(
            "failed", api.TransportError, "triggerer's log .*'faceki_default'", id="does not succeed"
        ),
    ],
)
def test_after_a_failed_trigger_the_sensor_does_not_defer_again(
    faceki_sandbox: FacekiSandbox, status: str, error: type[Exception], told: str
) -> None:
    # The worker can poll FACEKI but the triggerer cannot, so a further deferral would end at once in the same way, in
    # an endless loop.
    with pytest.raises(error, match=told):
        sensor().execute_complete(context(), {"status": status}, deadline=time.time() + 50)


@pytest.mark.parametrize("status", ["failed", "refused"])
def test_the_error_that_ended_the_trigger_is_raised_by_the_worker(
    faceki_sandbox: FacekiSandbox, connect: Connect, status: str
) -> None:
    connect(faceki_sandbox)
    faceki_sandbox.add_fault("status", status=503, route="records")
    with pytest.raises(api.ServiceError, match="'faceki_default'"):
        sensor().execute_complete(context(), {"status": status}, deadline=time.time() + 50)


def test_the_event_is_small_and_has_only_the_needed_fields() -> None:
    told = DecisionEvent("decided", "9d0f")._asdict()
    assert json.loads(json.dumps(told)) == {"status": "decided", "request_id": "9d0f"}
    assert DecisionEvent.from_payload(told) == DecisionEvent("decided", "9d0f")
    assert DecisionEvent.from_payload({"status": "decided", "request_id": 7}) == DecisionEvent("decided")


@pytest.mark.parametrize("event", UNREADABLE)
def test_an_invalid_event_is_unreadable(event: object) -> None:
    assert DecisionEvent.from_payload(event) == DecisionEvent("unreadable")


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_the_first_poll_skips_as_in_poke_mode(faceki_sandbox: FacekiSandbox, flag: str) -> None:
    given: dict[str, Any] = {flag: True}
    link = faceki_sandbox.create_link()
    faceki_sandbox.end_link(link, "expired")
    with pytest.raises(AirflowSkipException):
        sensor(link=link, record_identifier=None, **given).execute(context())


def raise_task_timeout(*_: object) -> None:
    raise AirflowTaskTimeout("execution_timeout")


POLLS = [
    pytest.param(False, "execute", id="on the worker"),
    pytest.param(True, "execute", id="before deferring"),
    pytest.param(True, "resume", id="when resumed"),
]


@pytest.mark.parametrize(("deferrable", "step"), POLLS)
def test_execution_timeout_during_a_poll(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, deferrable: bool, step: str
) -> None:
    monkeypatch.setattr(FacekiKycDecisionSensor, "_poll", raise_task_timeout)

    def poll(made: Any) -> None:
        if step == "execute":
            made.execute(context())
        else:
            made.resume_execution("execute_complete", {"event": None, "deadline": time.time() + 9}, context())

    with pytest.raises(AirflowTaskTimeout):
        poll(sensor(deferrable=deferrable))
    for given in ({"soft_fail": True}, {"never_fail": True}):
        with pytest.raises(AirflowSkipException):
            poll(sensor(deferrable=deferrable, **given))


@pytest.mark.parametrize("status", ["failed", "refused"])
def test_only_never_fail_skips_an_error_of_the_triggerer(faceki_sandbox: FacekiSandbox, status: str) -> None:
    # A retry can resolve this failure, so soft_fail does not skip it. In poke mode, the sensor does the same.
    how = ("execute_complete", {"event": {"status": status}, "deadline": time.time() + 50})
    with pytest.raises(api.FacekiError, match="triggerer"):
        sensor(soft_fail=True).resume_execution(*how, context())
    with pytest.raises(AirflowSkipException):
        sensor(never_fail=True).resume_execution(*how, context())


def test_soft_fail_skips_after_a_trigger_failure(
    faceki_sandbox: FacekiSandbox,
) -> None:
    how = ("__fail__", {"error": "Trigger failure"})
    with pytest.raises(Exception, match="Trigger failure"):
        sensor().resume_execution(*how, context())
    with pytest.raises(AirflowSkipException):
        sensor(soft_fail=True).resume_execution(*how, context())


@pytest.mark.parametrize("flag", ["soft_fail", "never_fail"])
def test_a_trigger_timeout_of_airflow_is_a_sensor_timeout(faceki_sandbox: FacekiSandbox, flag: str) -> None:
    given: dict[str, Any] = {flag: True}
    # This is the error text of Airflow's own timeout. Airflow 2.11 uses the same text for this timeout and for
    # execution_timeout, so they cannot be distinguished there.
    how = ("__fail__", {"error": "Trigger timeout" if AIRFLOW_3 else "Trigger/execution timeout"})
    with pytest.raises(AirflowSensorTimeout if AIRFLOW_3 else AirflowException):
        sensor().resume_execution(*how, context())
    with pytest.raises(AirflowSkipException):
        sensor(**given).resume_execution(*how, context())


@pytest.mark.parametrize("deferrable", [True, False])
def test_never_fail_skips_on_a_transient_error(
    faceki_sandbox: FacekiSandbox, connect: Connect, deferrable: bool
) -> None:
    connect(faceki_sandbox)
    faceki_sandbox.add_fault("status", status=503, route="records")
    with pytest.raises(AirflowSkipException):
        sensor(never_fail=True, max_failures=0, deferrable=deferrable).execute(context())


def test_silent_fail_tolerates_every_failure(faceki_sandbox: FacekiSandbox, connect: Connect) -> None:
    connect(faceki_sandbox)
    faceki_sandbox.add_fault("status", status=503, route="records", count=2)
    silent = sensor(silent_fail=True, max_failures=0)
    deferred(silent.execute, context())
    told = deferred(silent.execute_complete, context(), {"status": "failed"}, deadline=time.time() + 50)
    # The new trigger must practically never give up. Otherwise the sensor would create a further trigger at once, in an
    # endless loop.
    assert told.trigger.serialize()[1]["max_failures"] >= 10**6


def test_silent_fail_keeps_waiting_if_the_worker_fails_as_well(
    faceki_sandbox: FacekiSandbox, connect: Connect
) -> None:
    connect(faceki_sandbox)
    faceki_sandbox.add_fault("status", status=503, route="records")
    silent, deadline = sensor(silent_fail=True), time.time() + 50
    deferred(silent.execute_complete, context(), {"status": "refused"}, deadline=deadline)
    # At this second event, the worker can poll FACEKI. So only the triggerer has an error, and the sensor raises it.
    with pytest.raises(api.ConfigurationError, match="this worker can"):
        silent.execute_complete(context(), {"status": "refused"}, deadline=deadline)


def test_timeout_as_a_time_span(faceki_sandbox: FacekiSandbox) -> None:
    told = deferred(sensor(timeout=timedelta(days=3)).execute, context())
    left = told.trigger.serialize()[1]["deadline"] - time.time()
    assert left == pytest.approx(3 * 24 * 3600, abs=60)
