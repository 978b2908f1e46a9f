# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Routes of requests: direct, through a proxy of the environment, or through a proxy of the Connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.links import GenerateKycLink
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.transport.http_transport import Transport, is_loopback
from tests.api.certificates import Authority
from tests.api.conftest import CallMode, RecordedSleeps, with_timeout
from tests.api.fake_server import NOTHING_FOUND, RECORDS_PATH, TOKEN_PATH, FakeServer, reply_json
from tests.api.proxy import RecordingProxy

FETCH = FetchRecords(request_id="r-1")


@pytest.fixture
def proxy() -> Iterator[RecordingProxy]:
    """A proxy that accepts each request."""
    with RecordingProxy() as proxy:
        yield proxy


@pytest.fixture
def tls_server(authority: Authority) -> Iterator[FakeServer]:
    """A fake FACEKI server with TLS. It finds no records."""
    with FakeServer(authority.server_context()) as server:
        server.on(RECORDS_PATH, reply_json(NOTHING_FOUND))
        yield server


@pytest.fixture(autouse=True)
def answers(server: FakeServer) -> None:
    """Set the reply of the server without TLS to "no records"."""
    server.on(RECORDS_PATH, reply_json(NOTHING_FOUND))


def _through(client: FacekiClient, *proxies: tuple[str, str]) -> FacekiClient:
    return replace(client, transport=replace(client.transport, proxies=proxies))


def _unencrypted_requests(server: FakeServer) -> list[str]:
    return [f"POST {server.url}{TOKEN_PATH}", f"GET {server.url}{RECORDS_PATH}?requestId=r-1"]


def test_directly(call: CallMode, server: FakeServer, client: FacekiClient, proxy: RecordingProxy) -> None:
    assert call(client, FETCH) == ()
    assert proxy.received == []


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_the_environment(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    proxy: RecordingProxy,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    remote = _under_name(client, server, "faceki.test")
    monkeypatch.setenv(name, f"http://{proxy.address}")
    assert call(remote, FETCH) == ()
    assert proxy.received == [
        line.replace("127.0.0.1", "faceki.test") for line in _unencrypted_requests(server)
    ]
    monkeypatch.setenv("no_proxy", "faceki.test")
    with pytest.raises(errors.ConnectError):
        call(with_timeout(remote, 5.0), FETCH)
    assert len(proxy.received) == 2
    assert len(server.received) == 2


def _under_name(client: FacekiClient, server: FakeServer, host: str) -> FacekiClient:
    return replace(client, service=Service(base_url=f"http://{host}:{server.server_port}"))


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["localhost", "LocalHost", "localhost.", "127.0.0.1", "127.8.9.1", "127.1"])
def test_loopback_bypasses_the_proxies_of_the_environment(
    server: FakeServer,
    client: FacekiClient,
    proxy: RecordingProxy,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    host: str,
) -> None:
    monkeypatch.setenv(variable, f"http://{proxy.address}")
    assert Transport(client.transport)._proxies(f"http://{host}:{server.server_port}/") == {}
    assert _under_name(client, server, "localhost").call(FETCH) == ()
    assert proxy.received == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("localhost", True, id="name"),
        pytest.param("faceki.localhost", True, id="name under localhost"),
        pytest.param("127.255.255.254", True, id="end of the network"),
        pytest.param("::1", True, id="IPv6"),
        pytest.param("0:0:0:0:0:0:0:1", True, id="IPv6 in full"),
        pytest.param("::ffff:127.0.0.1", True, id="IPv4 in IPv6"),
        pytest.param("0x7f000001", True, id="hexadecimal"),
        pytest.param("", False, id="nothing"),
        pytest.param("127.0.0.1.example", False, id="name that begins like it"),
        pytest.param("notlocalhost", False, id="name that ends like it"),
        pytest.param("128.0.0.1", False, id="next network"),
        pytest.param("0.0.0.0", False, id="any address"),  # noqa: S104 - the address is not bound
        pytest.param("::2", False, id="another IPv6"),
        pytest.param("sdk.faceki.com", False, id="FACEKI"),
    ],
)
def test_what_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "proxies",
    [
        pytest.param((), id="no pair"),
        pytest.param((("http", ""), ("https", "")), id="empty URLs"),
        pytest.param((("https", ""),), id="empty URL of another scheme"),
    ],
)
def test_settings_can_say_no_proxy(
    client: FacekiClient,
    monkeypatch: pytest.MonkeyPatch,
    proxies: tuple[tuple[str, str], ...],
) -> None:
    monkeypatch.setenv("all_proxy", "http://proxy.invalid:3128")
    transport = Transport(replace(client.transport, proxies=proxies))
    assert transport._proxies("https://sdk.faceki.com/x") == {}
    assert Transport(client.transport)._proxies("https://sdk.faceki.com/x") != {}


def test_the_connection(
    call: CallMode, server: FakeServer, client: FacekiClient, proxy: RecordingProxy
) -> None:
    assert call(_through(client, ("http", f"http://{proxy.address}")), FETCH) == ()
    assert proxy.received == _unencrypted_requests(server)


def test_what_the_connection_says_replaces_the_environment(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    proxy: RecordingProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "*")
    assert call(_through(client, ("http", f"http://{proxy.address}")), FETCH) == ()
    assert len(proxy.received) == 2
    # These settings contain only a proxy for https, so requests over http use no proxy.
    monkeypatch.delenv("no_proxy")
    assert call(_through(client, ("https", "http://127.0.0.1:1")), FETCH) == ()
    assert len(proxy.received) == 2


def test_tls_uses_a_tunnel_and_the_proxy_sees_only_the_host(
    call: CallMode, client: FacekiClient, tls_server: FakeServer, proxy: RecordingProxy
) -> None:
    away = replace(client, service=Service(base_url=tls_server.url))
    tunnel = _through(away, ("https", f"http://us%40er:pass@{proxy.address}"))
    assert call(tunnel, FETCH) == ()
    assert call(tunnel, FETCH) == ()
    # All requests use the same tunnel, with both drivers.
    assert proxy.received == [f"CONNECT 127.0.0.1:{tls_server.server_port}"]
    assert proxy.logins == ["Basic dXNAZXI6cGFzcw=="]
    assert len(tls_server.received) == 3
    assert all(received.header("proxy-authorization") is None for received in tls_server.received)


def test_through_a_tunnel_the_server_still_has_to_be_trusted(
    call: CallMode, client: FacekiClient, tls_server: FakeServer, proxy: RecordingProxy
) -> None:
    away = replace(client, service=Service(base_url=tls_server.url))
    distrustful = replace(away, transport=replace(away.transport, verify=True))
    with pytest.raises(errors.TlsError):
        call(_through(distrustful, ("https", f"http://{proxy.address}")), FETCH)
    assert tls_server.received == []


MAKE = GenerateKycLink(workflow_id="w")


@pytest.mark.parametrize(
    ("address", "kind", "waits"),
    [
        pytest.param("http://127.0.0.1:1", errors.ConnectError, 3, id="nobody there"),
        pytest.param("http://user:hunter2@nowhere.invalid:8080", errors.ConnectError, 3, id="unknown host"),
        pytest.param("socks5://user:hunter2@127.0.0.1:1", errors.FacekiError, None, id="socks"),
        pytest.param("gopher://user:hunter2@127.0.0.1:1", errors.ConfigurationError, 0, id="another scheme"),
        pytest.param("http://user:hunter2@127.0.0.1:99999", errors.ConfigurationError, 0, id="no such port"),
        pytest.param("http://", errors.ConfigurationError, 0, id="no host"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_cannot_be_used(
    call: CallMode,
    client: FacekiClient,
    sleeps: RecordedSleeps,
    scheme: str,
    address: str,
    kind: type[errors.FacekiError],
    waits: int | None,
) -> None:
    away = replace(client, service=Service(base_url=f"{scheme}://kyc.invalid"))
    with pytest.raises(kind) as caught:
        call(_through(away, (scheme, address)), MAKE)
    assert "hunter2" not in str(caught.value)
    assert not caught.value.is_ambiguous
    assert waits is None or len(sleeps.seconds) == waits


def test_a_proxy_that_wants_a_login(call: CallMode, client: FacekiClient, sleeps: RecordedSleeps) -> None:
    with RecordingProxy(refuses=True) as proxy:
        away = _through(
            replace(client, service=Service(base_url="https://kyc.invalid")),
            ("https", f"http://{proxy.address}"),
        )
        with pytest.raises(errors.ConnectError, match="through the proxy"):
            call(away, FETCH)
    assert len(proxy.received) == 4
