# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Data that a waiting task passes to Airflow's triggerer and receives from it: deadlines, timeouts and events."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_faceki import api
from airflow_provider_faceki.api.values import as_faceki_id
from airflow_provider_faceki.triggers.poll_log import format_duration

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: Default maximum pause in seconds between two polls of one waiting task: 40 minutes. With this maximum, a task that
#: waits for three days needs about 170 requests:
#:
#: - About 113 polls. The pause doubles from one minute to 40 minutes, so the first pauses are shorter.
#: - About 55 token requests. FACEKI's access token is valid for one hour, so every second poll needs a new token.
DEFAULT_MAX_WAIT_SECONDS = 2400.0
#: Airflow's own timeout of a deferred task is this number of seconds later than the deadline of the trigger. So the
#: trigger normally ends the wait. Airflow's timeout ends the wait only if no triggerer runs.
DEFERRAL_SLACK_SECONDS = 60.0

_STATUSES = ("decided", "timeout", "failed", "refused")


class DecisionEvent(NamedTuple):
    """Event that ends the wait of the decision trigger. It contains only a status and an id, because Airflow logs it.

    :param status: One of these texts:

        - ``decided``: FACEKI has decided.
        - ``timeout``: the deadline has passed.
        - ``failed``: too many consecutive polls have failed.
        - ``refused``: a poll has failed for a reason that further polls cannot change, such as wrong credentials.
        - ``unreadable``: the task received no valid event, for example because another version of the provider sent the
          event. The trigger never sends this status; :meth:`from_payload` sets it in the task.
    :param request_id: FACEKI's id of the decided verification. It is ``None`` if there is no valid id.
    """

    status: str
    request_id: str | None = None

    @classmethod
    def from_payload(cls, payload: object) -> DecisionEvent:
        """Return the event for the payload of a ``TriggerEvent``.

        If the payload is not valid, the status of the event is ``unreadable``.
        """
        if not isinstance(payload, Mapping) or payload.get("status") not in _STATUSES:
            return cls("unreadable")
        return cls(payload["status"], as_faceki_id(payload.get("request_id")))


def raise_for_status(event: DecisionEvent, conn_id: str) -> None:
    """Raise an error if the event reports that the triggerer could not poll FACEKI.

    Call this function only after this worker has polled FACEKI and received a response, because the messages of the
    errors say that the worker can call FACEKI. If no error were raised, the task would defer again, and the triggerer
    would fail again. Airflow applies the task's ``retries`` to the errors.

    :raises ConfigurationError: if the triggerer cannot call FACEKI with its current Connection.
    :raises TransportError: if too many consecutive polls of the triggerer failed.
    """
    if event.status == "refused":
        raise api.ConfigurationError(
            "the triggerer cannot call FACEKI, but this worker can; the triggerer's log contains the "
            f"reason. Do both have the same connection {conn_id!r}?"
        )
    if event.status == "failed":
        raise api.TransportError(
            "too many consecutive polls of the triggerer failed, but this worker gets an answer from "
            "FACEKI; the triggerer's log contains the reason"
        ).with_conn_id(conn_id)


class WaitLimit(NamedTuple):
    """Time limit of a waiting task, with the name of the parameter that determines the limit.

    :param deadline: Unix time at which the wait ends.
    :param parameter: ``timeout``, ``execution_timeout``, ``review_timeout`` or ``resubmit_after``.
    :param seconds: Value of the parameter in seconds, for log lines and error texts. ``None`` if it is not known. After
        a deferral, :func:`restore_limit` sometimes knows only the deadline and the name of the parameter.
    """

    deadline: float
    parameter: str
    seconds: float | None = None

    def __str__(self) -> str:
        return self.parameter if self.seconds is None else f"{self.parameter}={format_duration(self.seconds)}"

    @property
    def is_execution_timeout(self) -> bool:
        """Whether this limit comes from the task's ``execution_timeout``, and not from a different parameter."""
        return self.parameter == "execution_timeout"

    @property
    def timeout(self) -> timedelta:
        """Timeout for Airflow's ``defer``, as a time span from now.

        It ends :data:`DEFERRAL_SLACK_SECONDS` after the deadline, so that normally the trigger itself ends the wait.
        """
        return timedelta(seconds=max(0.0, self.deadline - time.time()) + DEFERRAL_SLACK_SECONDS)

    def to_kwargs(self, context: Context) -> dict[str, Any]:
        """Return the keyword arguments for the method with which the task continues after the deferral.

        They contain the try number, so that a later try recognises the arguments of an earlier try and ignores them.
        """
        return {
            "deadline": self.deadline,
            "parameter": self.parameter,
            "try_number": context["ti"].try_number,
        }

    def within(self, operator: Any, context: Context) -> WaitLimit:
        """Return the earlier of two time limits: this limit, or the end of the task's ``execution_timeout``.

        The provider applies ``execution_timeout``, because Airflow 3 does not apply it to a deferred task
        (apache/airflow#69678).
        """
        allowed: timedelta | None = operator.execution_timeout
        if allowed is None:
            return self
        deadline = operator.started_at(context) + allowed.total_seconds()
        if deadline >= self.deadline:
            return self
        return WaitLimit(deadline, "execution_timeout", allowed.total_seconds())


def restore_limit(deadline: object, parameter: object, limit: WaitLimit) -> WaitLimit:
    """Return the time limit that a task had before its deferral.

    The task passed ``deadline`` and ``parameter`` to Airflow before the deferral, and the result contains both. If
    ``deadline`` is missing or not a number, the result is ``limit``.

    :param deadline: Unix time of the original limit. It is missing in ``dag.test()`` of Airflow 3.
    :param parameter: Name of the operator parameter that set the original limit, such as ``execution_timeout``. If it
        is not text, the name of ``limit`` is used.
    :param limit: The limit, computed again after the deferral. Its deadline is possibly later than the original
        deadline, because in Airflow 3.0 to 3.2 each deferral changes the start time of the task
        (apache/airflow#63240).
    """
    known = parse_timestamp(deadline)
    if known is None:
        return limit
    if not isinstance(parameter, str) or parameter == limit.parameter:
        return WaitLimit(known, limit.parameter, limit.seconds)
    return WaitLimit(known, parameter)


def parse_timestamp(value: object) -> float | None:
    """Return ``value`` as a Unix time. If ``value`` is not a finite number, return ``None``.

    The value is checked, because it was passed to Airflow before a deferral, and Airflow possibly returns another
    value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
