# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Delays of the sandbox that last until a condition is true. A busy machine cannot make them too short."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.clock import real_sleep


class HeldDelays:
    """All delays in the answers of the sandboxes of this process. Each lasts until the test ends it.

    The number of seconds of a delay has no effect, except that a delay of zero seconds is not held. A `drip` (a fault
    that sends an answer in pieces) has one delay before each piece. Delays of webhooks are not held.
    """

    def __init__(self) -> None:
        #: Seconds of each delay that has begun.
        self.begun: list[float] = []
        #: Number of delays that have ended.
        self.ended = 0
        self._end = threading.Event()
        self._is_over: Callable[[], bool] = self._end.is_set

    def end(self) -> None:
        """End all delays. Later delays end at once."""
        self._end.set()

    def end_when(self, is_over: Callable[[], bool]) -> None:
        """End all delays as soon as this condition is true."""
        self._is_over = is_over

    def end_after_polls(self, sandbox: FacekiSandbox, polls: int = 2) -> None:
        """End all delays when the sandbox has received this number of further requests for records."""

        def received() -> int:
            return sandbox.counters.requests.get("records", 0)

        expected = received() + polls
        self.end_when(lambda: received() >= expected)

    async def sleep(self, seconds: float) -> None:
        if not seconds:
            return await real_sleep(0)
        self.begun.append(seconds)
        while not (self._end.is_set() or self._is_over()):
            await real_sleep(0.01)
        self.ended += 1


@pytest.fixture
def held_delays(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldDelays]:
    """Hold the delays in the answers of the sandbox until the test ends them."""
    # The import is inside the fixture, because the module needs the packages of the sandbox's web server.
    from airflow_provider_faceki.sandbox import app

    delays = HeldDelays()
    monkeypatch.setattr(app, "real_sleep", delays.sleep)
    yield delays
    delays.end()
