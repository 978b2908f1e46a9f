# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How fast requests may follow one another, whoever in the process sends them."""

from __future__ import annotations

import threading


class RateLimiter:
    """Deals out moments to send at, evenly spaced. FACEKI publishes no limit but charges for high volumes:
    https://docs.faceki.com/api-integration/verification-apis/authentication .

    :param per_second: Requests per second at the most; ``None`` for no limit.
    """

    def __init__(self, per_second: float | None) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._next = float("-inf")
        self._lock = threading.Lock()

    def reserve(self, now: float) -> float:
        """Take the next moment and return how many seconds away it is.

        :param now: Seconds on a clock that never goes back.
        """
        if not self._gap:
            return 0.0
        with self._lock:
            moment = max(now, self._next)
            self._next = moment + self._gap
            return moment - now
