# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""An access token that hosts share through an object storage. The Connection's ``token_store`` is its URI."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from botocore.exceptions import ClientError
from s3fs.errors import translate_boto_error

from airflow_provider_faceki import storage
from airflow_provider_faceki import token_backend as token_backend_module
from airflow_provider_faceki.api import FetchRecords
from airflow_provider_faceki.api import client as client_module
from airflow_provider_faceki.api.protocol import session
from airflow_provider_faceki.api.tokens import shared
from airflow_provider_faceki.api.tokens.shared import DirectoryTokenBackend, SharedTokenStore
from airflow_provider_faceki.connection import settings as settings_module
from airflow_provider_faceki.hooks import faceki as hook_module
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.token_backend import ObjectStorageTokenBackend, token_backend
from tests.api.fake_server import NOTHING_FOUND, RECORDS_PATH, FakeServer, reply_json, require_token
from tests.forks import exit_code, fork
from tests.object_store import BUCKET, Fault, ObjectStore, s3_server
from tests.waiting import wait_until

pytestmark = pytest.mark.process

FETCH = FetchRecords(request_id="r-1")
#: Number of tasks, on three hosts. A test in tests/api/test_token_shared.py has forty tasks, but no S3.
TASKS = 15


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """FACEKI server that requires a token."""
    with FakeServer() as server:
        server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
        yield server


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the storage a minute for an operation, and a host five minutes for a token: machines can be busy."""
    monkeypatch.setattr(shared, "MAX_OPERATION_SECONDS", 60.0)
    monkeypatch.setattr(session, "MAX_LOCK_WAIT_SECONDS", 300.0)


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the storages that other tests have connected, as in a new process."""
    monkeypatch.setattr(token_backend_module, "_attempts", {})


@pytest.fixture
def fresh_home(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], FacekiHook]:
    """Return a function that creates a hook as on another host. Its arguments are the store location and the host."""
    monkeypatch.setattr(client_module, "shared_store", lambda _key, make: make())

    def make(place: str, host: str) -> FacekiHook:
        monkeypatch.setattr(settings_module, "token_directory", lambda: tmp_path / host)
        monkeypatch.setattr(hook_module, "_cached_connections", {})
        connection: dict[str, Any] = {
            "conn_type": "faceki",
            "host": server.url,
            "login": "client-1",
            "password": f"secret-{tmp_path}",
            "extra": {"token_store": place, "max_attempts": 1},
        }
        monkeypatch.setenv("AIRFLOW_CONN_FACEKI_SHARED", json.dumps(connection))
        hook = FacekiHook("faceki_shared")
        assert hook.get_conn() is not None
        return hook

    return make


@pytest.fixture
def warnings_of_store(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> Callable[[], list[str]]:
    """Return a function that finds the warnings about a token store: in stdout (Airflow 3) or the log (Airflow 2)."""

    def found() -> list[str]:
        lines = capsys.readouterr().out.splitlines() or caplog.text.splitlines()
        return [line for line in lines if "cannot be shared" in line]

    return found


def _store_of(hook: FacekiHook) -> SharedTokenStore:
    store = hook.get_conn()._session.tokens
    assert isinstance(store, SharedTokenStore)
    return store


def _recorded_warnings(hook: FacekiHook, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list, to which the hook's token store adds its warnings instead of logging them."""
    warnings: list[str] = []
    monkeypatch.setattr(_store_of(hook), "_warn", warnings.append)
    return warnings


def test_eight_fresh_homes_fetch_one_token(
    server: FakeServer, object_store: ObjectStore, fresh_home: Callable[[str, str], FacekiHook]
) -> None:
    place = object_store.uri("faceki/tokens", faulty=True)
    hooks = [fresh_home(place, f"home-{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda hook: hook.call(FETCH), hooks)) == [()] * 8
    assert server.token_requests == 1
    (key,) = object_store.keys()
    assert key.startswith("faceki/tokens/")
    assert key.endswith(".token")
    assert b"token-1" not in object_store.get(key)


@pytest.mark.any_airflow
def test_only_one_of_many_requests_creates_an_object() -> None:
    """Check that the S3 server of the tests behaves as S3. The shared token store depends on this behaviour.

    The server writes late, as on a busy machine. If it did not handle the requests one after the other, all requests
    would find that the object does not exist, and create it.
    """
    with s3_server(write_delay_seconds=0.2) as port:
        client = ObjectStore(port, proxy_port=0).client
        client.create_bucket(Bucket=BUCKET)

        def creates(key: str) -> bool:
            try:
                client.put_object(Bucket=BUCKET, Key=key, Body=b"1", IfNoneMatch="*")
            except client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] != "PreconditionFailed":
                    raise
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            for number in range(5):
                assert list(threads.map(creates, [f"lock-{number}"] * 8)).count(True) == 1


@pytest.mark.any_airflow
def test_tasks_and_waits_on_three_hosts_fetch_one_token(
    server: FakeServer,
    object_store: ObjectStore,
    fresh_home: Callable[[str, str], FacekiHook],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = object_store.uri("tokens")
    all_ready = multiprocessing.get_context("fork").Barrier(TASKS + 1)

    def ready_hook(home: str) -> tuple[FacekiHook, list[str]]:
        """Wait until all processes are ready, and return a hook and the warnings of its token store."""
        try:
            hook = fresh_home(place, home)
            warnings = _recorded_warnings(hook, monkeypatch)
            all_ready.wait(300)
        except BaseException:
            # Without this call, the other processes would wait for this process until the time limit.
            all_ready.abort()
            raise
        return hook, warnings

    def task(number: int) -> bool:
        hook, warnings = ready_hook(f"home-{number % 3}")
        assert hook.call(FETCH) == ()
        # A failed assertion is printed, so that the test shows why a token was not shared.
        assert not warnings, warnings
        return True

    async def wait_for_ten(waiting: FacekiHook) -> None:
        await asyncio.gather(*(waiting.acall(FETCH) for _ in range(10)))

    tasks: list[int] = []
    try:
        tasks += (fork(partial(task, number)) for number in range(TASKS))
        waiting, warnings = ready_hook("home-2")
        asyncio.run(wait_for_ten(waiting))
    finally:
        exit_codes = [exit_code(child) for child in tasks]
    assert exit_codes == [0] * TASKS
    assert warnings == []
    assert server.token_requests == 1


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_bucket_without_a_folder(
    server: FakeServer, object_store: ObjectStore, fresh_home: Callable[[str, str], FacekiHook], ending: str
) -> None:
    place = object_store.uri("").rstrip("/") + ending
    for home in ("a", "b"):
        fresh_home(place, home).call(FETCH)
    assert server.token_requests == 1
    (key,) = object_store.keys()
    assert "/" not in key


def test_the_number_of_storage_requests_per_call(
    server: FakeServer, object_store: ObjectStore, fresh_home: Callable[[str, str], FacekiHook]
) -> None:
    place = object_store.uri("tokens", faulty=True)
    fresh_home(place, "a").call(FETCH)
    # The requests are: token missing, create lock, token still missing, write token, delete lock.
    assert [method for method, _ in object_store.requests] == ["GET", "PUT", "GET", "PUT", "DELETE"]
    object_store.requests.clear()
    fresh_home(place, "b").call(FETCH)
    assert [method for method, _ in object_store.requests] == ["GET"]
    object_store.requests.clear()
    fresh_home(place, "b").call(FETCH)
    assert object_store.requests == []
    assert server.token_requests == 1


def test_a_triggerer_shares_it_too(
    server: FakeServer, object_store: ObjectStore, fresh_home: Callable[[str, str], FacekiHook]
) -> None:
    place = object_store.uri("tokens")
    fresh_home(place, "a").call(FETCH)
    fresh_home(place, "b")
    hook_module._cached_connections.clear()
    waiting = FacekiHook("faceki_shared")

    async def wait() -> None:
        await asyncio.gather(*(waiting.acall(FETCH) for _ in range(10)))

    asyncio.run(wait())
    assert server.token_requests == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(500, "InternalError"), id="500"),
        pytest.param(Fault(403, "AccessDenied"), id="403"),
        pytest.param(Fault(), id="no answer"),
    ],
)
def test_a_failing_token_storage_warns_once(
    server: FakeServer,
    object_store: ObjectStore,
    fresh_home: Callable[[str, str], FacekiHook],
    warnings_of_store: Callable[[], list[str]],
    fault: Fault,
) -> None:
    hook = fresh_home(object_store.uri("tokens", faulty=True), "a")
    object_store.choose_fault = lambda method, path: fault
    for _ in range(3):
        assert hook.call(FETCH) == ()
    told = warnings_of_store()
    assert len(told) == 1
    assert "the FACEKI token cannot be shared through 's3://…@kyc/tokens' (" in told[0]
    assert "canary" not in told[0]
    assert server.token_requests == 1


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "PreconditionFailed"])
def test_a_host_that_loses_the_lock_to_another_host_keeps_the_storage(
    server: FakeServer,
    object_store: ObjectStore,
    fresh_home: Callable[[str, str], FacekiHook],
    warnings_of_store: Callable[[], list[str]],
    code: str,
) -> None:
    hook = fresh_home(object_store.uri("tokens", faulty=True), "a")
    losses = iter([Fault(409 if code.startswith("Conditional") else 412, code)] * 2)
    object_store.choose_fault = lambda method, path: next(losses, None) if method == "PUT" else None
    assert hook.call(FETCH) == ()
    assert next(losses, None) is None
    assert warnings_of_store() == []
    assert server.token_requests == 1
    assert len(object_store.keys()) == 1


class _Refusing:
    """Stand-in for an fsspec filesystem that refuses to create an object."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
        assert (path, mode) == ("bucket/tokens/lock", "create")
        raise self._error


def _create(error: Exception, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(storage, "locate", lambda uri: (_Refusing(error), "bucket/tokens"))
    backend = ObjectStorageTokenBackend("gs://bucket/tokens")
    backend.connect()
    return backend.create("lock", b"1")


def _s3_error(code: str, **more: str) -> Exception:
    """Return the error that s3fs raises for an error of S3."""
    refusal = ClientError({"Error": {"Code": code, "Message": "canary", **more}}, "PutObject")
    error: Exception = translate_boto_error(refusal)
    return error


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(_s3_error("PreconditionFailed", Condition="If-None-Match"), id="S3, it exists"),
        pytest.param(_s3_error("PreconditionFailed"), id="like S3, it exists"),
        pytest.param(_s3_error("ConditionalRequestConflict"), id="S3, it is deleted now"),
        # gcsfs raises FileExistsError for HTTP 412. adlfs raises it for azure-core's ResourceExistsError.
        pytest.param(FileExistsError("bucket/tokens/lock"), id="GCS and Azure, it exists"),
    ],
)
def test_who_loses_a_race_for_an_object_has_not_created_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert _create(error, monkeypatch) is False


@pytest.mark.parametrize("code", ["AccessDenied", "SlowDown", "NoSuchBucket", "unknown"])
def test_other_errors_of_a_creation_are_raised(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    with pytest.raises(OSError, match="canary"):
        _create(_s3_error(code), monkeypatch)


@pytest.mark.parametrize("content", [pytest.param(b"", id="empty"), pytest.param(b"x" * 200_000, id="large")])
def test_an_invalid_stored_token_is_replaced(
    server: FakeServer,
    object_store: ObjectStore,
    fresh_home: Callable[[str, str], FacekiHook],
    content: bytes,
) -> None:
    place = object_store.uri("tokens")
    hook = fresh_home(place, "a")
    object_store.put(f"tokens/{_store_of(hook)._token_name}", content)
    assert hook.call(FETCH) == ()
    assert fresh_home(place, "b").call(FETCH) == ()
    assert server.token_requests == 1


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        pytest.param("/dev/null/tokens", "NotADirectoryError", id="no directory"),
        pytest.param("redis://host/tokens", "no storage for", id="no storage"),
    ],
)
def test_an_unreachable_token_storage_warns_once(
    server: FakeServer,
    fresh_home: Callable[[str, str], FacekiHook],
    warnings_of_store: Callable[[], list[str]],
    place: str,
    reason: str,
) -> None:
    assert fresh_home(place, "a").call(FETCH) == ()
    told = warnings_of_store()
    assert len(told) == 1
    assert reason in told[0]
    assert server.token_requests == 1


class Lookups:
    """Stand-in for ``storage.locate`` that notes the thread of each lookup. The first ``failures`` lookups fail."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self._locate = storage.locate
        self.threads: list[str] = []

    def __call__(self, uri: str) -> tuple[Any, str]:
        self.threads.append(threading.current_thread().name)
        if len(self.threads) <= self._failures:
            raise OSError("canary: the secrets backend is down")
        return self._locate(uri)


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Lookups:
    """Let the first lookup of the storage's Connection fail."""
    found = Lookups(failures=1)
    monkeypatch.setattr(storage, "locate", found)
    return found


def _prepare(
    object_store: ObjectStore, server: FakeServer, monkeypatch: pytest.MonkeyPatch, **more: object
) -> None:
    extra = {"token_store": object_store.uri("tokens"), "max_attempts": 1, **more}
    connection = {
        "conn_type": "faceki",
        "host": server.url,
        "login": "a",
        "password": "s" * 9,
        "extra": extra,
    }
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_SHARED", json.dumps(connection))


@pytest.mark.parametrize("is_edited", [False, True])
def test_a_failed_lookup_is_repeated_only_on_a_thread_of_asgiref(
    server: FakeServer,
    object_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    lookups: Lookups,
    tmp_path: Path,
    is_edited: bool,
) -> None:
    monkeypatch.setattr(settings_module, "token_directory", lambda: tmp_path)
    monkeypatch.setattr(hook_module, "_cached_connections", {})

    async def ask(hook: FacekiHook) -> None:
        await sync_to_async(lambda: allowed.add(threading.current_thread().name))()
        assert await hook.acall(FETCH) == ()

    async def wait() -> None:
        hook = FacekiHook("faceki_shared")
        await ask(hook)
        server.live.clear()
        await ask(hook)
        assert len(lookups.threads) == 1
        assert object_store.keys() == []
        store = _store_of(hook)
        # From here, the test behaves as if a minute had passed. If the Connection was edited (`is_edited`), the next
        # hook has a new client and a new backend.
        monkeypatch.setattr(token_backend_module, "_attempts", _due(token_backend_module._attempts))
        store._suspended_until = 0.0
        if is_edited:
            _prepare(object_store, server, monkeypatch, timeout=31)
        server.live.clear()
        await ask(FacekiHook("faceki_shared") if is_edited else hook)

    allowed: set[str] = set()
    _prepare(object_store, server, monkeypatch)
    asyncio.run(wait())
    assert len(lookups.threads) == 2
    assert set(lookups.threads) <= allowed
    # A thread removes the lock object, possibly after the end of the call.
    wait_until(lambda: len(object_store.keys()) == 1)


def _due(attempts: dict[str, Any]) -> dict[str, Any]:
    return {uri: attempt._replace(retry_at=0.0) for uri, attempt in attempts.items()}


def test_a_failed_lookup_is_repeated_on_the_thread_of_the_task(
    server: FakeServer,
    fresh_home: Callable[[str, str], FacekiHook],
    object_store: ObjectStore,
    lookups: Lookups,
    warnings_of_store: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook = fresh_home(object_store.uri("tokens"), "a")
    assert hook.call(FETCH) == ()
    assert "(OSError)" in warnings_of_store()[0]
    store = _store_of(hook)
    monkeypatch.setattr(token_backend_module, "_attempts", _due(token_backend_module._attempts))
    store._suspended_until = 0.0
    with ThreadPoolExecutor(1) as pool:
        pool.submit(hook.get_conn).result()
    assert len(lookups.threads) == 1
    hook.get_conn()
    assert lookups.threads == ["MainThread"] * 2


def test_token_backends_of_the_same_place_are_equal(tmp_path: Path) -> None:
    assert token_backend("s3://c@b/x") == token_backend("s3://c@b/x/")
    assert hash(token_backend("s3://c@b/x")) == hash(token_backend("s3://c@b/x/"))
    assert token_backend("s3://c@b/x") != token_backend("s3://c@b/y")
    assert (
        token_backend(f"file://{tmp_path}") == token_backend(str(tmp_path)) == DirectoryTokenBackend(tmp_path)
    )
