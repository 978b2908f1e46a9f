# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What is sent again, how often, and after what wait? Both performers, a real server, no real waits."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords, GenerateKycLink, RawCall
from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.protocol.http import HttpRequest
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.transport.retry import FIRST_WAIT, RetryPolicy, may_repeat
from tests.api.conftest import Ask, Naps, impatient
from tests.api.scripted import (
    LINK_PATH,
    NOTHING_FOUND,
    RECORDS_PATH,
    TOKEN_PATH,
    Reply,
    ScriptedServer,
    gives_token,
    hangs_up,
    resets,
    says,
    says_bytes,
    says_raw,
)

FETCH = FetchRecords(request_id="r-1")
MAKE = GenerateKycLink(workflow_id="w")
FOUND = says(NOTHING_FOUND)
MADE = says({"responseCode": 0, "data": "l-1", "url": "https://apps.example/l-1"}, 201)

TROUBLE = [
    pytest.param(says({}, 500), errors.ServiceError, id="500"),
    pytest.param(says_bytes(b"<html>", 502), errors.ServiceError, id="502 page"),
    pytest.param(says({}, 503), errors.ServiceError, id="503"),
    pytest.param(says({}, 408), errors.ServiceError, id="408"),
    pytest.param(says({"status": False, "code": 500}), errors.ServiceError, id="200 with code 500"),
    pytest.param(says({"responseCode": 1000}), errors.ServiceError, id="200 with code 1000"),
    pytest.param(hangs_up, errors.ResponseLostError, id="hung up on"),
    pytest.param(resets, errors.ResponseLostError, id="reset after sending"),
    pytest.param(
        says_raw(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"status"'),
        errors.ResponseLostError,
        id="half a body",
    ),
    pytest.param(
        says_raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n63\r\n{"),
        errors.ResponseLostError,
        id="half a chunk",
    ),
    pytest.param(says_raw(b"220 mail.example ESMTP\r\n"), errors.ResponseLostError, id="not HTTP"),
    pytest.param(
        says_bytes(b'{"status":true,"code":200,"res'), errors.UnexpectedResponseError, id="truncated JSON"
    ),
    pytest.param(says_bytes(b"<html>hello</html>"), errors.UnexpectedResponseError, id="page"),
]


@pytest.mark.parametrize(("trouble", "kind"), TROUBLE)
def test_a_get_is_repeated_and_a_post_is_not(
    ask: Ask,
    server: ScriptedServer,
    client: FacekiClient,
    naps: Naps,
    trouble: Reply,
    kind: type[FacekiError],
) -> None:
    server.on(RECORDS_PATH, trouble, trouble, FOUND)
    server.on(LINK_PATH, trouble, MADE)
    assert ask(client, FETCH) == ()
    assert len(server.asked(RECORDS_PATH)) == 3
    with pytest.raises(kind) as caught:
        ask(client, MAKE)
    assert type(caught.value) is kind
    assert caught.value.is_ambiguous
    assert len(server.asked(LINK_PATH)) == 1
    assert (server.token_requests, len(naps.seconds)) == (1, 2)


def test_an_answer_that_ends_within_its_head_is_not_taken_for_no_records(
    ask: Ask, server: ScriptedServer, client: FacekiClient, naps: Naps
) -> None:
    server.on(RECORDS_PATH, says_raw(b"HTTP/1.1 200 OK\r\nContent-Le"))
    with pytest.raises(errors.UnexpectedResponseError) as caught:
        ask(client, FETCH)
    assert caught.value.is_transient


@pytest.mark.parametrize(("trouble", "kind"), TROUBLE)
def test_the_token_request_is_repeated_too(
    ask: Ask,
    server: ScriptedServer,
    client: FacekiClient,
    naps: Naps,
    trouble: Reply,
    kind: type[FacekiError],
) -> None:
    server.on(TOKEN_PATH, trouble, trouble, gives_token())
    server.on(RECORDS_PATH, FOUND)
    assert ask(client, FETCH) == ()
    assert (server.token_requests, len(naps.seconds)) == (3, 2)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        pytest.param(says({}, 401), errors.AuthenticationError, id="401"),
        pytest.param(says({"responseCode": 1}), errors.AuthenticationError, id="200 with code 1"),
        pytest.param(says({"statusCode": 422, "status": False}, 422), errors.AuthenticationError, id="422"),
        pytest.param(says({}, 404), errors.ConfigurationError, id="404"),
    ],
)
def test_wrong_credentials_are_never_tried_again(
    ask: Ask, server: ScriptedServer, client: FacekiClient, naps: Naps, wrong: Reply, kind: type[FacekiError]
) -> None:
    server.on(TOKEN_PATH, wrong)
    with pytest.raises(kind):
        ask(client, FETCH)
    assert (server.token_requests, naps.seconds) == (1, [])
    assert server.asked(RECORDS_PATH) == []


@pytest.mark.parametrize("endpoint", [pytest.param(FETCH, id="get"), pytest.param(MAKE, id="post")])
def test_too_many_requests_did_nothing_so_anything_is_repeated_when_we_are_told(
    ask: Ask, server: ScriptedServer, client: FacekiClient, naps: Naps, endpoint: FetchRecords
) -> None:
    full = says({}, 429, ("Retry-After", "7"))
    server.on(RECORDS_PATH, full, full, FOUND)
    server.on(LINK_PATH, full, full, MADE)
    ask(client, endpoint)
    assert naps.seconds == [7.0, 7.0]


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
    ask: Ask,
    server: ScriptedServer,
    client: FacekiClient,
    naps: Naps,
    status: int,
    headers: list[tuple[str, str]],
    wait: float,
) -> None:
    server.on(RECORDS_PATH, says({}, status, *headers), FOUND)
    assert ask(client, FETCH) == ()
    assert naps.seconds == [wait]


def test_without_retry_after_waits_double_with_jitter(
    ask: Ask, server: ScriptedServer, client: FacekiClient, naps: Naps
) -> None:
    server.on(RECORDS_PATH, says({}, 503))
    many = replace(client, retry=RetryPolicy(max_attempts=8, max_wait=5.0))
    with pytest.raises(errors.ServiceError):
        ask(many, FETCH)
    assert len(server.asked(RECORDS_PATH)) == 8
    floors = [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert [min(floor, 5.0) for floor in floors] == floors
    for waited, floor in zip(naps.seconds, floors, strict=True):
        assert floor <= waited <= min(floor + FIRST_WAIT, 5.0)
    assert len({waited % 0.5 for waited in naps.seconds[:4]}) > 1


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_attempts_are_counted(
    ask: Ask, server: ScriptedServer, client: FacekiClient, naps: Naps, attempts: int
) -> None:
    server.on(RECORDS_PATH, says({}, 503))
    with pytest.raises(errors.ServiceError):
        ask(replace(client, retry=RetryPolicy(max_attempts=attempts)), FETCH)
    assert len(server.asked(RECORDS_PATH)) == attempts


@pytest.mark.parametrize(
    ("endpoint", "sent"),
    [
        pytest.param(RawCall("POST", "/x", json={}), 1, id="post"),
        pytest.param(RawCall("POST", "/x", json={}, idempotent=True), 4, id="post, said to be repeatable"),
        pytest.param(RawCall("DELETE", "/x"), 1, id="delete"),
        pytest.param(RawCall("GET", "/x"), 4, id="get"),
        pytest.param(RawCall("GET", "/x", idempotent=False), 1, id="get, said not to be"),
    ],
)
def test_the_caller_of_a_call_decides(
    ask: Ask, server: ScriptedServer, client: FacekiClient, naps: Naps, endpoint: RawCall, sent: int
) -> None:
    server.on("/x", says({}, 500))
    with pytest.raises(errors.ServiceError):
        ask(client, endpoint)
    assert len(server.asked("/x")) == sent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("endpoint", [pytest.param(FETCH, id="get"), pytest.param(MAKE, id="post")])
def test_where_nobody_listens_nothing_was_sent_so_anything_is_repeated(
    ask: Ask, server: ScriptedServer, client: FacekiClient, naps: Naps, endpoint: FetchRecords
) -> None:
    server.on(RECORDS_PATH, FOUND)
    ask(client, FETCH)
    # The same account, whose token is there already, at a port where nobody listens.
    token = client._account.tokens.peek()
    assert token is not None
    gone = replace(client, service=Service(base_url=f"http://127.0.0.1:{_free_port()}"))
    gone._account.tokens.set(token)
    with pytest.raises(errors.ConnectError, match="refused") as caught:
        ask(gone, endpoint)
    assert (len(naps.seconds), caught.value.is_ambiguous) == (3, False)


def test_where_nobody_answers_the_door_nothing_was_sent(ask: Ask, client: FacekiClient, naps: Naps) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        # One in the queue, and whoever comes next is left standing.
        waiting = [socket.socket() for _ in range(3)]
        for caller in waiting:
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with pytest.raises(errors.ConnectError, match="within") as caught:
            ask(impatient(replace(client, service=Service(base_url=url)), 0.3), MAKE)
        for caller in waiting:
            caller.close()
    assert not caught.value.is_ambiguous


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 63 + ".invalid"])
def test_an_unknown_host_is_no_connection(ask: Ask, client: FacekiClient, naps: Naps, host: str) -> None:
    lost = replace(client, service=Service(base_url=f"http://{host}"))
    with pytest.raises(errors.ConnectError, match=host) as caught:
        ask(lost, FETCH)
    assert (len(naps.seconds), caught.value.is_transient) == (3, True)


def test_while_handling_a_failure_a_lost_answer_is_still_a_lost_answer(
    ask: Ask, server: ScriptedServer, client: FacekiClient, naps: Naps
) -> None:
    """Python chains an error to the one being handled; that one does not say what happened to this request."""
    gone = replace(client, service=Service(base_url=f"http://127.0.0.1:{_free_port()}"))
    server.on(LINK_PATH, hangs_up, MADE)
    try:
        ask(gone, FETCH)
        pytest.fail("somebody listens there")
    except errors.ConnectError:
        with pytest.raises(errors.ResponseLostError):
            ask(client, MAKE)
    assert len(server.asked(LINK_PATH)) == 1


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
