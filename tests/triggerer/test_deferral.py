# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Time limits and events of a deferral, with a fixed clock."""

from __future__ import annotations

import math
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_faceki import api, task_mixin
from airflow_provider_faceki.task_mixin import (
    DEFERRAL_SLACK_SECONDS,
    WaitLimit,
    parse_timestamp,
    restore_limit,
)
from airflow_provider_faceki.triggers.faceki import DecisionEvent

NOW = 1_000_000.0
LIMIT = WaitLimit(NOW + 3600, "timeout", 3600.0)


@pytest.mark.parametrize("status", ["decided", "timeout", "unreadable"])
def test_events_that_do_not_fail_the_task(status: str) -> None:
    DecisionEvent(status).raise_for_status("kyc")


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        pytest.param("refused", api.ConfigurationError, "the same connection 'kyc'", id="refused"),
        pytest.param("failed", api.TransportError, "polls of the triggerer failed.*'kyc'", id="failed"),
    ],
)
def test_events_of_a_triggerer_that_cannot_poll(status: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        DecisionEvent(status).raise_for_status("kyc")


@pytest.mark.parametrize(
    ("left", "seconds"),
    [
        pytest.param(3600.0, 3600.0, id="in an hour"),
        pytest.param(0.0, 0.0, id="now"),
        pytest.param(-3600.0, 0.0, id="an hour ago"),
    ],
)
def test_airflows_timeout_is_later_than_the_deadline(
    left: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_mixin, "time", SimpleNamespace(time=lambda: NOW))
    assert WaitLimit(NOW + left, "timeout").timeout == timedelta(seconds=seconds + DEFERRAL_SLACK_SECONDS)


@pytest.mark.parametrize(
    ("execution_timeout", "started_ago", "expected"),
    [
        pytest.param(None, 0.0, LIMIT, id="none"),
        pytest.param(60.0, 0.0, WaitLimit(NOW + 60, "execution_timeout", 60.0), id="earlier"),
        pytest.param(60.0, 45.0, WaitLimit(NOW + 15, "execution_timeout", 60.0), id="from the start on"),
        pytest.param(3600.0, 0.0, LIMIT, id="at the same time"),
        pytest.param(86400.0, 0.0, LIMIT, id="later"),
    ],
)
def test_the_earlier_of_two_limits_is_the_deadline(
    execution_timeout: float | None, started_ago: float, expected: WaitLimit
) -> None:
    operator = SimpleNamespace(
        execution_timeout=None if execution_timeout is None else timedelta(seconds=execution_timeout),
        started_at=lambda context: NOW - started_ago,
    )
    found = LIMIT.within(operator, {})
    assert found == expected
    assert found.is_execution_timeout is (expected is not LIMIT)


def test_a_limit_comes_back_from_its_arguments() -> None:
    context: Any = {"ti": SimpleNamespace(try_number=3)}
    arguments = LIMIT.to_kwargs(context)
    assert arguments == {"deadline": NOW + 3600, "parameter": "timeout", "try_number": 3}
    later = WaitLimit(NOW + 7200, "timeout", 3600.0)
    assert restore_limit(arguments["deadline"], arguments["parameter"], later) == LIMIT


@pytest.mark.parametrize(
    ("deadline", "parameter", "expected"),
    [
        pytest.param(None, None, LIMIT, id="nothing"),
        pytest.param("soon", "execution_timeout", LIMIT, id="a deadline that is no number"),
        pytest.param(NOW, None, WaitLimit(NOW, "timeout", 3600.0), id="no parameter"),
        pytest.param(NOW, 7, WaitLimit(NOW, "timeout", 3600.0), id="a parameter that is no text"),
        pytest.param(NOW, "execution_timeout", WaitLimit(NOW, "execution_timeout"), id="another parameter"),
    ],
)
def test_what_airflow_returns_is_possibly_incomplete(
    deadline: object, parameter: object, expected: WaitLimit
) -> None:
    assert restore_limit(deadline, parameter, LIMIT) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(7, 7.0, id="integer"),
        pytest.param(7.5, 7.5, id="number"),
        pytest.param(True, None, id="flag"),
        pytest.param("7", None, id="text"),
        pytest.param(None, None, id="nothing"),
        pytest.param(math.nan, None, id="not a number"),
        pytest.param(math.inf, None, id="infinite"),
    ],
)
def test_only_finite_numbers_are_timestamps(value: object, expected: float | None) -> None:
    assert parse_timestamp(value) == expected


def test_a_limit_says_its_parameter() -> None:
    assert [str(LIMIT), str(WaitLimit(NOW, "execution_timeout"))] == ["timeout=1 hour", "execution_timeout"]
