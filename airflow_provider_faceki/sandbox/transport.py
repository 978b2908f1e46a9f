# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Read request bodies, send responses (complete, slow, incomplete or early), and reset connections.

An early response is sent before the complete body of the request has arrived.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import Response as HTTPResponse
from starlette.types import Message, Receive, Scope, Send

from airflow_provider_faceki.sandbox.backend.clock import real_sleep
from airflow_provider_faceki.sandbox.messages import Response, Upload

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


MAX_TEXT_BYTES = 64 * 1024
MAX_PARTS = 100
MAX_BOUNDARY_BYTES = 200
# If a body is too large, nginx sends an error, and continues to read the body for some seconds. If nginx closed the
# connection at once, the client would see only a connection reset and not the error. The sandbox does the same as
# nginx, for at most `LINGER_SECONDS` and `MAX_LINGER_BYTES`.
LINGER_SECONDS = 5.0
MAX_LINGER_BYTES = 256 * 1024 * 1024
_PIECES = 10

#: A function that closes the connection of a client. If the second argument is true, the connection is closed with a
#: TCP reset.
Abort = Callable[[tuple[str, int] | None, bool], None]


class TooLarge(Exception):
    """The body of a request is larger than the limit."""


class FormError(ValueError):
    """Exception: a request has no form as its body, or the form is incomplete, broken or larger than a limit."""


async def read_limited(request: Request, limit: int, consume: Callable[[bytes], None]) -> None:
    """Read the body of a request in pieces.

    The received bytes are counted, because a request possibly has no header Content-Length.

    :param limit: the maximal size of the body in bytes.
    :param consume: a function that receives each piece.
    :raises TooLarge: if the body has more than `limit` bytes. The rest of the body is not read.
    """
    received = 0
    async for piece in request.stream():
        received += len(piece)
        if received > limit:
            raise TooLarge
        consume(piece)


class FormReader:
    """A parser of one form body. `feed` accepts the body in pieces, and `parts` is complete after the call of `end`.

    Files are not stored. Only the hash and the size of each file are computed. python-multipart's `FormParser` would
    write the files to disk, so this class uses `MultipartParser`, which passes the pieces of a file to callbacks.

    :param content_type: the header `Content-Type` of the request.
    :raises FormError: if the content type is not that of a form. `feed` and `end` raise the same error if the body is
        invalid.
    """

    def __init__(self, content_type: str) -> None:
        self.parts: dict[str, str | Upload] = {}
        self._urlencoded = bytearray()
        self._parser: MultipartParser | None = None
        kind, options = parse_options_header(content_type)
        if kind == b"multipart/form-data":
            boundary = options.get(b"boundary", b"")
            if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
                raise FormError("multipart without a boundary")
            self._parser = MultipartParser(boundary, self._callbacks())
        elif kind != b"application/x-www-form-urlencoded":
            raise FormError("not a form")

    def feed(self, data: bytes) -> None:
        if self._parser is None:
            self._urlencoded += data
            if len(self._urlencoded) > MAX_TEXT_BYTES:
                raise FormError("form too long")
            return
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise FormError("broken multipart") from None

    def end(self) -> None:
        if self._parser is None:
            self.parts.update(parse_qsl(self._urlencoded.decode("utf-8", "replace")))
        elif not self._finished:
            raise FormError("multipart ends too early")

    def _callbacks(self) -> MultipartCallbacks:
        self._finished = False
        self._header_name = bytearray()
        self._header_value = bytearray()
        return {
            "on_part_begin": self._begin_part,
            "on_part_data": self._part_data,
            "on_part_end": self._end_part,
            "on_header_field": self._header_field,
            "on_header_value": self._header_piece,
            "on_header_end": self._end_header,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise FormError("too many parts")
        self._options: dict[bytes, bytes] = {}
        self._text = bytearray()
        self._digest = hashlib.sha256()
        self._size = 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_piece(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._options = parse_options_header(bytes(self._header_value))[1]
        self._header_name.clear()
        self._header_value.clear()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if b"filename" in self._options:
            self._digest.update(memoryview(data)[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_TEXT_BYTES:
            raise FormError("text field too long")

    def _end_part(self) -> None:
        name = self._options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise FormError("part without a name")
        if b"filename" in self._options:
            self.parts[name] = Upload(self._size, self._digest.hexdigest())
        else:
            self.parts[name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._finished = True


class WholeResponse(HTTPResponse):
    """A complete response. It is sent in one piece."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.body, response.status, dict(response.headers), response.content_type)


class SlowResponse(WholeResponse):
    """A complete response, whose body is sent in at most ten pieces, with a pause before each piece.

    :param seconds: the sum of ten pauses in seconds. A short body has fewer pieces, so it takes less time.
    """

    def __init__(self, response: Response, seconds: float) -> None:
        super().__init__(response)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(self))
        body = bytes(self.body)
        step = max(1, -(-len(body) // _PIECES))
        for start in range(0, len(body), step):
            await real_sleep(self._seconds / _PIECES)
            await send({"type": "http.response.body", "body": body[start : start + step], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class TruncatedResponse(WholeResponse):
    """An incomplete response, which declares the full Content-Length but sends only half of the body.

    The connection is then closed.
    """

    def __init__(self, response: Response, abort: Abort) -> None:
        super().__init__(response)
        self._abort = abort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(self))
        body = bytes(self.body)
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        self._abort(scope.get("client"), False)
        await _wait_for_disconnect(receive)


class ConnectionReset(HTTPResponse):
    """A substitute for a response: the client receives nothing, and its connection is reset."""

    def __init__(self, abort: Abort) -> None:
        super().__init__(b"", 499)
        self._abort = abort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._abort(scope.get("client"), True)
        await _wait_for_disconnect(receive)


class EarlyResponse(WholeResponse):
    """A response that is sent before the complete body of the request has arrived.

    After the response, the rest of the request body is read and discarded, within `LINGER_SECONDS` and
    `MAX_LINGER_BYTES`. Then the connection is closed.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(replace(response, headers={**response.headers, "Connection": "close"}))

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

    If the application returned earlier, uvicorn would log an error, because the response is not complete.
    """
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(response: HTTPResponse) -> Message:
    return {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
