# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Waiting for a decision of FACEKI: on a worker (poke), now and then (reschedule), or in the triggerer."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
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
    mask_secret,
)

from airflow_provider_faceki import api
from airflow_provider_faceki.connection.schema import DEFAULT_CONN_ID
from airflow_provider_faceki.failures import another_look_may_help, fail_if_declined, translate_errors
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.triggers.deferral import DecisionEvent, fail_if_given_up, moment, net
from airflow_provider_faceki.triggers.lookout import LONGEST_POKE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: Failed looks that a trigger bears for a sensor that bears all.
ENDLESS = 10**9
#: Where the count of failed looks in a row is kept between the pokes of a rescheduled sensor (Airflow 3.3+).
_FAILURES = "faceki_failed_looks"


class FacekiKycDecisionSensor(BaseSensorOperator):
    """Wait until FACEKI has decided about a link, a verification, or an id of your own.

    XCom: the summary of the record, without personal data. No record yet means not yet, in whichever of its
    three ways FACEKI says so; a link that FACEKI calls unknown, expired or used up fails the task at once.
    ``timeout`` and ``soft_fail`` mean the same in all modes: what ends the wait for good is skipped, what a retry may
    mend fails, a triggerer that cannot ask FACEKI included. Only a triggerer that breaks down is skipped too, as
    Airflow has it.

    :param link: Link id; or one of the next two.
    :param request_id: FACEKI's id of the verification.
    :param record_identifier: Your own id.
    :param review: ``"wait"`` (default) to go on waiting while a person at FACEKI reviews the case,
        ``"return"`` to take REVIEW for an answer. A decision that FACEKI has not documented is always returned.
    :param fail_on_decline: Whether a DECLINED person fails the task. Default ``False``: it is a result.
    :param max_failures: Failed looks in a row (FACEKI unreachable, overloaded, unreadable) that are borne,
        each of them after the Connection's own attempts. Default 10. With ``mode="reschedule"`` before
        Airflow 3.3 nothing survives between looks, so all are borne until ``timeout``.
    :param poke_interval: Seconds between looks; while deferred, between the first two. Default 60.
    :param max_poke_interval: Seconds between looks at the most while deferred (never fewer than
        ``poke_interval``). Default 2400: waiting three days costs fewer than 200 requests,
        tokens included.
    :param poke_growth: Factor by which the pause grows from look to look while deferred. Default 1.5.
    :param deferrable: Wait in the triggerer. Default: ``[operators] default_deferrable``.
    :param faceki_conn_id: Connection of type ``faceki``.
    """

    template_fields: Sequence[str] = ("faceki_conn_id", "link", "request_id", "record_identifier")
    ui_color = "#e5f2ef"

    def __init__(
        self,
        *,
        link: str | None = None,
        request_id: str | None = None,
        record_identifier: str | None = None,
        review: str = "wait",
        fail_on_decline: bool = False,
        max_failures: int = 10,
        max_poke_interval: timedelta | float = LONGEST_POKE,
        poke_growth: float = 1.5,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        faceki_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if review not in {"wait", "return"}:
            raise ValueError(f"review must be 'wait' or 'return', not {review!r}")
        self.link = link
        self.request_id = request_id
        self.record_identifier = record_identifier
        self.review = review
        self.fail_on_decline = fail_on_decline
        self.max_failures = int(_number("max_failures", max_failures, at_least=0))
        self.max_poke_interval = _number("max_poke_interval", max_poke_interval, at_least=0.0)
        self.poke_growth = _number("poke_growth", poke_growth, at_least=1.0)
        self.deferrable = deferrable
        self.faceki_conn_id = faceki_conn_id
        self._failed_looks = 0

    @cached_property
    def hook(self) -> FacekiHook:
        """The hook of this task's Connection."""
        return FacekiHook(self.faceki_conn_id)

    def execute(self, context: Context) -> Any:
        """Look, and wait as this sensor's mode says."""
        if not self.deferrable:
            return super().execute(context)
        deadline = time.time() + self.timeout
        with self._skipping():
            found = self._look(context)
        return found.summary() if found else self._defer(deadline)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral, whichever way it ended."""
        with self._skipping():
            return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        found = self._look(context)
        return PokeReturnValue(found is not None, found.summary() if found else None)

    def execute_complete(self, context: Context, event: object = None, deadline: object = None) -> Any:
        """Go on after the triggerer has told something; the event is a hint, so look before believing it.

        :param context: The task's context.
        :param event: What the trigger told.
        :param deadline: Unix time until which this sensor waits. Airflow's ``dag.test()`` loses it, and the
            start of the task is not a substitute: in 3.0 to 3.2 it moves with each deferral.
        :raises AirflowSensorTimeout: there is no decision in time.
        :raises FacekiError: the triggerer gave up, and would again.
        """
        told = DecisionEvent.from_payload(event)
        known = moment(deadline)
        until = time.time() + self.timeout if known is None else known
        # What the trigger gave up on, it has counted itself: one more failure here is one too many.
        self._failed_looks = self.max_failures if told.status in {"failed", "refused"} else 0
        found = self._look(context)
        if found is not None:
            return found.summary()
        if told.status == "timeout" or time.time() >= until:
            raise AirflowSensorTimeout(f"FACEKI has not decided within {self.timeout:g} s")
        if told.status != "failed" or not self.silent_fail:
            fail_if_given_up(told, self.faceki_conn_id)
        return self._defer(until)

    @contextmanager
    def _skipping(self) -> Iterator[None]:
        """Skip the task where a poking sensor would: Airflow minds these flags in its own loop only."""
        try:
            yield
        except (AirflowSensorTimeout, AirflowTaskTimeout, AirflowFailException) as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException("Skipping, for soft_fail or never_fail is set.") from error
            raise
        except AirflowSkipException:
            raise
        except (AirflowException, api.FacekiError) as error:
            if self.never_fail:
                raise AirflowSkipException("Skipping, for never_fail is set.") from error
            raise

    def _look(self, context: Context) -> api.VerificationRecord | None:
        if self.link:
            mask_secret(self.link)
        try:
            with translate_errors(another_look_may_help):
                endpoint = api.FetchRecords(
                    link=self.link, request_id=self.request_id, record_identifier=self.record_identifier
                )
                records = self.hook.call(endpoint)
        except api.FacekiError as error:
            self._bear(error, context)
            return None
        self._count(context, 0)
        found = api.final_record(records, accept_review=self.review == "return")
        if found is not None:
            self.log.info("FACEKI decided verification %s: %s", found.request_id, found.decision)
            fail_if_declined(found if self.fail_on_decline else None)
        return found

    def _bear(self, error: api.FacekiError, context: Context) -> None:
        failures = self._count(context)
        if failures > self.max_failures and not self.silent_fail:
            self._count(context, 0)
            raise error
        self.log.warning("Look %d in a row at FACEKI failed, and is borne: %s", failures, error)

    def _count(self, context: Context, failures: int | None = None) -> int:
        """Set the number of failed looks in a row, or add one to it, wherever it outlives this look."""
        store = context.get("task_state_store") if self.reschedule and not self.deferrable else None
        if failures is None:
            kept = store.get(_FAILURES) if store is not None else self._failed_looks
            failures = (kept if isinstance(kept, int) else 0) + 1
            if store is not None:
                store.set(_FAILURES, failures)
        elif store is not None and store.get(_FAILURES):
            store.set(_FAILURES, failures)
        self._failed_looks = failures
        return failures

    def _defer(self, deadline: float) -> Any:
        # Not at the top: Airflow's own base of triggers takes 20 ms, which a sensor that pokes has no use for.
        from airflow_provider_faceki.triggers.faceki import FacekiKycDecisionTrigger

        self.log.info(
            "No decision yet; the triggerer looks within %g s and then ever more rarely, for %.0f s at the most",
            self.poke_interval,
            max(0.0, deadline - time.time()),
        )
        return self.defer(
            trigger=FacekiKycDecisionTrigger(
                faceki_conn_id=self.faceki_conn_id,
                deadline=deadline,
                link=self.link,
                request_id=self.request_id,
                record_identifier=self.record_identifier,
                accept_review=self.review == "return",
                poke_interval=self.poke_interval,
                max_poke_interval=self.max_poke_interval,
                poke_growth=self.poke_growth,
                max_failures=ENDLESS if self.silent_fail else self.max_failures,
                failed_looks=self._failed_looks,
            ),
            method_name="execute_complete",
            kwargs={"deadline": deadline},
            timeout=net(deadline),
        )


def _number(name: str, value: object, *, at_least: float) -> float:
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(number) or number < at_least:
        raise ValueError(f"{name} must be a number of at least {at_least:g}, not {value!r}")
    return number
