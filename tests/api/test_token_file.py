# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The token store in a file: sharing between the processes of a host, and protection from other users."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest
from airflow_provider_faceki.api.service import AuthFlow
from airflow_provider_faceki.api.tokens.file import FileTokenStore
from airflow_provider_faceki.api.tokens.sealing import TokenSeal
from tests.api.conftest import RecordedWarnings

SECRET = "s3cr3t-canary"
CLIENT = "client-canary"
BASE = "https://kyc-canary.example"
TOKEN = AccessToken("t0ken-canary", 1000.0, 3600.0)
NEWER = AccessToken("another-canary", 2000.0, 3600.0)


def seal(secret: str = SECRET, client: str = CLIENT, flow: AuthFlow = AuthFlow.GENERATE_TOKEN) -> TokenSeal:
    """Return the encryption of an account's tokens."""
    return TokenSeal(TokenRequest(BASE, client, secret, flow))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Path of the folder for the token files. The folder does not exist yet."""
    return tmp_path / "tokens"


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set the umask of the process to each of the parameters."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def _files(folder: Path) -> dict[str, str]:
    return {path.name: stat.filemode(path.lstat().st_mode) for path in folder.iterdir()}


def test_processes_share_a_token(folder: Path, warned: RecordedWarnings) -> None:
    ours, theirs = (FileTokenStore(folder, seal(), warned) for _ in range(2))
    assert ours.read() is theirs.read() is None
    ours.set(TOKEN)
    assert theirs.peek() is None
    assert theirs.read() == TOKEN
    assert theirs.peek() == TOKEN
    theirs.set(NEWER)
    assert ours.peek() == TOKEN
    assert ours.read() == NEWER
    assert warned.messages == []


def test_a_refused_token_is_not_read_back(folder: Path, warned: RecordedWarnings) -> None:
    ours, theirs = (FileTokenStore(folder, seal(), warned) for _ in range(2))
    ours.set(TOKEN)
    theirs.read()
    theirs.invalidate(TOKEN)
    assert theirs.read() is None
    assert FileTokenStore(folder, seal(), warned).read() is None
    # `ours` invalidates the old token after `theirs` has stored a newer token. The newer token must stay.
    theirs.set(NEWER)
    ours.invalidate(TOKEN)
    assert ours.read() == NEWER
    assert warned.messages == []


def test_while_another_process_fetches_the_file_is_left_alone(folder: Path, warned: RecordedWarnings) -> None:
    ours, theirs = (FileTokenStore(folder, seal(), warned) for _ in range(2))
    ours.set(TOKEN)
    fetching = theirs.try_lock()
    assert fetching is not None
    ours.invalidate(TOKEN)
    # The file still contains the token, and only the store that saw the refusal does not use it.
    assert theirs.read() == TOKEN
    assert ours.read() is None
    fetching.release()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], indirect=True)
@pytest.mark.usefixtures("umask")
def test_token_files_are_readable_by_their_owner_only(folder: Path, warned: RecordedWarnings) -> None:
    store = FileTokenStore(folder / "deeper" / "still", seal(), warned)
    lock = store.try_lock()
    assert lock is not None
    store.set(TOKEN)
    lock.release()
    made = folder / "deeper" / "still"
    assert stat.filemode(made.stat().st_mode) == "drwx------"
    files = _files(made)
    assert sorted(name.partition(".")[2] for name in files) == ["lock", "token"]
    assert set(files.values()) == {"-rw-------"}
    assert warned.messages == []


def test_names_and_contents_of_token_files_hold_no_secret(folder: Path, warned: RecordedWarnings) -> None:
    store = FileTokenStore(folder, seal(), warned)
    store.set(TOKEN)
    told = "".join(_files(folder)).encode() + b"".join(path.read_bytes() for path in folder.iterdir())
    for word in (TOKEN.value, SECRET, CLIENT, BASE, "canary", "3600", "generate"):
        assert word.encode() not in told
    assert all(len(name) == 40 for name in (file.partition(".")[0] for file in _files(folder)))


def test_a_file_of_another_secret_is_ignored_and_replaced(folder: Path, warned: RecordedWarnings) -> None:
    FileTokenStore(folder, seal(), warned).set(TOKEN)
    rotated = FileTokenStore(folder, seal("another"), warned)
    assert rotated.read() is None
    rotated.set(NEWER)
    assert len(_files(folder)) == 1
    assert FileTokenStore(folder, seal("another"), warned).read() == NEWER
    assert FileTokenStore(folder, seal(), warned).read() is None
    assert warned.messages == []


def test_a_token_file_of_another_account_is_not_read(folder: Path, warned: RecordedWarnings) -> None:
    ours = FileTokenStore(folder, seal(), warned)
    ours.set(TOKEN)
    (mine,) = folder.iterdir()
    for other in (seal(client="other"), seal(flow=AuthFlow.ACCESS_TOKEN_BODY)):
        assert FileTokenStore(folder, other, warned).read() is None
        FileTokenStore(folder, other, warned).set(NEWER)
    assert len(_files(folder)) == 3
    for path in set(folder.iterdir()) - {mine}:
        shutil.copy2(path, mine)
        assert FileTokenStore(folder, seal(), warned).read() is None
    assert warned.messages == []


def _another(byte: bytes) -> bytes:
    return b"B" if byte == b"A" else b"A"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda sealed: b"", id="empty"),
        pytest.param(lambda sealed: sealed[:-1], id="truncated"),
        pytest.param(lambda sealed: sealed[: len(sealed) // 2], id="half"),
        pytest.param(lambda sealed: sealed[:60] + _another(sealed[60:61]) + sealed[61:], id="changed"),
        pytest.param(lambda sealed: b"\x00\xff" * 40, id="bytes"),
        pytest.param(lambda sealed: b'{"value":"evil"}', id="plain JSON"),
        pytest.param(lambda sealed: b"A" + sealed, id="something before it"),
    ],
)
def test_a_damaged_token_file_is_ignored_and_replaced(
    folder: Path, warned: RecordedWarnings, spoil: object
) -> None:
    assert callable(spoil)
    FileTokenStore(folder, seal(), warned).set(TOKEN)
    (path,) = folder.iterdir()
    path.write_bytes(spoil(path.read_bytes()))
    store = FileTokenStore(folder, seal(), warned)
    assert store.read() is None
    store.set(NEWER)
    assert FileTokenStore(folder, seal(), warned).read() == NEWER
    assert warned.messages == []


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="list"),
        pytest.param("x", id="string"),
        pytest.param(None, id="null"),
        pytest.param({"value": "x"}, id="fields missing"),
        pytest.param({"value": "x", "obtained_at": "soon", "lifetime": 1}, id="word for a number"),
        pytest.param({"value": "x", "obtained_at": None, "lifetime": 1}, id="null for a number"),
    ],
)
def test_a_token_file_of_another_version_is_ignored_with_one_warning(
    folder: Path, warned: RecordedWarnings, document: object
) -> None:
    store = FileTokenStore(folder, seal(), warned)
    store.set(TOKEN)
    (path,) = folder.iterdir()
    path.write_bytes(store._seal._fernet.encrypt(json.dumps(document).encode()))
    fresh = FileTokenStore(folder, seal(), warned)
    assert fresh.read() is fresh.read() is None
    assert len(warned.messages) == 1
    assert "another version" in warned.messages[0]


def open_in(folder: Path) -> list[str]:
    """Return the files in ``folder`` that this process has open. Other threads possibly close files meanwhile."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [path for path in found if path.startswith(str(folder))]


def test_one_lock_on_a_host_and_no_descriptor_lost(folder: Path, warned: RecordedWarnings) -> None:
    ours, theirs = (FileTokenStore(folder, seal(), warned) for _ in range(2))
    for _ in range(50):
        lock = ours.try_lock()
        assert lock is not None
        assert open_in(folder) != []
        assert theirs.try_lock() is None
        assert ours.try_lock() is None
        lock.release()
        lock.release()
        again = theirs.try_lock()
        assert again is not None
        # The lock object is deleted without a call of release().
        del again
        ours.set(TOKEN)
        theirs.read()
        theirs.invalidate(TOKEN)
    assert open_in(folder) == []
    assert warned.messages == []


def test_processes_may_make_the_folder_at_the_same_time(
    folder: Path, warned: RecordedWarnings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.mkdir

    def made_by_another_process(path: str, mode: int = 0o777) -> None:
        if not folder.exists():
            make(folder, 0o700)
            raise FileNotFoundError(errno.ENOENT, "not yet there when we looked", str(path))
        make(path, mode)

    monkeypatch.setattr(os, "mkdir", made_by_another_process)
    FileTokenStore(folder, seal(), warned).set(TOKEN)
    assert warned.messages == []
    assert FileTokenStore(folder, seal(), warned).read() == TOKEN


def test_a_full_disk_warns_once_and_the_token_stays_in_memory(folder: Path, warned: RecordedWarnings) -> None:
    store = FileTokenStore(folder, seal(), warned)
    store.set(TOKEN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        for _ in range(3):
            lock = store.try_lock()
            assert lock is not None
            store.set(NEWER)
            lock.release()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert store.read() == NEWER
    assert len(warned.messages) == 1
    assert "File too large" in warned.messages[0]
    assert str(folder) in warned.messages[0]
    assert "canary" not in warned.messages[0].replace(str(folder), "")
    assert sorted(name.partition(".")[2] for name in _files(folder)) == ["lock", "token"]


def test_no_reader_sees_a_partial_token_file(folder: Path, warned: RecordedWarnings) -> None:
    tokens = [AccessToken("x" * length, 1000.0 + length, 3600.0) for length in (10, 6000)]
    writer = FileTokenStore(folder, seal(), warned)
    writer.set(tokens[0])
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            for token in tokens:
                writer.set(token)
                over.wait(0.0005)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        # Each read uses a new store. A store with a token in memory would hide a failed read.
        seen = {len(found.value) if (found := _fresh(folder, warned).read()) else 0 for _ in range(2000)}
    finally:
        over.set()
        writing.join(120)
    assert seen == {10, 6000}
    assert warned.messages == []


def _fresh(folder: Path, warned: RecordedWarnings) -> FileTokenStore:
    return FileTokenStore(folder, seal(), warned)
