# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The exact bytes of requests, and unusual responses, with both drivers and a real server."""

from __future__ import annotations

import gzip
import json
import resource
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.links import GenerateKycLink
from airflow_provider_faceki.api.endpoints.raw import RawCall
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.protocol.messages import HttpRequest, Json
from airflow_provider_faceki.api.service import AuthFlow
from airflow_provider_faceki.api.transport import http_transport as transport
from tests.api.conftest import CallMode, RecordedSleeps, with_timeout
from tests.api.fake_server import (
    LINK_PATH,
    NOTHING_FOUND,
    RECORDS_PATH,
    TOKEN_PATH,
    FakeServer,
    Handler,
    issue_token,
    reply_bytes,
    reply_json,
    reply_raw,
    reply_slowly,
)

FETCH = FetchRecords(record_identifier="Fall ü&1 +/")
BODY = json.dumps(NOTHING_FOUND).encode()


def test_a_get_request_to_the_byte(call: CallMode, server: FakeServer, client: FacekiClient) -> None:
    server.on(RECORDS_PATH, reply_json(NOTHING_FOUND))
    call(client, FETCH)
    (received,) = server.requests_to(RECORDS_PATH)
    assert received.target == f"{RECORDS_PATH}?record_identifier=Fall+%C3%BC%261+%2B%2F"
    assert {name.lower(): value for name, value in received.headers} == {
        "host": f"127.0.0.1:{server.server_port}",
        "user-agent": "airflow-provider-faceki",
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "connection": "keep-alive",
        "authorization": "Bearer token-1",
    }
    assert (received.method, received.body) == ("GET", b"")


def test_a_link_request_to_the_byte(call: CallMode, server: FakeServer, client: FacekiClient) -> None:
    server.on(LINK_PATH, reply_json({"responseCode": 0, "data": "l-1"}, 201))
    call(client, GenerateKycLink(workflow_id="wf", record_identifier="ü"))
    (received,) = server.requests_to(LINK_PATH)
    assert received.body == b'{"workflowId":"wf","applicationId":"\xc3\xbc"}'
    assert received.header("content-length") == str(len(received.body))
    assert received.header("content-type") == "application/json"
    assert len([name for name, _ in received.headers if name.lower() == "authorization"]) == 1


@pytest.mark.parametrize(
    ("flow", "method", "target", "body", "headers"),
    [
        pytest.param(
            AuthFlow.GENERATE_TOKEN,
            "POST",
            "/auth/api/generate-token",
            b'{"clientId":"c 1","clientSecret":"s&1"}',
            (None, None),
            id="generate_token",
        ),
        pytest.param(
            AuthFlow.ACCESS_TOKEN_BODY,
            "POST",
            "/auth/api/access-token",
            b'{"clientId":"c 1","clientSecret":"s&1"}',
            (None, None),
            id="access_token_body",
        ),
        pytest.param(
            AuthFlow.ACCESS_TOKEN_HEADERS,
            "POST",
            "/auth/api/access-token",
            b"{}",
            ("c 1", "s&1"),
            id="access_token_headers",
        ),
        pytest.param(
            AuthFlow.ACCESS_TOKEN_QUERY,
            "GET",
            "/auth/api/access-token?clientId=c+1&clientSecret=s%261",
            b"",
            (None, None),
            id="access_token_query",
        ),
    ],
)
def test_token_requests_to_the_byte(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    flow: AuthFlow,
    method: str,
    target: str,
    body: bytes,
    headers: tuple[str | None, str | None],
) -> None:
    server.on("/auth/api/access-token", issue_token(status=201))
    server.on(RECORDS_PATH, reply_json(NOTHING_FOUND))
    call(replace(client, client_id="c 1", client_secret="s&1", auth_flow=flow), FETCH)
    received = server.received[0]
    assert (received.method, received.target, received.body) == (method, target, body)
    assert (received.header("clientId"), received.header("clientSecret")) == headers
    assert (received.header("authorization"), received.bearer) == (None, None)
    assert received.header("content-type") == ("application/json" if body else None)


def _chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n" + coded + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(reply_raw(_chunked(BODY, 7) % b""), id="chunked"),
        pytest.param(
            reply_raw(_chunked(gzip.compress(BODY, mtime=0), 3) % b"Content-Encoding: gzip\r\n"), id="both"
        ),
        pytest.param(reply_bytes(gzip.compress(BODY, mtime=0), 200, ("Content-Encoding", "gzip")), id="gzip"),
        pytest.param(reply_bytes(zlib.compress(BODY), 200, ("Content-Encoding", "deflate")), id="deflate"),
        pytest.param(reply_raw(b"HTTP/1.0 200 OK\r\n\r\n" + BODY), id="until the end of the connection"),
        pytest.param(
            reply_raw(b"HTTP/1.1 200\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY), id="no phrase"
        ),
        pytest.param(reply_bytes(b"\xef\xbb\xbf" + BODY), id="with a byte order mark"),
        pytest.param(reply_bytes(BODY, 200, ("Content-Type", "text/html")), id="said to be HTML"),
        pytest.param(reply_bytes(BODY, 200, ("Set-Cookie", "a=b"), ("Location", "http://[")), id="headers"),
    ],
)
def test_forms_of_an_answer(call: CallMode, server: FakeServer, client: FacekiClient, answer: object) -> None:
    assert callable(answer)
    server.on(RECORDS_PATH, answer)
    assert call(client, FETCH) == ()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(reply_bytes(b"no gzip", 200, ("Content-Encoding", "gzip")), id="not what it says"),
        pytest.param(
            reply_bytes(gzip.compress(BODY, mtime=0)[:-12], 200, ("Content-Encoding", "gzip")), id="cut off"
        ),
        pytest.param(
            reply_raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            id="a chunk of no length",
        ),
        pytest.param(reply_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n{}"), id="two lengths"),
        pytest.param(reply_raw(b"HTTP/1.1 OK OK\r\n\r\n"), id="no status"),
        pytest.param(reply_raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"), id="a long header"),
        pytest.param(reply_raw(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n"), id="many headers"),
    ],
)
def test_truncated_or_malformed_responses_are_ambiguous(
    call: CallMode, server: FakeServer, client: FacekiClient, answer: object
) -> None:
    assert callable(answer)
    server.on(LINK_PATH, answer)
    with pytest.raises(errors.FacekiError) as caught:
        call(client, GenerateKycLink(workflow_id="w"))
    assert isinstance(caught.value, errors.ResponseLostError | errors.UnexpectedResponseError)
    assert caught.value.is_ambiguous
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_many_requests_share_one_connection(server: FakeServer, client: FacekiClient) -> None:
    server.on(RECORDS_PATH, reply_json(NOTHING_FOUND))
    server.on("/empty", reply_bytes(b"", 204))
    server.on("/chunked", lambda handler: handler.send_bytes(_chunked(BODY, 9) % b""))
    for endpoint in (
        FETCH,
        RawCall("HEAD", "/head"),
        RawCall("GET", "/empty"),
        RawCall("GET", "/chunked"),
        FETCH,
    ):
        server.on("/head", lambda handler: handler.answer(200, b"", [("Content-Length", "99")]))
        client.call(endpoint)
    assert len(server.received) == 6
    assert {received.connection for received in server.received} == {1}


def test_requests_reach_their_host_in_any_order(server: FakeServer) -> None:
    sender = transport.Transport(transport.TransportSettings())
    with FakeServer() as other:
        for each in (server, other):
            each.on(RECORDS_PATH, reply_json(NOTHING_FOUND))
        for each in (server, other, other, server):
            sender.send(HttpRequest("GET", f"{each.url}{RECORDS_PATH}"))
        assert len(server.received) == len(other.received) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["/elsewhere", "http://127.0.0.1:1/", "http://[", "http://\xff\xfe/", ""])
def test_a_redirect_is_not_followed(
    call: CallMode, server: FakeServer, client: FacekiClient, sleeps: RecordedSleeps, status: int, where: str
) -> None:
    server.on(RECORDS_PATH, reply_bytes(b"moved", status, ("Location", where)))
    server.on("/elsewhere", reply_json(NOTHING_FOUND))
    with pytest.raises(errors.UnexpectedResponseError, match="redirect, which is never followed"):
        call(client, FETCH)
    assert server.requests_to("/elsewhere") == []


def test_no_cookie_is_kept(call: CallMode, server: FakeServer, client: FacekiClient) -> None:
    cookie = ("Set-Cookie", "session=1; Path=/")
    server.on(RECORDS_PATH, reply_json(NOTHING_FOUND, 200, cookie))
    for _ in range(3):
        call(client, FETCH)
    assert [received.header("cookie") for received in server.received] == [None] * 4


@pytest.fixture
def home_with_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create a ``.netrc`` with an entry for the server in the user's home directory."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1\nlogin somebody\npassword theirs\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))


@pytest.mark.usefixtures("home_with_netrc")
def test_netrc_is_not_used(call: CallMode, server: FakeServer, client: FacekiClient) -> None:
    server.on(RECORDS_PATH, reply_json(NOTHING_FOUND))
    call(client, FETCH)
    assert [received.header("authorization") for received in server.received] == [None, "Bearer token-1"]


def _reply_in_pieces(piece: bytes, opening: bytes) -> object:
    def reply(handler: Handler) -> None:
        handler.send_bytes(opening)
        for _ in range(1000):
            handler.send_bytes(piece)
        handler.close_after_reply()

    return reply


def _memory_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


BOMB = gzip.compress(b" " * 64 * 1024 * 1024, 1)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            _reply_in_pieces(
                b"10000\r\n" + b" " * 65536 + b"\r\n", _chunked(b"", 1).removesuffix(b"0\r\n\r\n") % b""
            ),
            id="chunked",
        ),
        pytest.param(
            _reply_in_pieces(b" " * 65536, b"HTTP/1.1 200 OK\r\nContent-Length: 65536000\r\n\r\n"), id="plain"
        ),
        pytest.param(reply_bytes(BOMB, 200, ("Content-Encoding", "gzip")), id="small, until it is unpacked"),
    ],
)
def test_an_answer_that_is_too_large_is_not_read_to_its_end(
    call: CallMode, server: FakeServer, client: FacekiClient, answer: object
) -> None:
    assert callable(answer)
    server.on(RECORDS_PATH, answer)
    before = _memory_kib()
    with pytest.raises(errors.UnexpectedResponseError, match="larger than 33554432 bytes"):
        call(with_timeout(client, 20.0), FETCH)
    assert _memory_kib() - before < 3 * transport.MAX_RESPONSE_BYTES / 1024


NESTED_BOMB = gzip.compress(BOMB, 1)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Content-Encoding", "gzip, gzip")], id="gzip twice"),
        pytest.param([("Content-Encoding", "gzip"), ("Content-Encoding", "gzip")], id="in two headers"),
        pytest.param([("Content-Encoding", "GZIP,Gzip,gzip")], id="three times"),
        pytest.param([("Content-Encoding", "deflate, gzip")], id="two kinds"),
        pytest.param([("Content-Encoding", "identity, gzip")], id="none, then one"),
        pytest.param([("Content-Encoding", "br")], id="one that was not asked for"),
        pytest.param([("Content-Encoding", "zstd")], id="another that was not asked for"),
    ],
)
def test_nested_or_unrequested_content_codings_are_not_decoded(
    call: CallMode, server: FakeServer, client: FacekiClient, headers: list[tuple[str, str]]
) -> None:
    server.on(RECORDS_PATH, reply_bytes(NESTED_BOMB, 200, *headers), reply_json(NOTHING_FOUND))
    before = _memory_kib()
    with pytest.raises(errors.UnexpectedResponseError, match="a compression that the request did not allow"):
        call(with_timeout(client, 20.0), FETCH)
    assert _memory_kib() - before < 8 * 1024
    assert call(client, FETCH) == ()


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """An event that is set at the end of the test, so that endless replies stop."""
    event = threading.Event()
    yield event
    event.set()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("opening", "piece"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ", id="drop by drop"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", id="chunk by chunk"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"", id="nothing after the head"),
        pytest.param(b"HTTP/1.1 302 Found\r\nContent-Length: 100000\r\n\r\n", b" ", id="a redirect"),
        pytest.param(b"", b"", id="nothing at all"),
        pytest.param(b"HTTP/1.1 2", b"0", id="the status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", b"x", id="a header"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="go on, go on"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 9999, id="go on, and fast"),
        pytest.param(CHUNKED, b"0", id="the length of a chunk"),
        pytest.param(CHUNKED + b"2;", b"x", id="what else a chunk says"),
        pytest.param(CHUNKED + b"2\r\n{}\r\n0\r\n", b"x: y\r\n", id="what follows the last chunk"),
    ],
)
@pytest.mark.parametrize("path", [RECORDS_PATH, TOKEN_PATH])
def test_an_answer_that_is_too_slow_is_not_waited_for(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    over: threading.Event,
    opening: bytes,
    piece: bytes,
    path: str,
) -> None:
    server.on(RECORDS_PATH, reply_json(NOTHING_FOUND))
    # With lifetime 0 each call requests a new token.
    server.on(TOKEN_PATH, issue_token(0))
    call(client, FETCH)
    server.on(path, reply_slowly(piece, 0.05, over, opening))
    begun = time.monotonic()
    with pytest.raises(errors.ResponseLostError) as caught:
        call(with_timeout(client, 0.3), FETCH)
    assert time.monotonic() - begun < 120
    assert caught.value.is_ambiguous == (path == RECORDS_PATH)


def test_uploads_have_a_timeout_of_their_own(server: FakeServer, client: FacekiClient) -> None:
    slow: Json = {"slow": True}

    def late(handler: Handler) -> None:
        threading.Event().wait(0.5)
        reply_json(slow)(handler)

    server.on("/slow", late)
    hasty = transport.Transport(replace(client.transport, timeout=0.1, upload_timeout=5.0))
    question = RawCall("GET", "/slow").request(client.service)
    assert hasty.send(replace(question, upload=True)).body == b'{"slow": true}'
    with pytest.raises(errors.ResponseLostError):
        hasty.send(question)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param(
            {"client_secret": "s-中", "auth_flow": AuthFlow.ACCESS_TOKEN_HEADERS}, "header", id="header"
        ),
        pytest.param(
            {"client_secret": "s\nx: y", "auth_flow": AuthFlow.ACCESS_TOKEN_HEADERS}, "header", id="line"
        ),
    ],
)
def test_a_secret_invalid_in_a_header_is_a_hidden_configuration_error(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    sleeps: RecordedSleeps,
    change: dict[str, str],
    word: str,
) -> None:
    with pytest.raises(errors.ConfigurationError, match=word) as caught:
        call(replace(client, **change), FETCH)  # type: ignore[arg-type]  # the values are test parameters
    assert "s-" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert (server.received, sleeps.seconds) == ([], [])


def test_a_secret_in_an_error_of_the_http_library_is_not_shown(
    client: FacekiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library requests checks the header since 2.34. Before, http.client raises a ValueError with the secret."""
    monkeypatch.setattr(requests.models, "check_header_validity", lambda header: None)
    secret = replace(client, client_secret="s\nx: y", auth_flow=AuthFlow.ACCESS_TOKEN_HEADERS)
    with pytest.raises(errors.ConfigurationError, match="a header is invalid") as caught:
        secret.call(FETCH)
    assert "x: y" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize(
    "base",
    [
        pytest.param("ftp://127.0.0.1", id="scheme"),
        pytest.param("http://" + "a" * 70 + ".invalid", id="label too long"),
        pytest.param("http://.invalid", id="empty label"),
        pytest.param("http://127.0.0.1:99999", id="port"),
        pytest.param("http://user:hunter2@nowhere.invalid:99999", id="password"),
    ],
)
def test_an_invalid_base_url_is_a_configuration_error(
    call: CallMode, client: FacekiClient, sleeps: RecordedSleeps, base: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match="cannot be created") as caught:
        call(replace(client, service=replace(client.service, base_url=base)), FETCH)
    assert "hunter2" not in str(caught.value)
    assert sleeps.seconds == []
