# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Token files with another owner, mode, type or content are not used, and cause only a warning."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest
from airflow_provider_faceki.api.tokens.file import FileTokenStore
from airflow_provider_faceki.api.tokens.sealing import TokenSeal
from tests.api.conftest import CallMode, RecordedWarnings
from tests.api.fake_server import NOTHING_FOUND, RECORDS_PATH, FakeServer, reply_json, require_token

ACCOUNT = TokenSeal(TokenRequest("https://kyc.example", "client-1", "s3cret"))
PLANTED = AccessToken("planted", 1000.0, 3600.0)
OURS = AccessToken("ours", 2000.0, 3600.0)
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
needs_a_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def _file(folder: Path, ending: str) -> Path:
    (path,) = folder.glob(f"*.{ending}")
    return path


def _mode(ending: str, mode: int) -> Callable[[Path], None]:
    return lambda folder: _file(folder, ending).chmod(mode)


def _linked(ending: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = _file(folder, ending)
        path.rename(folder.parent / "elsewhere")
        path.symlink_to(folder.parent / "elsewhere")

    return spoil


def _replaced(ending: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = _file(folder, ending)
        path.unlink()
        make(path)

    return spoil


def _linked_folder(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


def _file_for_a_folder(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.write_text("")


def _socket(path: Path) -> None:
    # The path of a Unix socket must be short, so the socket is bound with a relative path.
    here = os.getcwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name[:40])
    os.rename(path.name[:40], path)
    os.chdir(here)


def _large(path: Path) -> None:
    path.touch(0o600)
    path.write_bytes(b"x" * 70_000)


SPOILT_TOKENS = [
    pytest.param(_mode("token", 0o640), "open to others (mode 0640)", id="readable by the group"),
    pytest.param(_mode("token", 0o604), "open to others (mode 0604)", id="readable by all"),
    pytest.param(_mode("token", 0o622), "open to others (mode 0622)", id="writable by all"),
    pytest.param(_linked("token"), "a link or a pipe", id="link"),
    pytest.param(_replaced("token", os.mkfifo), "not of the right kind", id="pipe"),
    pytest.param(_replaced("token", Path.mkdir), "not of the right kind", id="folder"),
    pytest.param(_replaced("token", _socket), "a link or a pipe", id="socket"),
    pytest.param(_replaced("token", _large), "too large", id="large"),
    pytest.param(
        lambda folder: os.chown(_file(folder, "token"), NOBODY, -1),
        "belongs to another user",
        id="another's",
        marks=needs_root,
    ),
    pytest.param(_mode("token", 0o200), "Permission denied", id="not readable", marks=needs_a_user),
]
SPOILT_CLAIMS = [
    pytest.param(_mode("lock", 0o666), "open to others (mode 0666)", id="lock writable by all"),
    pytest.param(_linked("lock"), "a link or a pipe", id="lock a link"),
    pytest.param(_replaced("lock", os.mkfifo), "not of the right kind", id="lock a pipe"),
    pytest.param(_replaced("lock", Path.mkdir), "Is a directory", id="lock a folder"),
    pytest.param(
        lambda folder: os.chown(_file(folder, "lock"), NOBODY, -1),
        "belongs to another user",
        id="lock another's",
        marks=needs_root,
    ),
]
SPOILT_FOLDERS = [
    pytest.param(lambda folder: folder.chmod(0o750), "open to others (mode 0750)", id="folder of a group"),
    pytest.param(lambda folder: folder.chmod(0o707), "open to others (mode 0707)", id="folder of all"),
    pytest.param(lambda folder: folder.chmod(0o1777), "open to others (mode 1777)", id="folder like /tmp"),
    pytest.param(_linked_folder, "a link or not a directory", id="folder a link"),
    pytest.param(_file_for_a_folder, "a link or not a directory", id="folder a file"),
    pytest.param(
        lambda folder: os.chown(folder, NOBODY, -1),
        "belongs to another user",
        id="another's folder",
        marks=needs_root,
    ),
    pytest.param(lambda f: f.chmod(0o500), "Permission denied", id="read-only folder", marks=needs_a_user),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that the provider created, with a token file and a lock file."""
    folder = tmp_path / "tokens"
    store = FileTokenStore(folder, ACCOUNT, RecordedWarnings([]))
    lock = store.try_lock()
    assert lock is not None
    store.set(PLANTED)
    lock.release()
    return folder


def _check_memory_only(store: FileTokenStore, warned: RecordedWarnings, told: str) -> None:
    """Check that the store uses only its memory and has logged one warning."""
    for _ in range(2):
        lock = store.try_lock()
        assert lock is not None
        assert store.try_lock() is None
        store.set(OURS)
        assert store.peek() == store.read() == OURS
        lock.release()
        store.invalidate(OURS)
        assert store.peek() is None
    assert len(warned.messages) == 1, warned.messages
    assert told in warned.messages[0]
    assert warned.messages[0].endswith("each process now fetches its own")
    assert "s3cret" not in warned.messages[0]
    assert "client-1" not in warned.messages[0]


@pytest.mark.parametrize(("spoil", "told"), [*SPOILT_TOKENS, *SPOILT_FOLDERS])
def test_a_token_file_with_unsafe_access_is_ignored(
    folder: Path, warned: RecordedWarnings, spoil: Callable[[Path], None], told: str
) -> None:
    trusting = FileTokenStore(folder, ACCOUNT, warned)
    assert trusting.read() == PLANTED
    spoil(folder)
    store = FileTokenStore(folder, ACCOUNT, warned)
    assert store.read() is None
    _check_memory_only(store, warned, told)


@pytest.mark.parametrize(("spoil", "told"), SPOILT_CLAIMS)
def test_a_lock_file_with_unsafe_access_is_not_waited_for(
    folder: Path, warned: RecordedWarnings, spoil: Callable[[Path], None], told: str
) -> None:
    spoil(folder)
    store = FileTokenStore(folder, ACCOUNT, warned)
    assert store.read() == PLANTED
    _check_memory_only(store, warned, told)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        pytest.param("/dev/null/tokens", "Not a directory", id="under a device"),
        pytest.param("/proc/self/tokens", "No such file", id="where nothing can be made"),
        pytest.param("/" + "x" * 300, "File name too long", id="no name"),
    ],
)
def test_without_a_token_folder_tokens_stay_in_memory(warned: RecordedWarnings, path: str, told: str) -> None:
    _check_memory_only(FileTokenStore(Path(path), ACCOUNT, warned), warned, told)


@pytest.mark.parametrize(("spoil", "told"), SPOILT_TOKENS[:4])
def test_the_next_token_replaces_an_unsafe_token_file(
    folder: Path, warned: RecordedWarnings, spoil: Callable[[Path], None], told: str
) -> None:
    spoil(folder)
    store = FileTokenStore(folder, ACCOUNT, warned)
    assert store.read() is None
    store.set(OURS)
    assert FileTokenStore(folder, ACCOUNT, warned).read() == OURS
    assert [told in messages for messages in warned.messages] == [True]
    elsewhere = folder.parent / "elsewhere"
    assert not elsewhere.exists() or b"ours" not in elsewhere.read_bytes()


@pytest.mark.parametrize(("spoil", "told"), [*SPOILT_TOKENS[:1], *SPOILT_CLAIMS[:1], *SPOILT_FOLDERS[:1]])
def test_calls_succeed_with_unsafe_token_files(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    tmp_path: Path,
    warned: RecordedWarnings,
    spoil: Callable[[Path], None],
    told: str,
) -> None:
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    sharing = replace(client, token_directory=tmp_path / "tokens", warn=warned)
    call(sharing, FetchRecords(link="l"))
    spoil(tmp_path / "tokens")
    server.live.clear()
    for _ in range(3):
        assert call(sharing, FetchRecords(link="l")) == ()
    assert server.token_requests == 2
    assert len(warned.messages) == 1
    assert told in warned.messages[0]
