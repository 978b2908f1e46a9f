# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Rate limiter shared by all senders of one account in a process."""

from __future__ import annotations

import threading


class RateLimiter:
    """Spaces requests evenly. FACEKI publishes no limit but charges for high volumes:
    https://docs.faceki.com/api-integration/verification-apis/authentication .

    :param per_second: Most requests per second; ``None`` for no limit.
    """

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = float("-inf")
        self._lock = threading.Lock()

    def reserve(self, now: float) -> float:
        """Reserve the next slot and return how many seconds away it is.

        :param now: Seconds on a monotonic clock.
        """
        if not self._interval:
            return 0.0
        with self._lock:
            slot = max(now, self._next)
            self._next = slot + self._interval
            return slot - now
