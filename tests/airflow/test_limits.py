# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A deferred wait ends at the earlier of its own limit and execution_timeout, and the error names that limit."""

from __future__ import annotations

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

from airflow_provider_faceki.api.values import format_duration
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from airflow_provider_faceki.task_mixin import DEFERRAL_SLACK_SECONDS, WaitLimit
from tests.airflow.fakes import TaskInstance, context
from tests.billing.image_files import write

MINUTE = timedelta(minutes=1)


def sensor(**given: Any) -> Any:
    return FacekiKycDecisionSensor(
        task_id="wait", record_identifier="review-1", deferrable=True, timeout=3600, **given
    )


def verification(folder: Any, **given: Any) -> Any:
    return FacekiKycVerificationOperator(
        task_id="verify",
        record_identifier="review-1",
        selfie=write(folder, "s.jpg"),
        documents=[{"front": write(folder, "f.jpg"), "back": write(folder, "b.jpg")}],
        deferrable=True,
        **given,
    )


def reviewing(folder: Any, **given: Any) -> Any:
    return verification(folder, wait_for_review=True, review_timeout=3600, **given)


def reconciling(folder: Any, **given: Any) -> Any:
    return verification(folder, resubmit_after=3600, **given)


def started(ago: float = 0.0, try_number: int = 1) -> Any:
    began = datetime.now(UTC) - timedelta(seconds=ago)
    return context(ti=TaskInstance(start_date=began, try_number=try_number))


def deferred(operator: Any, seen: Any) -> Any:
    with pytest.raises(TaskDeferred) as raised:
        operator.execute(seen)
    return raised.value


WAITS = [
    pytest.param(lambda _, **given: sensor(**given), "REVIEW", 1, "timeout", id="sensor"),
    pytest.param(reviewing, "REVIEW", 1, "review_timeout", id="review"),
    pytest.param(reconciling, None, 2, "resubmit_after", id="reconciliation"),
]


@pytest.mark.parametrize(
    ("execution_timeout", "ago", "left"),
    [
        pytest.param(None, 0.0, 3600.0, id="none"),
        pytest.param(MINUTE, 0.0, 60.0, id="earlier"),
        pytest.param(MINUTE, 45.0, 15.0, id="counted from the start of the task"),
        pytest.param(timedelta(days=1), 0.0, 3600.0, id="later"),
    ],
)
@pytest.mark.parametrize(("make", "decision", "try_number", "parameter"), WAITS)
def test_the_earlier_of_two_limits_is_the_deadline(
    faceki_sandbox: FacekiSandbox,
    tmp_path: Any,
    make: Any,
    decision: str | None,
    try_number: int,
    parameter: str,
    execution_timeout: timedelta | None,
    ago: float,
    left: float,
) -> None:
    if decision:
        faceki_sandbox.add_record("review-1", decision)
    wait = deferred(make(tmp_path, execution_timeout=execution_timeout), started(ago, try_number))
    assert wait.trigger.deadline - time.time() == pytest.approx(left, abs=10)
    assert wait.timeout.total_seconds() == pytest.approx(left + DEFERRAL_SLACK_SECONDS, abs=10)
    assert wait.kwargs["parameter"] == (parameter if left == 3600.0 else "execution_timeout")


@pytest.mark.parametrize("kept", [pytest.param(True, id="kept"), pytest.param(False, id="lost")])
@pytest.mark.parametrize(
    ("make", "decision", "try_number", "error", "parameter"),
    [
        pytest.param(
            lambda _, **given: sensor(**given),
            "REVIEW",
            1,
            AirflowSensorTimeout,
            "timeout=1 hour",
            id="sensor",
        ),
        pytest.param(reviewing, "REVIEW", 1, AirflowException, "review_timeout=1 hour", id="review"),
    ],
)
def test_the_timeout_error_names_the_limit(
    faceki_sandbox: FacekiSandbox,
    tmp_path: Any,
    make: Any,
    decision: str,
    try_number: int,
    error: type[BaseException],
    parameter: str,
    kept: bool,
) -> None:
    faceki_sandbox.add_record("review-1", decision)
    for given, kind, told in (
        ({}, error, parameter),
        ({"execution_timeout": MINUTE}, AirflowTaskTimeout, "execution_timeout=1 minute"),
    ):
        operator, seen = make(tmp_path, **given), started(0.0, try_number)
        wait = deferred(operator, seen)
        more = wait.kwargs if kept else {}
        with pytest.raises(kind, match=told):
            getattr(operator, wait.method_name)(seen, {"status": "timeout"}, **more)


@pytest.mark.parametrize("kept", [pytest.param(True, id="kept"), pytest.param(False, id="lost")])
def test_a_reconciliation_that_is_cut_short_sends_nothing(
    faceki_sandbox: FacekiSandbox, tmp_path: Any, kept: bool
) -> None:
    operator, seen = reconciling(tmp_path, execution_timeout=MINUTE), started(0.0, 2)
    wait = deferred(operator, seen)
    more = wait.kwargs if kept else {}
    with pytest.raises(AirflowTaskTimeout, match="execution_timeout=1 minute ended before"):
        operator.resume_reconciliation(seen, {"status": "timeout"}, **more)
    assert faceki_sandbox.ledger == {}


def test_soft_fail_skips_it_too(faceki_sandbox: FacekiSandbox) -> None:
    operator, seen = sensor(execution_timeout=MINUTE, soft_fail=True), started()
    wait = deferred(operator, seen)
    with pytest.raises(AirflowSkipException):
        operator.resume_execution(wait.method_name, {"event": {"status": "timeout"}, **wait.kwargs}, seen)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 seconds"),
        (0.25, "0.25 seconds"),
        (1.0, "1 second"),
        (150.0, "2 minutes 30 seconds"),
        (2400.0, "40 minutes"),
        (259_200.0, "3 days"),
        (90_061.0, "1 day 1 hour"),
    ],
)
def test_durations_are_formatted_in_words(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert str(WaitLimit(0.0, "timeout", seconds)) == f"timeout={text}"
