# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What a task instance remembers of a charged call over its tries, so that the next try knows what to look for.

XCom is cleared before each try and so remembers nothing. Airflow 3.3 and later have a task state store; before
that, a try number above one is all there is to go by.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_SINCE = "faceki_submitting_since"
_REQUEST_ID = "faceki_request_id"


class Submission:
    """The charged call of one task instance.

    :param context: The task's context.
    """

    def __init__(self, context: Context) -> None:
        self._ti = context["ti"]
        self._store = context.get("task_state_store")

    @property
    def request_id(self) -> str | None:
        """FACEKI's id of the verification that a try has made, if it is remembered."""
        found = self._store.get(_REQUEST_ID) if self._store is not None else None
        return found if isinstance(found, str) and found else None

    @property
    def is_open(self) -> bool:
        """Whether an earlier try is known to have begun a call that it never ended."""
        return self._store is not None and self._store.get(_SINCE) is not None

    def settled_at(self, settle_seconds: float) -> float | None:
        """Return the Unix time from which on absence at FACEKI may be believed; ``None`` if nothing was sent.

        :param settle_seconds: Seconds that FACEKI is given to finish.
        """
        if self._store is None:
            # When an earlier try sent something is unknown, but it was before this one began.
            started: float = self._ti.start_date.timestamp()
            return started + settle_seconds if self._ti.try_number > 1 else None
        since = self._store.get(_SINCE)
        return float(since) + settle_seconds if isinstance(since, int | float) else None

    def begin(self) -> None:
        """Remember that a call is about to be sent. Must come before its first byte."""
        if self._store is not None:
            self._store.set(_SINCE, time.time())

    def forget(self) -> None:
        """Take that back: FACEKI cannot have acted on the call."""
        if self._store is not None:
            self._store.delete(_SINCE)

    def found(self, request_id: str | None) -> None:
        """Remember what came of the call."""
        if self._store is not None and request_id:
            self._store.set(_REQUEST_ID, request_id)
