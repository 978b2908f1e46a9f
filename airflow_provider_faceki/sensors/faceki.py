# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Sensor that waits until FACEKI has decided a verification.

Between two polls, the sensor keeps its worker slot (``mode="poke"``), frees it until Airflow starts the task again
(``mode="reschedule"``), or waits in the triggerer (``deferrable=True``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_faceki import api
from airflow_provider_faceki.api.arguments import check_bool, check_exactly_one
from airflow_provider_faceki.api.lazy import lazy_property
from airflow_provider_faceki.api.values import format_duration, is_uuid, loggable, storable
from airflow_provider_faceki.connection.schema import DEFAULT_CONN_ID
from airflow_provider_faceki.failures import fail_if_declined, is_poll_retryable, translate_errors
from airflow_provider_faceki.links.faceki import FacekiRecordLink
from airflow_provider_faceki.task_mixin import (
    DEFAULT_MAX_WAIT_SECONDS,
    FacekiTaskMixin,
    WaitLimit,
    restore_limit,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_faceki.triggers.poll_log import PollLog

#: Value of the trigger's ``max_failures`` for a sensor with ``silent_fail``. Such a sensor tolerates every failed poll.
UNLIMITED = 10**9
#: If the ``timeout`` of a poking sensor exceeds this number of seconds, the sensor logs a warning, because it occupies
#: a worker slot for a long time.
MAX_POKE_TIMEOUT_SECONDS = 3600.0
#: Key in Airflow's task state store (Airflow 3.3 and later). A sensor with ``mode="reschedule"`` ends after each poke.
#: Under this key, the sensor stores the number of consecutive failed polls for its next poke.
_FAILURES_KEY = "faceki_failed_polls"
#: Key in Airflow's task state store (Airflow 3.3 and later). A sensor with ``mode="reschedule"`` logs the warning that
#: FACEKI has no record only once during a wait. When it logs the warning, it stores the time of the first poke of the
#: wait under this key. A later poke of the same wait finds this time and does not warn again.
_WARNED_KEY = "faceki_warned_of_wait"
_FILTERS = ("link", "request_id", "record_identifier")


class FacekiKycDecisionSensor(FacekiTaskMixin, BaseSensorOperator):
    """Wait until FACEKI has decided a verification.

    Select the verification by exactly one of ``link``, ``request_id`` and ``record_identifier``. If FACEKI has no
    record yet, the sensor continues to wait. If the link is unknown, expired or used up, the task fails at once.
    ``poke_interval``, ``exponential_backoff``, ``max_wait``, ``timeout`` and ``soft_fail`` have the same meaning with
    ``mode="poke"``, with ``mode="reschedule"`` and with ``deferrable=True``. ``execution_timeout`` limits the whole
    try, including the pauses between polls. With ``mode="reschedule"``, however, Airflow applies ``execution_timeout``
    to each poll separately.

    XCom: the summary of the record, without personal data.

    :param link: Link id, URL of the hosted page, or output of the task that created the link.
    :param request_id: FACEKI's id of the verification.
    :param record_identifier: Your own id of the verification.
    :param wait_for_review: Whether the sensor continues to wait while a human reviewer at FACEKI checks the case.
        Default ``True``. If ``False``, the sensor returns a record with the decision REVIEW. A record with a decision
        that FACEKI has not documented is always returned.
    :param fail_on_decline: Whether the task fails if the decision is DECLINED. Default ``False``, because a declined
        person is a valid result.
    :param max_failures: Number of consecutive failed polls (FACEKI unreachable, overloaded, unreadable response) that
        are tolerated. Default 10.

        - In the worker, a poll has failed if all retries that the Connection configures have failed.
        - In the triggerer, a poll has no retries.
        - With ``mode="reschedule"`` before Airflow 3.3, the sensor forgets the number after each poke. There, 0 means
          that the first failed poll fails the task. Any other value tolerates all failed polls until ``timeout``.
    :param poke_interval: Seconds between the first two polls. Default 60.
    :param exponential_backoff: Whether the pause doubles after each poll. Default ``True``.
    :param max_wait: Maximum pause between two polls, in seconds or as a time span, if ``exponential_backoff`` is set.
        Default 40 minutes, so three days of waiting need fewer than 200 requests, including token requests. ``None``
        means no maximum.
    :param deferrable: Whether the sensor waits in the triggerer. Default: ``[operators] default_deferrable``.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    template_fields: Sequence[str] = ("faceki_conn_id", *_FILTERS)
    custom_operator_name = "FACEKI decision"
    operator_extra_links = (FacekiRecordLink(),)

    def __init__(
        self,
        *,
        link: str | Mapping[str, Any] | None = None,
        request_id: str | None = None,
        record_identifier: str | None = None,
        wait_for_review: bool = True,
        fail_on_decline: bool = False,
        max_failures: int = 10,
        exponential_backoff: bool = True,
        max_wait: timedelta | float | None = DEFAULT_MAX_WAIT_SECONDS,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        faceki_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(exponential_backoff=exponential_backoff, max_wait=max_wait, **kwargs)
        check_exactly_one(link=link, request_id=request_id, record_identifier=record_identifier)
        check_bool("wait_for_review", wait_for_review)
        self.link = link
        self.request_id = request_id
        self.record_identifier = record_identifier
        self.wait_for_review = wait_for_review
        self.fail_on_decline = fail_on_decline
        self.max_failures = _count("max_failures", max_failures)
        self.deferrable = deferrable
        self.faceki_conn_id = faceki_conn_id
        self._failed_polls = 0
        self._poll_failure = ""
        self._started_at: float | None = None
        self._remember_given(*self.template_fields)

    def execute(self, context: Context) -> Any:
        """Poll FACEKI once. If there is no decision, wait in the mode of this sensor (poke, reschedule or deferred)."""
        if not self.deferrable:
            self._warn_of_held_slot()
            return super().execute(context)
        limit = self._limit(context)
        with self._skipping():
            found = self._poll(context)
        return storable(found.summary()) if found else self._defer(context, limit)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue the task after a deferral. If an error occurs, apply ``soft_fail`` and ``never_fail``."""
        with self._skipping():
            return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll FACEKI once, and return whether there is a decision."""
        self._started_at = self._started_at or self._first_poke(context)
        found = self._poll(context)
        return PokeReturnValue(found is not None, storable(found.summary()) if found else None)

    def execute_complete(
        self,
        context: Context,
        event: object = None,
        deadline: object = None,
        parameter: object = None,
        try_number: object = None,
    ) -> Any:
        """Continue the task after the trigger has sent an event.

        The content of the event is not trusted, so the method requests the record from FACEKI first.

        :param event: Payload of the trigger event.
        :param deadline: Unix time at which the wait ends. It was computed before the deferral.
        :param parameter: Name of the parameter that set the deadline: ``timeout`` or ``execution_timeout``.
        :param try_number: Number of the try that was deferred. A later try begins a new wait; see
            ``_begins_new_try``.
        :raises AirflowSensorTimeout: if there is no decision within ``timeout``.
        :raises AirflowTaskTimeout: if there is no decision within ``execution_timeout``.
        :raises AirflowFailException: if the poll fails with an error that another try cannot solve, such as an expired
            link. Also if the decision is DECLINED and ``fail_on_decline`` is set.
        :raises FacekiError: if another error has stopped the trigger, and ``silent_fail`` does not tolerate this error.
        """
        if self._begins_new_try(context, try_number):
            return self.execute(context)
        given = self._read_event(event)
        limit = restore_limit(deadline, parameter, self._limit(context))
        # The worker now polls FACEKI once. If an error has stopped the trigger, a failure of this poll must raise an
        # error. Therefore the number of failed polls is first set to the maximum.
        self._failed_polls = self.max_failures if given.status in {"failed", "refused"} else 0
        found = self._poll(context)
        if found is not None:
            return storable(found.summary())
        if given.status == "timeout" or time.time() >= limit.deadline:
            error = AirflowTaskTimeout if limit.is_execution_timeout else AirflowSensorTimeout
            last = f"; the last poll failed: {self._poll_failure}" if self._poll_failure else ""
            raise error(f"FACEKI has not decided within {limit}{last}")
        # ``raise_for_status`` raises an error if the triggerer could not poll FACEKI. It is not called in two cases:
        #
        # - The poll of this worker failed and was tolerated. The error would wrongly say that this worker can poll.
        # - Too many polls of the triggerer failed, and ``silent_fail`` is set, which tolerates failed polls. This
        #   happens only if ``silent_fail`` was added to the DAG during the wait.
        if not self._poll_failure and not (given.status == "failed" and self.silent_fail):
            given.raise_for_status(self.faceki_conn_id)
        return self._defer(context, limit)

    def _limit(self, context: Context) -> WaitLimit:
        return WaitLimit(time.time() + self.timeout, "timeout", self.timeout).within(self, context)

    def _warn_of_held_slot(self) -> None:
        if self.mode == "poke" and self.timeout > MAX_POKE_TIMEOUT_SECONDS:
            self.log.warning(
                "This sensor may hold a worker slot for %s (timeout): deferrable=True or mode='reschedule' frees it",
                format_duration(self.timeout),
            )

    def _get_next_poke_interval(self, started_at: Any, run_duration: Any, poke_count: int) -> float:
        # Airflow's own method multiplies poke_interval by 2**(poke_count - 2) before it applies max_wait. After about a
        # thousand pokes, this product is too large for a float. Therefore the count is limited here.
        interval: float = super()._get_next_poke_interval(started_at, run_duration, min(poke_count, 64))
        return interval

    @contextmanager
    def _skipping(self) -> Iterator[None]:
        """Skip the task if the ``with`` block raises an error to which ``soft_fail`` or ``never_fail`` applies.

        Airflow itself applies these two parameters in two places, which do not cover all errors of a deferrable sensor:

        - In its poke loop. A deferrable sensor does not use this loop.
        - When a deferred task continues. There, Airflow applies the parameters to an ``AirflowException`` and to errors
          of the deferral, but not to a :class:`FacekiError`.
        """
        try:
            yield
        except (AirflowSensorTimeout, AirflowTaskTimeout, AirflowFailException) as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException("Skipping: soft_fail or never_fail is set.") from error
            raise
        except AirflowSkipException:
            raise
        except (AirflowException, api.FacekiError) as error:
            if self.never_fail:
                raise AirflowSkipException("Skipping: never_fail is set.") from error
            raise

    def _poll(self, context: Context) -> api.VerificationRecord | None:
        try:
            with translate_errors(is_poll_retryable):
                records = self.hook.call(self._endpoint())
        except api.FacekiError as error:
            self._tolerate(error, context)
            self._poll_failure = str(error)
            return None
        self._count_failure(context, 0)
        self._poll_failure = ""
        found = api.final_record(records, wait_for_review=self.wait_for_review)
        if found is None:
            self._poll_log.polled(records, may_warn=partial(self._may_warn, context))
            return None
        # The import is inside this method, so that DAG files are parsed faster.
        from airflow_provider_faceki import metrics

        self.push_record_link(context, found.request_id)
        metrics.count_decision(found.decision)
        self.log.info("FACEKI decided verification %s: %s", loggable(found.request_id), found.decision)
        fail_if_declined(found if self.fail_on_decline else None)
        return found

    def _endpoint(self) -> api.FetchRecords:
        return self._fetch_call(**{name: getattr(self, name) for name in _FILTERS})

    def _warn_of_form(self) -> None:
        if self.request_id is not None and not is_uuid(self.request_id):
            self.log.warning(
                "request_id= does not look like an id of FACEKI (a UUID); pass your own id as record_identifier="
            )

    @lazy_property
    def _poll_log(self) -> PollLog:
        from airflow_provider_faceki.triggers.poll_log import PollLog, wait_subject

        self._warn_of_form()
        subject = wait_subject(**{name: getattr(self, name) for name in _FILTERS})
        return PollLog(self.log, *subject, self._started_at)

    def _may_warn(self, context: Context) -> bool:
        """Return ``False`` if an earlier poke of this wait has already logged the warning that there is no record.

        A sensor with ``mode="reschedule"`` runs each poke in a new process. Therefore it saves in Airflow's task state
        store (Airflow 3.3 and later) that it logs the warning. Before Airflow 3.3, the result is always ``True``, so
        such a sensor possibly logs the warning at each poke.

        In the other modes, the result is always ``True``, because :class:`.PollLog` remembers the warning.
        """
        store = self._state_store(context)
        if store is None or self._started_at is None:
            return True
        if store.get(_WARNED_KEY) == self._started_at:
            return False
        store.set(_WARNED_KEY, self._started_at)
        return True

    def _state_store(self, context: Context) -> Any:
        """Return Airflow's task state store for a sensor with ``mode="reschedule"``, or ``None``.

        Such a sensor keeps two values in the store between its pokes: the number of failed polls, and that it has
        logged the warning about a missing record. Before Airflow 3.3, there is no store, and the result is ``None``.

        In the other modes, the result is ``None``, because no store is needed. With ``mode="poke"``, this object keeps
        both values in memory until the end of the wait. With ``deferrable=True``, the trigger keeps them in memory.
        """
        return context.get("task_state_store") if self.reschedule and not self.deferrable else None

    def _first_poke(self, context: Context) -> float | None:
        """Return the Unix time of a rescheduled sensor's first poke.

        Return ``None`` during the first poke, in the other modes, and if Airflow does not offer this time to tasks.
        """
        get_first = getattr(context.get("ti"), "get_first_reschedule_date", None)
        if not self.reschedule or get_first is None:
            return None
        first: Any = get_first(context)
        return first.timestamp() if first else None

    def _tolerate(self, error: api.FacekiError, context: Context) -> None:
        failures = self._count_failure(context)
        if failures > self.max_failures and not self.silent_fail:
            self._count_failure(context, 0)
            raise error
        self.log.warning(
            "Poll failed, %d in a row of which max_failures=%d are tolerated: %s",
            failures,
            self.max_failures,
            error,
        )

    def _count_failure(self, context: Context, failures: int | None = None) -> int:
        """Set or increment the number of consecutive failed polls, and return the number.

        A rescheduled sensor also saves the number for its next poke, if Airflow has a task state store.

        :param failures: New number. Default: the number is incremented by 1.
        """
        store = self._state_store(context)
        if failures is None:
            known = store.get(_FAILURES_KEY) if store is not None else self._failed_polls
            failures = (known if isinstance(known, int) else 0) + 1
            if store is not None:
                store.set(_FAILURES_KEY, failures)
        elif store is not None and store.get(_FAILURES_KEY):
            store.set(_FAILURES_KEY, failures)
        self._failed_polls = failures
        return failures

    def _defer(self, context: Context, limit: WaitLimit) -> Any:
        # This import is inside the function, because Airflow's trigger base class needs 20 ms to import, and a poking
        # sensor does not use it.
        from airflow_provider_faceki.triggers.faceki import FacekiKycDecisionTrigger

        self.log.info(
            "No decision yet; waiting in the triggerer for %s at the most (%s), first poll within %s",
            format_duration(limit.deadline - time.time()),
            limit.parameter,
            format_duration(self.poke_interval),
        )
        with translate_errors():
            endpoint = self._endpoint()
        return self.defer(
            trigger=FacekiKycDecisionTrigger(
                faceki_conn_id=self.faceki_conn_id,
                deadline=limit.deadline,
                link=endpoint.link,
                request_id=endpoint.request_id,
                record_identifier=endpoint.record_identifier,
                wait_for_review=self.wait_for_review,
                poke_interval=self.poke_interval,
                exponential_backoff=self.exponential_backoff,
                max_wait=self.max_wait.total_seconds() if self.max_wait else None,
                max_failures=UNLIMITED if self.silent_fail else self.max_failures,
                failed_polls=self._failed_polls,
            ),
            method_name="execute_complete",
            kwargs=limit.to_kwargs(context),
            timeout=limit.timeout,
        )


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number of at least 0, not {value!r}")
    return int(value)
