# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Authenticate senders of webhooks with the token and the signature key of a Connection, which are cached for 30 s.

A Connection cannot be used if it is missing, has another type, has no token, or has a wrong setting. For such a
Connection, the cache contains credentials that no token matches. This has two advantages:

- A refusal does not reveal whether the Connection or only the token is wrong, because the receiver compares the token
  with credentials and answers in the same way in both cases.
- While the credentials are in the cache, further requests for the Connection cause no lookup.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.assets import faceki_verifications, fits_uri

if TYPE_CHECKING:
    from airflow_provider_faceki.connection.settings import StoredConnection, WebhookSettings

log = logging.getLogger(__name__)

#: Lifetime of cached credentials in seconds. After a token is changed, the old token remains valid for up to this time.
CACHE_TTL_SECONDS = 30.0
#: If the ids of the Connections that DAGs use cannot be read from the database, they are read again after this number
#: of seconds.
FAILURE_TTL_SECONDS = 5.0
#: Maximum time in seconds to look up a Connection, and to read the ids of the Connections that DAGs use. The time is
#: limited, because a secrets backend or the database is possibly slow or unavailable.
LOOKUP_TIMEOUT_SECONDS = 15.0
#: The duration of the slowest measured lookup of an expected Connection is remembered for this number of seconds.
#: Refusals of webhooks are delayed by more than this duration, so that the delay does not reveal whether a Connection
#: was looked up. :class:`ExpectedConnections` says which Connections are expected.
SLOWEST_TTL_SECONDS = 3600.0
#: Maximum difference in seconds between the time of a signature and the current time, in both directions.
MAX_SIGNATURE_AGE_SECONDS = 300
#: Maximum number of Connection ids in the cache of credentials. Ids of Connections that do not exist are cached and
#: counted too.
MAX_CACHED = 1024
_LOOKUP_THREADS = 2


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials that a sender must present for one Connection, and settings for its webhooks.

    ``WebhookSettings`` describes the fields that are not listed here.

    :param token_hashes: SHA-256 hashes of the accepted tokens. Because all hashes have the same length, the duration of
        a comparison does not depend on the length of the token.
    :param service: Description of the FACEKI installation that sends the webhooks. It defines which fields of a
        webhook's body contain the request id and the status.
    :param denied: Reason why no token is accepted. If it is empty, a token that matches a hash is accepted.
    """

    token_hashes: tuple[bytes, ...] = field(repr=False)
    hmac_secret: bytes = field(default=b"", repr=False)
    hmac_header: str | None = None
    hmac_timestamp_header: str | None = None
    service: Service = FACEKI
    statuses: tuple[str, ...] | None = None
    max_per_day: int = 0
    denied: str = ""

    def verify_token(self, token: str) -> bool:
        """Return whether the token is accepted. The token is compared with all accepted tokens, in constant time."""
        found = hashlib.sha256(token.encode(errors="replace")).digest()
        same = [hmac.compare_digest(found, each) for each in self.token_hashes]
        return any(same) and not self.denied

    def verify_signature(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether the signature header is valid. If the Connection has no signature key, the result is true.

        The header contains the HMAC-SHA256 in hexadecimal, with or without the prefix ``sha256=``. The signature covers
        the body. If a timestamp header is configured, the signature covers ``<timestamp>.<body>``. The timestamp is a
        Unix time, which must differ from the current time by at most :data:`MAX_SIGNATURE_AGE_SECONDS`.
        """
        if self.hmac_header is None:
            return True
        signed = body
        if self.hmac_timestamp_header is not None:
            timestamp = headers.get(self.hmac_timestamp_header, "").strip()
            is_number = re.fullmatch(r"[0-9]{1,12}", timestamp) is not None
            if not is_number or abs(time.time() - int(timestamp)) > MAX_SIGNATURE_AGE_SECONDS:
                return False
            signed = timestamp.encode() + b"." + body
        given = headers.get(self.hmac_header, "").strip().lower().removeprefix("sha256=")
        right = hmac.new(self.hmac_secret, signed, hashlib.sha256).hexdigest()
        return hmac.compare_digest(given.encode(errors="replace"), right.encode())


#: Credentials for a Connection that does not exist or cannot be used. No token matches them, because their hash is
#: random. The comparison of a token with this hash takes as long as for a Connection with one token, so its duration
#: does not reveal whether the Connection exists.
DENY_ALL = Credentials((secrets.token_bytes(32),), denied="there is no such Connection of type faceki")

# Credentials for an id that cannot be part of the URI of an asset, so it is never looked up.
_UNFIT = replace(
    DENY_ALL, denied="the Connection id in the URL contains a character that is not one of A-Z a-z 0-9 . _ -"
)

#: Credentials for a lookup that takes too long. The reason of the refusal is logged. It does not contain the Connection
#: id from the URL, because this id is possibly the secret token: a sender can put the id and the token into the URL in
#: the wrong order.
TOO_LATE = replace(DENY_ALL, denied="a Connection was not found in time")


class LookupFailed(Exception):
    """Error: a secrets backend or the database failed or was too slow.

    Therefore it is unknown whether the Connection exists.
    """


class Authenticator:
    """Cache of the credentials of up to :data:`MAX_CACHED` Connections. Use each instance in only one event loop.

    :param load: Function that reads the credentials of a Connection. It runs in a thread and is allowed to block.
    """

    def __init__(
        self, load: Callable[[str], Credentials], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._clock = clock
        self._expected_pool = ThreadPoolExecutor(_LOOKUP_THREADS, "faceki-webhook-lookup")
        # Lookups of unexpected Connections use their own threads, so that they do not delay the other lookups.
        self._unexpected_pool = ThreadPoolExecutor(_LOOKUP_THREADS, "faceki-webhook-lookup-unexpected")
        self._cache: OrderedDict[str, tuple[float, Credentials]] = OrderedDict()
        self._lookups: dict[str, asyncio.Task[Credentials]] = {}
        self._slowest = (0.0, -math.inf)

    @property
    def slowest_lookup_seconds(self) -> float:
        """Duration in seconds of the slowest lookup of a Connection in the last hour. Without a lookup, the value is 0.

        A lookup counts only if it succeeded and its Connection is expected (:class:`ExpectedConnections`).
        """
        seconds, until = self._slowest
        return seconds if self._clock() < until else 0.0

    def cached(self, conn_id: str) -> Credentials | None:
        """Return the cached credentials of a Connection. If they are not in the cache, return ``None``.

        Webhooks of a Connection become events of its asset ``faceki://<conn_id>/verifications``. A Connection whose id
        cannot be part of this URI is never looked up. For such an id, return credentials that no token matches.
        """
        if not fits_uri(conn_id):
            return _UNFIT
        until, credentials = self._cache.get(conn_id, (0.0, None))
        return credentials if until > self._clock() else None

    def is_looking_up(self, conn_id: str) -> bool:
        """Return whether a lookup of the Connection is in progress."""
        return conn_id in self._lookups

    async def look_up(self, conn_id: str, expected: bool = False, within: float | None = None) -> Credentials:
        """Look up a Connection and return its credentials. Concurrent callers share one lookup.

        :param conn_id: Id of the Connection.
        :param expected: Whether the Connection is expected (:class:`ExpectedConnections`). Its lookup does not wait for
            lookups of unexpected Connections.
        :param within: Maximum wait in seconds. If the lookup takes longer, the call returns :data:`TOO_LATE`,
            which rejects every token. The lookup continues and fills the cache. ``None`` means no maximum.
        :raises LookupFailed: if a secrets backend or the database failed or was too slow.
        """
        task = self._lookups.get(conn_id)
        if task is None:
            task = self._lookups[conn_id] = asyncio.create_task(self._run_lookup(conn_id, expected))
            # asyncio logs the error of a task if nobody reads the error. Usually the waiting requests read the error of
            # a failed lookup. If all of them are cancelled, only this callback reads the error.
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        # `asyncio.wait` is used instead of `await task`, because the cancellation of one request must not cancel the
        # lookup for the other requests.
        done, _ = await asyncio.wait({task}, timeout=None if within is None else max(0.0, within))
        if not done:
            return TOO_LATE
        if (error := task.exception()) is not None:
            raise LookupFailed(type(error).__name__)
        return task.result()

    async def _run_lookup(self, conn_id: str, expected: bool) -> Credentials:
        began = self._clock()
        pool = self._expected_pool if expected else self._unexpected_pool
        try:
            lookup = asyncio.get_running_loop().run_in_executor(pool, self._load, conn_id)
            if not await ends_within(lookup, LOOKUP_TIMEOUT_SECONDS):
                lookup.cancel()
                raise TimeoutError
            credentials = lookup.result()
        finally:
            del self._lookups[conn_id]
        if expected and (seconds := self._clock() - began) >= self.slowest_lookup_seconds:
            self._slowest = seconds, self._clock() + SLOWEST_TTL_SECONDS
        self._cache[conn_id] = self._clock() + CACHE_TTL_SECONDS, credentials
        self._cache.move_to_end(conn_id)
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return credentials


class ExpectedConnections:
    """Ids of the Connections for which webhooks are expected.

    A Connection is *expected* in two cases:

    - A DAG uses its asset (``faceki://<conn_id>/verifications``), or has used it.
    - An earlier request contained the correct token of the Connection.

    The number of expected Connections is small, so their lookups have no rate limit. Lookups of other ids have a rate
    limit, because an attacker can send requests with any id. Use each instance in only one event loop.

    :param referenced: Function that returns the ids of the Connections whose asset a DAG uses. It runs in a thread and
        is allowed to block.
    """

    def __init__(
        self, referenced: Callable[[], Set[str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = referenced
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, "faceki-webhook-referenced")
        self._proven: set[str] = set()
        self._referenced: Set[str] | None = None
        self._until = -math.inf
        self._refreshing: asyncio.Task[None] | None = None
        self._failed = False

    def add(self, conn_id: str) -> None:
        """Add a Connection, because a request contained its correct token."""
        self._proven.add(conn_id)

    async def contains(self, conn_id: str) -> bool:
        """Return whether a Connection is expected.

        The ids that DAGs use are cached for :data:`CACHE_TTL_SECONDS` and then read again. If they cannot be read, the
        last known ids are used.
        """
        if conn_id in self._proven:
            return True
        if self._clock() >= self._until:
            if self._refreshing is None:
                self._refreshing = asyncio.create_task(self._refresh())
            await asyncio.wait({self._refreshing})
        return conn_id in (self._referenced or ())

    @property
    def is_known(self) -> bool:
        """Whether the ids that DAGs use have been read at least once."""
        return self._referenced is not None

    async def _refresh(self) -> None:
        reading = asyncio.get_running_loop().run_in_executor(self._pool, self._read)
        in_time = await ends_within(reading, LOOKUP_TIMEOUT_SECONDS)
        if not in_time:
            reading.cancel()
        error = reading.exception() if in_time else TimeoutError()
        if error is None:
            self._referenced = reading.result()
        elif not self._failed:
            log.warning("The assets that DAGs listen to cannot be read (%s)", type(error).__name__)
        self._failed = error is not None
        self._until = self._clock() + (FAILURE_TTL_SECONDS if self._failed else CACHE_TTL_SECONDS)
        self._refreshing = None


def referenced_conn_ids() -> frozenset[str]:
    """Return the ids of the Connections whose asset is used by a DAG. For other Connections, no event is stored.

    The result also contains Connections whose asset a DAG used earlier, because Airflow keeps such assets.
    """
    from airflow.models.asset import AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    before, after = faceki_verifications("_").uri.split("_")
    with create_session() as session:
        uris = session.scalars(select(AssetModel.uri).where(AssetModel.uri.like(f"{before}%{after}"))).all()
    return frozenset(uri.removeprefix(before).removesuffix(after) for uri in uris)


async def ends_within(future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a future, and return whether it ended in time. The future is not cancelled.

    While other code of Airflow blocks the event loop, the future cannot end, even if its result has already arrived in
    a socket or in another thread. Therefore a blockage of any length counts as one second at most: the function waits
    in steps of at most one second, and a blockage ends only the current step.

    :param future: Future or task.
    :param seconds: Maximum wait in seconds. Blockages can make the wait longer.
    """
    steps = math.ceil(seconds)
    for _ in range(steps):
        if (await asyncio.wait({future}, timeout=seconds / steps))[0]:
            return True
    return False


def load_credentials(conn_id: str) -> Credentials:
    """Read an Airflow Connection and return its webhook credentials.

    If the Connection cannot be used, return credentials that no token matches. If a secrets backend fails and no other
    backend contains the Connection, the error of the backend is raised unchanged.
    """
    from airflow_provider_faceki.api.errors import ConfigurationError
    from airflow_provider_faceki.connection.settings import is_faceki_type, webhook_settings

    conn = _find_connection(conn_id)
    if conn is None or not is_faceki_type(conn.conn_type):
        return DENY_ALL
    try:
        settings = webhook_settings(conn_id, conn)
    except ConfigurationError as error:
        _log_once(conn_id, error.message)
        return replace(DENY_ALL, denied=f"the webhook settings of Connection {conn_id!r} cannot be used")
    if settings is None:
        return replace(DENY_ALL, denied=f"Connection {conn_id!r} has no webhook token")
    _mask(settings)
    service = replace(
        FACEKI,
        webhook_request_id_field=settings.request_id_field,
        webhook_status_field=settings.status_field,
    )
    return Credentials(
        token_hashes=tuple(hashlib.sha256(token.encode()).digest() for token in settings.tokens),
        hmac_secret=(settings.hmac_secret or "").encode(),
        hmac_header=settings.hmac_header,
        hmac_timestamp_header=settings.hmac_timestamp_header,
        service=service,
        statuses=settings.statuses,
        max_per_day=settings.max_per_day,
    )


def _find_connection(conn_id: str) -> StoredConnection | None:
    """Return the Connection from the first secrets backend that contains it, in Airflow's order.

    Return ``None`` if no backend contains the Connection, or if a backend denies the access. If a backend fails, for
    example because the database is unavailable, and no other backend contains the Connection, raise the error of the
    failed backend. Airflow's own function is not used, because it reports "not found" in this case. The sender of a
    webhook would then receive the status 401 and would not send the webhook again.
    """
    from airflow.configuration import ensure_secrets_loaded

    from airflow_provider_faceki.connection.settings import StoredConnection

    failure: Exception | None = None
    for backend in ensure_secrets_loaded():
        try:
            found = backend.get_connection(conn_id=conn_id)
        except Exception as error:  # noqa: BLE001 - a backend can raise any error; the next backend follows
            if type(error).__name__ == "AirflowSecretsBackendAccessDenied":
                return None
            failure = failure or error
        else:
            if found is not None:
                return StoredConnection.of(found)
    if failure is not None:
        raise failure
    return None


def _mask(settings: WebhookSettings) -> None:
    from airflow.providers.common.compat.sdk import mask_secret

    for secret in (*settings.tokens, settings.hmac_secret):
        if secret:
            mask_secret(secret)


# Problems that this process has already logged, by Connection id. The ids are case-folded, because an environment
# variable defines the Connection for all spellings of its id in upper and lower case.
_logged: set[tuple[str, str]] = set()


def _log_once(conn_id: str, problem: str) -> None:
    if (conn_id.casefold(), problem) not in _logged:
        _logged.add((conn_id.casefold(), problem))
        log.error("No webhook is received for Connection %r. %s", conn_id, problem)
