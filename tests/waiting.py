# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Helpers for tests that wait: a poll with a deadline, and a patch for the sleeps of the code under test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from threading import get_ident

import pytest


def wait_until(is_done: Callable[[], object], timeout: float = 60.0) -> None:
    """Poll ``is_done`` until it returns something true; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not is_done():
        assert time.monotonic() < deadline, f"not done within {timeout:.0f} s"
        time.sleep(0.02)


def patch_sleep(monkeypatch: pytest.MonkeyPatch, record: Callable[[float], None]) -> None:
    """Call ``record`` with the seconds in place of each sleep of this thread or of an event loop on it.

    Other threads sleep as before: a server of an earlier test would spin if its sleeps took no time.
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
