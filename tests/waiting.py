# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Helpers for tests that wait: polling with a deadline, and a patch for the sleeps of the code under test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from threading import get_ident

import pytest


def wait_until(is_done: Callable[[], object], timeout: float = 60.0) -> None:
    """Poll ``is_done`` until it returns a true value. Fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not is_done():
        assert time.monotonic() < deadline, f"not done within {timeout:.0f} s"
        time.sleep(0.02)


def patch_sleep(monkeypatch: pytest.MonkeyPatch, record: Callable[[float], None]) -> None:
    """Replace each sleep of this thread and of its event loop by a call of ``record`` with the seconds.

    Other threads sleep as before. A server of an earlier test would use all CPU time if its sleeps took no time.
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
