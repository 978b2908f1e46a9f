# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What does a task that hands its wait to the triggerer make of what comes back through the database?"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from airflow_provider_faceki import api

#: Seconds that Airflow's own timeout of a deferral comes after ours: it is the net for a triggerer that is gone.
DEFERRAL_SLACK = 60.0

_STATUSES = ("decided", "timeout", "failed", "refused")


class DecisionEvent(NamedTuple):
    """What the trigger tells. It comes back through the database and is written to logs, so it holds a word and an
    id, and whoever waited looks for itself before it believes either.

    :param status: ``decided``; ``timeout``; ``failed`` for too many failed looks in a row; ``refused`` for a
        failure that no further look can mend; ``unreadable`` for an event of another version.
    :param request_id: FACEKI's id of the decided verification.
    """

    status: str
    request_id: str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """Return it as a trigger event's payload."""
        return {"status": self.status, "request_id": self.request_id}

    @classmethod
    def from_payload(cls, payload: object) -> DecisionEvent:
        """Read a payload, whatever it is."""
        if not isinstance(payload, Mapping) or payload.get("status") not in _STATUSES:
            return cls("unreadable")
        request_id = payload.get("request_id")
        return cls(payload["status"], request_id if isinstance(request_id, str) else None)


def fail_if_given_up(told: DecisionEvent, conn_id: str) -> None:
    """Fail a task that would defer again, for a triggerer that would give up again, perhaps at once.

    The worker has just asked FACEKI, and was answered. Neither error is wrapped, so the task's ``retries`` apply.

    :param told: What the trigger told.
    :param conn_id: The Connection of the wait.
    :raises ConfigurationError: the triggerer may not ask, or cannot as the Connection says.
    :raises TransportError: it was not answered, too often in a row.
    """
    if told.status == "refused":
        raise api.ConfigurationError(
            "the triggerer cannot ask FACEKI, and this worker can; the triggerer's log says why. "
            f"Do both have the same connection {conn_id!r}?"
        )
    if told.status == "failed":
        raise api.TransportError(
            "FACEKI has not answered the triggerer, too often in a row, and answers this worker; the "
            "triggerer's log says why"
        ).with_conn_id(conn_id)


def net(deadline: float) -> timedelta:
    """Return Airflow's own timeout for a wait until the Unix time ``deadline``."""
    return timedelta(seconds=max(0.0, deadline - time.time()) + DEFERRAL_SLACK)


def moment(value: object) -> float | None:
    """Return a Unix time that was handed to Airflow with a deferral; ``None`` if it was lost on its way."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
