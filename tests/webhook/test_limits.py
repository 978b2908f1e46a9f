# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Limits of one caller: size, time, rate, and database. The API server remains healthy meanwhile."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from airflow_provider_faceki.api import WebhookNotification
from airflow_provider_faceki.webhook import app, events
from airflow_provider_faceki.webhook.app import TokenBucket
from airflow_provider_faceki.webhook.auth import (
    CACHE_TTL_SECONDS,
    DENY_ALL,
    MAX_CACHED,
    Authenticator,
    Credentials,
    LookupFailed,
)
from tests.airflow.running import AIRFLOW_3
from tests.webhook.served import TOKEN, Served, serving, webhook_body

if TYPE_CHECKING:
    from airflow_provider_faceki.webhook.app import Receiver

HEAD = (
    f"POST /faceki/webhook/faceki_default/{TOKEN} HTTP/1.1\r\nHost: localhost\r\n"
    "Content-Type: application/json\r\n"
)


class Clock:
    """Clock that does not advance by itself."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _padded(size: int) -> bytes:
    empty = json.dumps(webhook_body(kycData="")).encode()
    return empty.replace(b'"kycData": ""', b'"kycData": "' + b"x" * (size - len(empty)) + b'"')


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(_padded(app.MAX_BODY_BYTES), 200, id="as large as may be"),
        pytest.param(_padded(app.MAX_BODY_BYTES + 1), 413, id="one byte more"),
        pytest.param(_padded(3 * 1024 * 1024), 413, id="3 MiB"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["length told", "chunked"])
def test_size(served: Served, body: bytes, status: int, chunked: bool) -> None:
    import requests

    pieces = iter([body[:1000], body[1000:]])
    answer = requests.post(served.at(), data=pieces if chunked else body, timeout=300)
    assert answer.status_code == status


def test_a_flood_is_cut_off(served: Served) -> None:
    before = served.count()
    line = served.raw((HEAD + "Content-Length: 1000000000\r\n\r\n").encode())
    with pytest.raises(ConnectionError):
        line.sendall(bytes(200 * 1024 * 1024))
    line.close()
    assert served.count() == before


def test_slow_bodies_do_not_block_other_callers(served: Served) -> None:
    before = served.count()
    began = time.monotonic()
    lines = [served.raw((HEAD + "Content-Length: 100\r\n\r\n{").encode()) for _ in range(100)]
    assert served.post(served.at(), webhook_body()).status_code == 200
    assert served.post(f"{served.url}/alive", b"").status_code == 405
    # Each answer is read until the server closes the connection.
    answers = [b"".join(iter(partial(line.recv, 65536), b"")) for line in lines]
    took = time.monotonic() - began
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)
    assert took >= app.BODY_TIMEOUT_SECONDS
    for line in lines:
        line.close()
    assert served.count() == before + 1


def test_a_caller_that_disconnects_early_stores_nothing(served: Served) -> None:
    before = served.count()
    served.raw((HEAD + "Content-Length: 100\r\n\r\n{").encode()).close()
    assert served.post(served.at(), webhook_body()).status_code == 200
    assert served.count() == before + 1


def test_too_many_calls(served: Served, receiver: Receiver) -> None:
    receiver._calls = TokenBucket(3, 0.1, Clock())
    answers = [served.post(served.at(), webhook_body()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].headers["Retry-After"] == "10"
    # Refusals have a separate rate limit.
    assert served.post(served.at(token="wrong" * 10), webhook_body()).status_code == 401


def test_unknown_callers_do_not_use_up_the_limit_of_known_ones(served: Served, receiver: Receiver) -> None:
    receiver._refusals = TokenBucket(3, 0.001)
    assert served.post(served.at(), webhook_body()).status_code == 200
    wrong = [served.at("nobody"), served.at(token="wrong" * 10), served.at("somebody")]
    assert [served.post(url, webhook_body()).status_code for url in wrong] == [401, 401, 401]
    alike = [
        served.at("nobody"),
        served.at(token="wrong" * 10),
        served.at("stranger"),
        served.at("faceki_signed"),
    ]
    answers = [served.post(url, webhook_body()) for url in alike]
    assert {(answer.status_code, answer.text) for answer in answers} == {
        (429, '{"detail":"too many webhooks"}')
    }
    assert served.post(served.at(), webhook_body()).status_code == 200
    receiver._authenticator._cache.clear()  # a new lookup is allowed after a verified token
    assert served.post(served.at(), webhook_body()).status_code == 200


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    yield
    holder.execute("ROLLBACK")
    holder.close()


def test_a_database_that_stays_locked(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LOCK_TIMEOUT_SECONDS", 1.0)
    assert served.post(served.at(), webhook_body()).status_code == 200
    before, body = served.count(), webhook_body()
    with _locked(served.database):
        answer = served.post(served.at(), body)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert served.count() == before
    assert served.post(served.at(), body).json() == {"status": "stored"}


def test_a_database_that_is_locked_for_a_moment(served: Served) -> None:
    assert served.post(served.at(), webhook_body()).status_code == 200
    with _locked(served.database):
        answers: list[int] = []
        sender = threading.Thread(
            target=lambda: answers.append(served.post(served.at(), webhook_body()).status_code)
        )
        sender.start()
        time.sleep(1)
    sender.join()
    assert answers == [200]


def test_a_database_that_is_not_there(served: Served, receiver: Receiver) -> None:
    def down(*_: object) -> list[events.Outcome]:
        raise sqlite3.OperationalError("no such table")

    receiver._writer._store, stored = down, receiver._writer._store
    body = webhook_body()
    assert served.post(served.at(), body).status_code == 503
    receiver._writer._store = stored
    assert served.post(served.at(), body).json() == {"status": "stored"}


def test_an_airflow_without_the_asset_manager(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    body = webhook_body()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "airflow.assets.manager", None)
        assert served.post(served.at(), body).status_code == 503
    assert "A webhook could not be stored (ModuleNotFoundError); answering 503" in caplog.text
    assert served.post(served.at(), body).json() == {"status": "stored"}


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 receives no webhooks")
def test_a_secrets_backend_that_is_down(listening: Path) -> None:
    from airflow_provider_faceki.webhook.app import Receiver, create_app

    def down(conn_id: str) -> Credentials:
        raise ConnectionError(f"{conn_id}: the vault is closed")

    with serving(create_app(Receiver(down, lambda *_: [])), listening) as served:
        answer = served.post(served.at(), webhook_body())
    assert (answer.status_code, answer.json()) == (503, {"detail": "not stored"})


STORE = """
import multiprocessing, sys
import airflow.assets.manager
from airflow_provider_faceki.api.protocol.webhook import WebhookNotification
from airflow_provider_faceki.webhook import events
from airflow_provider_faceki.webhook.events import store_events
events.LOCK_TIMEOUT_SECONDS = 120  # they leave SQLite no pause
groups = [[WebhookNotification(each, "ACCEPTED")] for each in sys.argv[1:]]
# Servers are forked, because importing Airflow again would take longer than the rest.
context = multiprocessing.get_context("fork")
all_ready = context.Barrier(3)
def server(number):
    stored = 0
    for group in groups:
        all_ready.wait(300)  # otherwise one server would store all before the others begin
        stored += store_events("faceki_default", group, 10_000) == ["stored"]
    return stored
with context.Pool(3) as pool:
    print(sum(pool.map(server, range(3), chunksize=1)))
"""


def test_several_api_servers_store_once(served: Served) -> None:
    ids = [str(uuid.uuid4()) for _ in range(10)]
    done = subprocess.run(
        [sys.executable, "-c", STORE, *ids], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) == len(ids)
    assert [served.statuses(each) for each in ids] == [["ACCEPTED"]] * len(ids)


def test_waiting_webhooks_are_stored_as_one_batch_in_order() -> None:
    groups: list[tuple[str, list[str]]] = []
    first_is_under_way, goes_on = threading.Event(), threading.Event()

    def store(conn_id: str, notifications: Sequence[WebhookNotification], _: int) -> list[events.Outcome]:
        groups.append((conn_id, [each.status for each in notifications]))
        first_is_under_way.set()
        assert goes_on.wait(300)
        if conn_id == "broken":
            raise OSError("no disk")
        return [events.Outcome.STORED] * len(notifications)

    async def write() -> list[object]:
        writer = events.EventWriter(store)
        one, request_id = "one", str(uuid.uuid4())

        def begin(conn_id: str, status: str) -> asyncio.Task[events.Outcome]:
            return asyncio.create_task(writer.write(conn_id, WebhookNotification(request_id, status), 9))

        tasks = [begin(one, "1")]
        await asyncio.to_thread(first_is_under_way.wait, 30)
        tasks += [begin(one, "2"), begin("broken", "3"), begin(one, "4"), begin("broken", "5")]
        tasks += [begin(one, str(number)) for number in range(6, 6 + events.MAX_GROUP_SIZE)]
        await asyncio.sleep(0)
        goes_on.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    outcomes = asyncio.run(write())
    rest = [str(number) for number in range(6, 6 + events.MAX_GROUP_SIZE)]
    assert groups == [
        ("one", ["1"]),
        ("one", ["2", "4", *rest[:-2]]),
        ("broken", ["3", "5"]),
        ("one", rest[-2:]),
    ]
    assert [str(each) for each in outcomes[:5]] == ["stored", "stored", "no disk", "stored", "no disk"]
    assert set(outcomes[5:]) == {events.Outcome.STORED}


def test_a_webhook_that_timed_out_is_not_stored_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STORE_TIMEOUT_SECONDS", 0.05)
    stored: list[str] = []
    goes_on = threading.Event()

    def store(conn_id: str, notifications: Sequence[WebhookNotification], _: int) -> list[events.Outcome]:
        assert goes_on.wait(300)
        stored.extend(each.status for each in notifications)
        return [events.Outcome.STORED] * len(notifications)

    async def write() -> None:
        writer = events.EventWriter(store)
        for status in ("1", "2"):
            with pytest.raises(TimeoutError):
                await writer.write("one", WebhookNotification(str(uuid.uuid4()), status), 9)
        goes_on.set()
        assert writer._draining is not None
        await writer._draining
        assert stored == ["1"]
        monkeypatch.setattr(events, "STORE_TIMEOUT_SECONDS", 30.0)
        assert await writer.write("one", WebhookNotification(str(uuid.uuid4()), "3"), 9) == "stored"

    asyncio.run(write())


def test_bucket() -> None:
    clock = Clock()
    bucket = TokenBucket(2, 0.5, clock)
    assert [bucket.try_acquire() for _ in range(3)] == [True, True, False]
    assert bucket.retry_after() == 2
    clock.now += 2
    assert [bucket.try_acquire() for _ in range(2)] == [True, False]
    clock.now += 100
    assert [bucket.try_acquire() for _ in range(3)] == [True, True, False]
    bucket.refund()
    assert [bucket.try_acquire() for _ in range(2)] == [True, False]


class FakeCredentialLookup:
    """Stand-in for the lookup. It finds the configured ids, and records each call."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.looked: list[str] = []

    def __call__(self, conn_id: str) -> Credentials:
        self.looked.append(conn_id)
        time.sleep(0.05)
        return Credentials(()) if conn_id in self.known else DENY_ALL


def test_concurrent_lookups_of_a_connection_are_shared() -> None:
    lookup, clock = FakeCredentialLookup("known"), Clock()

    async def ask() -> None:
        found = Authenticator(lookup, clock)
        await asyncio.gather(
            *(found.look_up("known") for _ in range(50)), *(found.look_up("nobody") for _ in range(50))
        )
        assert sorted(lookup.looked) == ["known", "nobody"]
        seen = found.cached("known"), found.cached("nobody")
        assert [each and bool(each.denied) for each in seen] == [False, True]
        clock.now += CACHE_TTL_SECONDS - 1
        assert found.cached("nobody") is seen[1]
        clock.now += 1
        assert found.cached("known") is None

    asyncio.run(ask())


def test_the_cache_of_unknown_callers_is_limited() -> None:
    async def ask() -> None:
        found = Authenticator(lambda _: DENY_ALL)
        for number in range(MAX_CACHED + 10):
            await found.look_up(f"nobody_{number}")
        assert len(found._cache) == MAX_CACHED
        assert found.cached("nobody_0") is None
        assert found.cached(f"nobody_{MAX_CACHED}")

    asyncio.run(ask())


def test_a_failed_lookup_is_not_cached() -> None:
    looked: list[str] = []

    def down(conn_id: str) -> Credentials:
        looked.append(conn_id)
        raise OSError("secret address")

    async def ask() -> None:
        found = Authenticator(down)
        for _ in range(2):
            with pytest.raises(LookupFailed, match="^OSError$"):
                await found.look_up("known")
        assert len(looked) == 2

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("path", "root", "shown"),
    [
        pytest.param("/faceki/webhook/conn/token", "/faceki", "/faceki/webhook/***/***", id="the route"),
        pytest.param(
            "/a/faceki/webhook/conn/token", "/a/faceki", "/a/faceki/webhook/***/***", id="below a path"
        ),
        pytest.param("/webhook/conn/token", "", "/webhook/***/***", id="not mounted"),
        pytest.param("/faceki/webhook/conn/token/", "/faceki", "/faceki/***", id="slash at the end"),
        pytest.param("/faceki/webhok/conn/token", "/faceki", "/faceki/***", id="mistyped"),
        pytest.param("/faceki/token", "/faceki", "/faceki/***", id="something else"),
    ],
)
def test_redacted_path(path: str, root: str, shown: str) -> None:
    from airflow_provider_faceki.webhook.app import SCOPE_KEY, RedactPathMiddleware

    scope = {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": root,
        "query_string": b"token=x",
    }
    inside: list[object] = []

    async def app(*given: object) -> None:
        inside.extend(given)

    asyncio.run(RedactPathMiddleware(cast("Callable[..., object]", app))(scope, app, app))  # type: ignore[arg-type]
    assert scope["path"] == shown
    assert scope["raw_path"] == shown.encode()
    assert scope["query_string"] == b""
    assert inside[0] is scope  # the access log uses the same dictionary
    assert scope.get(SCOPE_KEY) == (("conn", "token") if shown.endswith("***/***") else None)
