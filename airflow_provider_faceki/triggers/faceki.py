# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Airflow trigger that waits until FACEKI has decided on the verification of a person, and the event that it sends."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_faceki import api, metrics
from airflow_provider_faceki.api.values import as_faceki_id
from airflow_provider_faceki.failures import is_poll_retryable
from airflow_provider_faceki.triggers.poll_log import PollLog, wait_subject
from airflow_provider_faceki.triggers.shared_poller import shared_poller

# All triggers share this logger. ``self.log`` would create about ten objects for each trigger. With thousands of
# triggers, they would make the garbage collections longer, which block the event loop.
log = logging.getLogger(__name__)

#: Minimum pause in seconds between two polls of one trigger. A shorter requested pause is increased to this value,
#: because thousands of triggers share one process, and FACEKI charges extra for excessive request rates.
MIN_POLL_INTERVAL_SECONDS = 1.0
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
    :param request_id: FACEKI's id of the decided verification, for Airflow's log. The task does not use it, because it
        fetches the record itself. It is ``None`` if there is no valid id.
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

    def raise_for_status(self, conn_id: str) -> None:
        """Raise an error if the event reports that the triggerer could not poll FACEKI.

        Call this method only after this worker has polled FACEKI and received a response, because the messages of the
        errors say that the worker can call FACEKI. If no error were raised, the task would defer again, and the
        triggerer would fail again. Airflow applies the task's ``retries`` to the errors.

        :raises ConfigurationError: if the triggerer cannot call FACEKI with its current Connection.
        :raises TransportError: if too many consecutive polls of the triggerer failed.
        """
        if self.status == "refused":
            raise api.ConfigurationError(
                "the triggerer cannot call FACEKI, but this worker can; the triggerer's log contains the "
                f"reason. Do both have the same connection {conn_id!r}?"
            )
        if self.status == "failed":
            raise api.TransportError(
                "too many consecutive polls of the triggerer failed, but this worker gets an answer from "
                "FACEKI; the triggerer's log contains the reason"
            ).with_conn_id(conn_id)


class FacekiKycDecisionTrigger(BaseTrigger):
    """Trigger that polls FACEKI and fires one event when the wait for a decision ends.

    The wait ends if FACEKI has decided, if the deadline has passed, if too many consecutive polls have failed, or if a
    poll has failed for a reason that further polls cannot change. It also ends, without an event, if the Connection
    cannot be read: Airflow then fails the task with the error of the read.

    Airflow stores the arguments, so all of them are identifiers, numbers or flags. A restarted triggerer continues
    the wait with the stored arguments. Exactly one of ``link``, ``request_id`` and ``record_identifier`` must be set.

    :param faceki_conn_id: Connection of type ``faceki``.
    :param deadline: Unix time at which the trigger polls for the last time and then gives up.
    :param link: Id of the link that the person uses.
    :param request_id: FACEKI's id of the verification.
    :param record_identifier: The caller's own id of the verification.
    :param wait_for_review: Whether the trigger continues to wait while the decision is REVIEW, which means that a
        person has to decide.
    :param poke_interval: Seconds between the first two polls, at least :data:`MIN_POLL_INTERVAL_SECONDS`. The first
        poll happens at a random time within this interval, so that triggers that start together do not poll together.
    :param exponential_backoff: Whether the pause doubles after each poll.
    :param max_wait: Maximum pause in seconds between two polls, if ``exponential_backoff`` is set. ``None`` means no
        maximum. Each pause varies randomly by up to 10 %.
    :param max_failures: Maximum number of consecutive failed polls. After one more failed poll, the trigger gives up.
    :param failed_polls: Number of consecutive failed polls of the task directly before it deferred to this trigger. The
        trigger continues to count from this number.
    """

    def __init__(
        self,
        *,
        faceki_conn_id: str,
        deadline: float,
        link: str | None = None,
        request_id: str | None = None,
        record_identifier: str | None = None,
        wait_for_review: bool = True,
        poke_interval: float = 60.0,
        exponential_backoff: bool = True,
        max_wait: float | None,
        max_failures: int = 10,
        failed_polls: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.faceki_conn_id = faceki_conn_id
        self.deadline = deadline
        self.link = link
        self.request_id = request_id
        self.record_identifier = record_identifier
        self.wait_for_review = wait_for_review
        self.poke_interval = poke_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.max_failures = max_failures
        self.failed_polls = failed_polls

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments from which Airflow creates this trigger again."""
        return (
            "airflow_provider_faceki.triggers.faceki.FacekiKycDecisionTrigger",
            {
                "faceki_conn_id": self.faceki_conn_id,
                "deadline": self.deadline,
                **self._key,
                "wait_for_review": self.wait_for_review,
                "poke_interval": self.poke_interval,
                "exponential_backoff": self.exponential_backoff,
                "max_wait": self.max_wait,
                "max_failures": self.max_failures,
                "failed_polls": self.failed_polls,
            },
        )

    @property
    def _key(self) -> dict[str, str | None]:
        return {
            "link": self.link,
            "request_id": self.request_id,
            "record_identifier": self.record_identifier,
        }

    def __repr__(self) -> str:
        # Airflow's own __repr__ would print the link. The link must stay secret, because every person who knows it can
        # open the verification page.
        return f"<FacekiKycDecisionTrigger {self.faceki_conn_id!r}>"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll FACEKI until the wait ends, and then yield exactly one event.

        :raises Exception: any error of a secrets backend, if the Connection cannot be read; see
            :meth:`.SharedPoller.poll`.
        """
        metrics.count_open_wait(1)
        try:
            event = await self._wait()
        finally:
            metrics.count_open_wait(-1)
        yield TriggerEvent(event._asdict())

    async def _wait(self) -> DecisionEvent:
        poller, endpoint = shared_poller(self.faceki_conn_id), api.FetchRecords(**self._key)
        poll_log = PollLog(log, *wait_subject(**self._key))
        pause, failures = self._limited(self.poke_interval), self.failed_polls
        # When a triggerer starts, it runs all its triggers at the same moment. Therefore the first poll of each trigger
        # is delayed by a random time. For a task that has just been deferred, the delay does no harm, because the
        # worker polled directly before it deferred the task.
        await asyncio.sleep(self._until_deadline(pause * random.uniform(0.0, 1.0)))  # noqa: S311 - no secret
        while True:
            left = self.deadline - time.time()
            is_last = left <= 0
            if not is_last and (held_back := poller.retry_after()):
                await asyncio.sleep(min(held_back, left))
                continue
            try:
                records = await poller.poll(endpoint)
            except api.FacekiError as error:
                failures += 1
                if event := self._give_up(error, failures):
                    return event
            else:
                failures = 0
                found = api.final_record(records, wait_for_review=self.wait_for_review)
                if found is not None:
                    return DecisionEvent("decided", found.request_id)
                poll_log.polled(records, None if is_last else pause)
            if is_last:
                return DecisionEvent("timeout")
            # The pause is random within a range. Without this, a thousand triggers that started at the same time would
            # always poll at the same time.
            await asyncio.sleep(self._until_deadline(pause * random.uniform(0.9, 1.1)))  # noqa: S311 - no secret
            if self.exponential_backoff:
                pause = self._limited(pause * 2)

    def _give_up(self, error: api.FacekiError, failures: int) -> DecisionEvent | None:
        """Return the event that ends the wait after a failed poll. If the wait continues, return ``None``.

        :param error: Error of the failed poll.
        :param failures: Number of consecutive failed polls, including this poll.
        """
        is_retryable = is_poll_retryable(error)
        if is_retryable and failures <= self.max_failures:
            return None
        log.warning("Giving up the wait for FACEKI: %s", error)
        return DecisionEvent("failed" if is_retryable else "refused")

    def _limited(self, pause: float) -> float:
        # As in a poking sensor, Airflow's ``max_wait`` applies only with ``exponential_backoff``.
        if self.exponential_backoff and self.max_wait:
            pause = min(pause, self.max_wait)
        return max(pause, MIN_POLL_INTERVAL_SECONDS)

    def _until_deadline(self, seconds: float) -> float:
        """Return ``seconds``, or the seconds until the deadline if they are fewer."""
        return max(0.0, min(seconds, self.deadline - time.time()))
