# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests with unusual and invalid requests: the sandbox answers them without an internal error."""

from __future__ import annotations

import asyncio
import json
import logging
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Message

from airflow_provider_faceki.sandbox import FacekiSandbox, Settings
from airflow_provider_faceki.sandbox.app import RequestPipeline, application
from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.clock import Clock
from airflow_provider_faceki.sandbox.messages import Body
from airflow_provider_faceki.sandbox.routes import ROUTE_NAMES, ROUTES
from tests.sandbox.conftest import Caller

FIELDS = (
    "clientId",
    "clientSecret",
    "workflowId",
    "expiryTime",
    "applicationId",
    "redirect_url",
    "link",
    "decision",
)
VALUES: list[Any] = [None, True, 0, -1, 1.5, 10**400, "", "x" * 10_000, "\ud800", "\x00", "é", [], {}, [[]]]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_no_route_fails_on_odd_values(
    sandbox: FacekiSandbox, call: Caller, caplog: pytest.LogCaptureFixture, route: Any
) -> None:
    path = route.path.replace("{link}", sandbox.create_link("\ud800")).replace("{key}", "x")
    for value in VALUES:
        if route.body is Body.JSON:
            answer = call(route.method, path, data=json.dumps(dict.fromkeys(FIELDS, value)).encode())
        elif route.body is Body.FORM:
            answer = call(route.method, path, data=dict.fromkeys(FIELDS, repr(value)), files={"selfie": b"x"})
        else:
            filters = ("linkId", "referenceId", "url", "requestId", "record_identifier", *FIELDS)
            answer = call(route.method, path, params=dict.fromkeys(filters, repr(value)[:500]))
        assert answer.status_code < 500
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_page_with_a_lone_surrogate_is_shown(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    link = sandbox.create_link(redirect_url="https://shop.example/\ud800")
    assert anonymous("POST", f"/kycverify/{link}", data={"decision": "ACCEPTED"}).status_code == 200


def test_an_internal_error_is_reported_as_such(
    sandbox: FacekiSandbox, call: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    record = sandbox.add_record("order-1", fields={"odd": {1, 2}})
    assert record["odd"] == {1, 2}
    answer = call.records(record_identifier="order-1")
    assert (answer.status_code, "the sandbox itself failed" in answer.text) == (500, True)
    assert sandbox.counters.statuses == {"200": 1, "500": 1}
    assert "the sandbox itself failed" in caplog.text


def test_a_long_control_call_takes_no_memory(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(600):
            yield b" " * 65_536

    tracemalloc.start()
    try:
        answer = anonymous(
            "POST", "/_sandbox/reset", data=body(), headers={"Content-Type": "application/json"}
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (answer.status_code, answer.json()) == (413, {"error": "body: at most 1048576 bytes"})
    assert peak < 8_000_000


def test_a_control_call_that_breaks_off_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    arriving: list[Message] = [
        {"type": "http.request", "body": b'{"credit"', "more_body": True},
        {"type": "http.disconnect"},
    ]
    backend = Backend(Settings(), Clock(), ROUTE_NAMES)

    async def receive() -> Message:
        return arriving.pop(0)

    async def send(message: Message) -> None:
        assert message.get("status", 499) == 499

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/_sandbox/credit",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    pipeline = RequestPipeline(backend, lambda client, reset: None, lambda line: None)
    asyncio.run(application(backend, pipeline, exposed=False)(scope, receive, send))  # type: ignore[arg-type]  # A coroutine.
    assert caplog.records == []
    assert arriving == []


def test_decide_refuses_an_empty_key(sandbox: FacekiSandbox) -> None:
    before = sandbox.add_record("order-1", "REVIEW")
    with pytest.raises(ValueError, match="found '', allowed is the id of a link or a requestId"):
        sandbox.decide("", "ACCEPTED")
    assert sandbox.decide(str(before["requestId"]), "ACCEPTED")["decision"] == "ACCEPTED"
