# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Poll FACEKI for all triggers of a triggerer, with one client and one circuit breaker for each Connection.

The circuit breaker stops the polls while FACEKI is down. If it were not shared, each of a thousand triggers would have
to detect the outage with its own requests.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_faceki import api, metrics
from airflow_provider_faceki.api.errors import CHECK_ADVICE
from airflow_provider_faceki.failures import is_definite_answer, is_gateway_error

if TYPE_CHECKING:
    from airflow_provider_faceki.api.client import AsyncFacekiClient

log = logging.getLogger(__name__)

#: Seconds for which the triggers use the same client. After this time, the Connection is read again, because a user can
#: change its values.
CLIENT_TTL_SECONDS = 300.0
#: Seconds until a failed read of the Connection is repeated.
REREAD_INTERVAL_SECONDS = 30.0
#: The triggers read their Connection again after :data:`CLIENT_TTL_SECONDS`. After this number of consecutive failed
#: reads, a poll raises an error. Until then, the triggers use the client with the last known values of the Connection.
#: If there is no client yet, or if the values of the Connection are wrong, a poll raises an error at once.
MAX_FAILED_READS = 3
#: After this number of consecutive failed polls, all polls of a Connection are blocked for some time (the circuit is
#: open). The polls of all waiting tasks are counted together. One or two failures are normal, so they do not block the
#: polls.
FAILURE_THRESHOLD = 3
#: Initial and maximum time in seconds for which the polls are blocked. After this time, one poll is allowed as a probe.
#: After each failed probe, the time doubles.
MIN_OPEN_SECONDS = 5.0
MAX_OPEN_SECONDS = 300.0


class CircuitBreaker:
    """Circuit breaker for the polls of one Connection.

    After several failed polls in a row, the circuit is open, and the waiting tasks must not poll FACEKI. After some
    time, one poll is allowed as a probe, and the circuit is half-open. If the probe succeeds, the circuit closes, and
    all tasks are allowed to poll again.

    All times are seconds of a monotonic clock. Unix time is not used, because a Unix clock that is set back by an hour
    would block the polls for one more hour.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.open_seconds = 0.0
        self._next_probe = 0.0
        self._is_half_open = False

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open or half-open. In both states, all polls except a probe are blocked."""
        return self.failures >= FAILURE_THRESHOLD

    def retry_after(self, now: float) -> float:
        """Return the number of seconds for which the caller must not poll. 0 allows a poll now.

        While the circuit is open, polls are blocked for some time. When this time is over, only one caller gets 0. The
        poll of this caller is the probe, and the polls of the other callers are blocked again.
        """
        if not self.is_open:
            return 0.0
        if now < self._next_probe:
            return self._next_probe - now
        self._next_probe, self._is_half_open = now + self.open_seconds, True
        return 0.0

    def record_failure(self, now: float) -> bool:
        """Count a failed poll. Return ``True`` if this failure opens the circuit, which blocks further polls."""
        self.failures += 1
        if self.failures == FAILURE_THRESHOLD:
            self.open_seconds, self._next_probe = MIN_OPEN_SECONDS, now + MIN_OPEN_SECONDS
            return True
        if self._is_half_open:
            # A probe is running. The first failure after its start is treated as the failure of the probe, and doubles
            # the time for which polls are blocked. While polls are blocked and no probe is running, a failure comes
            # from a poll that began before the blocking, and does not change the blocking time.
            self._is_half_open = False
            self.open_seconds = min(self.open_seconds * 2, MAX_OPEN_SECONDS)
            self._next_probe = now + self.open_seconds
        return False

    def record_success(self) -> bool:
        """Close the circuit, because FACEKI has answered a poll. Return ``True`` if polls were blocked before."""
        was_open = self.is_open
        self.failures, self._is_half_open = 0, False
        return was_open


class SharedPoller:
    """Poller that all triggers with the same Connection share in one event loop.

    :param conn_id: Id of the Connection, which has the type ``faceki``.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._circuit = CircuitBreaker()
        self._client: AsyncFacekiClient | None = None
        self._read_again_at = 0.0
        self._failed_reads = 0

    def retry_after(self) -> float:
        """Return the number of seconds for which the caller must not poll. With 0, the caller must poll now.

        While the circuit is open, only one caller gets 0, and its poll is the probe. The number is random: 1 to 1.5
        times the blocking time that the circuit breaker returns. So the triggers do not all poll again at the same
        time.
        """
        return self._circuit.retry_after(time.monotonic()) * random.uniform(1.0, 1.5)  # noqa: S311 - no secret

    async def poll(self, endpoint: api.FetchRecords) -> tuple[api.VerificationRecord, ...]:
        """Fetch records. A failed request is not retried, because the trigger polls again later.

        Single failures are not logged. A log line is written only when the circuit breaker opens or closes.

        :param endpoint: The call that selects the records.
        :raises FacekiError: for the same reasons as ``FacekiHook.acall``. If the Connection cannot be read, the
            exception of Airflow or of the secrets backend is raised.
        """
        try:
            client = await self._current_client()
            records = await client.call(endpoint)
        except api.FacekiError as error:
            error.with_conn_id(self._conn_id)
            is_outage = error.is_transient or is_gateway_error(error)
            if is_outage and self._circuit.record_failure(time.monotonic()):
                metrics.report_circuit(self._conn_id, is_open=True)
                log.warning("%s: %s", _outage_text(error), _with_advice(error))
            if is_definite_answer(error):
                self._record_answer()
            raise
        self._record_answer()
        return records

    def _record_answer(self) -> None:
        if self._circuit.record_success():
            metrics.report_circuit(self._conn_id, is_open=False)
            log.info("FACEKI answers again on connection %r; its circuit is closed", self._conn_id)

    async def _current_client(self) -> AsyncFacekiClient:
        if self._client is None:
            return await self._read_client()
        if time.monotonic() < self._read_again_at:
            return self._client
        # Only one trigger reads the Connection again and creates a new client from it. In the meantime, the other
        # triggers use the old client. Otherwise a slow secrets backend would receive the requests of a thousand
        # triggers at once.
        self._read_again_at, old = time.monotonic() + REREAD_INTERVAL_SECONDS, self._client
        try:
            return await self._read_client()
        except api.FacekiError:
            self._client = None
            raise
        # Every exception of the read is caught, because one failed read of the Connection must not end all triggers. A
        # secrets backend can raise an exception of any type. Airflow's exception for a missing Connection is also
        # caught, because Airflow possibly raises it although the Connection exists and only a backend has failed.
        except Exception as error:
            self._failed_reads += 1
            if self._failed_reads >= MAX_FAILED_READS:
                self._client = None
                raise
            if self._failed_reads == 1:
                log.warning(
                    "Connection %r could not be read again (%s); continuing with its last values",
                    self._conn_id,
                    type(error).__name__,
                )
            return old

    async def _read_client(self) -> AsyncFacekiClient:
        # The hook is imported inside this function, so that a DAG file that imports a trigger does not import the hook.
        from airflow_provider_faceki.hooks.faceki import FacekiHook

        client = await FacekiHook(self._conn_id).aget_conn()
        once = replace(client.as_sync(), retry=api.RetryPolicy(max_attempts=1))
        self._client, self._read_again_at = once.as_async(), time.monotonic() + CLIENT_TTL_SECONDS
        self._failed_reads = 0
        return self._client


def _outage_text(error: api.FacekiError) -> str:
    if is_gateway_error(error) or isinstance(error, api.UnexpectedResponseError):
        text = (
            "FACEKI, or a proxy in front of it, refuses the polls or sends answers that cannot be read; "
            "its circuit is open, so waits poll rarely"
        )
    else:
        text = "FACEKI does not answer; its circuit is open, so waits poll rarely"
    return f"{text}, until their timeout or max_failures ends them"


def _with_advice(error: api.FacekiError) -> str:
    text = str(error)
    return text if CHECK_ADVICE in text else f"{text}; {CHECK_ADVICE}"


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedPoller]] = WeakKeyDictionary()


def shared_poller(conn_id: str) -> SharedPoller:
    """Return the poller for a Connection in the running event loop. Create the poller if it does not exist yet."""
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    return pollers.setdefault(conn_id, SharedPoller(conn_id))
