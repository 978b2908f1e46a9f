# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Cost of many waits, and their behaviour in an outage."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_faceki.api import GenerateKycLink
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import FacekiSandbox, SandboxProcess
from airflow_provider_faceki.task_mixin import DEFAULT_MAX_WAIT_SECONDS
from airflow_provider_faceki.triggers import faceki, shared_poller
from airflow_provider_faceki.triggers.faceki import FacekiKycDecisionTrigger
from tests.waiting import patch_sleep

pytestmark = [pytest.mark.process, pytest.mark.any_airflow]

DAY = 24 * 3600.0


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Any:
    with FacekiSandbox() as running:
        monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", connection(running))
        yield running


def connection(running: FacekiSandbox | SandboxProcess, **extra: object) -> str:
    form: dict[str, Any] = running.connection()
    return json.dumps({**form, "extra": {**form["extra"], "token_store": "memory", **extra}})


async def payload(trigger: FacekiKycDecisionTrigger) -> dict[str, Any]:
    async for event in trigger.run():
        return dict(event.payload)
    raise AssertionError("the trigger ended without an event")


def trigger(link: str, seconds: float, **more: Any) -> FacekiKycDecisionTrigger:
    given = {"faceki_conn_id": "faceki_default", "max_wait": DEFAULT_MAX_WAIT_SECONDS, **more}
    return FacekiKycDecisionTrigger(link=link, deadline=time.time() + seconds, **given)


class Clock:
    """A clock that advances only when `sleep` is called."""

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, SandboxProcess]]:
    """A link without a decision, at a sandbox in another process.

    The other process uses the real time, while the clock of the test's process is fake.
    """
    with SandboxProcess() as running:
        monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", connection(running))
        hook = FacekiHook()
        made = hook.call(GenerateKycLink(workflow_id=hook.workflow(None)))
        yield made.link, running


def test_three_days_cost_fewer_than_200_requests_tokens_included(
    link: tuple[str, SandboxProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = trigger(link[0], 3 * DAY)
    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    patch_sleep(monkeypatch, clock.sleep)

    event = asyncio.run(payload(waiting))

    assert event["status"] == "timeout"
    assert clock.now >= waiting.deadline
    counters: Any = link[1].control.get("counters")
    requests = counters["requests"]
    assert 50 < requests["records"] + requests["token"] < 200


def test_waits_that_start_together_poll_at_different_times(
    link: tuple[str, SandboxProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    clock = Clock()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.sleep(seconds)

    monkeypatch.setattr(time, "time", clock.time)
    patch_sleep(monkeypatch, sleep)
    # This random generator has a fixed seed, so the pauses are the same in each run of this test.
    monkeypatch.setattr(faceki, "random", random.Random(2026))

    async def one_after_another() -> list[tuple[float, float]]:
        found = []
        for _ in range(24):
            pauses.clear()
            await payload(trigger(link[0], 60.0, poke_interval=20))
            found.append((pauses[0], pauses[1]))
        return found

    found = asyncio.run(one_after_another())
    firsts, seconds = [first for first, _ in found], [second for _, second in found]
    assert len(set(firsts)) == len(set(seconds)) == len(found)
    # The first polls are spread over the whole first pause.
    assert min(firsts) < 10 < max(firsts)
    assert all(0 <= first <= 20 for first in firsts)
    assert all(18.0 <= second <= 22.0 for second in seconds)


def test_an_outage_neither_fails_the_waits_nor_multiplies_the_traffic(
    sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Ten minutes are simulated in about six seconds: all durations are divided by a hundred.
    monkeypatch.setattr(shared_poller, "MIN_OPEN_SECONDS", 0.05)
    monkeypatch.setattr(shared_poller, "MAX_OPEN_SECONDS", 3.0)
    monkeypatch.setattr("airflow_provider_faceki.triggers.faceki.MIN_POLL_INTERVAL_SECONDS", 0.1)
    links = [sandbox.create_link(f"outage-{number}") for number in range(40)]

    async def run() -> list[dict[str, Any]]:
        waits = [
            asyncio.create_task(payload(trigger(link, 120.0, poke_interval=0.2, max_wait=0.4)))
            for link in links
        ]
        while sandbox.counters.requests.get("records", 0) < len(links):  # noqa: ASYNC110 - the sandbox sends no event
            await asyncio.sleep(0.05)
        sandbox.add_fault("status", route="records", status=503, count=100_000)
        while "FACEKI does not answer" not in caplog.text:  # noqa: ASYNC110 - the log sends no event
            await asyncio.sleep(0.05)
        before = sandbox.counters.requests["records"]
        await asyncio.sleep(6.0)
        during.append(sandbox.counters.requests["records"] - before)
        sandbox.clear_faults()
        for link in links:
            sandbox.decide(link, "ACCEPTED")
        return await asyncio.gather(*waits)

    during: list[int] = []
    with caplog.at_level(logging.INFO, logger=shared_poller.__name__):
        events = asyncio.run(run())

    assert [event["status"] for event in events] == ["decided"] * 40
    # If the waits did not share a circuit breaker, 40 waits would have sent about 600 requests.
    assert during[0] < 80
    told = [record.getMessage() for record in caplog.records if record.name == shared_poller.__name__]
    assert [line.split(";")[0].split(" on ")[0] for line in told] == [
        "FACEKI does not answer",
        "FACEKI answers again",
    ]
    assert sandbox.counters.tokens_issued == 1


def test_limits_hold_for_all_waits_together(sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_FACEKI_DEFAULT", connection(sandbox, max_concurrency=3, max_requests_per_second=40)
    )
    links = [sandbox.create_link(f"limit-{number}") for number in range(60)]
    sandbox.settings.latency = 0.05

    async def run() -> list[dict[str, Any]]:
        return await asyncio.gather(*(payload(trigger(link, 0.0)) for link in links))

    began = time.monotonic()
    events = asyncio.run(run())
    took = time.monotonic() - began

    assert {event["status"] for event in events} == {"timeout"}
    assert sandbox.counters.in_flight_max <= 3
    # At 40 requests per second, 61 requests need at least this time. The test has no upper limit of the time, because
    # the machine is possibly busy.
    assert took >= 60 / 40
