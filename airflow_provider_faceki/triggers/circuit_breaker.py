# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Circuit breaker that stops the polls of one Connection while FACEKI is down, and probes FACEKI from time to time."""

from __future__ import annotations

#: After this number of consecutive failed polls, all polls of a Connection are blocked for some time (the circuit is
#: open). The polls of all waiting tasks are counted together. One or two failures are normal, so they do not block the
#: polls.
FAILURE_THRESHOLD = 3
#: Initial and maximum time in seconds for which the polls are blocked. After this time, one poll is allowed as a probe.
#: After each failed probe, the time doubles.
MIN_OPEN_SECONDS = 5.0
MAX_OPEN_SECONDS = 300.0


class CircuitBreaker:
    """Circuit breaker for the polls of one Connection.

    After several failed polls in a row, the circuit is open, and the waiting tasks must not poll FACEKI. After some
    time, one poll is allowed as a probe, and the circuit is half-open. If the probe succeeds, the circuit closes, and
    all tasks are allowed to poll again.

    All times are seconds of a monotonic clock. Unix time is not used, because a Unix clock that is set back by an hour
    would block the polls for one more hour.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.open_seconds = 0.0
        self._next_probe = 0.0
        self._is_half_open = False

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open or half-open. In both states, all polls except a probe are blocked."""
        return self.failures >= FAILURE_THRESHOLD

    def retry_after(self, now: float) -> float:
        """Return the number of seconds for which the caller must not poll. 0 allows a poll now.

        While the circuit is open, polls are blocked for some time. When this time is over, only one caller gets 0. The
        poll of this caller is the probe, and the polls of the other callers are blocked again.
        """
        if not self.is_open:
            return 0.0
        if now < self._next_probe:
            return self._next_probe - now
        self._next_probe, self._is_half_open = now + self.open_seconds, True
        return 0.0

    def record_failure(self, now: float) -> bool:
        """Count a failed poll. Return ``True`` if this failure opens the circuit, which blocks further polls."""
        self.failures += 1
        if self.failures == FAILURE_THRESHOLD:
            self.open_seconds, self._next_probe = MIN_OPEN_SECONDS, now + MIN_OPEN_SECONDS
            return True
        if self._is_half_open:
            # A probe is running. The first failure after its start is treated as the failure of the probe, and doubles
            # the time for which polls are blocked. While polls are blocked and no probe is running, a failure comes
            # from a poll that began before the blocking, and does not change the blocking time.
            self._is_half_open = False
            self.open_seconds = min(self.open_seconds * 2, MAX_OPEN_SECONDS)
            self._next_probe = now + self.open_seconds
        return False

    def record_success(self) -> bool:
        """Close the circuit, because FACEKI has answered a poll. Return ``True`` if polls were blocked before."""
        was_open = self.is_open
        self.failures, self._is_half_open = 0, False
        return was_open
