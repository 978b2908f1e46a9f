# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Clocks and sleeps that a test cannot freeze.

The real FACEKI runs on another machine, so a test that freezes its own time does not freeze FACEKI. The sandbox often
runs in the process of the test. It therefore reads clocks that freezegun and time-machine do not patch.
"""

from __future__ import annotations

import time
from asyncio import tasks
from datetime import UTC, datetime

#: A monotonic clock. If the system has CLOCK_BOOTTIME, the clock also advances while the computer is suspended.
_STEADY_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: The maximum number of seconds by which all calls of `Clock.advance` together can move a clock: about 300 years.
#: Without a maximum, a test could move the clock past the year 9999, the last year of Python's dates.
MAX_ADVANCE_SECONDS = 1e10
_EPOCH_OFFSET_SECONDS = time.time() - time.clock_gettime(_STEADY_CLOCK)

#: The original `asyncio.sleep`. A test that patches the name `asyncio.sleep` does not change this reference.
real_sleep = tasks.sleep


def real_monotonic() -> float:
    """Return the time of the system's monotonic clock, in seconds."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class Clock:
    """The clock of the sandbox, which measures the lifetimes of tokens and links.

    :param start: a fixed start time in seconds since the epoch. If it is set, only `advance` moves the clock. If None,
        the clock shows the real time plus the seconds that `advance` added.
    """

    def __init__(self, start: float | None = None) -> None:
        self._start = start
        self._advanced = 0.0

    def now(self) -> float:
        if self._start is not None:
            return self._start + self._advanced
        return time.clock_gettime(_STEADY_CLOCK) + _EPOCH_OFFSET_SECONDS + self._advanced

    def advance(self, seconds: object) -> None:
        """Move the clock forward without waiting.

        The clock cannot move backward, so an expired token or link never becomes valid again.

        :raises ValueError: if `seconds` is not a number, is negative, or makes the sum of all calls too large.
        """
        left = MAX_ADVANCE_SECONDS - self._advanced
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= left:
            raise ValueError(f"seconds to advance: found {seconds!r}, allowed is a number from 0 to {left}")
        self._advanced += float(seconds)


def iso(moment: float) -> str:
    """Return a time in FACEKI's format: ISO 8601 in UTC with milliseconds and the suffix Z.

    :param moment: the time in seconds since the epoch.
    """
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
