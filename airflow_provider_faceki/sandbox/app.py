# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Which URL goes where? The ASGI application: FACEKI's calls through the gate, the control API beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Receive, Scope, Send

from airflow_provider_faceki.sandbox.answers import as_json
from airflow_provider_faceki.sandbox.control import act
from airflow_provider_faceki.sandbox.desk import Desk
from airflow_provider_faceki.sandbox.gate import Gate, TooLarge, pour
from airflow_provider_faceki.sandbox.loopback import is_loopback
from airflow_provider_faceki.sandbox.responses import Refusal
from airflow_provider_faceki.sandbox.routes import ROUTES, Route

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
LONGEST_CONTROL = 1024 * 1024
_LOG = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


def application(desk: Desk, gate: Gate, exposed: bool) -> ASGIApp:
    """`exposed`: other machines may call, under whatever name they know this one by."""
    calls = [Path(route.path, _through(gate, route), methods=[route.method]) for route in ROUTES]
    control = Path("/_sandbox/{name}", _control(desk), methods=["GET", "POST", "DELETE"])
    rest = Path("/{rest:path}", gate.serve_the_rest, methods=_METHODS)
    app = Starlette(routes=[*calls, control, rest], exception_handlers={500: _own_fault})
    return app if exposed else _LoopbackOnly(app)


def _own_fault(request: Request, error: Exception) -> Response:
    """A fault that nobody ordered must not look like one that somebody did."""
    _LOG.error("the sandbox itself failed; please report it", exc_info=error)
    return JSONResponse({"error": "the sandbox itself failed; its log says where"}, 500)


def _through(gate: Gate, route: Route) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        return await gate.serve(route, request)

    return endpoint


def _control(desk: Desk) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        document: object = dict(request.query_params)
        if request.method == "POST":
            if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
                return JSONResponse({"error": "Content-Type: allowed is application/json"}, 415)
            body = bytearray()
            try:
                await pour(request, LONGEST_CONTROL, body.extend)
                document = json.loads(body or b"{}")
            except TooLarge:
                return Refusal(as_json({"error": f"body: at most {LONGEST_CONTROL} bytes"}, 413))
            except ClientDisconnect:
                return Response(status_code=499)
            except (ValueError, RecursionError):
                document = None
        if not isinstance(document, Mapping):
            return JSONResponse({"error": "body: allowed is a JSON object"}, 422)
        status, said = act(desk, request.method, request.path_params["name"], document)
        return JSONResponse(said, status)

    return endpoint


class _LoopbackOnly:
    """A name that somebody else's DNS points at 127.0.0.1 must not open the sandbox to their web page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_loopback(_host(scope)):
            await JSONResponse({"error": "Host: allowed is a loopback address"}, 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _host(scope: Scope) -> str:
    try:
        return urlsplit("//" + Headers(scope=scope).get("host", "")).hostname or ""
    except ValueError:
        return ""
