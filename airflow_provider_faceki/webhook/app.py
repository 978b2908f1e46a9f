# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Handle a webhook request: hide its token from logs, authenticate it, parse it, store it, and answer it.

The HTTP status of the answer has these meanings:

- 200: the webhook is stored, was stored before, or is ignored because the Connection does not select its status.
- 401: the Connection is unknown or unusable, the token is missing or wrong, or the signature is wrong. The answer does
  not reveal which of these is the reason: its text is constant, and it is sent a whole number of seconds after the
  arrival of the request.
- 404: the path is not a webhook path. 405: the method is not POST.
- 408: the body did not arrive in time. 413: the body is too large. 422: the body is not a webhook of FACEKI.
- 429: too many calls, or too many webhooks of the Connection in 24 hours. Retry-After contains the seconds to wait.
- 503: the webhook is not stored, or is possibly stored later. The sender should send it again. Retry-After contains the
  seconds to wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Set
from typing import TYPE_CHECKING

from airflow_provider_faceki import metrics
from airflow_provider_faceki.api.protocol.webhook import (
    InvalidWebhookError,
    WebhookNotification,
    parse_webhook,
)
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.assets import faceki_verifications
from airflow_provider_faceki.webhook import auth, events

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

#: Path of a webhook, without the prefix under which Airflow mounts the application. When a request reaches its route,
#: the id and the token in its path are stars, because :class:`RedactPathMiddleware` has moved both to
#: :data:`SCOPE_KEY`.
ROUTE = "/webhook/{conn_id}/{token}"
#: Key in the ASGI scope of a request. Its value is the Connection id and the token from the requested path.
SCOPE_KEY = "faceki.webhook"
_REDACTED = "***"

#: Maximum body size in bytes. The body that FACEKI sends contains one record as text, which is a few kilobytes.
MAX_BODY_BYTES = 256 * 1024
#: A body that is too large is read up to this size in bytes and discarded. Without this, a sender that reads the answer
#: only after it has sent the whole body would never receive the answer.
MAX_DISCARDED_BYTES = 4 * 1024 * 1024
#: Maximum time in seconds until a body has arrived. A request that waits for its body occupies a socket, but no thread.
#: Therefore slow senders do not block the other requests during this time.
BODY_TIMEOUT_SECONDS = 5.0
#: Rate limit of authenticated calls in one process, for all Connections together: maximum number in a burst, and
#: average number per second.
CALL_LIMIT = (500.0, 50.0)
#: Rate limit in one process for requests that are possibly attacks: maximum number in a burst, and average number per
#: second. Above the limit, the answer has the status 429. The limit counts two kinds of requests:
#:
#: - Requests with a wrong token or signature.
#: - Requests that start a lookup of an unexpected Connection. :class:`.ExpectedConnections` says which Connections are
#:   expected: those that a DAG uses, or whose correct token an earlier request contained.
REFUSAL_LIMIT = (60.0, 2.0)
#: Three kinds of refusals are delayed, so that their time does not reveal whether a Connection was looked up:
#:
#: - The token or the signature is wrong.
#: - The request is above REFUSAL_LIMIT.
#: - The lookup of an unexpected Connection failed.
#:
#: The delay after the arrival of the request is this number of seconds, or a multiple of it that is longer than the
#: slowest lookup of an expected Connection in the last hour.
REFUSAL_SECONDS = 1.0
#: Seconds in the Retry-After header of the status 503. This status is sent in three cases:
#:
#: - The database or a secrets backend failed or was too slow.
#: - No active DAG is scheduled on the asset of the webhook's Connection.
#: - The lookup of the Connection is too slow, and the receiver does not know yet whether a DAG uses this asset.
RETRY_AFTER_SECONDS = 30
#: Seconds in the Retry-After header if a Connection has reached its limit of webhooks per day.
OVER_LIMIT_RETRY_AFTER_SECONDS = 3600
#: Minimum seconds between two log messages about the same problem. Otherwise many requests would fill the log.
LOG_INTERVAL_SECONDS = 60.0


class RedactPathMiddleware:
    """ASGI middleware that keeps the token of a webhook path out of all logs of the API server.

    All ASGI layers share the scope of a request. When the request ends, the access log of Airflow (3.2 and later) or of
    uvicorn (before 3.2) reads the path from the scope. Therefore the middleware moves the Connection id and the token
    from the path to :data:`SCOPE_KEY`, and replaces them in the path by stars. It also removes the query, because a
    user possibly writes the token into the query by mistake. It must be the outermost middleware that this application
    adds. The layers of Starlette and Airflow around it read the scope only when the request ends.

    A proxy in front of the API server receives the original path. ``docs/webhooks.md`` explains how to hide the token
    from the proxy's log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            _redact_path(scope)
        await self.app(scope, receive, send)


def _redact_path(scope: Scope) -> None:
    root = str(scope.get("root_path", ""))
    parts = str(scope["path"]).removeprefix(root).split("/")
    if len(parts) == ROUTE.count("/") + 1 and parts[1] == "webhook":
        scope[SCOPE_KEY] = parts[2], parts[3]
        shown = f"{root}/webhook/{_REDACTED}/{_REDACTED}"
    else:
        # A path that is not a webhook path possibly contains a token too, so the whole path is replaced.
        shown = f"{root}/{_REDACTED}"
    scope["path"] = shown
    scope["raw_path"] = shown.encode()
    scope["query_string"] = b""


class TokenBucket:
    """Rate limiter that allows a burst of calls, and then a fixed number of calls per second.

    It is a token bucket: each call removes one token, and a fixed number of tokens is added per second. It has no lock,
    so use each instance in only one event loop.

    :param capacity: Maximum number of calls in a burst.
    :param per_second: Number of calls per second after the burst.
    :param clock: Monotonic clock in seconds. Tests replace it.
    """

    def __init__(
        self, capacity: float, per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._capacity = capacity
        self._per_second = per_second
        self._clock = clock
        self._left = capacity
        self._refilled_at = clock()

    def try_acquire(self) -> bool:
        """Return whether the rate limiter allows a call now, and count the call if it is allowed."""
        now = self._clock()
        self._left = min(self._capacity, self._left + (now - self._refilled_at) * self._per_second)
        self._refilled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def refund(self) -> None:
        """Undo the counting of a call, so that another call is allowed instead."""
        self._left = min(self._capacity, self._left + 1)

    def retry_after(self) -> int:
        """Return the number of whole seconds, at least 1, after which the rate limiter allows the next call."""
        return max(1, math.ceil((1 - self._left) / self._per_second))


class RefusedError(Exception):
    """Error: a webhook is refused with an HTTP status other than 200.

    :param status: HTTP status of the answer.
    :param detail: Text in the answer.
    :param retry_after: Seconds in the Retry-After header. Default: the answer has no such header.
    """

    def __init__(self, status: int, detail: str, retry_after: int | None = None) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = {"Retry-After": str(retry_after)} if retry_after else {}
        if status in (401, 408, 413, 429):
            # The rest of the request's body is possibly never read. In this case, the sender cannot send its next
            # request over the same TCP connection. Therefore the connection is closed.
            self.headers["Connection"] = "close"


class Receiver:
    """Receiver of FACEKI's webhooks in one process of the API server.

    :param load_credentials: Function that reads the credentials of a Connection. It runs in a thread.
    :param store_events: Function that stores the parsed webhooks of one Connection. It runs in a thread.
    :param referenced: Function that returns the ids of all Connections whose asset
        (``faceki://<conn_id>/verifications``) is used by a DAG. It runs in a thread.
    """

    def __init__(
        self,
        load_credentials: Callable[[str], auth.Credentials],
        store_events: events.StoreEvents,
        referenced: Callable[[], Set[str]] = auth.referenced_conn_ids,
    ) -> None:
        self._authenticator = auth.Authenticator(load_credentials)
        self._expected = auth.ExpectedConnections(referenced)
        self._calls = TokenBucket(*CALL_LIMIT)
        self._refusals = TokenBucket(*REFUSAL_LIMIT)
        self._writer = events.EventWriter(store_events)
        self._logged_until: dict[str, float] = {}

    async def receive(self, request: Request) -> Response:
        """Return the HTTP response to one webhook request."""
        from starlette.responses import JSONResponse

        try:
            answer = JSONResponse({"status": await self._receive(request)})
        except RefusedError as refused:
            answer = JSONResponse({"detail": refused.detail}, refused.status, refused.headers)
        metrics.count_webhook_answer(answer.status_code)
        return answer

    async def _receive(self, request: Request) -> str:
        began = time.monotonic()
        conn_id, token = request.scope[SCOPE_KEY]
        credentials = await self._authenticate(conn_id, token, began)
        is_signed = credentials.hmac_header is not None
        if not is_signed:
            self._admit()
        body = await _read_body(request)
        if is_signed:
            if not credentials.verify_signature(request.headers, body):
                await self._charge_refusal(began)
                raise await self._unauthorized(f"wrong signature for Connection {conn_id!r}", began)
            # The rate limit is applied after the check of the signature. If it were applied before, a caller that
            # knows only the token could use up the limit.
            self._admit()
        notification = self._parse(conn_id, body, credentials.service)
        if credentials.statuses is not None and notification.status not in credentials.statuses:
            return "ignored"
        return await self._store(conn_id, notification, credentials.max_per_day)

    def _admit(self) -> None:
        if not self._calls.try_acquire():
            raise RefusedError(429, "too many webhooks", self._calls.retry_after())

    def _parse(self, conn_id: str, body: bytes, service: Service) -> WebhookNotification:
        try:
            return parse_webhook(body, service)
        except InvalidWebhookError as invalid:
            detail = str(invalid)
        self._log_throttled(
            f"invalid {conn_id}", "Not a webhook of FACEKI for Connection %r: %s", conn_id, detail
        )
        raise RefusedError(422, detail)

    async def _authenticate(self, conn_id: str, token: str, began: float) -> auth.Credentials:
        """Return the credentials of the Connection.

        A rate limit restricts the requests with a wrong token, because an attacker can send requests with any id:

        - A request that starts the lookup of an unexpected Connection is counted before the lookup. If its token is
          right, the count is undone.
        - Any other request is counted when its token is wrong.

        :raises RefusedError: with the HTTP status 401 if the token is wrong, or 429 if the rate limit is reached. With
            503 if the lookup failed, or if it took too long and the receiver does not know which Connections are
            expected.
        """
        credentials, charged = self._authenticator.cached(conn_id), False
        if credentials is None:
            expected = await self._expected.contains(conn_id)
            if not expected and not self._authenticator.is_looking_up(conn_id):
                charged = await self._charge_refusal(began)
            credentials = await self._look_up(conn_id, expected, began)
        if credentials.verify_token(token):
            if charged:
                self._refusals.refund()
            self._expected.add(conn_id)
            return credentials
        if not charged:
            await self._charge_refusal(began)
        raise await self._unauthorized(credentials.denied or f"wrong token for Connection {conn_id!r}", began)

    async def _look_up(self, conn_id: str, expected: bool, began: float) -> auth.Credentials:
        # A request for an expected Connection waits until the lookup is finished. A request for any other Connection is
        # refused if the lookup is not finished in time. Such a refusal is delayed; see REFUSAL_SECONDS. The time limit
        # is shorter than this delay, so the time of a refusal does not reveal how long the lookup takes.
        within = None if expected else began + 0.9 * self._refusal_seconds() - time.monotonic()
        try:
            credentials = await self._authenticator.look_up(conn_id, expected, within)
            if credentials is auth.TOO_LATE and not self._expected.is_known:
                # A DAG possibly uses the asset of this Connection. Therefore the answer is 503, so that the sender can
                # send the webhook again. The answer 401 would be final.
                raise auth.LookupFailed("TimeoutError")
            return credentials
        except auth.LookupFailed as failed:
            self._log_throttled("lookup", "Connections cannot be looked up (%s); answering 503", failed)
            if not expected:
                await self._quantize_latency(began)
            raise RefusedError(503, "not stored", RETRY_AFTER_SECONDS) from None

    async def _charge_refusal(self, began: float) -> bool:
        if self._refusals.try_acquire():
            return True
        retry_after = self._refusals.retry_after()
        await self._quantize_latency(began)
        raise RefusedError(429, "too many webhooks", retry_after)

    async def _unauthorized(self, reason: str, began: float) -> RefusedError:
        self._log_throttled(reason, "Refused a webhook: %s", reason)
        await self._quantize_latency(began)
        return RefusedError(401, "unauthorized")

    def _refusal_seconds(self) -> float:
        slowest = self._authenticator.slowest_lookup_seconds
        return REFUSAL_SECONDS * max(1, math.ceil(slowest * 1.25 / REFUSAL_SECONDS))

    async def _quantize_latency(self, began: float) -> None:
        """Delay a refusal, so that its time does not reveal whether a Connection was looked up.

        The method sleeps until the time since ``began`` is a whole multiple of :meth:`_refusal_seconds`. After that,
        the caller sends the refusal.

        :param began: Time at which the request arrived, in seconds of the monotonic clock.
        """
        elapsed, every = time.monotonic() - began, self._refusal_seconds()
        await asyncio.sleep(math.floor(elapsed / every + 1) * every - elapsed)

    async def _store(self, conn_id: str, notification: WebhookNotification, max_per_day: int) -> str:
        try:
            outcome = await self._writer.write(conn_id, notification, max_per_day)
        except Exception as error:  # noqa: BLE001 - a database driver can raise any error; the answer is 503
            kind = type(error).__name__
            self._log_throttled("store", "A webhook could not be stored (%s); answering 503", kind)
            raise RefusedError(503, "not stored", RETRY_AFTER_SECONDS) from None
        if outcome is events.Outcome.NO_SCHEDULED_DAG:
            uri = faceki_verifications(conn_id).uri
            self._log_throttled(uri, "No DAG that could run is scheduled on %s; answering 503", uri)
            raise RefusedError(503, "not stored", RETRY_AFTER_SECONDS)
        if outcome is events.Outcome.OVER_LIMIT:
            text = "Connection %r has had its %d webhooks of 24 hours (webhook_max_per_day); answering 429"
            self._log_throttled(f"limit {conn_id}", text, conn_id, max_per_day)
            raise RefusedError(429, "too many webhooks", OVER_LIMIT_RETRY_AFTER_SECONDS)
        request_id, status = notification.request_id, notification.status
        log.info("Webhook for %r: verification %s, %s: %s", conn_id, request_id, status, outcome)
        return outcome

    def _log_throttled(self, key: str, text: str, *values: object) -> None:
        now = time.monotonic()
        if now >= self._logged_until.get(key, 0.0):
            self._logged_until = {each: until for each, until in self._logged_until.items() if until > now}
            self._logged_until[key] = now + LOG_INTERVAL_SECONDS
            log.warning(text, *values)


async def _read_body(request: Request) -> bytes:
    """Return the body of a request.

    The received bytes are counted. The Content-Length header is not used, because a sender can omit it.

    :raises RefusedError: if the body is too large, if it does not arrive in time, or if the sender disconnects.
    """
    from starlette.requests import ClientDisconnect

    body, size = bytearray(), 0

    async def receive() -> None:
        nonlocal size
        async for piece in request.stream():
            size += len(piece)
            if size <= MAX_BODY_BYTES:
                body.extend(piece)
            elif size > MAX_DISCARDED_BYTES:
                break

    receiving = asyncio.ensure_future(receive())
    try:
        await auth.ends_within(receiving, BODY_TIMEOUT_SECONDS)
    finally:
        receiving.cancel()
    error = receiving.exception() if receiving.done() else TimeoutError()
    if size > MAX_BODY_BYTES:
        raise RefusedError(413, f"more than {MAX_BODY_BYTES} bytes")
    if isinstance(error, TimeoutError | ClientDisconnect):
        raise RefusedError(408, "the body did not arrive in time")
    if error is not None:
        raise error
    return bytes(body)


def create_app(receiver: Receiver | None = None) -> FastAPI:
    """Return the FastAPI application of the webhook receiver. It has one route and no API documentation."""
    from fastapi import FastAPI

    receiver = receiver or Receiver(auth.load_credentials, events.store_events)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_route(ROUTE, receiver.receive, methods=["POST"])
    app.add_middleware(RedactPathMiddleware)
    return app
