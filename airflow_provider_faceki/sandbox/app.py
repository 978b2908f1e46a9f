# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The ASGI application, which serves FACEKI's calls and the control API.

`application` maps each path to a function. The class `RequestPipeline` processes each request except two kinds: the
calls of the control API, and requests with a wrong `Host` header. The steps have this order: wait for the seconds of
the setting `latency`, read the request, take a fault (a simulated error) from the queue, verify the persons whose links
are as old as the setting `auto_answer`, check the token, call the function of the route, send the response. A fault can
replace or change the later steps. A fault of the kind `reset` is usually taken before the request is read.

The function of a route computes the answer in one synchronous step. The backend's lock is held during this step. The
lock is never held during a sleep or during network I/O.

A client that disconnects does not cancel its request: a request that was read completely is processed and billed. The
real service probably does the same, but this is an assumption.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from urllib.parse import quote, unquote, urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response as HTTPResponse
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.clock import real_monotonic, real_sleep
from airflow_provider_faceki.sandbox.backend.outcomes import scenario_of
from airflow_provider_faceki.sandbox.backend.store import Refused
from airflow_provider_faceki.sandbox.control import call_control, is_loopback
from airflow_provider_faceki.sandbox.faults import GATEWAY_TITLES, Fault, corrupted, replacement
from airflow_provider_faceki.sandbox.form_reader import FormError, FormReader
from airflow_provider_faceki.sandbox.messages import (
    Body,
    Request,
    Response,
    Route,
    error,
    gateway_page,
    json_response,
    v3_error,
)
from airflow_provider_faceki.sandbox.routes import ROUTES
from airflow_provider_faceki.sandbox.routes.v3 import MOVED, PDF, UNKNOWN

MAX_CONTROL_BYTES = 1024 * 1024
MAX_JSON_BYTES = 1024 * 1024
# If a body is too large, nginx sends an error, and continues to read the body for some seconds. If nginx closed the
# connection at once, the client would see only a connection reset and not the error. The sandbox does the same as
# nginx, for at most `LINGER_SECONDS` and `MAX_LINGER_BYTES`.
LINGER_SECONDS = 5.0
MAX_LINGER_BYTES = 256 * 1024 * 1024
_PIECES = 10
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_LOG = logging.getLogger(__name__)

#: A function that closes the connection of a client. If the second argument is true, the connection is closed with a
#: TCP reset.
Abort = Callable[[tuple[str, int] | None, bool], None]
Log = Callable[[str], None]
Endpoint = Callable[[HTTPRequest], Awaitable[HTTPResponse]]


def application(backend: Backend, pipeline: RequestPipeline, exposed: bool) -> ASGIApp:
    """Return the ASGI application, which serves FACEKI's calls and the control API.

    :param exposed: whether requests with any `Host` header are accepted. If false, only requests to a loopback host
        are accepted.
    """
    calls = [Path(route.path, _endpoint(pipeline, route), methods=[route.method]) for route in ROUTES]
    control = Path("/_sandbox/{name}", _control(backend), methods=["GET", "POST", "DELETE"])
    rest = Path("/{rest:path}", pipeline.handle_unmatched, methods=_METHODS)
    app = Starlette(routes=[*calls, control, rest], exception_handlers={500: _internal_error})
    return app if exposed else _LoopbackOnly(app)


def _internal_error(request: HTTPRequest, error: Exception) -> HTTPResponse:
    """Log an unexpected exception of the sandbox itself, and return the response to the client.

    The response differs from the response of every injected fault, so that a test does not confuse a bug of the sandbox
    with a fault.
    """
    _LOG.error("the sandbox itself failed", exc_info=error)
    return _json({"error": "the sandbox itself failed; its log says where"}, 500)


def _endpoint(pipeline: RequestPipeline, route: Route) -> Endpoint:
    async def endpoint(request: HTTPRequest) -> HTTPResponse:
        return await pipeline.handle(route, request)

    return endpoint


def _control(backend: Backend) -> Endpoint:
    async def endpoint(request: HTTPRequest) -> HTTPResponse:
        document: object = dict(request.query_params)
        if request.method == "POST":
            if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                return _json({"error": "Content-Type: allowed is application/json"}, 415)
            body = bytearray()
            try:
                await read_limited(request, MAX_CONTROL_BYTES, body.extend)
                document = json.loads(body or b"{}")
            except TooLarge:
                return EarlyResponse(
                    json_response({"error": f"body: at most {MAX_CONTROL_BYTES} bytes"}, 413)
                )
            except ClientDisconnect:
                return HTTPResponse(status_code=499)
            except (ValueError, RecursionError):
                document = None
        if not isinstance(document, Mapping):
            return _json({"error": "body: allowed is a JSON object"}, 422)
        status, answer = call_control(backend, request.method, request.path_params["name"], document)
        return _json(answer, status)

    return endpoint


def _json(document: object, status: int) -> HTTPResponse:
    return WholeResponse(json_response(document, status))


class _LoopbackOnly:
    """ASGI middleware that refuses each request whose `Host` header does not contain a loopback host.

    The check prevents DNS rebinding. In this attack, a web page resolves its own host name to 127.0.0.1, to reach a
    server on the developer's machine.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_loopback(_host(scope)):
            await _json({"error": "Host: allowed is a loopback address"}, 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _host(scope: Scope) -> str:
    try:
        return urlsplit("//" + Headers(scope=scope).get("host", "")).hostname or ""
    except ValueError:
        return ""


class RequestPipeline:
    """A pipeline that processes all requests except the requests to the control API.

    :param backend: the simulated service, which computes the answers.
    :param abort: a function that closes the connection of a client. If its second argument is true, the connection is
        reset.
    :param log: a function that receives one line for each request.
    """

    def __init__(self, backend: Backend, abort: Abort, log: Log) -> None:
        self._backend = backend
        self._abort = abort
        self._log = log
        self._background: set[asyncio.Task[None]] = set()

    async def handle_unmatched(self, request: HTTPRequest) -> HTTPResponse:
        """Answer a request whose path and method are not in `ROUTES`.

        Some known paths are not in `ROUTES`:

        - The path of the PDF report. The setting `pdf_path` contains this path.
        - The paths of the dialect. A dialect is a simulated difference from FACEKI's documentation, for example another
          path of a route.

        The answer to every other path is the error for an unknown URL.
        """
        dialect = self._backend.dialect
        if request.method == dialect.pdf_method:
            values = _match(self._backend.settings.pdf_path, request)
            if values is not None:
                request.scope["path_params"] = values
                return await self.handle(PDF, request)
        for route in ROUTES:
            for path in dialect.paths.get(route.name, ()):
                values = _match(path, request)
                if values is not None and request.method == route.method:
                    request.scope["path_params"] = values
                    return await self._handle_counted(route, request)
        return await self.handle(UNKNOWN, request)

    async def handle(self, route: Route, request: HTTPRequest) -> HTTPResponse:
        """Answer a request to a route.

        If the dialect (a simulated difference from FACEKI's documentation) gives this route another path, the answer at
        the documented path is HTTP 404.
        """
        return await self._handle_counted(
            MOVED if route.name in self._backend.dialect.paths else route, request
        )

    async def _handle_counted(self, route: Route, request: HTTPRequest) -> HTTPResponse:
        """Answer one request, update the counters and log the request."""
        started = real_monotonic()
        with self._backend.lock:
            generation, counts = self._backend.generation, self._backend.accounts.counts
            counts.request_begins(route.name)
        status = 499
        try:
            response = await self._handle(route, request, generation)
            status = response.status_code
            return response
        except ClientDisconnect:
            return HTTPResponse(status_code=499)
        except Exception:  # A bug of the sandbox. Starlette then answers with HTTP 500.
            status = 500
            raise
        finally:
            with self._backend.lock:
                counts.request_ends(status)
            # The log line contains the route name and not the URL, because the URL can contain the id of a link, and
            # everyone who knows this id can use the link.
            elapsed = (real_monotonic() - started) * 1000
            self._log(f"{request.method} {route.name} {status} {elapsed:.0f} ms")

    async def _handle(self, route: Route, http_request: HTTPRequest, generation: int) -> HTTPResponse:
        if self._backend.settings.latency:
            await real_sleep(self._backend.settings.latency)
        with self._backend.lock:
            is_early = self._backend.faults.next_is_reset(route.name)
            reset = self._take_fault(route, "", generation) if is_early else None
        if reset is not None:
            return ConnectionReset(self._abort)
        try:
            request = await self._read(route, http_request, generation)
        except TooLarge:
            return EarlyResponse(gateway_page(413, GATEWAY_TITLES[413]))
        except FormError:
            return EarlyResponse(v3_error(5002, 400))
        with self._backend.lock:
            fault = self._take_fault(route, self._identifier(request), generation)
        if fault is None:
            return WholeResponse(await self._process(route, request))
        return await self._apply_fault(fault, route, request)

    async def _read(self, route: Route, http_request: HTTPRequest, generation: int) -> Request:
        """Read a request, and put its record filters into `query` under their documented names.

        A dialect is a simulated difference from FACEKI's documentation. In some dialects, the filters have other names,
        or are in the path instead of the query.
        """
        dialect = self._backend.dialect
        path = dict(http_request.path_params)
        query = dict(http_request.query_params)
        if dialect.filters and route.name == "records":
            query = {name: query[other] for name, other in dialect.filters.items() if other in query}
        if route.name in dialect.paths:
            query |= path
        request = Request(
            base_url=f"{http_request.url.scheme}://{urlsplit(str(http_request.base_url)).netloc}",
            headers=dict(http_request.headers),
            query=query,
            path=path,
            generation=generation,
        )
        is_form = route.body is Body.FORM
        limit = self._backend.settings.max_upload_bytes if is_form else MAX_JSON_BYTES
        return await _read_body(route, http_request, request, limit)

    def _take_fault(self, route: Route, identifier: str, generation: int) -> Fault | None:
        if generation != self._backend.generation:
            return None
        fault = self._backend.faults.take(route.name, identifier)
        self._backend.accounts.counts.faults_fired += fault is not None
        return fault

    def _identifier(self, request: Request) -> str:
        """Return the record identifier of a request.

        If the request contains no record identifier, return the record identifier of its link. If there is no link,
        for example in a search by `requestId`, return an empty text.
        """
        named = (
            request.text("record_identifier")
            or request.member("applicationId")
            or request.query.get("record_identifier")
            or request.query.get("referenceId")
        )
        if isinstance(named, str) and named:
            return named
        query = (request.query.get(name, "") for name in ("link", "linkId", "url"))
        link_ids = (request.path.get("link", ""), request.text("link"), *query)
        link = self._backend.store.links.get(next(filter(None, link_ids), ""))
        return link.record_identifier if link else ""

    # Methods that compute the correct answer to a request. A fault (injected error) has no effect on them.

    async def _process(self, route: Route, request: Request) -> Response:
        if route.takes_time and self._backend.is_authorized(route, request):
            await real_sleep(scenario_of(self._identifier(request)).pause)
        with self._backend.lock:
            if request.generation != self._backend.generation:
                return v3_error(500, 500)
            return self._answer(route, request)

    def _answer(self, route: Route, request: Request) -> Response:
        self._backend.answer_due_links()
        if not self._backend.is_authorized(route, request):
            return self._backend.refuse_token(route)
        dialect = self._backend.dialect
        try:
            response = route.handler(self._backend, request)
        except Refused as refused:
            response = error(route.envelope, refused.code, refused.status)
        return dialect.change(route.name, response)

    # Methods that apply faults (injected errors).

    async def _apply_fault(self, fault: Fault, route: Route, request: Request) -> HTTPResponse:
        match fault.kind:
            case "reset" | "reset_after_body":
                return ConnectionReset(self._abort)
            case "hang":
                await real_sleep(fault.delay)
                return ConnectionReset(self._abort)
            case "process_then_reset":
                await self._process(route, request)
                return ConnectionReset(self._abort)
            case "reset_then_process":
                self._run_later(self._process_later(fault.delay, route, request))
                return ConnectionReset(self._abort)
            case "slow":
                return WholeResponse(await self._process_slowly(fault, route, request))
            case "status" | "code" | "redirect" | "huge":
                if fault.processed:
                    await self._process(route, request)
                return WholeResponse(replacement(fault, route.envelope))
        return self._corrupt(fault, await self._process(route, request))

    async def _process_slowly(self, fault: Fault, route: Route, request: Request) -> Response:
        if fault.processed:
            response = await self._process(route, request)
            await real_sleep(fault.delay)
            return response
        await real_sleep(fault.delay)
        return await self._process(route, request)

    def _corrupt(self, fault: Fault, response: Response) -> HTTPResponse:
        match fault.kind:
            case "cut_off":
                return TruncatedResponse(response, self._abort)
            case "drip":
                return SlowResponse(response, fault.delay)
        return WholeResponse(corrupted(fault, response))

    async def _process_later(self, delay: float, route: Route, request: Request) -> None:
        await real_sleep(delay)
        await self._process(route, request)

    def _run_later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        # The event loop stores only a weak reference to a task. Without this set, the task could be garbage-collected.
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _match(template: str, request: HTTPRequest) -> dict[str, str] | None:
    """Match the path of a request against a template such as `/report/{requestId}`.

    :returns: the values of the names in braces. If the path does not match the template, None.
    """
    # A value can contain a slash, which is encoded as %2F. So the path is split before it is decoded.
    path = "/".join(
        quote(unquote(each), safe="") for each in request.scope["raw_path"].decode("ascii").split("/")
    )
    pattern = re.sub(r"%7B(\w+)%7D", r"(?P<\1>[^/]+)", re.escape(quote(template)))
    found = re.fullmatch(pattern, path)
    return {name: unquote(value) for name, value in found.groupdict().items()} if found else None


# Functions that read the body of a request.


class TooLarge(Exception):
    """The body of a request is larger than the limit."""


async def read_limited(request: HTTPRequest, limit: int, consume: Callable[[bytes], None]) -> None:
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


async def _read_body(route: Route, http_request: HTTPRequest, request: Request, limit: int) -> Request:
    declared = http_request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge
    if route.body is Body.FORM:
        form = FormReader(http_request.headers.get("content-type", ""))
        await read_limited(http_request, limit, form.feed)
        form.end()
        return replace(request, parts=form.parts)
    body = bytearray()
    await read_limited(http_request, limit, body.extend)
    return replace(request, document=_parse_json(bytes(body))) if route.body is Body.JSON else request


def _parse_json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


# Responses in the form that starlette sends.


class WholeResponse(HTTPResponse):
    """A complete response. It is sent in one piece."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.body, response.status, dict(response.headers), response.content_type)


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


def _start(response: HTTPResponse) -> Message:
    return {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}


# Responses of faults (injected errors).


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


async def _wait_for_disconnect(receive: Receive) -> None:
    """Wait until the client has disconnected.

    If the application returned earlier, uvicorn would log an error, because the response is not complete.
    """
    while (await receive())["type"] != "http.disconnect":
        pass
