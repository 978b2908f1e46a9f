# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Reuse of connections: a request never receives the response to another request."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.protocol.envelope import Payload
from airflow_provider_faceki.api.protocol.messages import HttpRequest, Json, image_request
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.transport.http_transport import Transport
from airflow_provider_faceki.api.transport.retry import RetryPolicy
from airflow_provider_faceki.api.uploads import Image
from tests.api.certificates import Authority
from tests.api.conftest import CallMode, with_timeout
from tests.api.fake_server import FakeServer, Handler, Reply, reply_json

OWN: Json = {"of": "this request"}


def _response(body: bytes, *headers: bytes, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    head = [b"HTTP/1.1 " + status, b"Content-Length: %d" % length, *headers]
    return b"\r\n".join([*head, b"", b""]) + body


RIGHT = _response(json.dumps(OWN).encode())
WRONG = _response(b'{"of":"another request"}')


@dataclass(frozen=True)
class _Document:
    """An endpoint without a token. It returns the whole document at ``path``.

    With ``upload``, the timeout for uploads applies to the request.
    """

    method: str
    path: str
    upload: bool = False

    def request(self, service: Service = FACEKI) -> HttpRequest:
        """Return a request without a token to the path of this call."""
        url = f"{service.base_url}{self.path}"
        return HttpRequest(self.method, url, authenticated=False, upload=self.upload)

    def read(self, answer: Payload) -> Json:
        """Return the document."""
        return answer.document


@pytest.fixture(params=["plain", "TLS"])
def remote(request: pytest.FixtureRequest, authority: Authority) -> Iterator[FakeServer]:
    """A server without or with TLS. With TLS, the socket does not show that decrypted bytes are left to read."""
    context: ssl.SSLContext | None = authority.server_context() if request.param == "TLS" else None
    with FakeServer(context) as server:
        yield server


@pytest.fixture
def remote_client(remote: FakeServer, client: FacekiClient) -> FacekiClient:
    """A client for this server."""
    return with_timeout(replace(client, service=Service(base_url=remote.url)), 5.0)


def _parts(*parts: bytes | float | threading.Event, sent: threading.Event | None = None) -> Reply:
    """Return a reply that leaves the connection open.

    :param parts: Bytes are sent, a number is a pause in seconds, and an event is waited for.
    :param sent: Event that is set after the last part.
    """

    def reply(handler: Handler) -> None:
        try:
            for part in parts:
                if isinstance(part, bytes):
                    handler.send_bytes(part)
                elif isinstance(part, threading.Event):
                    part.wait(120)
                else:
                    time.sleep(part)
        finally:
            if sent is not None:
                sent.set()

    return reply


EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(_parts(CONTINUE, RIGHT), id="100"),
        pytest.param(_parts(PROCESSING, RIGHT), id="102"),
        pytest.param(_parts(EARLY_HINTS, RIGHT), id="103"),
        pytest.param(_parts(b"HTTP/1.1 199 Unknown\r\n\r\n", RIGHT), id="a status of tomorrow"),
        pytest.param(_parts(CONTINUE, PROCESSING * 3, EARLY_HINTS * 2, RIGHT), id="several in a row"),
        pytest.param(_parts(PROCESSING, 0.3, RIGHT), id="long before the final one"),
        pytest.param(_parts(PROCESSING, 0.2, PROCESSING, 0.2, EARLY_HINTS, RIGHT), id="again and again"),
        pytest.param(_parts(EARLY_HINTS[:20], 0.1, EARLY_HINTS[20:], 0.1, RIGHT), id="in two pieces"),
        pytest.param(
            _parts(b"HTTP/1.1 102 P\r\nConnection: close\r\n\r\n", RIGHT), id="one that would close"
        ),
        pytest.param(_parts(b"HTTP/1.1 102 P\r\nContent-Length: 5\r\n\r\n", RIGHT), id="one with a length"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_interim_responses_are_read_past(
    call: CallMode, remote: FakeServer, remote_client: FacekiClient, reply: Reply, method: str
) -> None:
    remote.on("/own", reply)
    remote.on("/next", reply_json({"next": True}))
    for _ in range(2):
        assert call(remote_client, _Document(method, "/own")) == OWN
        assert call(remote_client, _Document("GET", "/next")) == {"next": True}
    assert {received.connection for received in remote.received} == {1}


def test_switching_protocols_is_no_response(remote: FakeServer, remote_client: FacekiClient) -> None:
    remote.on("/own", _parts(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\n\r\n", RIGHT))
    with pytest.raises(errors.ResponseLostError):
        remote_client.call(_Document("GET", "/own"))


HEAD_ONLY = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
RIGHT_CHUNKS = b"%x\r\n%b\r\n0\r\n" % (len(json.dumps(OWN)), json.dumps(OWN).encode())


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        pytest.param("GET", RIGHT + WRONG, id="a second response"),
        pytest.param("GET", RIGHT + WRONG * 400, id="many responses"),
        pytest.param("GET", RIGHT + WRONG[:20], id="the beginning of a second response"),
        pytest.param("GET", RIGHT + b"\r\n", id="an empty line"),
        pytest.param("GET", RIGHT + b"x" * 20_000, id="bytes after the body"),
        pytest.param("GET", _response(b"{}x" + WRONG, length=2), id="a length that is too short"),
        pytest.param("GET", _response(b"") + WRONG, id="after an empty body"),
        pytest.param("GET", CHUNKED + b"\r\n" + RIGHT_CHUNKS + b"\r\n" + WRONG, id="after the last chunk"),
        pytest.param(
            "GET", CHUNKED + b"Content-Length: 3\r\n\r\n" + RIGHT_CHUNKS + b"\r\n", id="chunks and a length"
        ),
        pytest.param("HEAD", HEAD_ONLY + WRONG, id="HEAD with a body"),
        pytest.param("HEAD", CHUNKED + b"\r\n" + RIGHT_CHUNKS + b"\r\n", id="HEAD with chunks"),
        pytest.param("GET", NO_CONTENT + b"\r\n" + WRONG, id="204 with a body"),
        pytest.param("GET", NO_CONTENT + b"Content-Length: 9\r\n\r\n", id="204 with a length"),
        pytest.param(
            "GET",
            NO_CONTENT + b"Transfer-Encoding: chunked\r\n\r\n" + RIGHT_CHUNKS + b"\r\n",
            id="204 with chunks",
        ),
        pytest.param("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n" + WRONG, id="304 with a body"),
        pytest.param(
            "GET", _response(b"{}", b"Transfer-Encoding: gzip, chunked") + WRONG, id="an unknown coding"
        ),
    ],
)
@pytest.mark.parametrize("pieces", [pytest.param(1, id="at once"), pytest.param(2, id="a moment later")])
def test_extra_bytes_are_not_read_as_the_next_response(
    remote: FakeServer, remote_client: FacekiClient, method: str, reply: bytes, pieces: int
) -> None:
    end, sent = len(reply) if pieces == 1 else reply.index(b"\r\n\r\n") + 4, threading.Event()
    remote.on("/odd", _parts(reply[:end], 0.05, reply[end:], sent=sent))
    remote.on("/own", reply_json(OWN))
    with contextlib.suppress(errors.FacekiError):
        remote_client.call(_Document(method, "/odd"))
    # When all bytes are sent, the next call must not read the remaining bytes as its response.
    assert sent.wait(120)
    assert remote_client.call(_Document("GET", "/own")) == OWN
    assert [received.path for received in remote.received] == ["/odd", "/own"]
    assert {received.connection for received in remote.received} == {1, 2}


IMAGE_BYTES = 24 * 1024 * 1024


def _upload(server: FakeServer, path: str = "/upload") -> HttpRequest:
    """Return a request that is larger than the kernel buffers of both ends of a connection."""
    image = Image.of_bytes("selfie", b"\xff\xd8\xff" + b"a" * IMAGE_BYTES, 2 * IMAGE_BYTES)
    return image_request(f"{server.url}{path}", (), [("selfie", image)], authenticated=False)


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """An event that is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([_response(b'{"refused":1}', status=b"413 Too Large")], id="413"),
        pytest.param([_response(b'{"refused":1}', status=b"401 Unauthorized")], id="401"),
        pytest.param([_response(b'{"refused":1}')], id="200"),
        pytest.param([CONTINUE, _response(b'{"refused":1}', status=b"413 .")], id="after 100"),
        pytest.param([EARLY_HINTS, 0.2, _response(b'{"refused":1}', status=b"413 .")], id="long after 103"),
        pytest.param([b"HTTP/1.1 ", 0.2, b"413 .\r\nContent-Length: 0\r\n\r\n"], id="in two pieces"),
        pytest.param([_response(b'{"refused":1}', status=b"413 .") + WRONG], id="and another response"),
    ],
)
def test_an_early_final_response_ends_an_upload_and_its_connection(
    remote: FakeServer,
    remote_client: FacekiClient,
    over: threading.Event,
    parts: list[bytes | float],
) -> None:
    def refuse(handler: Handler) -> None:
        if handler.path == "/upload":
            _parts(*parts)(handler)
            # The server does not read the rest of the body, so only the response can end the upload.
            over.wait(600)

    remote.before_body = refuse
    remote.on("/own", reply_json(OWN))
    transport = Transport(replace(remote_client.transport, upload_timeout=500.0))
    started = time.monotonic()
    response = transport.send(_upload(remote))
    assert time.monotonic() - started < 120
    assert b"another" not in response.body
    assert response.status in {200, 401, 413}
    own = transport.send(HttpRequest("GET", f"{remote.url}/own"))
    assert json.loads(own.body) == OWN


@pytest.mark.parametrize("interim", [CONTINUE, PROCESSING, EARLY_HINTS, CONTINUE + PROCESSING])
def test_an_interim_response_does_not_end_an_upload(
    remote: FakeServer, remote_client: FacekiClient, interim: bytes
) -> None:
    remote.before_body = _parts(interim, 0.2)
    remote.on("/upload", reply_json(OWN))
    transport = Transport(remote_client.transport)
    for _ in range(2):
        assert json.loads(transport.send(_upload(remote)).body) == OWN
    assert len(remote.received[0].body) > IMAGE_BYTES
    assert {received.connection for received in remote.received} == {1}


def test_a_late_response_is_not_returned_to_the_next_request(
    call: CallMode, remote: FakeServer, remote_client: FacekiClient
) -> None:
    """Check that a late response, which arrives after the timeout, is not returned to the next request."""
    timed_out, sent = threading.Event(), threading.Event()
    remote.on("/slow", _parts(timed_out, WRONG, sent=sent))
    remote.on("/own", reply_json(OWN))
    # Only the slow request has the short timeout, because it is an upload. All requests use the same transport, and
    # therefore the same connections.
    settings = replace(remote_client.transport, timeout=60.0, upload_timeout=1.0)
    remote_client = replace(remote_client, transport=settings, retry=RetryPolicy(max_attempts=1))
    assert call(remote_client, _Document("GET", "/own")) == OWN
    with pytest.raises(errors.ResponseLostError):
        call(remote_client, _Document("POST", "/slow", upload=True))
    timed_out.set()
    assert sent.wait(120)
    assert call(remote_client, _Document("GET", "/own")) == OWN
    assert [received.connection for received in remote.received] == [1, 1, 2]
