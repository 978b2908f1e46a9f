# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How does a test go through long waits in no time? Nobody else's waits may be touched: a server that an earlier test
has started on another thread would spin, and keep everybody from working, for as long as its own sleeps cost nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from threading import get_ident

import pytest


def let_nobody_sleep_here(monkeypatch: pytest.MonkeyPatch, instead: Callable[[float], None]) -> None:
    """Call ``instead`` with the seconds for which this thread, or a loop on it, would have slept."""
    here, sleep, sleep_async = get_ident(), time.sleep, asyncio.sleep

    def nap(seconds: float) -> None:
        (instead if get_ident() == here else sleep)(seconds)

    async def nap_async(seconds: float) -> None:
        if get_ident() == here:
            instead(seconds)
        else:
            await sleep_async(seconds)

    monkeypatch.setattr(time, "sleep", nap)
    monkeypatch.setattr(asyncio, "sleep", nap_async)
