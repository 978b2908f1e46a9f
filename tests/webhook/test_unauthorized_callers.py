# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Callers without the token or the key neither block legitimate callers nor learn anything."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_faceki.webhook import app, auth, events
from airflow_provider_faceki.webhook.app import TokenBucket
from airflow_provider_faceki.webhook.auth import (
    CACHE_TTL_SECONDS,
    DENY_ALL,
    Authenticator,
    Credentials,
    ExpectedConnections,
)
from tests.airflow.running import AIRFLOW_3
from tests.virtual_time import elapsed, run, spend
from tests.webhook.served import SECRET, TOKEN, Served, connection, webhook_body

if TYPE_CHECKING:
    from airflow_provider_faceki.webhook.app import Receiver

TOO_MANY = (429, '{"detail":"too many webhooks"}')


def _used_up() -> TokenBucket:
    bucket = TokenBucket(1, 0.0001)
    assert bucket.try_acquire()
    return bucket


def test_a_valid_first_call_is_accepted_despite_used_up_refusals(served: Served, receiver: Receiver) -> None:
    receiver._refusals = _used_up()
    assert served.post(served.at(), webhook_body()).status_code == 200
    wrong = [
        served.at("nobody"),
        served.at("faceki_bare"),
        served.at("faceki_plain", token="wrong" * 10),
        served.at(token="wrong" * 10),
    ]
    answers = [served.post(url, webhook_body()) for url in wrong]
    assert {(answer.status_code, answer.text) for answer in answers} == {TOO_MANY}
    assert served.post(served.at("faceki_plain"), webhook_body()).status_code == 200


def test_referenced_connections_are_those_in_dag_schedules(served: Served) -> None:
    named = auth.referenced_conn_ids()
    assert named >= {"faceki_default", "faceki_signed", "faceki_paused", "faceki_plain", "faceki_mixed"}
    assert not named & {"faceki_unheard", "faceki_bare", "nobody", ""}


def _signed(served: Served, key: str) -> int:
    body = json.dumps(webhook_body()).encode()
    signature = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    return served.post(served.at("faceki_signed"), body, {"X-Signature": signature}).status_code


def test_wrong_signatures_do_not_use_up_the_limit_of_valid_ones(served: Served, receiver: Receiver) -> None:
    receiver._calls, receiver._refusals = TokenBucket(3, 0.001), TokenBucket(2, 0.001)
    assert [_signed(served, TOKEN) for _ in range(5)] == [401, 401, 429, 429, 429]
    assert [_signed(served, SECRET) for _ in range(4)] == [200, 200, 200, 429]


def test_valid_callers_do_not_wait_for_lookups_of_unknown_callers() -> None:
    asked = threading.Event()
    goes_on = threading.Event()

    def slow(conn_id: str) -> Credentials:
        if conn_id.startswith("unknown"):
            asked.set()
            assert goes_on.wait(300)
            return DENY_ALL
        return Credentials(())

    async def ask() -> None:
        found = Authenticator(slow)
        unknown = [asyncio.create_task(found.look_up(f"unknown_{number}")) for number in range(10)]
        await asyncio.to_thread(asked.wait, 30)
        try:
            assert not (await asyncio.wait_for(found.look_up("known", expected=True), 30)).denied
            assert not any(task.done() for task in unknown)
        finally:
            goes_on.set()
        assert all(each.denied for each in await asyncio.gather(*unknown))

    asyncio.run(ask())


FIELDS = ("conn_type", "password", "host", "port", "schema", "extra")


class SlowBackend:
    """A secrets backend that needs the same time for every Connection, and records each call."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.wait = wait
        self.asked: list[str] = []

    def get_connection(self, conn_id: str) -> object:
        self.asked.append(conn_id)
        self.wait()
        if not conn_id.startswith("known"):
            return None
        found = {**connection(webhook_token=TOKEN), "extra": json.dumps({"webhook_token": TOKEN})}
        return SimpleNamespace(**dict.fromkeys(FIELDS) | found)


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 receives no webhooks")
@pytest.mark.parametrize("seconds", [0.3, 2.4], ids=["slow", "slower than a refusal"])
def test_the_response_time_of_a_refusal_hides_existing_connections(
    seconds: float, monkeypatch: pytest.MonkeyPatch, virtual_receiver: None
) -> None:
    from httpx import ASGITransport, AsyncClient

    # The time is virtual, because with real time a slow machine could make one of the refusals longer.
    backends = [SlowBackend(lambda: spend(seconds / 2)) for _ in range(2)]
    monkeypatch.setattr("airflow.configuration.ensure_secrets_loaded", lambda: backends)

    async def call() -> dict[str, float]:
        receiver = app.Receiver(
            auth.load_credentials, lambda *_: [events.Outcome.STORED], lambda: {"known", "known_too"}
        )
        async with AsyncClient(transport=ASGITransport(app.create_app(receiver))) as client:

            async def took(conn_id: str, token: str = "wrong" * 10, status: int = 401) -> float:
                began = elapsed()
                answer = await client.post(f"http://airflow/webhook/{conn_id}/{token}", json=webhook_body())
                assert answer.status_code == status
                return elapsed() - began

            await took("known", TOKEN, 200)  # this fills the cache, as calls of FACEKI do
            return {
                "known and cached": await took("known"),
                "known": await took("known_too"),
                "unknown": await took("unknown"),
                "unknown and cached": await took("unknown"),
            }

    found = run(call())
    expected = (1 if seconds < 1 else 2) * app.REFUSAL_SECONDS
    assert found == {name: pytest.approx(expected) for name in found}
    # The first backend is asked once for each Connection, the second only for the Connection that the first lacks.
    assert backends[0].asked == ["known", "known_too", "unknown"]
    assert backends[1].asked == ["unknown"]


@pytest.mark.parametrize(
    ("backends", "found"),
    [
        pytest.param(["none", "none"], None, id="nowhere"),
        pytest.param(["none", "known"], "known", id="in the second"),
        pytest.param(["down", "known"], "known", id="in the second while the first is down"),
        pytest.param(["down", "none"], OSError, id="nowhere, but one is down"),
        pytest.param(["denied", "known"], None, id="denied"),
    ],
)
def test_a_failed_lookup_differs_from_a_missing_connection(
    backends: list[str], found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AirflowSecretsBackendAccessDenied(Exception):
        """Stand-in for the error class of Airflow 3.3."""

    class Backend:
        def __init__(self, what: str) -> None:
            self.what = what

        def get_connection(self, conn_id: str) -> object:
            if self.what == "down":
                raise OSError("secret address")
            if self.what == "denied":
                raise AirflowSecretsBackendAccessDenied
            return None if self.what == "none" else SimpleNamespace(**dict.fromkeys(FIELDS), login=self.what)

    monkeypatch.setattr(
        "airflow.configuration.ensure_secrets_loaded", lambda: [Backend(each) for each in backends]
    )
    if found is OSError:
        with pytest.raises(OSError, match="secret address"):
            auth._find_connection("one")
    else:
        conn = auth._find_connection("one")
        assert (conn and conn.login) == found


class FakeIdSource:
    """Fake source of the ids of the Connections that DAGs use. Reading the ids can fail."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reads = 0
        self.ids: set[str] | None = {"one"}

    def __call__(self) -> set[str]:
        self.reads += 1
        if self.ids is None:
            raise OSError("secret address")
        return self.ids


def test_referenced_connections_are_cached_and_read_once() -> None:
    async def ask() -> None:
        source = FakeIdSource()
        named = ExpectedConnections(source, lambda: source.now)
        assert (
            await asyncio.gather(*(named.contains(each) for each in ["one", "two"] * 20))
            == [True, False] * 20
        )
        source.ids = {"two"}
        source.now += CACHE_TTL_SECONDS - 1
        assert (await named.contains("one"), await named.contains("two")) == (True, False)
        source.now += 1
        assert (await named.contains("one"), await named.contains("two")) == (False, True)
        assert source.reads == 2

    asyncio.run(ask())


def test_referenced_connections_are_kept_while_reading_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        source = FakeIdSource()
        named = ExpectedConnections(source, lambda: source.now)
        assert await named.contains("one")
        source.ids = None
        source.now += CACHE_TTL_SECONDS
        for _ in range(3):
            assert (
                await asyncio.gather(*(named.contains(each) for each in ["one", "two"] * 20))
                == [
                    True,
                    False,
                ]
                * 20
            )
            source.now += CACHE_TTL_SECONDS
        assert source.reads == 4
        source.ids = {"two"}
        assert (await named.contains("one"), await named.contains("two")) == (False, True)

    asyncio.run(ask())
    assert [each.getMessage() for each in caplog.records if each.name == auth.__name__] == [
        "The assets that DAGs listen to cannot be read (OSError)"
    ]


def test_the_reason_of_a_slow_refusal_does_not_contain_the_id() -> None:
    """The reason is logged. If the caller exchanged the id and the token in the URL, the id is the secret token."""
    released = threading.Event()

    def load(_conn_id: str) -> Credentials:
        released.wait(60)
        return DENY_ALL

    async def ask() -> str:
        found = Authenticator(load)
        try:
            return (await found.look_up(TOKEN, within=0.01)).denied
        finally:
            released.set()

    assert asyncio.run(ask()) == "a Connection was not found in time"
