# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The token store in memory: one token request for all threads, clients and event loops of a process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from threading import get_ident

import pytest

from airflow_provider_faceki.api import client as client_module
from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.errors import AuthenticationError, FacekiError
from airflow_provider_faceki.api.protocol import session
from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenStore
from airflow_provider_faceki.api.protocol.messages import Json
from airflow_provider_faceki.api.tokens.memory import MemoryTokenStore, shared_store
from tests.api.conftest import CallMode
from tests.api.fake_server import (
    NOTHING_FOUND,
    RECORDS_PATH,
    TOKEN_PATH,
    FakeServer,
    Handler,
    issue_token,
    reply_json,
    require_token,
    waits,
)

FETCH = FetchRecords(request_id="r-1")
OLD = AccessToken("old", 1000.0, 3600.0)
NEW = AccessToken("new", 2000.0, 3600.0)


def test_one_lock_at_a_time() -> None:
    store = MemoryTokenStore()
    first = store.try_lock()
    assert first is not None
    assert store.try_lock() is None
    first.release()
    second = store.try_lock()
    assert second is not None
    # The second release of the first lock must not release the second lock.
    first.release()
    assert store.try_lock() is None
    second.release()


def test_a_lock_without_a_reference_is_released() -> None:
    store = MemoryTokenStore()
    assert store.try_lock() is not None
    assert store.try_lock() is not None


@pytest.mark.parametrize(
    ("do", "kept"),
    [
        pytest.param([("set", OLD)], OLD, id="kept"),
        pytest.param([("set", OLD), ("set", NEW)], NEW, id="kept over another"),
        pytest.param([("set", NEW), ("set", OLD)], OLD, id="ours counts, whatever its age"),
        pytest.param([("set", OLD), ("invalidate", OLD)], None, id="dropped"),
        pytest.param([("set", NEW), ("invalidate", OLD)], NEW, id="another dropped"),
        pytest.param([("merge", OLD)], OLD, id="adopted"),
        pytest.param([("set", OLD), ("merge", NEW)], NEW, id="a newer one adopted"),
        pytest.param([("set", NEW), ("merge", OLD)], NEW, id="an older one not"),
        pytest.param([("set", OLD), ("invalidate", OLD), ("merge", OLD)], None, id="a refused one not"),
        pytest.param([("invalidate", OLD), ("merge", OLD)], None, id="nor if refused before it was seen"),
        pytest.param([("set", OLD), ("invalidate", OLD), ("merge", NEW)], NEW, id="but another"),
        pytest.param([("invalidate", OLD), ("set", OLD)], OLD, id="FACEKI may give the same one again"),
    ],
)
def test_what_is_in_the_store(do: list[tuple[str, AccessToken]], kept: AccessToken | None) -> None:
    store = MemoryTokenStore()
    for action, token in do:
        getattr(store, action)(token)
    assert store.peek() is store.read() is kept


def _at_once(*jobs: Callable[[], object]) -> None:
    """Run all jobs at the same time, each in its own thread, and fail if a job raises an exception."""
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        start.wait(120)
        job()

    with ThreadPoolExecutor(len(jobs)) as threads:
        done, late = wait([threads.submit(run, job) for job in jobs], 20)
        assert not late
        for job in done:
            job.result()


def test_a_store_is_made_once_for_an_account() -> None:
    made: list[TokenStore] = []
    found: list[TokenStore] = []

    def make() -> TokenStore:
        made.append(MemoryTokenStore())
        return made[-1]

    _at_once(*[lambda: found.append(shared_store("test_a_store_is_made_once", make))] * 20)
    assert len(made) == 1
    assert found == made * 20
    assert shared_store("another account", MemoryTokenStore) is not made[0]


async def _many(client: FacekiClient, questions: int) -> None:
    await asyncio.gather(*(client.as_async().call(FETCH) for _ in range(questions)))


@pytest.fixture
def guarded_server(server: FakeServer) -> FakeServer:
    """A fake FACEKI server that requires a valid token."""
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    return server


def test_fifty_threads_starting_cold(guarded_server: FakeServer, client: FacekiClient) -> None:
    _at_once(*[lambda: client.call(FETCH)] * 50)
    assert guarded_server.token_requests == 1
    assert len(guarded_server.requests_to(RECORDS_PATH)) == 50


def test_a_hundred_clients(guarded_server: FakeServer, client: FacekiClient) -> None:
    for _ in range(100):
        replace(client).call(FETCH)
    assert guarded_server.token_requests == 1
    assert {received.bearer for received in guarded_server.requests_to(RECORDS_PATH)} == {"token-1"}


def test_event_loops_and_threads_mixed(guarded_server: FakeServer, client: FacekiClient) -> None:
    loops = [lambda: asyncio.run(_many(replace(client), 10))] * 5
    threads = [lambda: replace(client).call(FETCH)] * 10
    _at_once(*loops, *threads)
    assert guarded_server.token_requests == 1
    assert len(guarded_server.requests_to(RECORDS_PATH)) == 60


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "as if processes"])
def test_a_slow_token_request_is_not_repeated_by_every_waiting_caller(
    guarded_server: FakeServer,
    client: FacekiClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: bool,
) -> None:
    monkeypatch.setattr(session, "MAX_LOCK_WAIT_SECONDS", 0.5)
    if processes:
        # Each client gets its own store, so that only the files are shared, as between processes.
        monkeypatch.setattr(client_module, "shared_store", lambda _key, make: make())
        client = replace(client, token_directory=tmp_path / "tokens")

    callers = 20
    all_wait, stored = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        # The token arrives late: after all callers except the two that send token requests have waited for the maximum
        # time.
        all_wait.wait(60)
        issue_token()(handler)

    def fetch(handler: Handler) -> None:
        stored.set()
        require_token(reply_json(NOTHING_FOUND))(handler)

    guarded_server.on(TOKEN_PATH, slow)
    guarded_server.on(RECORDS_PATH, fetch)
    waited: dict[int, float] = defaultdict(float)
    late: set[int] = set()
    pause = time.sleep

    def sleep(seconds: float) -> None:
        # After the maximum time, one of the waiting callers sends a second token request. The others wait here until a
        # token is stored. On a busy machine, their second wait could otherwise end before the token arrives.
        if waited[get_ident()] >= session.MAX_LOCK_WAIT_SECONDS:
            late.add(get_ident())
            if len(late) >= callers - 2:
                all_wait.set()
            stored.wait(60)
        waited[get_ident()] += seconds
        pause(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    _at_once(*[lambda: replace(client).call(FETCH)] * callers)
    assert guarded_server.token_requests == 2
    assert len(guarded_server.requests_to(RECORDS_PATH)) == callers


@pytest.mark.parametrize("change", ["client_id", "client_secret"])
def test_each_account_has_its_own_token(
    guarded_server: FakeServer, client: FacekiClient, change: str
) -> None:
    client.call(FETCH)
    replace(client, **{change: "another"}).call(FETCH)  # type: ignore[arg-type]  # the values are test parameters
    assert guarded_server.token_requests == 2


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("shared", [False, True], ids=["memory", "file"])
def test_a_token_fetched_from_an_unverified_server_is_not_used_where_servers_are_verified(
    guarded_server: FakeServer, client: FacekiClient, tmp_path: Path, shared: bool
) -> None:
    client = replace(client, token_directory=tmp_path / "tokens" if shared else None)
    unverified = replace(client, transport=replace(client.transport, verify=False))
    for expected, one in ((1, unverified), (2, client), (2, unverified), (2, client)):
        one.call(FETCH)
        assert guarded_server.token_requests == expected


def test_a_token_revoked_in_the_middle_is_replaced_once(
    guarded_server: FakeServer, client: FacekiClient
) -> None:
    client.call(FETCH)
    guarded_server.live.clear()
    _at_once(*[lambda: client.call(FETCH)] * 20, *[lambda: asyncio.run(_many(client, 5))] * 4)
    assert guarded_server.token_requests == 2


def test_a_token_that_is_used_up_is_replaced_once(guarded_server: FakeServer, client: FacekiClient) -> None:
    # The lifetime is 0.5 s. The client already renews the token after 0.45 s, because the margin is a tenth of a short
    # lifetime. The server still accepts the old token.
    guarded_server.on(TOKEN_PATH, issue_token(0.5), issue_token())
    client.call(FETCH)
    threading.Event().wait(0.5)
    _at_once(*[lambda: client.call(FETCH)] * 10)
    assert guarded_server.token_requests == 2


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "file"])
@pytest.mark.parametrize("lifetime", [0, -5, "0"])
def test_a_token_with_zero_lifetime_is_used_once_and_not_stored(
    call: CallMode,
    guarded_server: FakeServer,
    client: FacekiClient,
    tmp_path: Path,
    lifetime: Json,
    shared: bool,
) -> None:
    client = replace(client, token_directory=tmp_path / "tokens" if shared else None)
    guarded_server.on(TOKEN_PATH, issue_token(lifetime))
    for requests_to in (1, 2):
        call(client, FETCH)
        assert guarded_server.token_requests == requests_to
    _at_once(*[lambda: client.call(FETCH)] * 5)
    assert guarded_server.token_requests == 7
    assert not list(tmp_path.rglob("*.token"))
    guarded_server.live.clear()
    guarded_server.on(
        TOKEN_PATH, reply_json({"responseCode": 0, "data": {"access_token": "no", "expires_in": 0}})
    )
    with pytest.raises(AuthenticationError):
        call(client, FETCH)
    # A token that this call itself has fetched is not replaced.
    assert guarded_server.token_requests == 8


def test_after_a_failed_token_request_the_next_caller_fetches(
    guarded_server: FakeServer, client: FacekiClient
) -> None:
    guarded_server.on(TOKEN_PATH, reply_json({}, 401), issue_token())
    outcomes: list[str] = []

    def call() -> None:
        try:
            client.call(FETCH)
            outcomes.append("found")
        except FacekiError as error:
            outcomes.append(type(error).__name__)

    _at_once(*[call] * 10)
    assert sorted(outcomes) == ["AuthenticationError", *["found"] * 9]
    assert guarded_server.token_requests == 2


@pytest.mark.parametrize("moment", ["lock", "fetch"])
def test_a_cancelled_task_does_not_keep_the_lock(
    guarded_server: FakeServer, client: FacekiClient, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Check that a task that is cancelled while it acquires a lock does not keep the lock."""
    reached, released = threading.Event(), threading.Event()
    store = client._session.tokens
    take = store.try_lock
    if moment == "lock":

        def slow_lock(turn: int) -> object:
            lock = take(turn)
            reached.set()
            released.wait(120)
            return lock

        monkeypatch.setattr(store, "try_lock", slow_lock)
    else:
        guarded_server.on(TOKEN_PATH, waits(released, issue_token(), reached), issue_token())

    async def cancel_midway() -> None:
        task = asyncio.create_task(client.as_async().call(FETCH))
        await asyncio.to_thread(reached.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_midway())
    monkeypatch.setattr(store, "try_lock", take)
    released.set()
    requests_to = threading.Thread(target=client.call, args=(FETCH,), daemon=True)
    requests_to.start()
    requests_to.join(120)
    assert not requests_to.is_alive()
