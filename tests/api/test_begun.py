# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A connection fails after the request has begun to leave, and before: which of the two is it, on each of the ways?"""

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
from airflow_provider_faceki.api.endpoints.records import GenerateKycLink
from airflow_provider_faceki.api.endpoints.verification import Document, PerformKycVerification
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.transport.multipart import Image
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.workflows import DEFAULT_WORKFLOW
from tests.api.certificates import Authority
from tests.api.conftest import Ask, Naps, impatient
from tests.api.proxy import RecordingProxy
from tests.api.scripted import LINK_PATH, Reply, ScriptedServer, Talk, hangs_up, resets, says, says_raw

MAKE = GenerateKycLink(workflow_id="w")
WAYS = ["http", "https", "http through a proxy", "https through a proxy", "https through one that resets"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How a request gets out."""
    way: str = request.param
    return way


@pytest.fixture
def far(way: str, authority: Authority) -> Iterator[ScriptedServer]:
    """A FACEKI at the end of that way."""
    with ScriptedServer(authority.server_context() if "https" in way else None) as server:
        yield server


@pytest.fixture
def proxy(way: str) -> Iterator[RecordingProxy]:
    """The proxy on the way, if there is one."""
    with RecordingProxy(resets="resets" in way) as proxy:
        yield proxy


def _to(url: str, client: FacekiClient, way: str, proxy: RecordingProxy) -> FacekiClient:
    through = tuple((scheme, f"http://{proxy.address}") for scheme in ("http", "https") if "through" in way)
    rules = replace(client.transport, proxies=through)
    return replace(client, service=Service(base_url=url), transport=rules)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(hangs_up, id="end"),
        pytest.param(resets, id="reset"),
        pytest.param(says_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), id="half"),
        pytest.param(says_raw(b"HTTP/1.1 200 OK\r\nContent-Le"), id="half a head"),
        pytest.param(says_raw(b"a word of another protocol\r\n\r\n"), id="another protocol"),
    ],
)
@pytest.mark.parametrize("kept", [pytest.param(True, id="kept"), pytest.param(False, id="new")])
def test_an_answer_that_is_lost_is_never_a_connection_that_was_not_made(
    ask: Ask,
    client: FacekiClient,
    far: ScriptedServer,
    way: str,
    proxy: RecordingProxy,
    naps: Naps,
    answer: Reply,
    kept: bool,
) -> None:
    far.on(LINK_PATH, *([says({"responseCode": 0, "data": "l-1"})] if kept else []), answer)
    there = _to(far.url, client, way, proxy)
    if kept:
        ask(there, MAKE)
    with pytest.raises(errors.FacekiError) as caught:
        ask(there, MAKE)
    # Half a head may be read as an answer that says nothing.
    assert isinstance(caught.value, errors.ResponseLostError | errors.UnexpectedResponseError)
    assert caught.value.is_ambiguous
    assert len(far.asked(LINK_PATH)) == 1 + kept
    assert bool(proxy.heard) == ("through" in way)
    assert naps.seconds == []


@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize("kind", ["process_then_reset", "cut_off"])
def test_a_verification_whose_answer_is_lost_is_billed_once(
    ask: Ask, client: FacekiClient, authority: Authority, way: str, proxy: RecordingProxy, kind: str
) -> None:
    authority.server_context()
    pem = authority.folder / "127.0.0.1-False.pem"
    picture = Image.of_bytes("selfie", b"\xff\xd8\xff\xe0" + b"0" * 1000)
    with FacekiSandbox(tls=(pem, pem) if "https" in way else None) as sandbox:
        sandbox.add_fault(kind, route="verify", count=4)
        known = replace(client, client_id=sandbox.client_id, client_secret=sandbox.client_secret)
        made = ask(
            _to(sandbox.url, known, way, proxy),
            PerformKycVerification(
                workflow_id=DEFAULT_WORKFLOW,
                selfie=picture,
                documents=[Document(picture, picture)],
                record_identifier="accepted-1",
                lookup_timeout=5.0,
            ),
        )
        assert made.record.record_identifier == "accepted-1"
        assert sandbox.ledger == {"accepted-1": 1}


@pytest.mark.parametrize(
    ("said", "then", "kind"),
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
def test_what_fails_before_anything_was_sent_cannot_have_acted(
    ask: Ask,
    client: FacekiClient,
    naps: Naps,
    said: bytes,
    then: bytes,
    kind: type[errors.FacekiError],
    silent: bool,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept: list[socket.socket] = []

        def serve() -> None:
            talk, _address = listening.accept()
            talk.recv(65536)
            talk.sendall(said)
            if then and talk.recv(65536):
                talk.sendall(then)
            if silent:
                kept.append(talk)
            else:
                talk.close()

        threading.Thread(target=serve, daemon=True).start()
        proxy = f"http://127.0.0.1:{listening.getsockname()[1]}"
        away = replace(client, transport=replace(client.transport, proxies=(("https", proxy),)))
        with pytest.raises(errors.FacekiError) as caught:
            ask(impatient(replace(away, service=Service(base_url="https://kyc.invalid")), 0.5), MAKE)
        assert (type(caught.value), caught.value.is_ambiguous) == (kind, False)


def test_what_breaks_tls_after_the_request_loses_the_answer(
    ask: Ask, client: FacekiClient, authority: Authority, naps: Naps
) -> None:
    """The very error that would otherwise end a handshake."""
    with ScriptedServer(authority.server_context()) as server:

        def speaks_plainly(talk: Talk) -> None:
            plain = socket.socket(fileno=talk.connection.detach())
            plain.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            plain.close()

        server.on(LINK_PATH, speaks_plainly)
        there = replace(client, service=Service(base_url=server.url))
        with pytest.raises(errors.FacekiError) as caught:
            ask(there, MAKE)
        assert (type(caught.value), caught.value.is_ambiguous) == (errors.ResponseLostError, True)
        assert len(server.asked(LINK_PATH)) == 1


def test_a_proxy_whose_word_drips_is_not_waited_for(ask: Ask, client: FacekiClient) -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            talk, _address = listening.accept()
            with talk, contextlib.suppress(OSError):
                talk.sendall(b"HTTP/1.1 200 .\r\nX: ")
                for _ in range(120):
                    if over.wait(0.05):
                        break
                    talk.sendall(b"x")

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        proxy = f"http://127.0.0.1:{listening.getsockname()[1]}"
        away = replace(client, transport=replace(client.transport, proxies=(("https", proxy),)))
        begun = time.monotonic()
        with pytest.raises(errors.ConnectError):
            ask(impatient(replace(away, service=Service(base_url="https://kyc.invalid")), 0.3), MAKE)
        assert time.monotonic() - begun < 3
        over.set()
        server.join(5)
