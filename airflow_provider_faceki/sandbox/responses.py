# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Ways of sending a response: completely, slowly, only in part, before the request has ended, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.responses import Response as HTTPResponse
from starlette.types import Message, Receive, Scope, Send

from airflow_provider_faceki.sandbox.backend.clock import real_sleep
from airflow_provider_faceki.sandbox.messages import Response

Abort = Callable[[tuple[str, int] | None, bool], None]

# nginx refuses a body that is too large, but continues to read it for some seconds. Otherwise the client would see
# only a connection reset and not the response. The sandbox does the same, for at most this time.
LINGER_SECONDS = 5.0
MAX_LINGER_BYTES = 256 * 1024 * 1024
_PIECES = 10


def whole(response: Response) -> HTTPResponse:
    return HTTPResponse(response.body, response.status, dict(response.headers), response.content_type)


class SlowResponse(HTTPResponse):
    """A complete response with a body that is sent in pieces.

    :param seconds: the time in seconds over which the pieces are spread.
    """

    def __init__(self, response: Response, seconds: float) -> None:
        super().__init__(response.body, response.status, dict(response.headers), response.content_type)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(self))
        body = bytes(self.body)
        step = max(1, -(-len(body) // _PIECES))
        for start in range(0, len(body), step):
            await real_sleep(self._seconds / _PIECES)
            await send({"type": "http.response.body", "body": body[start : start + step], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class TruncatedResponse(HTTPResponse):
    """An incomplete response, which declares the full Content-Length but sends only half of the body.

    The connection is then closed.
    """

    def __init__(self, response: Response, abort: Abort) -> None:
        super().__init__(response.body, response.status, dict(response.headers), response.content_type)
        self._abort = abort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(self))
        body = bytes(self.body)
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        self._abort(scope.get("client"), False)
        await _wait_for_disconnect(receive)


class ConnectionReset(HTTPResponse):
    """A connection reset in place of a response."""

    def __init__(self, abort: Abort) -> None:
        super().__init__(b"", 499)
        self._abort = abort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._abort(scope.get("client"), True)
        await _wait_for_disconnect(receive)


class EarlyResponse(HTTPResponse):
    """A response that is sent at once, while the body of the request is still arriving.

    The rest of the request body is read and discarded.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(
            response.body, response.status, {**response.headers, "Connection": "close"}, response.content_type
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(self))
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})
        with suppress(TimeoutError):
            await asyncio.wait_for(_discard_body(receive), LINGER_SECONDS)
        await send({"type": "http.response.body", "body": b""})


async def _discard_body(receive: Receive) -> None:
    left = MAX_LINGER_BYTES
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return


async def _wait_for_disconnect(receive: Receive) -> None:
    """Wait until the client has disconnected.

    If the application returned earlier without a response, uvicorn would log an error.
    """
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(response: HTTPResponse) -> Message:
    return {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
