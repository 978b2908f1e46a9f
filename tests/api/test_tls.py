# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""TLS: requests are sent only to servers with a trusted certificate."""

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
from airflow_provider_faceki.api.endpoints.links import GenerateKycLink
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.service import AuthFlow, Service
from tests.api.certificates import Authority
from tests.api.conftest import CallMode, RecordedSleeps, with_timeout
from tests.api.fake_server import (
    NOTHING_FOUND,
    RECORDS_PATH,
    FakeServer,
    close_connection_silently,
    reply_json,
    reply_raw,
    waits,
)

FETCH = FetchRecords(link="canary-link")


@pytest.fixture
def tls_server(authority: Authority) -> Iterator[FakeServer]:
    """A fake FACEKI server with TLS. It finds no records."""
    with FakeServer(authority.server_context()) as server:
        server.on(RECORDS_PATH, reply_json(NOTHING_FOUND))
        yield server


def _at(client: FacekiClient, url: str, verify: bool | str | None = None) -> FacekiClient:
    rules = client.transport if verify is None else replace(client.transport, verify=verify)
    return replace(client, service=Service(base_url=url), transport=rules)


def test_a_custom_ca_bundle_is_trusted(call: CallMode, client: FacekiClient, tls_server: FakeServer) -> None:
    here = _at(client, tls_server.url)
    assert call(here, FETCH) == call(here, FETCH) == ()
    assert {received.connection for received in tls_server.received} == {1}


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_an_authority_of_the_environment(
    call: CallMode,
    client: FacekiClient,
    tls_server: FakeServer,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setenv(name, authority.bundle)
    assert call(_at(client, tls_server.url, True), FETCH) == ()


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_verify_false_accepts_any_certificate(
    call: CallMode, client: FacekiClient, tls_server: FakeServer
) -> None:
    assert call(_at(client, tls_server.url, False), FETCH) == ()


def test_nothing_is_sent_to_a_server_with_an_untrusted_certificate(
    call: CallMode, client: FacekiClient, sleeps: RecordedSleeps, tls_server: FakeServer, tmp_path: Path
) -> None:
    other = Authority.make(tmp_path / "other")
    empty = tmp_path / "empty"
    empty.mkdir()
    for verify in (True, other.bundle, str(empty)):
        with pytest.raises(errors.TlsError, match="see the Connection's verify") as caught:
            call(_at(client, tls_server.url, verify), FETCH)
        assert (caught.value.is_transient, caught.value.is_ambiguous) == (False, False)
    assert (tls_server.received, sleeps.seconds) == ([], [])


@pytest.mark.parametrize(
    ("host", "expired"),
    [pytest.param("127.0.0.1", True, id="expired"), pytest.param("kyc.example", False, id="another's")],
)
def test_a_certificate_that_is_no_good(
    call: CallMode,
    client: FacekiClient,
    sleeps: RecordedSleeps,
    authority: Authority,
    host: str,
    expired: bool,
) -> None:
    with (
        FakeServer(authority.server_context(host, expired=expired)) as server,
        pytest.raises(errors.TlsError),
    ):
        call(_at(client, server.url), FETCH)
    assert (server.received, sleeps.seconds) == ([], [])


def test_a_server_without_tls(
    call: CallMode, client: FacekiClient, sleeps: RecordedSleeps, server: FakeServer
) -> None:
    with pytest.raises(errors.TlsError):
        call(_at(client, server.url.replace("http:", "https:")), FETCH)
    assert sleeps.seconds == []


@pytest.mark.parametrize("content", [pytest.param("", id="empty"), pytest.param("no certificate", id="text")])
def test_an_invalid_ca_bundle_is_a_configuration_error(
    call: CallMode,
    client: FacekiClient,
    sleeps: RecordedSleeps,
    server: FakeServer,
    tmp_path: Path,
    content: str,
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(content)
    for path in (bundle, tmp_path / "missing.pem"):
        with pytest.raises(errors.ConfigurationError, match=f"verify: '{path}' is not a readable bundle"):
            call(_at(client, server.url, str(path)), FETCH)
    assert (server.received, sleeps.seconds) == ([], [])


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_an_unreadable_bundle_of_the_environment_is_not_blamed_on_the_connection(
    call: CallMode,
    client: FacekiClient,
    tls_server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
) -> None:
    bundle = tmp_path / "gone.pem"
    monkeypatch.setenv(name, str(bundle))
    with pytest.raises(errors.ConfigurationError, match=f"^the environment variable {name}: '{bundle}'"):
        call(_at(client, tls_server.url, True), FETCH)
    monkeypatch.setenv(name, Authority.make(tmp_path / "another").bundle)
    with pytest.raises(errors.TlsError, match=f"see the environment variable {name}"):
        call(_at(replace(client, client_id="second"), tls_server.url, True), FETCH)


@pytest.mark.parametrize("farewell", [b"", b"\x15\x03\x03\x00\x02\x02\x28"], ids=["silence", "alert"])
def test_a_handshake_that_breaks_off(
    call: CallMode, client: FacekiClient, sleeps: RecordedSleeps, farewell: bytes
) -> None:
    """Check that an incomplete handshake raises a transport error. The error's ``is_ambiguous`` is not checked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in range(4):
                handler, _address = listening.accept()
                handler.recv(65536)
                handler.sendall(farewell)
                handler.close()

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(errors.TransportError):
            call(_at(client, f"https://127.0.0.1:{listening.getsockname()[1]}"), FETCH)


def test_tls_without_close_notify_is_a_lost_response(
    call: CallMode, client: FacekiClient, tls_server: FakeServer
) -> None:
    tls_server.on("/kycverify/api/kycverify/kyc-verify-link", reply_raw(b"HTTP/1.1 200 OK\r\n\r\n{"))
    with pytest.raises(errors.FacekiError) as caught:
        call(_at(client, tls_server.url), GenerateKycLink(workflow_id="w"))
    assert caught.value.is_ambiguous


def test_tls_below_1_2_is_rejected(client: FacekiClient, authority: Authority) -> None:
    context = authority.server_context()
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with FakeServer(context) as server, pytest.raises(errors.TransportError):
        with_timeout(_at(client, server.url), 5.0).fetch_access_token()
    assert server.received == []


CANARIES = ("canary-link", "canary-secret", "canary-id", "token-1")


ODD = reply_raw(b'HTTP/1.1 200 OK\r\nContent-Length: 28\r\nodd header\r\n\r\n{"responseCode":0,"data":[]}')


def test_urllib3_logs_other_requests_but_none_of_the_client(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    sleeps: RecordedSleeps,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.on(
        RECORDS_PATH,
        reply_json(NOTHING_FOUND),
        close_connection_silently,
        ODD,
        reply_json({"status": False, "code": 404}, 404),
    )
    server.on("/auth/api/access-token", reply_json({"responseCode": 0, "data": {"access_token": "token-1"}}))
    server.on("/theirs", reply_json({}))
    quiet = replace(
        client,
        client_id="canary-id",
        client_secret="canary-secret",
        auth_flow=AuthFlow.ACCESS_TOKEN_QUERY,
    )
    for _ in range(3):
        call(quiet, FETCH)
    assert len(server.received) == 5
    assert [canary for canary in CANARIES if canary in caplog.text] == []
    assert "127.0.0.1" not in caplog.text
    requests.get(f"{server.url}/theirs?name=other", timeout=60)
    assert "GET /theirs?name=other" in caplog.text


def test_urllib3_logs_other_requests_during_a_request_of_the_client(
    server: FakeServer, client: FacekiClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    released, reached = threading.Event(), threading.Event()
    server.on(RECORDS_PATH, waits(released, reply_json(NOTHING_FOUND), reached))
    server.on("/theirs", reply_json({}))
    ours = threading.Thread(target=client.call, args=(FETCH,))
    ours.start()
    assert reached.wait(120)
    requests.get(f"{server.url}/theirs?name=other", timeout=60)
    released.set()
    ours.join(120)
    assert "GET /theirs?name=other" in caplog.text
    assert "canary" not in caplog.text
