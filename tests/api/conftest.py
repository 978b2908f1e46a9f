# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fixtures: a fake server, a client for it, both drivers, recorded sleeps. No test in this folder needs Airflow."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import pytest

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.protocol.session import Endpoint
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.transport import http_transport as transport
from airflow_provider_faceki.api.transport.http_transport import TransportSettings
from airflow_provider_faceki.api.transport.retry import RetryPolicy
from tests.api.certificates import Authority
from tests.api.fake_server import FakeServer
from tests.waiting import patch_sleep, wait_until

T = TypeVar("T")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake FACEKI server."""
    with FakeServer() as server:
        yield server


@pytest.fixture(autouse=True)
def own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the connections of earlier tests and the CA bundles of the environment before each test."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transport, "_transports", {})


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The certificate authority that the clients trust. Its single certificate loads faster than all public ones."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def client(server: FakeServer, authority: Authority) -> FacekiClient:
    """A client for the fake server. Each test has a different account.

    The timeout is long, because the tests count the token requests. With a short timeout, a token request could time
    out on a busy machine, and the client would send another one.
    """
    return FacekiClient(
        client_id=f"client-{uuid.uuid4()}",
        client_secret=f"secret-{uuid.uuid4()}",
        service=Service(base_url=server.url),
        transport=TransportSettings(timeout=60.0, verify=authority.bundle),
    )


def with_timeout(client: FacekiClient, seconds: float) -> FacekiClient:
    """Return a copy of ``client`` with this timeout and without retries."""
    settings = replace(client.transport, timeout=seconds)
    return replace(client, transport=settings, retry=RetryPolicy(max_attempts=1))


class CallMode(Protocol):
    """A function that calls an endpoint with one of the two drivers."""

    def __call__(self, client: FacekiClient, endpoint: Endpoint[T]) -> T: ...


def call_sync(client: FacekiClient, endpoint: Endpoint[T]) -> T:
    """Call with the synchronous driver."""
    return client.call(endpoint)


def call_async(client: FacekiClient, endpoint: Endpoint[T]) -> T:
    """Call with the asynchronous driver, on a new event loop."""
    return asyncio.run(client.as_async().call(endpoint))


@pytest.fixture(params=[pytest.param(call_sync, id="sync"), pytest.param(call_async, id="async")])
def call(request: pytest.FixtureRequest) -> CallMode:
    """Run the test with each of the two drivers, because both must have the same behaviour."""
    chosen: CallMode = request.param
    return chosen


@dataclass
class RecordedSleeps:
    """The durations of the requested sleeps. No sleep takes place."""

    seconds: list[float]


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> RecordedSleeps:
    """Replace all sleeps by a recording of their durations."""
    sleeps = RecordedSleeps([])
    patch_sleep(monkeypatch, sleeps.seconds.append)
    return sleeps


@pytest.fixture
def warned() -> RecordedWarnings:
    """An empty recording, for the warnings of a token store."""
    return RecordedWarnings([])


@dataclass
class RecordedWarnings:
    """A recording of the warnings of a token store."""

    messages: list[str]

    def __call__(self, sentence: str) -> None:
        self.messages.append(sentence)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """Return a function that polls a condition until it is true, with a generous deadline."""

    def look(is_so: Callable[[], bool]) -> bool:
        wait_until(is_so)
        return True

    return look
