# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Retries: the repeated requests, their number and the pauses between them, with both drivers."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.links import GenerateKycLink
from airflow_provider_faceki.api.endpoints.raw import RawCall
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.protocol.messages import HttpRequest
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.transport.retry import INITIAL_WAIT_SECONDS, RetryPolicy, may_repeat
from demo.processes import free_port
from tests.api.conftest import CallMode, RecordedSleeps, with_timeout
from tests.api.fake_server import (
    LINK_PATH,
    NOTHING_FOUND,
    RECORDS_PATH,
    TOKEN_PATH,
    FakeServer,
    Reply,
    close_connection_silently,
    issue_token,
    reply_bytes,
    reply_json,
    reply_raw,
    resets,
)

FETCH = FetchRecords(request_id="r-1")
MAKE = GenerateKycLink(workflow_id="w")
FOUND = reply_json(NOTHING_FOUND)
MADE = reply_json({"responseCode": 0, "data": "l-1", "url": "https://apps.example/l-1"}, 201)

TROUBLE = [
    pytest.param(reply_json({}, 500), errors.ServiceError, id="500"),
    pytest.param(reply_bytes(b"<html>", 502), errors.ServiceError, id="502 page"),
    pytest.param(reply_json({}, 503), errors.ServiceError, id="503"),
    pytest.param(reply_json({}, 408), errors.ServiceError, id="408"),
    pytest.param(reply_json({"status": False, "code": 500}), errors.ServiceError, id="200 with code 500"),
    pytest.param(reply_json({"responseCode": 1000}), errors.ServiceError, id="200 with code 1000"),
    pytest.param(close_connection_silently, errors.ResponseLostError, id="hung up on"),
    pytest.param(resets, errors.ResponseLostError, id="reset after sending"),
    pytest.param(
        reply_raw(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"status"'),
        errors.ResponseLostError,
        id="half a body",
    ),
    pytest.param(
        reply_raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n63\r\n{"),
        errors.ResponseLostError,
        id="half a chunk",
    ),
    pytest.param(reply_raw(b"220 mail.example ESMTP\r\n"), errors.ResponseLostError, id="not HTTP"),
    pytest.param(
        reply_bytes(b'{"status":true,"code":200,"res'), errors.UnexpectedResponseError, id="truncated JSON"
    ),
    pytest.param(reply_bytes(b"<html>hello</html>"), errors.UnexpectedResponseError, id="page"),
]


@pytest.mark.parametrize(("trouble", "kind"), TROUBLE)
def test_a_get_is_repeated_and_a_post_is_not(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    sleeps: RecordedSleeps,
    trouble: Reply,
    kind: type[FacekiError],
) -> None:
    server.on(RECORDS_PATH, trouble, trouble, FOUND)
    server.on(LINK_PATH, trouble, MADE)
    assert call(client, FETCH) == ()
    assert len(server.requests_to(RECORDS_PATH)) == 3
    with pytest.raises(kind) as caught:
        call(client, MAKE)
    assert type(caught.value) is kind
    assert caught.value.is_ambiguous
    assert len(server.requests_to(LINK_PATH)) == 1
    assert (server.token_requests, len(sleeps.seconds)) == (1, 2)


def test_a_response_cut_in_its_head_is_an_error_and_not_no_records(
    call: CallMode, server: FakeServer, client: FacekiClient, sleeps: RecordedSleeps
) -> None:
    server.on(RECORDS_PATH, reply_raw(b"HTTP/1.1 200 OK\r\nContent-Le"))
    with pytest.raises(errors.UnexpectedResponseError) as caught:
        call(client, FETCH)
    assert caught.value.is_transient


@pytest.mark.parametrize(("trouble", "kind"), TROUBLE)
def test_the_token_request_is_repeated_too(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    sleeps: RecordedSleeps,
    trouble: Reply,
    kind: type[FacekiError],
) -> None:
    server.on(TOKEN_PATH, trouble, trouble, issue_token())
    server.on(RECORDS_PATH, FOUND)
    assert call(client, FETCH) == ()
    assert (server.token_requests, len(sleeps.seconds)) == (3, 2)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        pytest.param(reply_json({}, 401), errors.AuthenticationError, id="401"),
        pytest.param(reply_json({"responseCode": 1}), errors.AuthenticationError, id="200 with code 1"),
        pytest.param(
            reply_json({"statusCode": 422, "status": False}, 422), errors.AuthenticationError, id="422"
        ),
        pytest.param(reply_json({}, 404), errors.ConfigurationError, id="404"),
    ],
)
def test_wrong_credentials_are_never_tried_again(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    sleeps: RecordedSleeps,
    wrong: Reply,
    kind: type[FacekiError],
) -> None:
    server.on(TOKEN_PATH, wrong)
    with pytest.raises(kind):
        call(client, FETCH)
    assert (server.token_requests, sleeps.seconds) == (1, [])
    assert server.requests_to(RECORDS_PATH) == []


@pytest.mark.parametrize("endpoint", [pytest.param(FETCH, id="get"), pytest.param(MAKE, id="post")])
def test_any_request_is_repeated_after_429_as_retry_after_says(
    call: CallMode, server: FakeServer, client: FacekiClient, sleeps: RecordedSleeps, endpoint: FetchRecords
) -> None:
    full = reply_json({}, 429, ("Retry-After", "7"))
    server.on(RECORDS_PATH, full, full, FOUND)
    server.on(LINK_PATH, full, full, MADE)
    call(client, endpoint)
    assert sleeps.seconds == [7.0, 7.0]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        pytest.param([("Retry-After", "12")], 12.0, id="seconds"),
        pytest.param([("Retry-After", "4000")], 30.0, id="more than the longest wait"),
        pytest.param(
            [("Date", "Wed, 04 Nov 2026 10:00:00 GMT"), ("Retry-After", "Wed, 04 Nov 2026 10:00:09 GMT")],
            9.0,
            id="date",
        ),
    ],
)
def test_retry_after_is_honoured_up_to_the_longest_wait(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    sleeps: RecordedSleeps,
    status: int,
    headers: list[tuple[str, str]],
    wait: float,
) -> None:
    server.on(RECORDS_PATH, reply_json({}, status, *headers), FOUND)
    assert call(client, FETCH) == ()
    assert sleeps.seconds == [wait]


def test_without_retry_after_waits_double_with_jitter(
    call: CallMode, server: FakeServer, client: FacekiClient, sleeps: RecordedSleeps
) -> None:
    server.on(RECORDS_PATH, reply_json({}, 503))
    many = replace(client, retry=RetryPolicy(max_attempts=8, max_wait=5.0))
    with pytest.raises(errors.ServiceError):
        call(many, FETCH)
    assert len(server.requests_to(RECORDS_PATH)) == 8
    floors = [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert [min(floor, 5.0) for floor in floors] == floors
    for waited, floor in zip(sleeps.seconds, floors, strict=True):
        assert floor <= waited <= min(floor + INITIAL_WAIT_SECONDS, 5.0)
    assert len({waited % 0.5 for waited in sleeps.seconds[:4]}) > 1


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_attempts_are_counted(
    call: CallMode, server: FakeServer, client: FacekiClient, sleeps: RecordedSleeps, attempts: int
) -> None:
    server.on(RECORDS_PATH, reply_json({}, 503))
    with pytest.raises(errors.ServiceError):
        call(replace(client, retry=RetryPolicy(max_attempts=attempts)), FETCH)
    assert len(server.requests_to(RECORDS_PATH)) == attempts


@pytest.mark.parametrize(
    ("endpoint", "sent"),
    [
        pytest.param(RawCall("POST", "/x", json={}), 1, id="post"),
        pytest.param(RawCall("POST", "/x", json={}, idempotent=True), 4, id="post, declared idempotent"),
        pytest.param(RawCall("DELETE", "/x"), 1, id="delete"),
        pytest.param(RawCall("GET", "/x"), 4, id="get"),
        pytest.param(RawCall("GET", "/x", idempotent=False), 1, id="get, declared not idempotent"),
    ],
)
def test_the_idempotent_flag_decides_about_repetition(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    sleeps: RecordedSleeps,
    endpoint: RawCall,
    sent: int,
) -> None:
    server.on("/x", reply_json({}, 500))
    with pytest.raises(errors.ServiceError):
        call(client, endpoint)
    assert len(server.requests_to("/x")) == sent


@pytest.mark.parametrize("endpoint", [pytest.param(FETCH, id="get"), pytest.param(MAKE, id="post")])
def test_any_request_is_repeated_after_connection_refused(
    call: CallMode, server: FakeServer, client: FacekiClient, sleeps: RecordedSleeps, endpoint: FetchRecords
) -> None:
    server.on(RECORDS_PATH, FOUND)
    call(client, FETCH)
    # This client has a valid token and a base URL at a port without a server.
    token = client._session.tokens.peek()
    assert token is not None
    gone = replace(client, service=Service(base_url=f"http://127.0.0.1:{free_port()}"))
    gone._session.tokens.set(token)
    with pytest.raises(errors.ConnectError, match="refused") as caught:
        call(gone, endpoint)
    assert (len(sleeps.seconds), caught.value.is_ambiguous) == (3, False)


def test_a_connect_timeout_is_not_ambiguous(
    call: CallMode, client: FacekiClient, sleeps: RecordedSleeps
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        # These connections fill the accept queue, so the connection of the client is not accepted.
        waiting = [socket.socket() for _ in range(3)]
        for caller in waiting:
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with pytest.raises(errors.ConnectError, match="within") as caught:
            call(with_timeout(replace(client, service=Service(base_url=url)), 0.3), MAKE)
        for caller in waiting:
            caller.close()
    assert not caught.value.is_ambiguous


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 63 + ".invalid"])
def test_an_unknown_host_is_a_connect_error(
    call: CallMode, client: FacekiClient, sleeps: RecordedSleeps, host: str
) -> None:
    lost = replace(client, service=Service(base_url=f"http://{host}"))
    with pytest.raises(errors.ConnectError, match=host) as caught:
        call(lost, FETCH)
    assert (len(sleeps.seconds), caught.value.is_transient) == (3, True)


def test_a_lost_response_keeps_its_class_during_error_handling(
    call: CallMode, server: FakeServer, client: FacekiClient, sleeps: RecordedSleeps
) -> None:
    """Check that an earlier error, which Python chains as the context, does not change the class of the new error."""
    gone = replace(client, service=Service(base_url=f"http://127.0.0.1:{free_port()}"))
    server.on(LINK_PATH, close_connection_silently, MADE)
    try:
        call(gone, FETCH)
        pytest.fail("a server listens there")
    except errors.ConnectError:
        with pytest.raises(errors.ResponseLostError):
            call(client, MAKE)
    assert len(server.requests_to(LINK_PATH)) == 1


@pytest.mark.parametrize(
    ("idempotent", "error", "again"),
    [
        pytest.param(True, errors.ServiceError("x"), True, id="idempotent, failed"),
        pytest.param(False, errors.ServiceError("x"), False, id="not, failed"),
        pytest.param(False, errors.ServiceError("x", is_ambiguous=False), True, id="not, surely not acted"),
        pytest.param(False, errors.ConnectError("x"), True, id="not, no connection"),
        pytest.param(False, errors.RateLimitError("x"), True, id="not, throttled"),
        pytest.param(True, errors.ResponseLostError("x"), True, id="idempotent, lost"),
        pytest.param(False, errors.ResponseLostError("x"), False, id="not, lost"),
        pytest.param(True, errors.TlsError("x"), False, id="distrust"),
        pytest.param(True, errors.LinkError("x"), False, id="a useless retry"),
        pytest.param(True, errors.OutcomeUnknownError("x"), False, id="unknown outcome"),
        pytest.param(True, OSError("x"), False, id="an error of another kind"),
        pytest.param(True, KeyboardInterrupt(), False, id="no error"),
    ],
)
def test_may_repeat(idempotent: bool, error: BaseException, again: bool) -> None:
    assert may_repeat(HttpRequest("GET", "https://a.invalid", idempotent=idempotent), error) is again
