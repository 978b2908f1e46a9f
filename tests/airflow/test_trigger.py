# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Trigger against a real server; only the trigger's clock and sleep are fakes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from requests import Response
from requests.adapters import HTTPAdapter

from airflow_provider_faceki.sandbox import FacekiSandbox, faults
from airflow_provider_faceki.task_mixin import DEFAULT_MAX_WAIT_SECONDS
from airflow_provider_faceki.triggers import faceki as trigger_module
from airflow_provider_faceki.triggers import shared_poller as poller_module
from airflow_provider_faceki.triggers.faceki import FacekiKycDecisionTrigger
from tests.airflow.conftest import Connect
from tests.sandbox_delays import HeldDelays
from tests.waiting import LoopTurns


class Clock:
    """A clock that advances only when `sleep` is called."""

    def __init__(self) -> None:
        self.now = time.time()
        self.slept: list[float] = []
        self._due: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    monotonic = time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        for moment, act in [due for due in self._due if due[0] <= self.now]:
            self._due.remove((moment, act))
            act()
        await asyncio.sleep(0)

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        """Schedule a function to be called in `seconds` from now."""
        self._due.append((self.now + seconds, act))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The fake clock of the trigger and the poller."""
    made = Clock()
    monkeypatch.setattr(trigger_module, "asyncio", SimpleNamespace(sleep=made.sleep))
    for module in (trigger_module, poller_module):
        monkeypatch.setattr(module, "time", made)
    return made


def trigger(clock: Clock | None = None, *, within: float = 1000.0, **given: Any) -> FacekiKycDecisionTrigger:
    usual = {"faceki_conn_id": "faceki_default", "record_identifier": "customer-1"}
    given = {**usual, "max_wait": DEFAULT_MAX_WAIT_SECONDS, **given}
    now = clock.now if clock else time.time()
    return FacekiKycDecisionTrigger(deadline=now + within, **given)


def fired(made: FacekiKycDecisionTrigger) -> Any:
    """Return the payload of the trigger's event; the trigger must fire exactly one event."""

    async def collect() -> list[Any]:
        return [event.payload async for event in made.run()]

    (payload,) = asyncio.run(asyncio.wait_for(collect(), 60))
    return payload


def test_a_serialized_trigger_is_restored() -> None:
    path, arguments = trigger(link="a-link", record_identifier=None, failed_polls=2).serialize()
    module, _, name = path.rpartition(".")
    again = getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)


def test_a_serialized_trigger_holds_scalars_and_no_secret(faceki_sandbox: FacekiSandbox) -> None:
    arguments = trigger(link=faceki_sandbox.create_link(), record_identifier=None).serialize()[1]
    assert {type(value) for value in arguments.values()} <= {str, int, float, bool, type(None)}
    assert faceki_sandbox.client_secret not in json.dumps(arguments)
    assert faceki_sandbox.client_id not in json.dumps(arguments)


def test_repr_hides_the_link() -> None:
    made = trigger(link="a-link-that-opens-doors", record_identifier=None)
    for shown in (repr(made), str(made), f"{made}", repr([made])):
        assert "doors" not in shown
        assert "faceki_default" in shown


def test_the_event_holds_the_request_id_of_the_decision(faceki_sandbox: FacekiSandbox, clock: Clock) -> None:
    faceki_sandbox.add_record("customer-1", "DECLINED")
    record = faceki_sandbox.add_record("customer-1", "ACCEPTED")
    assert fired(trigger(clock)) == {"status": "decided", "request_id": record["requestId"]}
    assert len(clock.slept) == 1


@pytest.mark.parametrize("shape", ["empty", "8013", "404"])
def test_the_trigger_waits_for_a_later_decision(
    faceki_sandbox: FacekiSandbox, clock: Clock, shape: str
) -> None:
    faceki_sandbox.settings.not_found = shape
    clock.at(200, lambda: faceki_sandbox.add_record("customer-1"))
    assert fired(trigger(clock))["status"] == "decided"
    assert 200 <= sum(clock.slept) < 1000
    assert faceki_sandbox.counters.tokens_issued == 1


def test_a_record_without_a_decision_is_described_once(
    faceki_sandbox: FacekiSandbox, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    faceki_sandbox.add_record("customer-1", fields={"decision": ""})
    assert fired(trigger(clock))["status"] == "timeout"
    described = [
        line for line in caplog.messages if "without a decision. It contains an object with the keys" in line
    ]
    assert len(clock.slept) > len(described) == 1


@pytest.mark.parametrize(("accept", "status"), [(True, "decided"), (False, "timeout")])
def test_review(faceki_sandbox: FacekiSandbox, clock: Clock, accept: bool, status: str) -> None:
    faceki_sandbox.add_record("customer-1", "REVIEW")
    assert fired(trigger(clock, wait_for_review=not accept))["status"] == status


def _fail(sandbox: FacekiSandbox, times: int | None) -> None:
    sandbox.add_fault("status", status=503, route="records", count=times)


def test_max_failures_counts_consecutive_failures(
    faceki_sandbox: FacekiSandbox, clock: Clock, connect: Connect
) -> None:
    connect(faceki_sandbox)
    _fail(faceki_sandbox, 2)
    faceki_sandbox.add_fault("code", code=8013, route="records")
    _fail(faceki_sandbox, 2)
    faceki_sandbox.add_record("customer-1")
    # The test needs six polls. Whether the default deadline leaves time for the sixth poll depends on the random
    # pauses, so this deadline is later.
    assert fired(trigger(clock, within=10_000, max_failures=2))["status"] == "decided"
    _fail(faceki_sandbox, 3)
    assert fired(trigger(clock, within=10_000, max_failures=2))["status"] == "failed"


@pytest.mark.parametrize(
    ("route", "status"),
    [
        *(("token", status) for status in (400, 403, 404, 405, 451)),
        # HTTP 404 is left out here, because a missing record is the normal state of a wait.
        *(("records", status) for status in (400, 403, 405, 451)),
    ],
)
def test_a_gateway_that_rejects_all_requests_is_an_outage(
    faceki_sandbox: FacekiSandbox,
    clock: Clock,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    route: str,
    status: int,
) -> None:
    monkeypatch.setitem(faults.GATEWAY_TITLES, status, "a page of its own")
    faceki_sandbox.settings.client_id = client_id = f"{route}-{status}"
    conn_id = connect(faceki_sandbox, "faceki_gateway", token_store="memory", fields={"login": client_id})
    faceki_sandbox.add_fault("status", status=status, route=route, count=None)
    clock.at(600, faceki_sandbox.clear_faults)
    clock.at(600, lambda: faceki_sandbox.add_record("customer-1"))
    waiting = trigger(clock, within=3 * 24 * 3600, poke_interval=5, faceki_conn_id=conn_id)
    assert fired(waiting)["status"] == "decided"
    opened = [line for line in caplog.messages if "its circuit is open" in line]
    assert "answers that cannot be read; its circuit is open" in opened[0]
    assert opened[0].count("python -m airflow_provider_faceki.check") == 1
    assert "until their timeout or max_failures" in opened[0]
    faceki_sandbox.revoke_tokens()
    faceki_sandbox.add_fault("status", status=status, route=route, count=None)
    assert fired(trigger(clock, max_failures=2, faceki_conn_id=conn_id))["status"] == "failed"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "status", "status": 400}, id="FACEKI's own 400"),
        pytest.param({"kind": "status", "status": 403}, id="its own 403"),
        pytest.param({"kind": "code", "code": 400}, id="code 400"),
    ],
)
def test_a_refusal_of_faceki_s_own_ends_the_wait(
    faceki_sandbox: FacekiSandbox, clock: Clock, connect: Connect, fault: dict[str, Any]
) -> None:
    connect(faceki_sandbox)
    faceki_sandbox.add_fault(**fault, route="records")
    assert fired(trigger(clock))["status"] == "refused"


def test_an_outage_of_ten_minutes_is_tolerated(
    faceki_sandbox: FacekiSandbox, clock: Clock, connect: Connect
) -> None:
    connect(faceki_sandbox)
    _fail(faceki_sandbox, None)
    clock.at(600, faceki_sandbox.clear_faults)
    clock.at(600, lambda: faceki_sandbox.add_record("customer-1"))
    assert fired(trigger(clock, within=3 * 24 * 3600, poke_interval=5))["status"] == "decided"


@pytest.mark.parametrize("end", ["expired", "used_up", "unknown"])
def test_a_dead_link_ends_the_wait(faceki_sandbox: FacekiSandbox, clock: Clock, end: str) -> None:
    link = "0b5cde5e-3a52-4e8c-9f0f-6a0c1d2e3f40" if end == "unknown" else faceki_sandbox.create_link()
    if end != "unknown":
        faceki_sandbox.end_link(link, end)
    assert fired(trigger(clock, link=link, record_identifier=None))["status"] == "refused"
    assert len(clock.slept) == 1


def test_a_wrong_secret_is_refused_after_one_request(
    faceki_sandbox: FacekiSandbox, clock: Clock, connect: Connect
) -> None:
    connect(faceki_sandbox, "faceki_wrong", fields={"password": "not-the-secret"}, max_attempts=4)
    assert fired(trigger(clock, faceki_conn_id="faceki_wrong"))["status"] == "refused"
    assert faceki_sandbox.counters.requests == {"token": 1}


def test_revoked_token_is_renewed_in_the_middle(faceki_sandbox: FacekiSandbox, clock: Clock) -> None:
    clock.at(100, faceki_sandbox.revoke_tokens)
    clock.at(300, lambda: faceki_sandbox.add_record("customer-1"))
    assert fired(trigger(clock))["status"] == "decided"
    assert faceki_sandbox.counters.tokens_issued == 2


def test_a_connection_missing_in_the_triggerer_raises_airflow_error(
    airflow_home: object, clock: Clock
) -> None:
    with pytest.raises(AirflowNotFoundException, match="faceki_nowhere"):
        fired(trigger(clock, faceki_conn_id="faceki_nowhere"))


@pytest.mark.parametrize("within", [pytest.param(0.0, id="asking"), pytest.param(1000.0, id="sleeping")])
def test_cancelled_cleanly(
    faceki_sandbox: FacekiSandbox, held_delays: HeldDelays, monkeypatch: pytest.MonkeyPatch, within: float
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(seconds)

    monkeypatch.setattr(trigger_module, "asyncio", SimpleNamespace(sleep=sleep))
    # Without the jitter, the test can compare the pause.
    monkeypatch.setattr(trigger_module, "random", SimpleNamespace(uniform=lambda low, high: 1.0))

    async def cancel() -> None:
        made = trigger(within=within, poke_interval=30)
        # The sandbox answers this wait only at the end of the test.
        monkeypatch.setattr(faceki_sandbox.settings, "latency", 0.3)
        task = asyncio.ensure_future(anext(aiter(made.run())))
        while not (pauses if within else held_delays.begun):  # noqa: ASYNC110 - the sandbox sends no event
            await asyncio.sleep(0.01)
        faceki_sandbox.settings.latency = 0.0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await made.cleanup()
        # The next wait, on the same event loop and token store, is not blocked by the cancelled wait.
        faceki_sandbox.add_record("customer-1")
        assert (await anext(aiter(trigger(within=0.0).run()))).payload["status"] == "decided"

    asyncio.run(asyncio.wait_for(cancel(), 300))
    assert pauses[0] == (30.0 if within else 0.0)
    assert held_delays.begun == ([] if within else [0.3])


def test_the_loop_is_never_blocked(
    faceki_sandbox: FacekiSandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, send = LoopTurns(), HTTPAdapter.send

    def send_after_turns(*given: Any, **named: Any) -> Response:
        turns.wait_for_more()
        return send(*given, **named)

    monkeypatch.setattr(HTTPAdapter, "send", send_after_turns)
    event = asyncio.run(turns.count_during(anext(aiter(trigger(clock, within=100.0).run()))))
    assert event.payload["status"] == "timeout"
    assert faceki_sandbox.counters.requests == {"token": 1, "records": len(clock.slept)}
