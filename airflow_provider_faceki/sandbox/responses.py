# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How does an answer go out: whole, slowly, in part, or not at all?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from airflow_provider_faceki.sandbox.messages import Answer
from airflow_provider_faceki.sandbox.naps import nap

Cut = Callable[[tuple[str, int] | None, bool], None]

# nginx goes on reading for a while after it has refused a body, or the client would only see a reset.
LINGER_SECONDS = 5.0
LINGER_BYTES = 256 * 1024 * 1024
_DRIPS = 10


def whole(answer: Answer) -> Response:
    return Response(answer.body, answer.status, dict(answer.headers), answer.content_type)


class Drip(Response):
    """The right answer, spread over `seconds`."""

    def __init__(self, answer: Answer, seconds: float) -> None:
        super().__init__(answer.body, answer.status, dict(answer.headers), answer.content_type)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(self))
        body = bytes(self.body)
        step = max(1, -(-len(body) // _DRIPS))
        for place in range(0, len(body), step):
            await nap(self._seconds / _DRIPS)
            await send({"type": "http.response.body", "body": body[place : place + step], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class CutOff(Response):
    """Promises the whole body, sends half, then closes."""

    def __init__(self, answer: Answer, cut: Cut) -> None:
        super().__init__(answer.body, answer.status, dict(answer.headers), answer.content_type)
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(self))
        body = bytes(self.body)
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        self._cut(scope.get("client"), False)
        await _gone(receive)


class Reset(Response):
    """No answer: the connection is reset."""

    def __init__(self, cut: Cut) -> None:
        super().__init__(b"", 499)
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._cut(scope.get("client"), True)
        await _gone(receive)


class Refusal(Response):
    """An answer to a request whose body is still on its way: said at once, the rest is read and forgotten."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(
            answer.body, answer.status, {**answer.headers, "Connection": "close"}, answer.content_type
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(self))
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})
        with suppress(TimeoutError):
            await asyncio.wait_for(_forget(receive), LINGER_SECONDS)
        await send({"type": "http.response.body", "body": b""})


async def _forget(receive: Receive) -> None:
    left = LINGER_BYTES
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return


async def _gone(receive: Receive) -> None:
    """uvicorn complains about an answer that never came, unless it knows that nobody is there any more."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(response: Response) -> Message:
    return {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
