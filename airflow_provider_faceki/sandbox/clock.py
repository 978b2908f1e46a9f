# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What time is it in the sandbox? Token and link lifetimes are measured with this clock and no other."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """The machine's clock plus what `advance` added; with `start`, a clock that only `advance` moves."""

    def __init__(self, start: float | None = None) -> None:
        self._start = start
        self._ahead = 0.0

    def now(self) -> float:
        return (time.time() if self._start is None else self._start) + self._ahead

    def advance(self, seconds: object) -> None:
        """Let time pass without waiting. Time never goes back: lifetimes that ended stay ended."""
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e10:
            raise ValueError(f"seconds to advance: found {seconds!r}, allowed is a number from 0")
        self._ahead += float(seconds)


def iso(moment: float) -> str:
    """The way FACEKI writes times: ISO 8601 in UTC with milliseconds and a Z."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
