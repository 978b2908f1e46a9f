# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The clocks of a batch in one object, so that tests can set them."""

from __future__ import annotations

import time


class Clock:
    """The clocks of this machine."""

    def time(self) -> float:
        """Return Unix time."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that no one sets back."""
        return time.monotonic()

    def boottime(self) -> float:
        """Return seconds that also count while the machine is suspended, where the system has such a clock."""
        boottime = getattr(time, "CLOCK_BOOTTIME", None)
        return time.monotonic() if boottime is None else time.clock_gettime(boottime)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
