# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Who asks, whom, and how long does it wait? Nothing in this folder needs Airflow."""

from __future__ import annotations

import asyncio
import time
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
from tests.waiting import patch_sleep

T = TypeVar("T")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A FACEKI that says what a test scripts."""
    with FakeServer() as server:
        yield server


@pytest.fixture(autouse=True)
def own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test without the connections of the one before, and with nobody trusted by the environment."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transport, "_transports", {})


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The one that the clients of these tests trust. One certificate is read faster than all of the public's."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def client(server: FakeServer, authority: Authority) -> FacekiClient:
    """A client of that FACEKI, with an account that nobody else has."""
    return FacekiClient(
        client_id=f"client-{uuid.uuid4()}",
        client_secret=f"secret-{uuid.uuid4()}",
        service=Service(base_url=server.url),
        transport=TransportSettings(timeout=5.0, verify=authority.bundle),
    )


def with_timeout(client: FacekiClient, seconds: float) -> FacekiClient:
    """Return ``client``, waiting no longer than ``seconds`` for an answer, which it asks for once."""
    rules = replace(client.transport, timeout=seconds)
    return replace(client, transport=rules, retry=RetryPolicy(max_attempts=1))


class CallMode(Protocol):
    """Asks in one of the two ways."""

    def __call__(self, client: FacekiClient, endpoint: Endpoint[T]) -> T: ...


def call_sync(client: FacekiClient, endpoint: Endpoint[T]) -> T:
    """Ask on this thread."""
    return client.call(endpoint)


def call_async(client: FacekiClient, endpoint: Endpoint[T]) -> T:
    """Ask from an event loop."""
    return asyncio.run(client.as_async().call(endpoint))


@pytest.fixture(params=[pytest.param(call_sync, id="sync"), pytest.param(call_async, id="async")])
def call(request: pytest.FixtureRequest) -> CallMode:
    """Each of the two performers: what is true of one has to be true of the other."""
    chosen: CallMode = request.param
    return chosen


@dataclass
class RecordedSleeps:
    """The waits that were asked for, none of which took place."""

    seconds: list[float]


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> RecordedSleeps:
    """Let nobody wait, and write down for how long they would have."""
    sleeps = RecordedSleeps([])
    patch_sleep(monkeypatch, sleeps.seconds.append)
    return sleeps


@pytest.fixture
def warned() -> RecordedWarnings:
    """Collects what a token store warns of."""
    return RecordedWarnings([])


@dataclass
class RecordedWarnings:
    """What was warned of."""

    messages: list[str]

    def __call__(self, sentence: str) -> None:
        self.messages.append(sentence)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """Look until something is so, for a few seconds."""

    def look(is_so: Callable[[], bool]) -> bool:
        for _ in range(500):
            if is_so():
                return True
            time.sleep(0.01)
        return is_so()

    return look
