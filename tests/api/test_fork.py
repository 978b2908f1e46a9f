# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Forked processes: a child can call FACEKI, whatever the parent's threads do and whichever locks they hold."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest
from airflow_provider_faceki.api.tokens import memory as token_store
from airflow_provider_faceki.api.tokens.file import FileRefreshLock, FileTokenStore
from airflow_provider_faceki.api.tokens.sealing import TokenSeal
from airflow_provider_faceki.api.transport import adapter
from airflow_provider_faceki.api.transport import http_transport as transport
from tests.api.conftest import RecordedWarnings
from tests.api.fake_server import NOTHING_FOUND, RECORDS_PATH, FakeServer, reply_json, require_token
from tests.forks import exit_code, fork
from tests.waiting import wait_until

FETCH = FetchRecords(request_id="r-1")
ACCOUNT = TokenSeal(TokenRequest("https://kyc.example", "client-1", "s3cret"))

pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")]


@pytest.fixture
def sharing(server: FakeServer, client: FacekiClient, tmp_path: Path) -> FacekiClient:
    """A client with a token directory, so that it shares its token with other processes."""
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    return replace(client, token_directory=tmp_path / "tokens", warn=RecordedWarnings([]))


def _call_in_both_modes(client: FacekiClient) -> bool:
    return client.call(FETCH) == asyncio.run(client.as_async().call(FETCH)) == ()


def test_a_child_process_opens_its_own_connections(server: FakeServer, sharing: FacekiClient) -> None:
    assert _call_in_both_modes(sharing)
    ours = {received.connection for received in server.received}
    before = len(server.received)
    assert exit_code(fork(lambda: _call_in_both_modes(sharing))) == 0
    theirs = {received.connection for received in server.received[before:]}
    assert len(server.received) == before + 2
    assert ours & theirs == set()
    assert _call_in_both_modes(sharing)
    assert {received.connection for received in server.received[before + 2 :]} <= ours
    assert server.token_requests == 1


def test_a_child_forked_while_every_lock_is_held(server: FakeServer, sharing: FacekiClient) -> None:
    store = sharing._session.tokens
    assert isinstance(store, FileTokenStore)
    pool = sharing._driver._transport
    with (
        transport._transports_lock,
        token_store._shared_mutex,
        store.memory._mutex,
        pool._adapter_lock,
    ):
        child = fork(
            lambda: (
                _call_in_both_modes(sharing) and _call_in_both_modes(replace(sharing, client_secret="other"))
            )
        )
    assert exit_code(child) == 0
    assert server.token_requests == 2


def test_a_child_forked_while_its_parent_fetches_waits_for_the_parent(
    server: FakeServer, sharing: FacekiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sharing._session.tokens
    lock = store.try_lock()
    assert lock is not None
    reader, writer = os.pipe()
    try_lock = FileTokenStore.try_lock

    def reporting(store: FileTokenStore, generation: int = 0) -> FileRefreshLock | None:
        found = try_lock(store, generation)
        if found is None:
            os.write(writer, b"x")
        return found

    monkeypatch.setattr(FileTokenStore, "try_lock", reporting)
    child = fork(lambda: _call_in_both_modes(sharing))
    os.close(writer)
    # Wait until the child has found that the lock is held. If the child ended earlier, `os.read` would return b"".
    assert os.read(reader, 1) == b"x"
    assert server.received == []
    store.set(AccessToken(server.new_token(), time.time(), 3600.0))
    lock.release()
    assert exit_code(child) == 0
    assert server.token_requests == 0
    os.close(reader)


def test_a_child_process_does_not_inherit_the_in_memory_lock(
    server: FakeServer, client: FacekiClient
) -> None:
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    lock = client._session.tokens.try_lock()
    assert lock is not None
    assert exit_code(fork(lambda: _call_in_both_modes(client))) == 0
    assert server.token_requests == 1
    lock.release()


def test_a_running_child_does_not_keep_the_lock_of_its_parent(
    tmp_path: Path, warned: RecordedWarnings
) -> None:
    store, other = (FileTokenStore(tmp_path / "tokens", ACCOUNT, warned) for _ in range(2))
    lock = store.try_lock()
    assert lock is not None
    reader, writer = os.pipe()
    child = fork(lambda: os.read(reader, 1) == b"x")
    assert other.try_lock() is None
    lock.release()
    again = other.try_lock()
    os.write(writer, b"x")
    assert exit_code(child) == 0
    assert again is not None
    os.close(reader)
    os.close(writer)


FETCHER = """
import os, sys, time
from pathlib import Path
from airflow_provider_faceki.api.protocol.auth import TokenRequest
from airflow_provider_faceki.api.tokens.file import FileTokenStore
from airflow_provider_faceki.api.tokens.sealing import TokenSeal
seal = TokenSeal(TokenRequest("https://kyc.example", "client-1", "s3cret"))
store = FileTokenStore(Path(sys.argv[1]), seal, print)
lock = store.try_lock()
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
print("forked" if lock else "no lock", flush=True)
time.sleep(600)
"""


def test_a_running_child_does_not_keep_the_lock_of_a_killed_parent(
    tmp_path: Path, warned: RecordedWarnings
) -> None:
    folder = tmp_path / "tokens"
    with subprocess.Popen(
        [sys.executable, "-c", FETCHER, str(folder)],
        cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "forked\n"
        store = FileTokenStore(folder, ACCOUNT, warned)
        assert store.try_lock() is None
        parent.send_signal(signal.SIGKILL)
        parent.wait(120)
        # The child still runs. After the fork, it possibly needs a moment to close its copy of the lock file.
        wait_until(lambda: store.try_lock() is not None)
    assert warned.messages == []


def test_a_child_forked_in_the_middle_of_many_threads(server: FakeServer, sharing: FacekiClient) -> None:
    over = threading.Event()

    def keep_calling() -> None:
        while not over.is_set():
            sharing.call(FETCH)

    threads = [threading.Thread(target=keep_calling) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        children = [fork(lambda: _call_in_both_modes(sharing)) for _ in range(8)]
        assert [exit_code(child) for child in children] == [0] * 8
    finally:
        over.set()
        for thread in threads:
            thread.join(120)
    assert server.token_requests == 1


def test_a_fork_waits_while_a_tls_context_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a lock of OpenSSL would stay locked in the child, which would wait forever for its own context."""
    begun, finish, forked = (threading.Event() for _ in range(3))
    create = ssl.create_default_context
    codes: list[int | None] = []

    def create_slowly(**given: Any) -> ssl.SSLContext:
        begun.set()
        assert finish.wait(120)
        return create(**given)

    monkeypatch.setattr(ssl, "create_default_context", create_slowly)
    # OpenSSL also uses a lock when a thread ends. So the thread ends only after the fork.
    creating = threading.Thread(target=lambda: (adapter.tls_context(True), forked.wait(240)))
    forking = threading.Thread(
        target=lambda: codes.append(exit_code(fork(lambda: bool(adapter.tls_context(True)))))
    )
    creating.start()
    assert begun.wait(120)
    forking.start()
    # Without the lock, the fork happens in this half second, and the child never sees that ``finish`` is set.
    forking.join(0.5)
    finish.set()
    forking.join(240)
    forked.set()
    creating.join(120)
    assert codes == [0]


def test_a_lock_that_is_taken_during_a_fork_does_not_stay_open_in_the_child(
    tmp_path: Path, warned: RecordedWarnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[int] = []
    flock = fcntl.flock

    def forking(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if operation & fcntl.LOCK_EX:
            children.append(fork(lambda: not _is_open(descriptor)))

    monkeypatch.setattr(fcntl, "flock", forking)
    lock = FileTokenStore(tmp_path / "tokens", ACCOUNT, warned).try_lock()
    assert lock is not None
    assert [exit_code(child) for child in children] == [0]
    lock.release()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
