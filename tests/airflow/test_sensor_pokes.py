# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""One poll of the sensor: results, tolerated failures, refusals; and which arguments are refused at DAG parse time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    BaseSensorOperator,
    TaskDeferred,
)

from airflow_provider_faceki import api
from airflow_provider_faceki.sandbox import FacekiSandbox, faults
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from airflow_provider_faceki.triggers.poll_log import NO_RECORD_WARNING_SECONDS
from tests.airflow.conftest import Connect
from tests.airflow.fakes import Recorder, StateStore, TaskInstance, context


def sensor(**given: Any) -> Any:
    given = {"record_identifier": "customer-1", **given}
    return FacekiKycDecisionSensor(task_id="wait", **given)


@pytest.mark.parametrize("shape", ["empty", "8013", "404"])
@pytest.mark.parametrize("by", ["link", "request_id", "record_identifier"])
def test_not_found_is_not_yet(faceki_sandbox: FacekiSandbox, shape: str, by: str) -> None:
    faceki_sandbox.settings.not_found = shape
    wanted = {"record_identifier": None, by: faceki_sandbox.create_link() if by == "link" else "nobody"}
    found = sensor(**wanted).poke(context())
    assert (bool(found), found.xcom_value) == (False, None)


@pytest.mark.parametrize(
    ("decision", "wait_for_review", "ends"),
    [
        pytest.param("ACCEPTED", True, True, id="accepted"),
        pytest.param("DECLINED", True, True, id="declined"),
        pytest.param("REVIEW", True, False, id="review is waited for"),
        pytest.param("REVIEW", False, True, id="review is an answer"),
        pytest.param("ESCALATED", True, True, id="a word that nobody has documented"),
        pytest.param("", False, False, id="no decision yet"),
    ],
)
def test_which_decisions_end_the_wait(
    faceki_sandbox: FacekiSandbox, decision: str, wait_for_review: bool, ends: bool
) -> None:
    faceki_sandbox.add_record("customer-1", "ACCEPTED", fields={"decision": decision})
    found = sensor(wait_for_review=wait_for_review).poke(context())
    assert bool(found) is ends
    assert (found.xcom_value or {"decision": None})["decision"] == (decision if ends else None)


def test_newest_record_counts(faceki_sandbox: FacekiSandbox) -> None:
    faceki_sandbox.add_record("customer-1", "DECLINED")
    faceki_sandbox.add_record("customer-1", "REVIEW")
    assert not sensor(fail_on_decline=True).poke(context())


def test_a_gateway_refusal_is_tolerated_but_a_refusal_of_faceki_is_not(
    faceki_sandbox: FacekiSandbox, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(faceki_sandbox)
    monkeypatch.setitem(faults.GATEWAY_TITLES, 403, "a page of its own")
    faceki_sandbox.add_fault("status", status=403, route="records", count=None)
    waiting = sensor(max_failures=1)
    assert not waiting.poke(context())
    with pytest.raises(api.AuthenticationError):
        waiting.poke(context())
    faceki_sandbox.clear_faults()
    faceki_sandbox.add_fault("status", status=400, route="records")
    with pytest.raises(AirflowFailException, match="InvalidRequestError"):
        waiting.poke(context())


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param("unknown", 8014, id="unknown link"),
        pytest.param("expired", 8015, id="expired link"),
        pytest.param("used_up", 5009, id="used-up link"),
    ],
)
def test_a_dead_link_fails_at_once(faceki_sandbox: FacekiSandbox, end: str, code: int) -> None:
    link = faceki_sandbox.create_link()
    if end == "unknown":
        link = "0b5cde5e-3a52-4e8c-9f0f-6a0c1d2e3f40"
    else:
        faceki_sandbox.end_link(link, end)
    with pytest.raises(AirflowFailException, match=f"LinkError: .*'faceki_default'.*{code}") as raised:
        sensor(record_identifier=None, link=link).poke(context())
    assert link not in str(raised.value)
    cause = raised.value.__cause__
    assert isinstance(cause, api.LinkError)
    assert cause.code == code


def _fail(sandbox: FacekiSandbox, times: int) -> None:
    sandbox.add_fault("status", status=503, route="records", count=times)


def test_max_failures_counts_consecutive_failures(faceki_sandbox: FacekiSandbox, connect: Connect) -> None:
    connect(faceki_sandbox)
    waiting = sensor(max_failures=2)
    for _ in range(2):
        _fail(faceki_sandbox, 2)
        assert [bool(waiting.poke(context())) for _ in range(3)] == [False] * 3
    _fail(faceki_sandbox, 3)
    assert [bool(waiting.poke(context())) for _ in range(2)] == [False] * 2
    with pytest.raises(api.ServiceError, match="'faceki_default'.*503"):
        waiting.poke(context())
    assert faceki_sandbox.counters.faults_fired == 7


def test_the_failure_count_survives_a_reschedule_with_a_state_store(
    faceki_sandbox: FacekiSandbox, connect: Connect
) -> None:
    connect(faceki_sandbox)
    _fail(faceki_sandbox, 6)
    seen = context(task_state_store=StateStore())

    def poll() -> bool:
        # A rescheduled sensor is a new object in a new process for each poke.
        return bool(sensor(max_failures=2, mode="reschedule").poke(seen))

    assert [poll(), poll()] == [False, False]
    with pytest.raises(api.ServiceError):
        poll()
    # The task's next try starts with a count of zero, although the stored state outlives a try.
    assert [poll(), poll()] == [False, False]
    with pytest.raises(api.ServiceError):
        poll()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "status", "status": 429, "retry_after": 0}, id="throttled"),
        pytest.param({"kind": "status", "status": 502}, id="gateway"),
        pytest.param({"kind": "truncated"}, id="half an answer"),
        pytest.param({"kind": "reset"}, id="reset"),
        pytest.param({"kind": "reset_after_body"}, id="reset after the request"),
        pytest.param({"kind": "code", "code": 500}, id="FACEKI's own failure with HTTP 200"),
        pytest.param({"kind": "code", "code": 77777}, id="a code that nobody has explained"),
        pytest.param({"kind": "redirect"}, id="a redirect"),
    ],
)
def test_transient_errors_are_tolerated(
    faceki_sandbox: FacekiSandbox, connect: Connect, fault: dict[str, Any]
) -> None:
    connect(faceki_sandbox)
    faceki_sandbox.add_record("customer-1")
    faceki_sandbox.add_fault(**fault, route="records")
    waiting = sensor(max_failures=1)
    assert [bool(waiting.poke(context())) for _ in range(2)] == [False, True]
    assert faceki_sandbox.counters.faults_fired == 1


@pytest.mark.parametrize(
    ("given", "error"),
    [
        pytest.param({"fields": {"password": "not-the-secret"}}, "AuthenticationError", id="wrong secret"),
        pytest.param({"fields": {"password": ""}}, "ConfigurationError", id="no secret"),
        pytest.param({"timeout": "soon"}, "ConfigurationError", id="a wrong setting"),
        pytest.param({"fields": {"host": "http://faceki.example"}}, "ConfigurationError", id="plain http"),
    ],
)
def test_a_permanent_error_fails_at_once(
    faceki_sandbox: FacekiSandbox, connect: Connect, given: dict[str, Any], error: str
) -> None:
    conn_id = connect(faceki_sandbox, "faceki_wrong", **given)
    with pytest.raises(AirflowFailException, match=f"{error}: (.|\n)*'faceki_wrong'"):
        sensor(faceki_conn_id=conn_id).poke(context())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        pytest.param({"wait_for_review": "no"}, "wait_for_review must be True or False", id="review"),
        pytest.param({"max_failures": -1}, "max_failures must be a number of at least 0", id="below zero"),
        pytest.param({"max_failures": "10"}, "max_failures must be a number", id="a text"),
        pytest.param({"max_wait": float("nan")}, "max_wait", id="not a number"),
        pytest.param({"max_failures": True}, "max_failures must be a number", id="a boolean"),
    ],
)
def test_invalid_sensor_arguments_are_rejected_while_parsing(wrong: dict[str, Any], told: str) -> None:
    # Airflow 2.11 refuses wrong values of its own parameters with its own exception.
    with pytest.raises((ValueError, AirflowException), match=told):
        sensor(**wrong)


def test_pauses_may_be_given_as_time_spans() -> None:
    waiting = sensor(poke_interval=timedelta(minutes=1), max_wait=timedelta(hours=1))
    assert (waiting.poke_interval, waiting.max_wait) == (60.0, timedelta(hours=1))


@pytest.mark.parametrize("name", ["link", "request_id", "record_identifier"])
def test_every_id_is_a_template(name: str) -> None:
    names = ("faceki_conn_id", name)
    waiting = sensor(**{"record_identifier": None, **{each: f"{{{{ params.{each} }}}}" for each in names}})
    waiting.render_template_fields(context(params={each: each.upper() for each in names}))
    assert [getattr(waiting, each) for each in names] == [each.upper() for each in names]


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        pytest.param({"timeout": 3601}, True, id="more than an hour"),
        pytest.param({"timeout": 3600}, False, id="an hour"),
        pytest.param({"timeout": 9000, "mode": "reschedule"}, False, id="rescheduled"),
        pytest.param({"timeout": 9000, "deferrable": True}, False, id="deferred"),
    ],
)
def test_a_long_poking_wait_is_warned_of(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], warned: bool
) -> None:
    log = Recorder()
    monkeypatch.setattr(FacekiKycDecisionSensor, "log", log)
    faceki_sandbox.add_record("customer-1")
    monkeypatch.setattr(BaseSensorOperator, "execute", lambda *_: None)
    sensor(**given).execute(context())
    told = [line for line in log.lines if "deferrable=True or mode='reschedule'" in line]
    assert bool(told) is warned


def test_a_record_without_a_decision_is_described_once_by_a_poking_sensor(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Recorder()
    monkeypatch.setattr(FacekiKycDecisionSensor, "log", log)
    fields = {"decision": "", "outcomeText": "Maria Invented"}
    faceki_sandbox.add_record("customer-1", fields=fields)
    waiting = sensor(mode="poke")
    assert [bool(waiting.poke(context())) for _ in range(3)] == [False] * 3
    (told,) = [
        line for line in log.lines if "without a decision. It contains an object with the keys" in line
    ]
    assert "record identifier customer-1" in told
    assert "requestId" in told
    assert "Maria" not in "".join(log.lines)


class Rescheduled(TaskInstance):
    """Task instance of a sensor whose first poll was ``seconds`` ago."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.first = datetime.now(UTC) - timedelta(seconds=seconds)

    def get_first_reschedule_date(self, context: object) -> datetime:
        return self.first


def test_a_rescheduled_wait_without_a_record_warns_once(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, stored = Recorder(), StateStore()
    monkeypatch.setattr(FacekiKycDecisionSensor, "log", log)

    def poll(ti: Rescheduled, **more: object) -> int:
        """Poll in a new process, and return the number of warnings."""
        log.lines.clear()
        assert not sensor(mode="reschedule").poke(context(ti=ti, **more))
        return sum("still has no record" in line for line in log.lines)

    early, late = Rescheduled(NO_RECORD_WARNING_SECONDS - 60), Rescheduled(NO_RECORD_WARNING_SECONDS + 60)
    assert [poll(each, task_state_store=stored) for each in (early, late, late, late)] == [0, 1, 0, 0]
    # The state store outlives the wait. Nevertheless, the next wait (after the task has been cleared) warns again.
    assert poll(Rescheduled(NO_RECORD_WARNING_SECONDS + 1), task_state_store=stored) == 1
    # Without a store, nothing is known of the earlier polls.
    assert [poll(late), poll(late)] == [1, 1]


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_three_days_of_waiting_take_fewer_than_200_pokes(mode: str) -> None:
    waiting = sensor(mode=mode, timeout=timedelta(days=3))
    waited, pokes = 0.0, 1
    while waited <= waiting.timeout:
        start: Any = datetime(2026, 1, 1, tzinfo=UTC) if mode == "reschedule" else 0.0
        waited += max(1.0, waiting._get_next_poke_interval(start, lambda now=waited: now, pokes))
        pokes += 1
    # The limit is below 200, because a poke also needs a token request if no token store keeps the token between pokes.
    assert 50 < pokes < 140


def test_a_short_max_wait_does_not_overflow() -> None:
    waiting = sensor(max_wait=10, timeout=timedelta(days=1))
    assert waiting._get_next_poke_interval(0.0, lambda: 20_000.0, 5000) == 10


@pytest.mark.parametrize(
    ("given", "wait"),
    [
        pytest.param({}, (True, 2400.0), id="by default"),
        pytest.param({"exponential_backoff": False}, (False, 2400.0), id="a fixed interval"),
        pytest.param({"max_wait": timedelta(minutes=5)}, (True, 300.0), id="a time span"),
        pytest.param({"max_wait": None}, (True, None), id="no limit"),
    ],
)
def test_airflow_s_own_parameters_reach_the_trigger(
    faceki_sandbox: FacekiSandbox, given: dict[str, Any], wait: tuple[bool, float | None]
) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True, **given).execute(context())
    arguments = deferred.value.trigger.serialize()[1]
    assert (arguments["exponential_backoff"], arguments["max_wait"]) == wait
