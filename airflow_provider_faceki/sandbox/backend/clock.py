# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Clocks and sleeps that a test cannot freeze.

FACEKI is another machine: a test that freezes its own time does not freeze FACEKI. The sandbox often runs in the
process of the test, so it reads clocks that freezegun and time-machine leave alone.
"""

from __future__ import annotations

import time
from asyncio import tasks
from datetime import UTC, datetime

#: Seconds of a clock that only goes forward, also while a computer sleeps where the system offers that.
_STEADY_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_EPOCH_OFFSET_SECONDS = time.time() - time.clock_gettime(_STEADY_CLOCK)

#: `asyncio.sleep` is the name that tests replace; this is the function itself.
real_sleep = tasks.sleep


def real_monotonic() -> float:
    """Return the seconds of the system's monotonic clock."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Clock:
    """The time of the sandbox: the real time plus what `advance` added. Token and link lifetimes are measured with it.

    :param start: seconds since the epoch; then only `advance` moves the clock.
    """

    def __init__(self, start: float | None = None) -> None:
        self._start = start
        self._advanced = 0.0

    def now(self) -> float:
        if self._start is not None:
            return self._start + self._advanced
        return time.clock_gettime(_STEADY_CLOCK) + _EPOCH_OFFSET_SECONDS + self._advanced

    def advance(self, seconds: object) -> None:
        """Let time pass without waiting. Time never goes back: lifetimes that ended stay ended."""
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e10:
            raise ValueError(f"seconds to advance: found {seconds!r}, allowed is a number from 0")
        self._advanced += float(seconds)


def iso(moment: float) -> str:
    """Write a time as FACEKI does: ISO 8601 in UTC with milliseconds and a Z."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
