# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Waiting in the triggerer for a decision of FACEKI."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_faceki import api
from airflow_provider_faceki.failures import another_look_may_help
from airflow_provider_faceki.triggers.deferral import DecisionEvent
from airflow_provider_faceki.triggers.lookout import LONGEST_POKE, lookout

#: Shortest pause in seconds between two looks, whatever is asked for: thousands of triggers share one process, and
#: FACEKI charges extra for floods of requests.
SHORTEST_PAUSE = 1.0


class FacekiKycDecisionTrigger(BaseTrigger):
    """Fires once: when FACEKI has decided, when the deadline has passed, or when it cannot go on.

    It carries identifiers and plain numbers, so that a restarted triggerer goes on where the last one was.

    :param faceki_conn_id: Connection of type ``faceki``.
    :param deadline: Unix time after which it gives up; it looks once more then.
    :param link: Link id to wait for; or one of the next two.
    :param request_id: FACEKI's id of the verification.
    :param record_identifier: Your own id.
    :param accept_review: Whether REVIEW ends the wait.
    :param poke_interval: Seconds between the first looks, at least :data:`SHORTEST_PAUSE`. The first of all comes
        at a moment within them, so that waits that begin together do not look together.
    :param max_poke_interval: Seconds to which that grows at the most.
    :param poke_growth: Factor by which the pause grows from look to look, at least 1.
    :param max_failures: Failed looks in a row that are borne.
    :param failed_looks: How many there have just been before this wait began.
    """

    def __init__(
        self,
        *,
        faceki_conn_id: str,
        deadline: float,
        link: str | None = None,
        request_id: str | None = None,
        record_identifier: str | None = None,
        accept_review: bool = False,
        poke_interval: float = 60.0,
        max_poke_interval: float = LONGEST_POKE,
        poke_growth: float = 1.5,
        max_failures: int = 10,
        failed_looks: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.faceki_conn_id = faceki_conn_id
        self.deadline = deadline
        self.link = link
        self.request_id = request_id
        self.record_identifier = record_identifier
        self.accept_review = accept_review
        self.poke_interval = poke_interval
        self.max_poke_interval = max_poke_interval
        self.poke_growth = poke_growth
        self.max_failures = max_failures
        self.failed_looks = failed_looks

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger again."""
        return (
            "airflow_provider_faceki.triggers.faceki.FacekiKycDecisionTrigger",
            {
                "faceki_conn_id": self.faceki_conn_id,
                "deadline": self.deadline,
                "link": self.link,
                "request_id": self.request_id,
                "record_identifier": self.record_identifier,
                "accept_review": self.accept_review,
                "poke_interval": self.poke_interval,
                "max_poke_interval": self.max_poke_interval,
                "poke_growth": self.poke_growth,
                "max_failures": self.max_failures,
                "failed_looks": self.failed_looks,
            },
        )

    def __repr__(self) -> str:
        # Airflow's own prints every argument, and a link is a right to act.
        return f"<FacekiKycDecisionTrigger {self.faceki_conn_id!r}>"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is something to tell, then tell it."""
        yield TriggerEvent((await self._wait()).to_dict())

    async def _wait(self) -> DecisionEvent:
        line = lookout(self.faceki_conn_id)
        endpoint = api.FetchRecords(
            link=self.link, request_id=self.request_id, record_identifier=self.record_identifier
        )
        pause, failures = max(self.poke_interval, SHORTEST_PAUSE), self.failed_looks
        longest = max(self.max_poke_interval, pause)
        # Anywhere in the first pause: a triggerer that starts begins all its waits at once, and where a worker has
        # deferred this one, it has just looked itself.
        await self._rest(pause * random.uniform(0.0, 1.0))  # noqa: S311 - it guards nothing
        while True:
            left = self.deadline - time.time()
            is_last = left <= 0
            if not is_last and (held := line.hold()):
                await asyncio.sleep(min(held, left))
                continue
            try:
                found = api.final_record(await line.look(endpoint), accept_review=self.accept_review)
                failures = 0
            except api.FacekiError as error:
                failures += 1
                may_mend = another_look_may_help(error)
                if not may_mend or failures > self.max_failures:
                    self.log.warning("Giving up the wait for FACEKI: %s", error)
                    return DecisionEvent("failed" if may_mend else "refused")
                found = None
            if found is not None:
                return DecisionEvent("decided", found.request_id)
            if is_last:
                return DecisionEvent("timeout")
            # Not in step: a thousand waits that began together must not look together.
            await self._rest(pause * random.uniform(0.9, 1.1))  # noqa: S311 - it guards nothing
            pause = min(pause * self.poke_growth, longest)

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not past the deadline."""
        await asyncio.sleep(max(0.0, min(seconds, self.deadline - time.time())))
