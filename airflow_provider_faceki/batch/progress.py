# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How far a batch has come, said now and then in the task's log, and at its end in a table."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)

#: Seconds between two lines in the log.
INTERVAL = 10.0
#: Longest word of FACEKI's that is logged.
_LONGEST_WORD = 40


class Progress:
    """Counts, rate and time left.

    :param total: Rows of the manifest.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._done_before = 0
        self._began = self._told = time.monotonic()

    def begin(self, done_before: int) -> None:
        """Begin counting, this many rows having been finished by earlier tries."""
        self._done_before = done_before
        self._began = self._told = time.monotonic()

    def tell(self, done: int, decisions: Mapping[str, int], failures: Mapping[str, int]) -> None:
        """Say how far it is, if it is time."""
        moment = time.monotonic()
        if moment - self._told < INTERVAL:
            return
        self._told = moment
        rate = (done - self._done_before) / max(moment - self._began, 0.001)
        left = max(0, self.total - done)
        log.info(
            "%d of %d rows done, %.1f a second; %s; %d error(s); time left: %s",
            done,
            self.total,
            rate,
            ", ".join(f"{count} {_word(name)}" for name, count in sorted(decisions.items()))
            or "no decision yet",
            sum(failures.values()),
            _span(left / rate) if rate else "unknown",
        )

    def end(self, done: int, decisions: Mapping[str, int], failures: Mapping[str, int]) -> None:
        """Say what came of it all."""
        took = time.monotonic() - self._began
        lines = [
            f"{done} of {self.total} rows done, {done - self._done_before} of them by this try in {_span(took)}"
        ]
        for title, counts in (("decision", decisions), ("error", failures)):
            if counts:
                ordered = sorted(counts.items(), key=lambda item: -item[1])
                lines += [f"  {title:<40} rows", *(f"  {_word(name):<40} {count}" for name, count in ordered)]
        log.info("%s", "\n".join(lines))


def _word(name: str) -> str:
    # A decision is a word of FACEKI's, whatever it is; a log line stays one line.
    return "".join(each if each.isprintable() else "?" for each in name[:_LONGEST_WORD])


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
