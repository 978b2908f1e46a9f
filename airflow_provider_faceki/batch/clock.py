# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The clocks of a batch in one object, so that tests can control them."""

from __future__ import annotations

import time


class Clock:
    """The clocks of this machine."""

    def time(self) -> float:
        """Return the Unix time."""
        return time.time()

    def monotonic(self) -> float:
        """Return a time in seconds that never moves backwards."""
        return time.monotonic()

    def boottime(self) -> float:
        """Return a time in seconds that also advances while the machine is suspended.

        If the system has no such clock, return the monotonic time.
        """
        boottime = getattr(time, "CLOCK_BOOTTIME", None)
        return time.monotonic() if boottime is None else time.clock_gettime(boottime)

    def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""
        time.sleep(seconds)
