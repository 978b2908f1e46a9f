# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Whom do we talk to? Only those whose certificate we were told to trust."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords, GenerateKycLink
from airflow_provider_faceki.api.protocol.auth import AuthFlow
from airflow_provider_faceki.api.service import Service
from tests.api.certificates import Authority
from tests.api.conftest import Ask, Naps, impatient
from tests.api.scripted import NOTHING_FOUND, RECORDS_PATH, ScriptedServer, hangs_up, says, says_raw, waits

FETCH = FetchRecords(link="canary-link")


@pytest.fixture
def tls_server(authority: Authority) -> Iterator[ScriptedServer]:
    """The scripted FACEKI behind TLS."""
    with ScriptedServer(authority.server_context()) as server:
        server.on(RECORDS_PATH, says(NOTHING_FOUND))
        yield server


def _at(client: FacekiClient, url: str, verify: bool | str | None = None) -> FacekiClient:
    rules = client.transport if verify is None else replace(client.transport, verify=verify)
    return replace(client, service=Service(base_url=url), transport=rules)


def test_an_authority_of_ones_own(ask: Ask, client: FacekiClient, tls_server: ScriptedServer) -> None:
    here = _at(client, tls_server.url)
    assert ask(here, FETCH) == ask(here, FETCH) == ()
    assert {heard.connection for heard in tls_server.heard} == {1}


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_an_authority_of_the_environment(
    ask: Ask,
    client: FacekiClient,
    tls_server: ScriptedServer,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setenv(name, authority.bundle)
    assert ask(_at(client, tls_server.url, True), FETCH) == ()


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_trusting_anybody(ask: Ask, client: FacekiClient, tls_server: ScriptedServer) -> None:
    assert ask(_at(client, tls_server.url, False), FETCH) == ()


def test_a_stranger_is_not_told_anything(
    ask: Ask, client: FacekiClient, naps: Naps, tls_server: ScriptedServer, tmp_path: Path
) -> None:
    other = Authority.make(tmp_path / "other")
    empty = tmp_path / "empty"
    empty.mkdir()
    for verify in (True, other.bundle, str(empty)):
        with pytest.raises(errors.TlsError, match="see the Connection's verify") as caught:
            ask(_at(client, tls_server.url, verify), FETCH)
        assert (caught.value.is_transient, caught.value.is_ambiguous) == (False, False)
    assert (tls_server.heard, naps.seconds) == ([], [])


@pytest.mark.parametrize(
    ("host", "expired"),
    [pytest.param("127.0.0.1", True, id="expired"), pytest.param("kyc.example", False, id="another's")],
)
def test_a_certificate_that_is_no_good(
    ask: Ask, client: FacekiClient, naps: Naps, authority: Authority, host: str, expired: bool
) -> None:
    with (
        ScriptedServer(authority.server_context(host, expired=expired)) as server,
        pytest.raises(errors.TlsError),
    ):
        ask(_at(client, server.url), FETCH)
    assert (server.heard, naps.seconds) == ([], [])


def test_a_server_without_tls(ask: Ask, client: FacekiClient, naps: Naps, server: ScriptedServer) -> None:
    with pytest.raises(errors.TlsError):
        ask(_at(client, server.url.replace("http:", "https:")), FETCH)
    assert naps.seconds == []


@pytest.mark.parametrize("content", [pytest.param("", id="empty"), pytest.param("no certificate", id="text")])
def test_a_bundle_that_is_none_is_a_wrong_setting(
    ask: Ask, client: FacekiClient, naps: Naps, server: ScriptedServer, tmp_path: Path, content: str
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(content)
    for path in (bundle, tmp_path / "missing.pem"):
        with pytest.raises(errors.ConfigurationError, match=f"verify: '{path}' is not a readable bundle"):
            ask(_at(client, server.url, str(path)), FETCH)
    assert (server.heard, naps.seconds) == ([], [])


@pytest.mark.parametrize("farewell", [b"", b"\x15\x03\x03\x00\x02\x02\x28"], ids=["silence", "alert"])
def test_a_handshake_that_breaks_off(ask: Ask, client: FacekiClient, naps: Naps, farewell: bytes) -> None:
    """Nobody can have acted, but that is not always to be seen; so long as it is not said to be a success."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(4):
                talk, _address = listening.accept()
                talk.recv(65536)
                talk.sendall(farewell)
                talk.close()

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(errors.TransportError):
            ask(_at(client, f"https://127.0.0.1:{listening.getsockname()[1]}"), FETCH)


def test_tls_that_ends_without_a_farewell_loses_the_answer(
    ask: Ask, client: FacekiClient, tls_server: ScriptedServer
) -> None:
    tls_server.on("/kycverify/api/kycverify/kyc-verify-link", says_raw(b"HTTP/1.1 200 OK\r\n\r\n{"))
    with pytest.raises(errors.FacekiError) as caught:
        ask(_at(client, tls_server.url), GenerateKycLink(workflow_id="w"))
    assert caught.value.is_ambiguous


def test_older_protocols_than_tls_1_2_are_not_spoken(client: FacekiClient, authority: Authority) -> None:
    context = authority.server_context()
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with ScriptedServer(context) as server, pytest.raises(errors.TransportError):
        impatient(_at(client, server.url), 5.0).fetch_access_token()
    assert server.heard == []


CANARIES = ("canary-link", "canary-secret", "canary-id", "token-1")


ODD = says_raw(b'HTTP/1.1 200 OK\r\nContent-Length: 28\r\nodd header\r\n\r\n{"responseCode":0,"data":[]}')


def test_urllib3_says_nothing_of_our_requests_and_everything_of_others(
    ask: Ask, server: ScriptedServer, client: FacekiClient, naps: Naps, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.on(RECORDS_PATH, says(NOTHING_FOUND), hangs_up, ODD, says({}, 404))
    server.on("/auth/api/access-token", says({"responseCode": 0, "data": {"access_token": "token-1"}}))
    server.on("/theirs", says({}))
    quiet = replace(
        client,
        client_id="canary-id",
        client_secret="canary-secret",
        auth_flow=AuthFlow.ACCESS_TOKEN_QUERY,
    )
    for _ in range(3):
        ask(quiet, FETCH)
    assert len(server.heard) == 5
    assert [canary for canary in CANARIES if canary in caplog.text] == []
    assert "127.0.0.1" not in caplog.text
    requests.get(f"{server.url}/theirs?name=other", timeout=5)
    assert "GET /theirs?name=other" in caplog.text


def test_not_even_while_one_of_ours_is_under_way(
    server: ScriptedServer, client: FacekiClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    released, reached = threading.Event(), threading.Event()
    server.on(RECORDS_PATH, waits(released, says(NOTHING_FOUND), reached))
    server.on("/theirs", says({}))
    ours = threading.Thread(target=client.call, args=(FETCH,))
    ours.start()
    assert reached.wait(5)
    requests.get(f"{server.url}/theirs?name=other", timeout=5)
    released.set()
    ours.join(5)
    assert "GET /theirs?name=other" in caplog.text
    assert "canary" not in caplog.text
