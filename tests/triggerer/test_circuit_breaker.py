# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Circuit breaker for the polls of a triggerer."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.api.errors import CHECK_ADVICE
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.triggers import shared_poller
from airflow_provider_faceki.triggers.shared_poller import (
    FAILURE_THRESHOLD,
    MAX_OPEN_SECONDS,
    MIN_OPEN_SECONDS,
    CircuitBreaker,
    SharedPoller,
    _outage_text,
    _with_advice,
)


def open_circuit(now: float = 1000.0) -> CircuitBreaker:
    circuit = CircuitBreaker()
    for _ in range(FAILURE_THRESHOLD):
        circuit.record_failure(now)
    return circuit


def test_single_failures_leave_the_circuit_closed() -> None:
    circuit = CircuitBreaker()
    for _ in range(FAILURE_THRESHOLD - 1):
        assert circuit.record_failure(1000.0) is False
    assert circuit.retry_after(1000.0) == 0.0


def test_a_success_between_failures_starts_the_count_again() -> None:
    circuit = CircuitBreaker()
    for _ in range(10):
        assert circuit.record_failure(1000.0) is False
        assert circuit.record_success() is False
    assert not circuit.is_open


def test_opening_is_reported_once() -> None:
    circuit = CircuitBreaker()
    told = [circuit.record_failure(1000.0) for _ in range(20)]
    assert told == [False] * (FAILURE_THRESHOLD - 1) + [True] + [False] * (20 - FAILURE_THRESHOLD)


def test_one_of_many_waits_probes_an_open_circuit() -> None:
    circuit = open_circuit()
    assert circuit.retry_after(1000.0) == MIN_OPEN_SECONDS
    due = 1000.0 + MIN_OPEN_SECONDS
    assert [circuit.retry_after(due) for _ in range(50)].count(0.0) == 1


def test_probes_back_off_and_late_failures_do_not_count() -> None:
    circuit = open_circuit()
    for _ in range(32):
        circuit.record_failure(1000.0)
    assert circuit.retry_after(1000.0) == MIN_OPEN_SECONDS
    now, probes = 1000.0 + MIN_OPEN_SECONDS, 0
    while now < 1000.0 + 600:
        held = circuit.retry_after(now)
        if held:
            now += held
            continue
        probes += 1
        circuit.record_failure(now)
    assert 5 <= probes <= 8
    assert circuit.open_seconds == MAX_OPEN_SECONDS


def test_a_probe_that_never_ends_does_not_block_for_ever() -> None:
    circuit = open_circuit()
    assert circuit.retry_after(1000.0 + MIN_OPEN_SECONDS) == 0.0
    assert circuit.retry_after(1000.0 + MIN_OPEN_SECONDS + circuit.open_seconds) == 0.0


def test_a_success_closes_the_circuit_and_is_reported_once() -> None:
    circuit = open_circuit()
    assert circuit.record_success() is True
    assert circuit.record_success() is False
    assert [circuit.retry_after(1001.0) for _ in range(5)] == [0.0] * 5


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(api.ConnectError("x"), "FACEKI does not answer; ", id="no answer"),
        pytest.param(api.ServiceError("x", http_status=503), "FACEKI does not answer; ", id="it fails"),
        pytest.param(
            api.UnexpectedResponseError("x", http_status=404),
            "FACEKI, or a proxy in front of it, refuses the polls or sends answers that cannot be read; ",
            id="a 404 that is not FACEKI's",
        ),
    ],
)
def test_the_text_of_an_open_circuit_names_refusal_or_silence(error: api.FacekiError, told: str) -> None:
    assert _outage_text(error).startswith(told)
    assert _with_advice(error).count(CHECK_ADVICE) == 1
    error = type(error)(f"x; {CHECK_ADVICE}")
    assert _with_advice(error).count(CHECK_ADVICE) == 1


@pytest.fixture
def polls(faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch) -> FacekiSandbox:
    """A sandbox, and the Connection ``faceki_polled`` to it."""
    connection = faceki_sandbox.connection(token_store="memory")
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_POLLED", json.dumps(connection))
    return faceki_sandbox


async def after_outage(sandbox: FacekiSandbox, next_code: int | None = None) -> SharedPoller:
    """Return a poller whose circuit an outage has opened.

    :param next_code: FACEKI's code in the answer to a further poll after the outage. ``None`` means no further poll.
    """
    poller = SharedPoller("faceki_polled")
    sandbox.add_fault("status", route="records", status=503, count=FAILURE_THRESHOLD)
    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(api.ServiceError):
            await poller.poll(api.FetchRecords(record_identifier="customer-1"))
    assert poller.retry_after() > 0
    if next_code is not None:
        sandbox.add_fault("code", route="records", code=next_code, count=2)
        with pytest.raises(api.FacekiError) as caught:
            await poller.poll(api.FetchRecords(record_identifier="customer-1"))
        assert caught.value.code == next_code
    return poller


@pytest.mark.parametrize("code", [8014, 8015, 5003], ids=["unknown link", "expired link", "no credit"])
def test_an_answer_about_one_record_closes_the_circuit(polls: FacekiSandbox, code: int) -> None:
    poller = asyncio.run(after_outage(polls, code))
    assert poller.retry_after() == 0.0


@pytest.mark.parametrize("code", [1, 429, 500, 4711], ids=["refused", "throttled", "failure", "unknown code"])
def test_other_failures_leave_it_open(polls: FacekiSandbox, code: int) -> None:
    poller = asyncio.run(after_outage(polls, code))
    assert poller.retry_after() > 0


def test_a_clock_that_is_set_back_blocks_no_polls(
    polls: FacekiSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller = asyncio.run(after_outage(polls))
    yesterday = SimpleNamespace(time=lambda: time.time() - 86400, monotonic=time.monotonic)
    monkeypatch.setattr(shared_poller, "time", yesterday)
    assert poller.retry_after() <= 1.5 * MIN_OPEN_SECONDS
