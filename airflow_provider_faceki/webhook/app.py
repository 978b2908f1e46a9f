# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""In which order is a webhook admitted, read, stored and answered?

=====  ========================================================================================================
200    stored, or stored already
401    unknown Connection, no or wrong token, wrong signature: one answer, after the same time
404    any other path; 405 any other method
408    the body did not arrive in time; 413 it is too large; 422 it is not a webhook of FACEKI
429    too many calls; Retry-After says when to come again
503    not stored: a sender that tries again should
=====  ========================================================================================================
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from airflow_provider_faceki.api.protocol.webhook import (
    InvalidWebhookError,
    WebhookNotification,
    parse_webhook,
)
from airflow_provider_faceki.assets import faceki_verifications
from airflow_provider_faceki.webhook import callers, events, limits
from airflow_provider_faceki.webhook.door import ASKED, ROUTE, Door

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger(__name__)

#: Who may not call is answered after a multiple of so many seconds: the time does not tell what was looked at.
REFUSED_EVERY = 0.25
#: Seconds in which an event has to be stored. Long: a sender that has gone by then has still been heard.
STORE_SECONDS = 60.0
#: Seconds after which a sender may find the database, or the DAG, in a better state.
_COME_AGAIN = 30
#: What is wrong is logged, but at most so often, whatever the traffic.
_TOLD_EVERY = 60.0


class Refused(Exception):
    """The answer, where it is not 200."""

    def __init__(self, status: int, detail: str, retry_after: int | None = None) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = {"Retry-After": str(retry_after)} if retry_after else {}
        if status in (401, 408, 413, 429):
            # The body may not have been read, and is not going to be.
            self.headers["Connection"] = "close"


class Receiver:
    """Receives webhooks in one process."""

    def __init__(
        self,
        look: Callable[[str], callers.Caller],
        store: Callable[[str, WebhookNotification], bool],
        named: Callable[[], Set[str]] = events.named,
    ) -> None:
        self._callers = callers.Callers(look)
        #: Connections that DAGs name, and those whose token was presented: they are looked up whatever strangers
        #: are up to. Only a few ids are among them, so that takes nothing away from the limit on look-ups.
        self._named = callers.Named(named)
        self._proven: set[str] = set()
        self._calls = limits.Bucket(*limits.CALLS)
        self._refusals = limits.Bucket(*limits.REFUSALS)
        self._store = store
        # One thread: the database lets one write at a time, and a queue is fairer than its lock.
        self._writer = ThreadPoolExecutor(1, "faceki-webhook-writer")
        self._told: dict[str, float] = {}

    async def receive(self, request: Request) -> Response:
        """Answer one request."""
        from starlette.responses import JSONResponse

        try:
            said = await self._received(request)
        except Refused as refused:
            return JSONResponse({"detail": refused.detail}, refused.status, refused.headers)
        return JSONResponse({"status": said})

    async def _received(self, request: Request) -> str:
        began = time.monotonic()
        conn_id, token = request.scope[ASKED]
        caller = await self._caller(conn_id, token, began)
        signs = caller.hmac_header is not None
        if not signs:
            self._admit()
        body = await _body(request)
        if signs:
            if not caller.signed(request.headers, body):
                await self._pay_for_refusal(began)
                raise await self._unauthorized(f"wrong signature for Connection {conn_id!r}", began)
            # Not before: whoever knows the token and not the key must not use up what right calls may take.
            self._admit()
        try:
            hint = parse_webhook(body)
        except InvalidWebhookError as unusable:
            raise Refused(422, str(unusable)) from None
        return await self._stored(conn_id, hint)

    def _admit(self) -> None:
        if not self._calls.take():
            raise Refused(429, "too many webhooks", self._calls.wait())

    async def _caller(self, conn_id: str, token: str, began: float) -> callers.Caller:
        """Return who calls, if they may.

        A stranger pays, once: before somebody is looked up for them, or else before they are refused.
        """
        caller, paid = self._callers.seen(conn_id), False
        if caller is None:
            expected = conn_id in self._proven or await self._named.has(conn_id)
            if not expected and not self._callers.looking(conn_id):
                paid = await self._pay_for_refusal(began)
            caller = await self._look(conn_id, expected)
        if caller.knows(token):
            if paid:
                self._refusals.give()
            self._proven.add(conn_id)
            return caller
        if not paid:
            await self._pay_for_refusal(began)
        raise await self._unauthorized(caller.why_not or f"wrong token for Connection {conn_id!r}", began)

    async def _look(self, conn_id: str, expected: bool) -> callers.Caller:
        try:
            return await self._callers.find(conn_id, expected)
        except callers.LookFailed as failed:
            self._tell("look", "Connections cannot be looked up (%s); answering 503", failed)
            raise Refused(503, "not stored", _COME_AGAIN) from None

    async def _pay_for_refusal(self, began: float) -> bool:
        if self._refusals.take():
            return True
        wait = self._refusals.wait()
        await _beat(began)
        raise Refused(429, "too many webhooks", wait)

    async def _unauthorized(self, why: str, began: float) -> Refused:
        self._tell(why, "Refused a webhook: %s", why)
        await _beat(began)
        return Refused(401, "unauthorized")

    async def _stored(self, conn_id: str, hint: WebhookNotification) -> str:
        loop = asyncio.get_running_loop()
        storing = loop.run_in_executor(self._writer, self._store, conn_id, hint)
        done, _ = await asyncio.wait({storing}, timeout=STORE_SECONDS)
        if not done:
            # One that waits for its turn never gets it; one under way may be stored after all, which does no harm.
            storing.cancel()
        error = storing.exception() if done else TimeoutError()
        if error is None:
            new = storing.result()
            again = "" if new else " (told again)"
            log.info("Webhook for %r: verification %s, %s%s", conn_id, hint.request_id, hint.status, again)
            return "stored" if new else "repeated"
        if isinstance(error, events.NobodyListens):
            uri = faceki_verifications(conn_id).uri
            self._tell(uri, "No DAG that could run is scheduled on %s; answering 503", uri)
        else:
            self._tell("store", "A webhook could not be stored (%s); answering 503", type(error).__name__)
        raise Refused(503, "not stored", _COME_AGAIN)

    def _tell(self, key: str, text: str, value: object) -> None:
        now = time.monotonic()
        if now >= self._told.get(key, 0.0):
            self._told = {each: until for each, until in self._told.items() if until > now}
            self._told[key] = now + _TOLD_EVERY
            log.warning(text, value)


async def _beat(began: float) -> None:
    await asyncio.sleep(REFUSED_EVERY - (time.monotonic() - began) % REFUSED_EVERY)


async def _body(request: Request) -> bytes:
    try:
        return await limits.read_body(request)
    except limits.TooLarge:
        raise Refused(413, f"more than {limits.MAX_BODY} bytes") from None
    except limits.TooSlow:
        raise Refused(408, "the body did not arrive in time") from None


def application(receiver: Receiver | None = None) -> FastAPI:
    """Return the application that the API server mounts: one route, no documentation of it."""
    from fastapi import FastAPI

    receiver = receiver or Receiver(callers.look_up, events.store)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_route(ROUTE, receiver.receive, methods=["POST"])
    app.add_middleware(Door)
    return app
