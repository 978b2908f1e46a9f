# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Rate limiter for all requests of one account in a process."""

from __future__ import annotations

import threading


class RateLimiter:
    """Limiter that spaces requests evenly.

    FACEKI publishes no limit but charges for high volumes:
    https://docs.faceki.com/api-integration/verification-apis/authentication .

    :param per_second: Maximum number of requests per second. ``None`` means no limit.
    """

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = float("-inf")
        self._lock = threading.Lock()

    def reserve(self, now: float) -> float:
        """Reserve the next slot and return the seconds until it.

        :param now: Current time of a monotonic clock, in seconds.
        """
        if not self._interval:
            return 0.0
        with self._lock:
            slot = max(now, self._next)
            self._next = slot + self._interval
            return slot - now
