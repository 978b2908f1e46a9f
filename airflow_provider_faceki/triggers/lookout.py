# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How all the waits of a triggerer look at FACEKI: through one hook, and knowing together when it is down.

A thousand waits that each find out for themselves that FACEKI does not answer are a thousand more requests for a
service in trouble. Here the first few find out, one wait at a time looks whether it is back, ever more rarely, and
the others hold still.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_faceki import api
from airflow_provider_faceki.failures import is_gateway_error
from airflow_provider_faceki.hooks.faceki import FacekiHook

if TYPE_CHECKING:
    from airflow_provider_faceki.api.client import AsyncFacekiClient

log = logging.getLogger(__name__)

#: Failed looks in a row, whosever they are, after which FACEKI counts as down. One or two are ordinary.
FAILURES_BEFORE_DOWN = 3
#: Seconds until the first look whether it is back; doubled for each further one, up to the longest.
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
#: Seconds for which the waits share a hook; a Connection that somebody changes is read again after that.
HOOK_LIFETIME = 300.0
#: Seconds after which it is read again if it could not be, and how often in a row that is borne before the waits fail.
REREAD_PAUSE = 30.0
FAILED_READS = 3
#: Seconds between the looks of one wait at the most. A token lives an hour, so every second look costs a token too;
#: at forty minutes three days of waiting take about 170 requests, where FACEKI charges for high volumes. Default of
#: ``max_poke_interval``.
LONGEST_POKE = 2400.0


class CircuitBreaker:
    """Whether FACEKI answers, as far as the waits on one Connection know.

    All times are Unix time in seconds.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.pause = 0.0
        self.next_probe = 0.0
        self.probing = False

    @property
    def is_down(self) -> bool:
        """Whether looks are held back."""
        return self.failures >= FAILURES_BEFORE_DOWN

    def hold(self, now: float) -> float:
        """Return for how many seconds the caller should not look; at 0 it may, and may be the one probe."""
        if not self.is_down:
            return 0.0
        if now < self.next_probe:
            return self.next_probe - now
        self.next_probe, self.probing = now + self.pause, True
        return 0.0

    def failed(self, now: float) -> bool:
        """Note a failed look; return whether FACEKI counts as down from now on."""
        self.failures += 1
        if self.failures == FAILURES_BEFORE_DOWN:
            self.pause, self.next_probe = FIRST_PAUSE, now + FIRST_PAUSE
            return True
        if self.probing:
            # Looks that began before the outage was known fail late; only the probe's failure says more.
            self.probing, self.pause = False, min(self.pause * 2, LONGEST_PAUSE)
            self.next_probe = now + self.pause
        return False

    def answered(self) -> bool:
        """Note a look that was answered; return whether FACEKI had counted as down."""
        was_down = self.is_down
        self.failures, self.probing = 0, False
        return was_down


class SharedPoller:
    """The one place from which a triggerer's waits on one Connection look at FACEKI.

    :param conn_id: Connection of type ``faceki``.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._outage = CircuitBreaker()
        self._client: AsyncFacekiClient | None = None
        self._read_again_at = 0.0
        self._failed_reads = 0

    def hold(self) -> float:
        """Return for how many seconds not to look, spread so that the waits do not come back in step."""
        return self._outage.hold(time.time()) * random.uniform(1.0, 1.5)  # noqa: S311 - it guards nothing

    async def look(self, endpoint: api.FetchRecords) -> tuple[api.VerificationRecord, ...]:
        """Look once, without repeating: the next look is the repetition. A change between up and down is logged;
        failed looks in between are not.

        :param endpoint: What to look for.
        :raises FacekiError: as ``FacekiHook.acall``.
        """
        try:
            client = await self._current_client()
            records = await client.call(endpoint)
        except api.FacekiError as error:
            error.with_conn_id(self._conn_id)
            silent = error.is_transient or is_gateway_error(error)
            if silent and self._outage.failed(time.time()):
                log.warning("FACEKI does not answer; waits look rarely until it does: %s", error)
            raise
        if self._outage.answered():
            log.info("FACEKI answers again on connection %r", self._conn_id)
        return records

    async def _current_client(self) -> AsyncFacekiClient:
        if self._client is None:
            return await self._read_client()
        if time.time() < self._read_again_at:
            return self._client
        # One wait reads, and the others go on meanwhile: a backend in trouble is not asked a thousand times.
        self._read_again_at, old = time.time() + REREAD_PAUSE, self._client
        try:
            return await self._read_client()
        except api.FacekiError:
            self._client = None
            raise
        # Secrets backends raise whatever they like, and Airflow says of one that fails, too, that there is no such
        # Connection. One hiccup must not end every wait; a Connection that is gone ends them a little later.
        except Exception as error:
            self._failed_reads += 1
            if self._failed_reads >= FAILED_READS:
                self._client = None
                raise
            if self._failed_reads == 1:
                log.warning(
                    "Connection %r could not be read again (%s); going on with what it said before",
                    self._conn_id,
                    type(error).__name__,
                )
            return old

    async def _read_client(self) -> AsyncFacekiClient:
        client = await FacekiHook(self._conn_id).aget_conn()
        once = replace(client.as_sync(), retry=api.RetryPolicy(max_attempts=1))
        self._client, self._read_again_at = once.as_async(), time.time() + HOOK_LIFETIME
        self._failed_reads = 0
        return self._client


_lookouts: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedPoller]] = WeakKeyDictionary()


def lookout(conn_id: str) -> SharedPoller:
    """Return the running event loop's lookout for a Connection."""
    mine = _lookouts.setdefault(asyncio.get_running_loop(), {})
    return mine.setdefault(conn_id, SharedPoller(conn_id))
