# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How far a batch has come, said now and then in the task's log."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)

#: Seconds between two lines in the log.
INTERVAL = 10.0


class Progress:
    """Counts, rate and time left.

    :param total: Rows of the manifest.
    :param done_before: Rows that earlier tries have finished.
    """

    def __init__(self, total: int, done_before: int) -> None:
        self._total = total
        self._done_before = done_before
        self._began = self._told = time.monotonic()

    def tell(self, decisions: Mapping[str, int], errors: Mapping[str, int], *, now: bool = False) -> None:
        """Say how far it is, if it is time."""
        moment = time.monotonic()
        if not now and moment - self._told < INTERVAL:
            return
        self._told = moment
        failed = sum(errors.values())
        done = sum(decisions.values()) + failed
        rate = (done - self._done_before) / max(moment - self._began, 0.001)
        rest = self._total - done
        left = f"{rest / rate:.0f} s" if rate > 0 else "unknown" if rest else "0 s"
        log.info(
            "%d of %d rows done, %.1f a second, %s, %d error(s), time left %s",
            done,
            self._total,
            rate,
            ", ".join(f"{count} {decision}" for decision, count in sorted(decisions.items()))
            or "no decision yet",
            failed,
            left,
        )
