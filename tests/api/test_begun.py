# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Connections that fail before or after the first byte of the request was sent, for each route to the server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.links import GenerateKycLink
from airflow_provider_faceki.api.endpoints.verification import Document, PerformKycVerification
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.uploads import Image
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW
from tests.api.certificates import Authority
from tests.api.conftest import CallMode, RecordedSleeps, with_timeout
from tests.api.fake_server import (
    LINK_PATH,
    FakeServer,
    Handler,
    Reply,
    close_connection_silently,
    reply_json,
    reply_raw,
    resets,
)
from tests.api.proxy import RecordingProxy

MAKE = GenerateKycLink(workflow_id="w")
WAYS = ["http", "https", "http through a proxy", "https through a proxy", "https through one that resets"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Route of the request to the server."""
    way: str = request.param
    return way


@pytest.fixture
def far(way: str, authority: Authority) -> Iterator[FakeServer]:
    """A fake FACEKI server at the end of the route, with or without TLS."""
    with FakeServer(authority.server_context() if "https" in way else None) as server:
        yield server


@pytest.fixture
def proxy(way: str) -> Iterator[RecordingProxy]:
    """The proxy on the route, if the route has one."""
    with RecordingProxy(resets="resets" in way) as proxy:
        yield proxy


def _to(url: str, client: FacekiClient, way: str, proxy: RecordingProxy) -> FacekiClient:
    through = tuple((scheme, f"http://{proxy.address}") for scheme in ("http", "https") if "through" in way)
    rules = replace(client.transport, proxies=through)
    return replace(client, service=Service(base_url=url), transport=rules)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(close_connection_silently, id="end"),
        pytest.param(resets, id="reset"),
        pytest.param(reply_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), id="half"),
        pytest.param(reply_raw(b"HTTP/1.1 200 OK\r\nContent-Le"), id="half a head"),
        pytest.param(reply_raw(b"a word of another protocol\r\n\r\n"), id="another protocol"),
    ],
)
@pytest.mark.parametrize("kept", [pytest.param(True, id="kept"), pytest.param(False, id="new")])
def test_a_lost_response_is_not_reported_as_a_connect_error(
    call: CallMode,
    client: FacekiClient,
    far: FakeServer,
    way: str,
    proxy: RecordingProxy,
    sleeps: RecordedSleeps,
    answer: Reply,
    kept: bool,
) -> None:
    far.on(LINK_PATH, *([reply_json({"responseCode": 0, "data": "l-1"})] if kept else []), answer)
    there = _to(far.url, client, way, proxy)
    if kept:
        call(there, MAKE)
    with pytest.raises(errors.FacekiError) as caught:
        call(there, MAKE)
    # An incomplete HTTP head can be parsed as an answer without a body. The error is then an UnexpectedResponseError.
    assert isinstance(caught.value, errors.ResponseLostError | errors.UnexpectedResponseError)
    assert caught.value.is_ambiguous
    assert len(far.requests_to(LINK_PATH)) == 1 + kept
    assert bool(proxy.received) == ("through" in way)
    assert sleeps.seconds == []


@pytest.mark.integration
@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize("kind", ["process_then_reset", "cut_off"])
def test_a_verification_whose_response_is_lost_is_billed_once(
    call: CallMode, client: FacekiClient, authority: Authority, way: str, proxy: RecordingProxy, kind: str
) -> None:
    authority.server_context()
    pem = authority.folder / "127.0.0.1-False.pem"
    image = Image.of_bytes("selfie", b"\xff\xd8\xff\xe0" + b"0" * 1000)
    with FacekiSandbox(tls=(pem, pem) if "https" in way else None) as sandbox:
        sandbox.add_fault(kind, route="verify", count=4)
        known = replace(client, client_id=sandbox.client_id, client_secret=sandbox.client_secret)
        made = call(
            _to(sandbox.url, known, way, proxy),
            PerformKycVerification(
                workflow_id=DEFAULT_WORKFLOW,
                selfie=image,
                documents=[Document(image, image)],
                record_identifier="accepted-1",
                lookup_timeout=5.0,
            ),
        )
        assert made.record.record_identifier == "accepted-1"
        assert sandbox.ledger == {"accepted-1": 1}


@pytest.mark.parametrize(
    ("tunnel_reply", "then", "kind"),
    [
        pytest.param(b"", b"", errors.ConnectError, id="nothing"),
        pytest.param(b"HTTP/1.1 407 .\r\n\r\n", b"", errors.ConnectError, id="a login is wanted"),
        pytest.param(b"HTTP/1.1 502 .\r\n\r\n", b"", errors.ConnectError, id="it cannot get on"),
        pytest.param(b"HTTP/1.1 200 .\r\n\r\n", b"", errors.ConnectError, id="a tunnel that ends"),
        pytest.param(
            b"HTTP/1.1 200 .\r\n\r\n", b"No TLS here", errors.TlsError, id="a tunnel to something else"
        ),
    ],
)
@pytest.mark.parametrize("silent", [pytest.param(True, id="silence"), pytest.param(False, id="end")])
def test_a_failure_before_the_request_was_sent_is_not_ambiguous(
    call: CallMode,
    client: FacekiClient,
    sleeps: RecordedSleeps,
    tunnel_reply: bytes,
    then: bytes,
    kind: type[errors.FacekiError],
    silent: bool,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept: list[socket.socket] = []

        def serve() -> None:
            handler, _address = listening.accept()
            handler.recv(65536)
            handler.sendall(tunnel_reply)
            if then and handler.recv(65536):
                handler.sendall(then)
            if silent:
                kept.append(handler)
            else:
                handler.close()

        threading.Thread(target=serve, daemon=True).start()
        proxy = f"http://127.0.0.1:{listening.getsockname()[1]}"
        away = replace(client, transport=replace(client.transport, proxies=(("https", proxy),)))
        with pytest.raises(errors.FacekiError) as caught:
            call(with_timeout(replace(away, service=Service(base_url="https://kyc.invalid")), 0.5), MAKE)
        assert (type(caught.value), caught.value.is_ambiguous) == (kind, False)


def test_a_tls_error_after_the_request_is_a_lost_response(
    call: CallMode, client: FacekiClient, authority: Authority, sleeps: RecordedSleeps
) -> None:
    """Check that a TLS error after the request means a lost response, unlike a TLS error in the handshake."""
    with FakeServer(authority.server_context()) as server:

        def reply_without_tls(handler: Handler) -> None:
            plain = socket.socket(fileno=handler.connection.detach())
            plain.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            plain.close()

        server.on(LINK_PATH, reply_without_tls)
        there = replace(client, service=Service(base_url=server.url))
        with pytest.raises(errors.FacekiError) as caught:
            call(there, MAKE)
        assert (type(caught.value), caught.value.is_ambiguous) == (errors.ResponseLostError, True)
        assert len(server.requests_to(LINK_PATH)) == 1


def test_a_slow_reply_of_a_proxy_to_connect_times_out(call: CallMode, client: FacekiClient) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            handler, _address = listening.accept()
            with handler, contextlib.suppress(OSError):
                handler.sendall(b"HTTP/1.1 200 .\r\nX: ")
                for _ in range(6000):
                    if over.wait(0.05):
                        break
                    handler.sendall(b"x")

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        proxy = f"http://127.0.0.1:{listening.getsockname()[1]}"
        away = replace(client, transport=replace(client.transport, proxies=(("https", proxy),)))
        begun = time.monotonic()
        with pytest.raises(errors.ConnectError):
            call(with_timeout(replace(away, service=Service(base_url="https://kyc.invalid")), 0.3), MAKE)
        assert time.monotonic() - begun < 120
        over.set()
        server.join(120)
