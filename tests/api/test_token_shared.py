# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The shared token store: one token for all hosts, and storages that fail, hang or contain corrupt data."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_faceki.api import client as client_module
from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.errors import AuthenticationError
from airflow_provider_faceki.api.protocol import session
from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest
from airflow_provider_faceki.api.tokens import shared
from airflow_provider_faceki.api.tokens.file import FileTokenStore
from airflow_provider_faceki.api.tokens.sealing import TokenSeal
from airflow_provider_faceki.api.tokens.shared import DirectoryTokenBackend, SharedTokenStore, TokenBackend
from tests.api.certificates import Authority
from tests.api.conftest import CallMode, RecordedWarnings
from tests.api.fake_server import (
    NOTHING_FOUND,
    RECORDS_PATH,
    TOKEN_PATH,
    FakeServer,
    Handler,
    issue_token,
    reply_json,
    require_token,
)
from tests.waiting import LoopTurns, wait_until

pytestmark = pytest.mark.process

FETCH = FetchRecords(request_id="r-1")
SEAL = TokenSeal(TokenRequest("https://kyc.example", "client-canary", "secret-canary"))
TOKEN = AccessToken("t0ken-canary", time.time(), 7200.0)
NEWER = AccessToken("another-canary", time.time() + 5, 7200.0)
LOCK = f"{SEAL.name}.lock.0"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(eq=False)
class FakeBackend:
    """A storage in memory that counts its operations. Tests can make it fail or hang."""

    objects: dict[str, bytes] = field(default_factory=dict)
    operations: list[str] = field(default_factory=list)
    fail: Callable[[str], None] = lambda operation: None
    place: str = "s3://…@bucket/tokens"
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def _note(self, operation: str) -> None:
        self.operations.append(operation)
        self.fail(operation)

    def read(self, name: str, max_bytes: int) -> bytes | None:
        self._note("read")
        content = self.objects.get(name)
        return None if content is None else content[:max_bytes]

    def write(self, name: str, content: bytes) -> None:
        self._note("write")
        self.objects[name] = content

    def create(self, name: str, content: bytes) -> bool:
        self._note("create")
        with self._mutex:
            return self.objects.setdefault(name, content) is content

    def delete(self, name: str) -> None:
        self._note("delete")
        self.objects.pop(name, None)


@dataclass(eq=False)
class LaggingBackend(FakeBackend):
    """A storage that shows changes late, in the order in which they were made.

    :param late: The operations whose changes are late. If ``create`` is late, two hosts can create the same object.
    :param lag: A change becomes visible after this number of further operations.
    """

    late: tuple[str, ...] = ("write", "create", "delete")
    lag: float = math.inf
    _changes: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def show(self) -> None:
        """Make all changes visible."""
        self.lag = 0.0
        self._changes = [(0.0, change) for _, change in self._changes]
        self.read("", 0)

    def _note(self, operation: str) -> None:
        super()._note(operation)
        with self._mutex:
            while self._changes and self._changes[0][0] <= len(self.operations):
                self._changes.pop(0)[1]()

    def _change(self, operation: str, change: Callable[[], object]) -> None:
        self._note(operation)
        with self._mutex:
            if operation in self.late:
                self._changes.append((len(self.operations) + self.lag, change))
            else:
                change()

    def write(self, name: str, content: bytes) -> None:
        self._change("write", lambda: self.objects.update({name: content}))

    def create(self, name: str, content: bytes) -> bool:
        if "create" not in self.late:
            return super().create(name, content)
        if self.read(name, 1) is not None:
            return False
        self._change("create", lambda: self.objects.setdefault(name, content))
        return True

    def delete(self, name: str) -> None:
        self._change("delete", lambda: self.objects.pop(name, None))


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the storage a minute for an operation, and a host five minutes for a token: machines can be busy."""
    monkeypatch.setattr(shared, "MAX_OPERATION_SECONDS", 60.0)
    monkeypatch.setattr(session, "MAX_LOCK_WAIT_SECONDS", 300.0)


@pytest.fixture
def backend() -> FakeBackend:
    """A storage without failures."""
    return FakeBackend()


@pytest.fixture
def host(tmp_path: Path, backend: FakeBackend, warned: RecordedWarnings) -> Callable[[str], SharedTokenStore]:
    """Return a function that creates the token store of a process on the named host."""

    def make(name: str) -> SharedTokenStore:
        return SharedTokenStore(backend, FileTokenStore(tmp_path / name, SEAL, warned), SEAL, warned)

    return make


def test_a_token_reaches_another_host_and_is_then_read_from_its_file(
    host: Callable[[str], SharedTokenStore], backend: FakeBackend, warned: RecordedWarnings
) -> None:
    host("a").set(TOKEN)
    assert host("b").peek() is None
    assert host("b").read() == TOKEN
    before = len(backend.operations)
    assert host("b").read() == host("b").read() == TOKEN
    assert len(backend.operations) == before
    assert warned.messages == []


def test_the_shared_storage_holds_no_plain_secret(
    host: Callable[[str], SharedTokenStore], backend: FakeBackend
) -> None:
    store = host("a")
    lock = store.try_lock()
    assert lock is not None
    store.set(TOKEN)
    told = b"".join(name.encode() + content for name, content in backend.objects.items())
    for word in (b"canary", b"kyc.example", b"7200.0"):
        assert word not in told
    lock.release()
    assert list(backend.objects) == [f"{SEAL.name}.token"]


def test_waiting_hosts_poll_the_storage_rarely(
    host: Callable[[str], SharedTokenStore], backend: FakeBackend
) -> None:
    one, other = host("a"), host("b")
    lock = one.try_lock()
    assert lock is not None
    assert other.try_lock() is None
    before = len(backend.operations)
    for _ in range(10):
        assert other.read() is None
        assert other.try_lock() is None
    assert len(backend.operations) == before
    one.set(TOKEN)
    lock.release()
    wait_until(lambda: other.read() == TOKEN)


def test_the_lock_of_a_killed_host_is_superseded_and_removed(
    host: Callable[[str], SharedTokenStore], backend: FakeBackend
) -> None:
    assert host("a").try_lock() is not None
    waiting = host("b")
    assert waiting.try_lock() is None
    waiting._next_read_at = 0.0
    second = waiting.try_lock(1)
    assert second is not None
    second.release()
    assert LOCK in backend.objects
    backend.objects[LOCK] = json.dumps({"locked_at": time.time() - 3600}).encode()
    lock = host("c").try_lock()
    assert lock is not None
    lock.release()
    assert LOCK not in backend.objects


@pytest.mark.parametrize(
    "is_free",
    [
        pytest.param(False, id="its owner writes it now"),
        pytest.param(True, id="its owner was killed before it wrote"),
    ],
)
def test_an_empty_lock_is_read_again(
    host: Callable[[str], SharedTokenStore],
    backend: FakeBackend,
    monkeypatch: pytest.MonkeyPatch,
    is_free: bool,
) -> None:
    backend.objects[LOCK] = b""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        backend.objects[LOCK] = b"" if is_free else json.dumps({"locked_at": time.time()}).encode()

    monkeypatch.setattr(
        shared, "time", SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=pause)
    )
    assert (host("a").try_lock() is not None) is is_free
    assert pauses == [shared.EMPTY_LOCK_SECONDS]


def test_a_refused_token_is_removed_for_all_and_never_taken_back(
    host: Callable[[str], SharedTokenStore], backend: FakeBackend
) -> None:
    one, other = host("a"), host("b")
    one.set(TOKEN)
    assert other.read() == TOKEN
    one.invalidate(TOKEN)
    assert backend.objects == {}
    backend.objects[f"{SEAL.name}.token"] = SEAL.seal(TOKEN)
    assert one.read() is None
    other.set(NEWER)
    one.invalidate(TOKEN)
    assert one.read() == NEWER


def test_a_token_of_the_storage_does_not_replace_a_newer_one_of_this_host(
    host: Callable[[str], SharedTokenStore], backend: FakeBackend, tmp_path: Path, warned: RecordedWarnings
) -> None:
    host("a").set(TOKEN)

    def fetch_in_another_process(operation: str) -> None:
        FileTokenStore(tmp_path / "b", SEAL, warned).set(NEWER)

    backend.fail = fetch_in_another_process
    assert host("b").read() == NEWER
    assert FileTokenStore(tmp_path / "b", SEAL, warned).read() == NEWER


def _rubbish(content: bytes) -> Callable[[FakeBackend], None]:
    def spoil(backend: FakeBackend) -> None:
        backend.objects |= {f"{SEAL.name}.token": content, LOCK: content, f"{SEAL.name}.lock.1": content}

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(_rubbish(b""), id="empty"),
        pytest.param(_rubbish(b"\x00\xff" * 90_000), id="bytes without end"),
        pytest.param(_rubbish(b"[]"), id="a list"),
        pytest.param(_rubbish(b'{"locked_at": NaN}'), id="no time"),
        pytest.param(_rubbish(b'{"locked_at": 9e99}'), id="a time to come"),
        pytest.param(_rubbish(b'{"locked_at": 1' + b"0" * 400 + b"}"), id="a number beyond all floats"),
        pytest.param(_rubbish(b"[" * 60_000), id="lists without end"),
        pytest.param(_rubbish(SEAL._fernet.encrypt(b'{"v":2}')), id="a token of another version"),
        pytest.param(
            _rubbish(SEAL._fernet.encrypt(b'{"value":"x","lifetime":1,"obtained_at":1' + b"0" * 400 + b"}")),
            id="a sealed number beyond all floats",
        ),
        pytest.param(_rubbish(TokenSeal(TokenRequest("x", "y", "z")).seal(TOKEN)), id="the token of others"),
    ],
)
def test_an_invalid_object_is_replaced_by_the_next_token(
    host: Callable[[str], SharedTokenStore],
    backend: FakeBackend,
    warned: RecordedWarnings,
    spoil: Callable[[FakeBackend], None],
) -> None:
    spoil(backend)
    store = host("a")
    assert store.read() is None
    lock = store.try_lock()
    assert lock is not None
    store.set(TOKEN)
    lock.release()
    assert host("b").read() == TOKEN
    assert warned.messages == []


class _StorageError(Exception):
    """An error like those of botocore: not an ``OSError``, and with a secret in its text."""

    def __str__(self) -> str:
        return "https://key-canary@bucket"


def _raise(operation: str) -> None:
    raise _StorageError


def _raise_at(failing: str) -> Callable[[str], None]:
    def fail(operation: str) -> None:
        if operation == failing:
            raise _StorageError

    return fail


def _hang(operation: str) -> None:
    time.sleep(600.0)


@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(_raise, id="fails"),
        pytest.param(_hang, id="hangs"),
        *(
            pytest.param(_raise_at(name), id=f"fails to {name}")
            for name in ("read", "write", "create", "delete")
        ),
    ],
)
def test_calls_succeed_while_the_token_storage_fails(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    backend: FakeBackend,
    warned: RecordedWarnings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[str], None],
) -> None:
    monkeypatch.setattr(shared, "MAX_OPERATION_SECONDS", 0.2)
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    backend.fail = fail
    sharing = replace(client, token_directory=tmp_path / "home", token_backend=backend, warn=warned)
    started = time.monotonic()
    for _ in range(3):
        assert call(sharing, FETCH) == ()
    assert server.token_requests == 1
    server.live.clear()
    assert call(sharing, FETCH) == ()
    assert server.token_requests == 2
    assert time.monotonic() - started < 120
    wait_until(lambda: warned.messages)
    assert len(warned.messages) == 1
    assert warned.messages[0].startswith("the FACEKI token cannot be shared through s3://…@bucket/tokens (")
    assert warned.messages[0].endswith("this host now fetches its own")
    assert "canary" not in warned.messages[0]


@pytest.mark.parametrize("trouble", ["is slow", "is slow and lags", "hangs"])
def test_a_storage_does_not_stop_the_event_loop_if_it(
    server: FakeServer,
    client: FacekiClient,
    warned: RecordedWarnings,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    turns = LoopTurns()
    backend = LaggingBackend(lag=5) if trouble == "is slow and lags" else FakeBackend()
    backend.fail = lambda operation: turns.wait_for_more()
    if trouble == "hangs":
        # This replacement of the time limit gives up after further turns of the loop, so the test measures no time.
        def give_up(seconds: float, operation: Callable[[], object]) -> object:
            turns.wait_for_more()
            raise TimeoutError

        monkeypatch.setattr(shared, "_within", give_up)

    async def ten_calls() -> None:
        sharing = replace(client, token_backend=backend, warn=warned).as_async()
        await asyncio.gather(*(sharing.call(FETCH) for _ in range(10)))

    asyncio.run(turns.count_during(ten_calls()))
    assert server.token_requests == 1
    assert len(warned.messages) == (1 if trouble == "hangs" else 0)
    backend.fail = lambda operation: None

    def is_unlocked() -> bool:
        backend.read("", 0)
        return not any("lock" in name for name in backend.objects)

    # A thread removes the lock object, possibly after the end of the call.
    wait_until(is_unlocked)


@dataclass(eq=False)
class RefusingBackend(FakeBackend):
    """A storage that refuses to create objects, and reports that they already exist.

    :param creates_every: With the value n, each n-th attempt does create the object. By default, no attempt does.
    """

    creates_every: float = math.inf

    def create(self, name: str, content: bytes) -> bool:
        attempts = self.operations.count("create") + 1
        if attempts % self.creates_every == 0:
            return super().create(name, content)
        self._note("create")
        return False


@pytest.fixture
def refused(
    server: FakeServer,
    client: FacekiClient,
    warned: RecordedWarnings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> FacekiClient:
    """A client whose shared storage refuses to create a lock."""
    monkeypatch.setattr(shared, "POLL_SECONDS", 0.0)
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    return replace(client, token_directory=tmp_path / "a", token_backend=RefusingBackend(), warn=warned)


def test_a_storage_that_creates_no_lock_is_not_used(
    server: FakeServer, refused: FacekiClient, warned: RecordedWarnings
) -> None:
    assert refused.call(FETCH) == ()
    assert server.token_requests == 1
    assert isinstance(refused.token_backend, RefusingBackend)
    assert refused.token_backend.operations.count("create") == shared.MAX_MISSING_LOCKS
    (warning,) = warned.messages
    assert "the storage refuses to create an object that does not exist" in warning


def test_refused_creations_of_an_earlier_lock_do_not_count(
    server: FakeServer, refused: FacekiClient, warned: RecordedWarnings
) -> None:
    sharing = replace(refused, token_backend=RefusingBackend(creates_every=shared.MAX_MISSING_LOCKS))
    for number in (1, 2):
        assert sharing.call(FETCH) == ()
        assert server.token_requests == number
        server.live.clear()
    assert warned.messages == []


def test_a_failed_token_request_frees_the_lock(
    call: CallMode, server: FakeServer, client: FacekiClient, backend: FakeBackend, tmp_path: Path
) -> None:
    server.on(TOKEN_PATH, reply_json({}, 401))
    sharing = replace(client, token_directory=tmp_path / "a", token_backend=backend)
    with pytest.raises(AuthenticationError):
        call(sharing, FETCH)
    wait_until(lambda: not backend.objects)


@pytest.fixture
def process_on(
    server: FakeServer,
    client: FacekiClient,
    warned: RecordedWarnings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, TokenBackend], FacekiClient]:
    """Return a function that creates the client of a new process on the named host.

    Each client has its own store, as in separate processes. The server requires a token.
    """
    monkeypatch.setattr(client_module, "shared_store", lambda _key, make: make())
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))

    def make(host: str, backend: TokenBackend) -> FacekiClient:
        return replace(client, token_directory=tmp_path / host, token_backend=backend, warn=warned)

    return make


@pytest.mark.parametrize(
    "hosts", [pytest.param(8, id="eight fresh homes"), pytest.param(3, id="three hosts")]
)
def test_hosts_that_start_at_the_same_time_fetch_one_token(
    server: FakeServer, tmp_path: Path, process_on: Callable[[str, TokenBackend], FacekiClient], hosts: int
) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.4)
        issue_token()(handler)

    server.on(TOKEN_PATH, slow)
    backend = DirectoryTokenBackend(tmp_path / "volume")
    with ThreadPoolExecutor(24) as threads:
        calls = [
            threads.submit(process_on(f"home-{number % hosts}", backend).call, FETCH) for number in range(24)
        ]
        assert [one.result(120) for one in calls] == [()] * 24
    assert server.token_requests == 1


@pytest.mark.parametrize("lag", [pytest.param(50, id="for a while"), pytest.param(math.inf, id="for ever")])
@pytest.mark.parametrize(
    "late",
    [
        pytest.param(("write",), id="tokens"),
        pytest.param(("delete",), id="released locks"),
        pytest.param(("write", "create", "delete"), id="all"),
    ],
)
def test_hosts_that_begin_at_once_fetch_one_token_each_at_most_if_the_storage_lags(
    call: CallMode,
    server: FakeServer,
    warned: RecordedWarnings,
    process_on: Callable[[str, TokenBackend], FacekiClient],
    late: tuple[str, ...],
    lag: float,
) -> None:
    backend = LaggingBackend(late=late, lag=lag)
    with ThreadPoolExecutor(24) as threads:
        calls = [
            threads.submit(call, process_on(f"home-{number % 3}", backend), FETCH) for number in range(24)
        ]
        assert [one.result(120) for one in calls] == [()] * 24
    assert server.token_requests <= (3 if "write" in late else 1)
    backend.show()
    before = server.token_requests
    assert call(process_on("a new home", backend), FETCH) == ()
    assert server.token_requests == before
    assert warned.messages == []


def test_a_refused_token_that_a_storage_still_shows_costs_one_token_for_each_host(
    call: CallMode,
    server: FakeServer,
    warned: RecordedWarnings,
    process_on: Callable[[str, TokenBackend], FacekiClient],
) -> None:
    backend = LaggingBackend(lag=0)
    homes = ["a", "b", "c"]

    def calls_of_new_processes() -> int:
        for home in homes * 2:
            assert call(process_on(home, backend), FETCH) == ()
        return server.token_requests

    assert calls_of_new_processes() == 1
    server.live.clear()
    backend.lag = math.inf
    assert calls_of_new_processes() == 1 + 3
    homes.append("a new home")
    assert calls_of_new_processes() == 1 + 4
    backend.show()
    homes.append("another new home")
    assert calls_of_new_processes() == 1 + 4
    assert warned.messages == []


def test_a_killed_host_delays_the_others_until_the_lock_timeout_only(
    server: FakeServer, client: FacekiClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_LOCK_WAIT_SECONDS", 0.5)
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    backend = DirectoryTokenBackend(tmp_path / "volume")
    killed = replace(client, token_directory=tmp_path / "a", token_backend=backend)
    assert killed._session.tokens.try_lock() is not None
    other = replace(client, token_directory=tmp_path / "b", token_backend=backend)
    assert other.call(FETCH) == ()
    assert server.token_requests == 1


@pytest.fixture
def processes(
    server: FakeServer, authority: Authority, tmp_path: Path
) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Return a function that starts a worker process on the named host."""
    started: list[subprocess.Popen[str]] = []

    def start(home: str) -> subprocess.Popen[str]:
        arguments = [server.url, "client-1", f"secret-{tmp_path}", str(tmp_path / home), authority.bundle]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.api.worker", *arguments, str(tmp_path / "volume")],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=120)


def test_forty_tasks_and_ten_waits_on_three_hosts_fetch_one_token(
    server: FakeServer,
    client: FacekiClient,
    tmp_path: Path,
    processes: Callable[[str], subprocess.Popen[str]],
) -> None:
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    tasks = [processes(f"home-{number % 3}") for number in range(40)]
    for task in tasks:
        assert task.stdout is not None
        assert task.stdout.readline() == "ready\n"
    waits = replace(
        client,
        client_id="client-1",
        client_secret=f"secret-{tmp_path}",
        token_directory=tmp_path / "home-2",
        token_backend=DirectoryTokenBackend(tmp_path / "volume"),
    ).as_async()

    async def wait_for_ten() -> None:
        await asyncio.gather(*(waits.call(FETCH) for _ in range(10)))

    for task in tasks:
        assert task.stdin is not None
        task.stdin.write("ask\n")
        task.stdin.flush()
    asyncio.run(wait_for_ten())
    assert [task.stdout.readline() for task in tasks if task.stdout] == ["found 0\n"] * 40
    assert server.token_requests == 1


def test_files_on_a_shared_volume_are_private_and_whole(tmp_path: Path) -> None:
    backend = DirectoryTokenBackend(tmp_path / "volume" / "deep")
    backend.write("name", b"old")
    backend.write("name", b"new")
    assert backend.read("name", 2) == b"ne"
    assert backend.create("lock", b"1") is True
    assert backend.create("lock", b"2") is False
    assert sorted(path.name for path in backend.path.iterdir()) == ["lock", "name"]
    assert {path.stat().st_mode & 0o777 for path in backend.path.iterdir()} == {0o600}
    assert backend.path.stat().st_mode & 0o777 == 0o700
    backend.delete("lock")
    backend.delete("lock")
    assert backend.read("lock", 9) is None


def test_a_directory_below_a_volume_that_a_group_can_write_to(
    tmp_path: Path, warned: RecordedWarnings
) -> None:
    # Kubernetes makes the root of a volume writable for the group of a pod (``fsGroup``). Therefore the tokens are in a
    # private directory below the root.
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2770)
    backend = DirectoryTokenBackend(volume / "tokens")
    stores = [
        SharedTokenStore(backend, FileTokenStore(tmp_path / home, SEAL, warned), SEAL, warned)
        for home in ("a", "b")
    ]
    stores[0].set(TOKEN)
    assert stores[1].read() == TOKEN
    assert backend.path.stat().st_mode & 0o777 == 0o700
    assert warned.messages == []
    # The file store does not trust the volume itself as its directory, because a group can write to it.
    FileTokenStore(volume, SEAL, warned).set(TOKEN)
    assert "open to others" in warned.messages[0]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_token_path_that_is_no_regular_file_is_not_read(tmp_path: Path, kind: str) -> None:
    backend = DirectoryTokenBackend(tmp_path)
    path = tmp_path / "name"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert _read_or_error(backend) in {b"", OSError}


def _read_or_error(backend: DirectoryTokenBackend) -> object:
    try:
        return backend.read("name", 9)
    except OSError:
        return OSError
