# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Waits whose Connection cannot be read again, temporarily or permanently."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.triggers import shared_poller
from airflow_provider_faceki.triggers.shared_poller import (
    CLIENT_TTL_SECONDS,
    MAX_FAILED_READS,
    REREAD_INTERVAL_SECONDS,
    SharedPoller,
)

CONN_ID = "faceki_lost"
NAME = "AIRFLOW_CONN_FACEKI_LOST"


class Scenario:
    """Waits that poll, a clock that the test moves, and a Connection that the test removes and restores."""

    def __init__(self, sandbox: FacekiSandbox, patch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        self.reads = 0
        self._sandbox = sandbox
        self._patch = patch
        self.restore()
        patch.setattr(shared_poller, "time", SimpleNamespace(monotonic=lambda: self.now))
        patch.setattr(FacekiHook, "aget_conn", self._counted(FacekiHook.aget_conn))

    def _counted(self, read: Callable[[FacekiHook], Any]) -> Callable[[FacekiHook], Any]:
        async def counted(hook: FacekiHook) -> Any:
            self.reads += 1
            return await read(hook)

        return counted

    def restore(self, **extra: object) -> None:
        """Make the Connection available."""
        self._patch.setenv(NAME, json.dumps(self._sandbox.connection(token_store="memory", **extra)))

    def lose(self, how: str) -> None:
        """Remove the Connection, or replace it by text that Airflow cannot parse."""
        if how == "gone":
            self._patch.delenv(NAME)
        else:
            self._patch.setenv(NAME, '{"conn_type": "faceki", "extra": ')

    async def polls(self, poller: SharedPoller, waits: int = 1) -> list[BaseException | None]:
        """Return the errors of a number of waits that poll at the same time; None for a wait without an error."""
        looking = (poller.poll(api.FetchRecords(record_identifier="customer-1")) for _ in range(waits))
        found = await asyncio.gather(*looking, return_exceptions=True)
        return [each if isinstance(each, BaseException) else None for each in found]


@pytest.fixture
def scenario(faceki_sandbox: FacekiSandbox, airflow_db: object, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    faceki_sandbox.add_record("customer-1")
    return Scenario(faceki_sandbox, monkeypatch)


HOWS = pytest.mark.parametrize("how", ["gone", "unreadable"])


@HOWS
def test_a_short_connection_failure_is_tolerated(
    scenario: Scenario, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    async def tell() -> None:
        poller = SharedPoller(CONN_ID)
        for _ in range(3):
            assert await scenario.polls(poller) == [None]
            scenario.now += CLIENT_TTL_SECONDS + 1
            scenario.lose(how)
            for _ in range(MAX_FAILED_READS - 1):
                assert await scenario.polls(poller, waits=20) == [None] * 20
                scenario.now += REREAD_INTERVAL_SECONDS + 1
            scenario.restore()
        assert await scenario.polls(poller) == [None]
        # Only one of the twenty waits reads the Connection. After a successful read, the count of failed reads starts
        # at zero again.
        assert scenario.reads == 1 + 3 * MAX_FAILED_READS

    asyncio.run(tell())
    told = [each.getMessage() for each in caplog.records if each.name == shared_poller.__name__]
    assert len(told) == 3
    assert all(poller.startswith(f"Connection '{CONN_ID}' could not be read again (") for poller in told)
    assert not any("defined" in poller or "conn_type" in poller for poller in told)


@HOWS
def test_a_deleted_connection_is_reported_after_some_reads(scenario: Scenario, how: str) -> None:
    async def tell() -> None:
        poller = SharedPoller(CONN_ID)
        assert await scenario.polls(poller) == [None]
        scenario.now += CLIENT_TTL_SECONDS + 1
        scenario.lose(how)
        for _ in range(MAX_FAILED_READS - 1):
            assert await scenario.polls(poller) == [None]
            scenario.now += REREAD_INTERVAL_SECONDS + 1
        last = await scenario.polls(poller) + await scenario.polls(poller, waits=3)
        assert len({type(error) for error in last}) == 1
        assert not isinstance(last[0], api.FacekiError | None)
        scenario.restore()
        assert await scenario.polls(poller) == [None]

    asyncio.run(tell())


def test_a_connection_that_became_invalid_is_reported_at_once(scenario: Scenario) -> None:
    async def tell() -> None:
        poller = SharedPoller(CONN_ID)
        assert await scenario.polls(poller) == [None]
        scenario.now += CLIENT_TTL_SECONDS + 1
        scenario.restore(timeout="soon")
        for _ in range(2):
            assert [type(error) for error in await scenario.polls(poller)] == [api.ConfigurationError]

    asyncio.run(tell())
