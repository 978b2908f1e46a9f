# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""In which order does a request meet latency, faults, the bearer check and its route?

Everything a route decides happens in one synchronous step under the desk's lock; everything that waits or can be
interrupted happens outside of it. A client that goes away does not stop its request: that is how it is billed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from airflow_provider_faceki.sandbox.answers import (
    Envelope,
    as_json,
    e1_error,
    e2_error,
    error,
    gateway_page,
    refusal,
)
from airflow_provider_faceki.sandbox.desk import Desk
from airflow_provider_faceki.sandbox.faults import Fault
from airflow_provider_faceki.sandbox.messages import Answer, Ask
from airflow_provider_faceki.sandbox.naps import nap
from airflow_provider_faceki.sandbox.responses import Cut, CutOff, Drip, Refusal, Reset, whole
from airflow_provider_faceki.sandbox.routes import PDF, UNKNOWN, Body, Route
from airflow_provider_faceki.sandbox.scenarios import scenario_of
from airflow_provider_faceki.sandbox.uploads import BadForm, Form

LONGEST_JSON = 1024 * 1024
_GATEWAY = {
    413: "Request Entity Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Time-out",
}

Log = Callable[[str], None]


class TooLarge(Exception):
    """More body than a gateway lets through."""


class Gate:
    def __init__(self, desk: Desk, cut: Cut, log: Log) -> None:
        self._desk = desk
        self._cut = cut
        self._log = log
        self._later: set[asyncio.Task[None]] = set()

    async def serve_the_rest(self, request: Request) -> Response:
        """What no fixed path matched: the report, whose path is a setting, or nothing at all."""
        before, after = self._desk.settings.pdf_path.split("{requestId}")
        path = request.url.path
        request_id = path[len(before) : len(path) - len(after)]
        if (
            request.method != "GET"
            or path != before + request_id + after
            or not request_id
            or "/" in request_id
        ):
            return await self.serve(UNKNOWN, request)
        request.scope["path_params"] = {"requestId": request_id}
        return await self.serve(PDF, request)

    async def serve(self, route: Route, request: Request) -> Response:
        begun = time.perf_counter()
        with self._desk.lock:
            self._desk.counters.enter(route.name)
        response: Response | None = None
        try:
            response = await self._serve(route, request)
            return response
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            status = response.status_code if response is not None else 499
            with self._desk.lock:
                self._desk.counters.leave()
                self._desk.counters.statuses[str(status)] += 1
            # The name of the route, never its URL: links and queries are capabilities.
            self._log(f"{request.method} {route.name} {status} {(time.perf_counter() - begun) * 1000:.0f} ms")

    async def _serve(self, route: Route, request: Request) -> Response:
        if self._desk.settings.latency:
            await nap(self._desk.settings.latency)
        with self._desk.lock:
            reset = self._desk.faults.next_is_reset(route.name) and self._take(route, "")
        if reset:
            return Reset(self._cut)
        try:
            ask = await _read(route, request, self._desk.settings.max_upload_bytes)
        except TooLarge:
            return Refusal(gateway_page(413, _GATEWAY[413]))
        except BadForm:
            return Refusal(e2_error(5002, 400))
        with self._desk.lock:
            fault = self._take(route, self._identifier(ask))
        if fault is None:
            return whole(await self._process(route, ask))
        return await self._misbehave(fault, route, ask)

    def _take(self, route: Route, identifier: str) -> Fault | None:
        fault = self._desk.faults.take(route.name, identifier)
        self._desk.counters.faults_fired += fault is not None
        return fault

    def _identifier(self, ask: Ask) -> str:
        """Whose request is this? Said in a form, in a body, in a query, or by the link."""
        said = (
            ask.text("record_identifier") or ask.member("applicationId") or ask.query.get("record_identifier")
        )
        if isinstance(said, str) and said:
            return said
        link_id = ask.path.get("link") or ask.query.get("link") or ask.text("link")
        link = self._desk.state.links.get(link_id)
        return link.record_identifier if link else ""

    # Doing what was asked

    async def _process(self, route: Route, ask: Ask) -> Answer:
        generation = self._desk.generation
        if route.takes_time and self._may(route, ask):
            await nap(scenario_of(self._identifier(ask)).pause)
        with self._desk.lock:
            if generation != self._desk.generation:
                return e2_error(500, 500)
            return self._decide(route, ask)

    def _may(self, route: Route, ask: Ask) -> bool:
        with self._desk.lock:
            return not route.bearer or self._desk.opens(ask.headers.get("authorization"))

    def _decide(self, route: Route, ask: Ask) -> Answer:
        self._desk.state.tick()
        if not self._may(route, ask):
            self._desk.counters.refused += 1
            return refusal(self._desk.settings.refusal_status)
        return route.answer(self._desk, ask)

    # Doing something else

    async def _misbehave(self, fault: Fault, route: Route, ask: Ask) -> Response:
        match fault.kind:
            case "reset" | "reset_after_body":
                return Reset(self._cut)
            case "hang":
                await nap(fault.delay)
                return Reset(self._cut)
            case "process_then_reset":
                await self._process(route, ask)
                return Reset(self._cut)
            case "reset_then_process":
                self._soon(self._process_later(fault.delay, route, ask))
                return Reset(self._cut)
            case "slow":
                return whole(await self._slowly(fault, route, ask))
            case "status" | "code" | "redirect" | "huge":
                if fault.processed:
                    await self._process(route, ask)
                return whole(_instead(fault, route.envelope))
        return self._spoil(fault, await self._process(route, ask))

    async def _slowly(self, fault: Fault, route: Route, ask: Ask) -> Answer:
        if fault.processed:
            answer = await self._process(route, ask)
            await nap(fault.delay)
            return answer
        await nap(fault.delay)
        return await self._process(route, ask)

    def _spoil(self, fault: Fault, answer: Answer) -> Response:
        match fault.kind:
            case "truncated":
                return whole(replace(answer, body=answer.body[: len(answer.body) // 2]))
            case "cut_off":
                return CutOff(answer, self._cut)
            case "drip":
                return Drip(answer, fault.delay)
        return whole(replace(answer, content_type=fault.content_type))

    async def _process_later(self, delay: float, route: Route, ask: Ask) -> None:
        generation = self._desk.generation
        await nap(delay)
        if generation == self._desk.generation:
            await self._process(route, ask)

    def _soon(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._later.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._later.discard)


def _instead(fault: Fault, envelope: Envelope) -> Answer:
    headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after}"}
    status = fault.status or 500
    if fault.kind == "code":
        return error(envelope, fault.code)
    if fault.kind == "redirect":
        return gateway_page(status, "Found", {"Location": fault.location})
    if fault.kind == "huge":
        return as_json({"status": True, "code": 200, "message": "x" * fault.size, "result": []})
    if status in _GATEWAY:
        return gateway_page(status, _GATEWAY[status], headers)
    answer = (e1_error if envelope is Envelope.E1 else e2_error)(500 if status >= 500 else 400, status)
    return replace(answer, headers=headers)


async def _read(route: Route, request: Request, most: int) -> Ask:
    declared = request.headers.get("content-length", "")
    most = most if route.body is Body.FORM else LONGEST_JSON
    if declared.isdigit() and int(declared) > most:
        raise TooLarge
    base = f"{request.url.scheme}://{urlsplit(str(request.base_url)).netloc}"
    ask = Ask(base, dict(request.headers), dict(request.query_params), dict(request.path_params))
    if route.body is Body.FORM:
        form = Form(request.headers.get("content-type", ""))
        await pour(request, most, form.feed)
        form.end()
        return replace(ask, parts=form.parts)
    body = bytearray()
    await pour(request, most, body.extend)
    return replace(ask, document=_json(bytes(body))) if route.body is Body.JSON else ask


async def pour(request: Request, most: int, into: Callable[[bytes], None]) -> None:
    """Read a body, whatever its Content-Length says; it is not held here.

    :raises TooLarge: it has more than so many bytes; the rest is not read.
    """
    got = 0
    async for piece in request.stream():
        got += len(piece)
        if got > most:
            raise TooLarge
        into(piece)


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
