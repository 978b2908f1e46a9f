# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Helpers for tests that wait: polling, a patch for the sleeps of the code under test, the turns of an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from threading import Condition, get_ident
from typing import TypeVar

import pytest

T = TypeVar("T")


def wait_until(is_done: Callable[[], object], timeout: float = 300.0) -> None:
    """Poll ``is_done`` until it returns a true value. Fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not is_done():
        assert time.monotonic() < deadline, f"not done within {timeout:.0f} s"
        time.sleep(0.02)


def patch_sleep(monkeypatch: pytest.MonkeyPatch, record: Callable[[float], None]) -> None:
    """Replace each sleep of this thread and of its event loop by a call of ``record`` with the seconds.

    Other threads sleep as before, because a server of an earlier test possibly still runs in a thread. If its sleeps
    took no time, its loop would use all CPU time.
    """
    here, sleep, sleep_async = get_ident(), time.sleep, asyncio.sleep

    def fake_sleep(seconds: float) -> None:
        (record if get_ident() == here else sleep)(seconds)

    async def fake_sleep_async(seconds: float) -> None:
        if get_ident() == here:
            record(seconds)
        else:
            await sleep_async(seconds)

    monkeypatch.setattr(time, "sleep", fake_sleep)
    monkeypatch.setattr(asyncio, "sleep", fake_sleep_async)


class LoopTurns:
    """The turns of an event loop. A thread can wait for further turns, which a blocked loop does not make.

    :param deadline: Seconds after which a loop without a turn counts as blocked. In the tests, requests and storage
        operations time out after 60 s. The deadline is earlier, so that a blocked loop is reported as such.
    """

    def __init__(self, deadline: float = 50.0) -> None:
        self._deadline = deadline
        self._turned = Condition()
        self._turns = 0
        self._stood_still = False

    async def count_during(self, work: Awaitable[T]) -> T:
        """Count the turns of the running event loop until ``work`` is done, and return its result.

        :raises AssertionError: The loop was blocked.
        """

        async def count() -> None:
            while True:
                with self._turned:
                    self._turns += 1
                    self._turned.notify_all()
                await asyncio.sleep(0.001)

        counting = asyncio.create_task(count())
        try:
            return await work
        finally:
            counting.cancel()
            assert not self._stood_still, f"the event loop made no turn for {self._deadline:.0f} s"

    def wait_for_more(self, number: int = 3) -> None:
        """Wait in a thread until the loop has made this number of further turns, or until the deadline.

        If an earlier call has reached its deadline, return at once.
        """
        with self._turned:
            expected = self._turns + number
            if not self._stood_still:
                self._stood_still = not self._turned.wait_for(lambda: self._turns >= expected, self._deadline)
