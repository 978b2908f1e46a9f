# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Who may call? Connections, looked up off the event loop, seldom, and as briefly believed as not.

A Connection that does not exist, has another type, no token or a wrong one makes a :class:`Caller` too, one to
whom no token belongs. So all of them are treated alike, and cost the database one look in half a minute.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_faceki.assets import fits_uri

if TYPE_CHECKING:
    from airflow_provider_faceki.connection.settings import StoredConnection, WebhookSettings

log = logging.getLogger(__name__)

#: Seconds for which a look at a Connection is believed. A token that was changed is good for as long as this.
BELIEVED = 30.0
#: Seconds in which a Connection has to be found: a secrets backend may be far away, or down.
LOOK_SECONDS = 15.0
#: Connections, real or not, that are remembered.
MOST_SEEN = 1024
_LOOKING_AT_ONCE = 2
# Seconds after which what could not be read is read again.
_FAILED_BELIEVED = 5.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who claims to call for a Connection.

    :param why_not: Why nobody may; empty: whoever knows the token may.
    :param tokens: SHA-256 of the tokens, so that comparing them takes the same time whatever their length.
    :param hmac_secret: Key of the signature.
    :param hmac_header: Header with the signature; ``None``: none is asked for.
    """

    why_not: str
    tokens: tuple[bytes, ...] = field(repr=False)
    hmac_secret: bytes = field(default=b"", repr=False)
    hmac_header: str | None = None

    def knows(self, token: str) -> bool:
        """Whether the token is one of this Connection's. All are compared, whatever the first says."""
        found = hashlib.sha256(token.encode(errors="replace")).digest()
        same = [hmac.compare_digest(found, each) for each in self.tokens]
        return any(same) and not self.why_not

    def signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether the body carries the right HMAC-SHA256, in hex, perhaps with ``sha256=`` before it."""
        if self.hmac_header is None:
            return True
        given = headers.get(self.hmac_header, "").strip().lower().removeprefix("sha256=")
        right = hmac.new(self.hmac_secret, body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(given.encode(errors="replace"), right.encode())


def nobody(why_not: str) -> Caller:
    """Return the caller whose token nobody knows, this process included."""
    return Caller(why_not, (secrets.token_bytes(32),))


class LookFailed(Exception):
    """It cannot be told at the moment whether there is such a Connection."""


class Callers:
    """The callers of one process. Belongs to one event loop.

    :param look: Looks a Connection up; runs in a thread, may block.
    """

    def __init__(self, look: Callable[[str], Caller], clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._pool = ThreadPoolExecutor(_LOOKING_AT_ONCE, "faceki-webhook-callers")
        # Or a right caller would wait, behind a slow secrets backend, until all strangers have been looked up.
        self._strangers = ThreadPoolExecutor(_LOOKING_AT_ONCE, "faceki-webhook-strangers")
        self._seen: OrderedDict[str, tuple[float, Caller]] = OrderedDict()
        self._looking: dict[str, asyncio.Task[Caller]] = {}

    def seen(self, conn_id: str) -> Caller | None:
        """Return who calls for this Connection, if that was found out lately."""
        if not fits_uri(conn_id):
            return nobody("there is no such Connection of type faceki")
        until, caller = self._seen.get(conn_id, (0.0, None))
        return caller if until > self._clock() else None

    def looking(self, conn_id: str) -> bool:
        """Whether this Connection is being looked up just now."""
        return conn_id in self._looking

    async def find(self, conn_id: str, expected: bool = False) -> Caller:
        """Look who calls for this Connection; several that ask at once share one look.

        :param conn_id: The Connection.
        :param expected: It is not one that anybody can make up: it need not wait for those.
        :raises LookFailed: a secrets backend or the database did not answer.
        """
        task = self._looking.get(conn_id)
        if task is None:
            task = self._looking[conn_id] = asyncio.create_task(
                self._looked_up(conn_id, self._pool if expected else self._strangers)
            )
        # Not `await task`: whoever is cancelled must not take the look away from the others.
        await asyncio.wait({task})
        if (error := task.exception()) is not None:
            raise LookFailed(type(error).__name__)
        return task.result()

    async def _looked_up(self, conn_id: str, pool: ThreadPoolExecutor) -> Caller:
        try:
            loop = asyncio.get_running_loop()
            caller = await asyncio.wait_for(loop.run_in_executor(pool, self._look, conn_id), LOOK_SECONDS)
        finally:
            del self._looking[conn_id]
        self._seen[conn_id] = (self._clock() + BELIEVED, caller)
        self._seen.move_to_end(conn_id)
        if len(self._seen) > MOST_SEEN:
            self._seen.popitem(last=False)
        return caller


class Named:
    """The Connection ids that DAGs name, read as seldom as a Connection. Belongs to one event loop.

    :param read: Reads them; runs in a thread, may block.
    """

    def __init__(self, read: Callable[[], Set[str]], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, "faceki-webhook-named")
        self._ids: Set[str] = frozenset()
        self._until = -math.inf
        self._reading: asyncio.Task[None] | None = None
        self._failed = False

    async def has(self, conn_id: str) -> bool:
        """Whether a DAG names this Connection; while that cannot be read, whether one did."""
        if self._clock() >= self._until:
            if self._reading is None:
                self._reading = asyncio.create_task(self._refresh())
            await asyncio.wait({self._reading})
        return conn_id in self._ids

    async def _refresh(self) -> None:
        reading = asyncio.get_running_loop().run_in_executor(self._pool, self._read)
        done, _ = await asyncio.wait({reading}, timeout=LOOK_SECONDS)
        if not done:
            reading.cancel()
        error = reading.exception() if done else TimeoutError()
        if error is None:
            self._ids = reading.result()
        elif not self._failed:
            log.warning("The assets that DAGs listen to cannot be read (%s)", type(error).__name__)
        self._failed = error is not None
        self._until = self._clock() + (_FAILED_BELIEVED if self._failed else BELIEVED)
        self._reading = None


def look_up(conn_id: str) -> Caller:
    """Return the caller of an Airflow Connection. Whatever a secrets backend raises, this raises."""
    from airflow_provider_faceki.api.errors import ConfigurationError
    from airflow_provider_faceki.connection.settings import webhook_settings

    conn = _connection(conn_id)
    if conn is None:
        return nobody("there is no such Connection of type faceki")
    try:
        settings = webhook_settings(conn_id, conn)
    except ConfigurationError as error:
        _tell_once(conn_id, error.message)
        return nobody(f"the webhook settings of Connection {conn_id!r} cannot be used")
    if settings is None:
        return nobody(f"Connection {conn_id!r} has no webhook token")
    _mask(settings)
    return Caller(
        "",
        tuple(hashlib.sha256(token.encode()).digest() for token in settings.tokens),
        (settings.hmac_secret or "").encode(),
        settings.hmac_header,
    )


def _connection(conn_id: str) -> StoredConnection | None:
    from airflow.configuration import ensure_secrets_loaded
    from airflow.exceptions import AirflowNotFoundException
    from airflow.models.connection import Connection

    from airflow_provider_faceki.connection.settings import StoredConnection, is_faceki_type

    try:
        found = Connection.get_connection_from_secrets(conn_id)
    except AirflowNotFoundException:
        # Airflow says so too when a backend, the database among them, cannot answer. That must not become a 401.
        for backend in ensure_secrets_loaded():
            backend.get_connection(conn_id=conn_id)
        return None
    return StoredConnection.of(found) if is_faceki_type(found.conn_type) else None


def _mask(settings: WebhookSettings) -> None:
    from airflow.providers.common.compat.sdk import mask_secret

    for secret in (*settings.tokens, settings.hmac_secret):
        if secret:
            mask_secret(secret)


# By folded id: an environment variable answers to an id in any mixture of cases.
_told: set[tuple[str, str]] = set()


def _tell_once(conn_id: str, problem: str) -> None:
    if (conn_id.casefold(), problem) not in _told:
        _told.add((conn_id.casefold(), problem))
        log.error("No webhook is received for Connection %r. %s", conn_id, problem)
