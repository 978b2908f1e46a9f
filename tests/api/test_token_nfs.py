# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Token directories on a network file system: without locks, with lost handles, with the owner ``nobody``.

No NFS server is available to the tests. Stubs raise the errors that the client of NFS raises.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest
from airflow_provider_faceki.api.tokens.file import FileTokenStore
from airflow_provider_faceki.api.tokens.sealing import TokenSeal
from airflow_provider_faceki.api.tokens.shared import DirectoryTokenBackend
from tests.api.conftest import CallMode, RecordedWarnings
from tests.api.fake_server import NOTHING_FOUND, RECORDS_PATH, FakeServer, reply_json, require_token

FETCH = FetchRecords(request_id="r-1")
TOKEN = AccessToken("t0ken", 1000.0, 3600.0)
NOBODY = 65534

#: Function that makes a file system fail for the files of a folder.
Fail = Callable[[pytest.MonkeyPatch, Path], None]


def _place(argument: object) -> str:
    """Return the path of an argument, which is a path or a descriptor."""
    return os.readlink(f"/proc/self/fd/{argument}") if isinstance(argument, int) else str(argument)


def _fails(
    name: str,
    number: int,
    *,
    module: ModuleType = os,
    ending: str = "",
    is_meant: Callable[..., bool] = lambda *_: True,
    is_done: bool = False,
) -> Fail:
    """Make a function of a module raise an ``OSError``.

    :param name: Name of the function.
    :param number: Error number of the ``OSError``.
    :param module: Module of the function.
    :param ending: The function fails only for paths with this end.
    :param is_meant: Returns whether the function fails for these arguments.
    :param is_done: Whether the function does its work before it raises, as after a lost answer of the server.
    """

    def fail(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        original = getattr(module, name)

        def stub(*arguments: Any, **options: Any) -> Any:
            place = _place(options.get("dir_fd", options.get("src_dir_fd", arguments[0])))
            place = place if place.endswith(ending) else _place(arguments[0])
            if str(folder) not in place or not place.endswith(ending) or not is_meant(*arguments):
                return original(*arguments, **options)
            if is_done:
                original(*arguments, **options)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(module, name, stub)

    return fail


def _locks(number: int) -> Fail:
    return _fails("flock", number, module=fcntl, is_meant=lambda _, operation: operation & fcntl.LOCK_EX)


def _unlocks(number: int) -> Fail:
    return _fails("flock", number, module=fcntl, is_meant=lambda _, operation: operation == fcntl.LOCK_UN)


def _both(*fails: Fail) -> Fail:
    def fail(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        for each in fails:
            each(monkeypatch, folder)

    return fail


def _belongs_to_nobody(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    original = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        found = list(original(descriptor))
        if str(folder) in _place(descriptor):
            found[4] = NOBODY
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", fstat)


def _silly_renames(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let each removed file leave a ``.nfs`` file, as NFS does if a process still has the removed file open."""
    original = os.unlink

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:
            place = Path(_place(dir_fd))
            (place / f".nfs{len(list(place.iterdir())):024d}").write_bytes((place / path).read_bytes())
        original(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)


@pytest.mark.parametrize(
    ("fail", "told"),
    [
        pytest.param(_locks(errno.ENOLCK), "No locks available", id="no locks"),
        pytest.param(_locks(errno.EOPNOTSUPP), "not supported", id="locks not supported"),
        pytest.param(_locks(errno.ENOSYS), "not implemented", id="locks not implemented"),
        pytest.param(_locks(errno.EACCES), "Permission denied", id="locks not allowed"),
        pytest.param(_unlocks(errno.ENOLCK), None, id="a lock that cannot be released"),
        pytest.param(_unlocks(errno.ESTALE), None, id="a lock whose file is gone"),
        pytest.param(_fails("close", errno.EIO, ending=".lock", is_done=True), None, id="close of a lock"),
        pytest.param(_belongs_to_nobody, "belongs to another user", id="root squash"),
        pytest.param(_fails("mkdir", errno.EACCES), "Permission denied", id="root squash, no directory"),
        pytest.param(
            _fails("open", errno.ESTALE, ending="tokens"), "Stale file handle", id="stale directory"
        ),
        pytest.param(_fails("rename", errno.ESTALE), "Stale file handle", id="stale directory at rename"),
        pytest.param(
            _fails("rename", errno.ENOENT, is_done=True), "No such file", id="lost answer of rename"
        ),
        pytest.param(
            _both(_fails("rename", errno.EIO), _fails("unlink", errno.ESTALE)),
            "Stale file handle|Input/output error",
            id="lost server at rename",
        ),
        pytest.param(_fails("unlink", errno.EBUSY), "busy", id="a file that cannot be removed"),
        pytest.param(_silly_renames, None, id="silly rename"),
    ],
)
def test_a_directory_for_one_host(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warned: RecordedWarnings,
    fail: Fail,
    told: str | None,
) -> None:
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    sharing = replace(client, token_directory=tmp_path / "tokens", warn=warned)
    fail(monkeypatch, tmp_path / "tokens")
    for token_requests in (1, 2, 3):
        assert call(sharing, FETCH) == ()
        assert call(sharing, FETCH) == ()
        assert server.token_requests == token_requests
        server.live.clear()
    assert len(warned.messages) == (told is not None)
    for message in warned.messages:
        assert [part for part in (told or "").split("|") if part in message]
        assert client.client_secret not in message


@pytest.mark.parametrize(
    ("fail", "is_told"),
    [
        pytest.param(_fails("mkdir", errno.EACCES), True, id="root squash, no directory"),
        pytest.param(_fails("open", errno.EACCES), True, id="root squash"),
        pytest.param(_fails("open", errno.ESTALE), True, id="stale directory"),
        pytest.param(_fails("replace", errno.ESTALE), True, id="stale directory at rename"),
        pytest.param(_fails("replace", errno.ENOENT, is_done=True), True, id="lost answer of rename"),
        pytest.param(_fails("unlink", errno.EBUSY), True, id="a file that cannot be removed"),
        pytest.param(_locks(errno.ENOLCK), False, id="no locks"),
        pytest.param(_belongs_to_nobody, False, id="owner nobody"),
    ],
)
def test_a_directory_for_all_hosts(
    call: CallMode,
    server: FakeServer,
    client: FacekiClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warned: RecordedWarnings,
    fail: Fail,
    is_told: bool,
) -> None:
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    folder = tmp_path / "shared"
    sharing = replace(client, token_backend=DirectoryTokenBackend(folder), warn=warned)
    fail(monkeypatch, folder)
    for token_requests in (1, 2):
        assert call(sharing, FETCH) == ()
        assert call(sharing, FETCH) == ()
        assert server.token_requests == token_requests
        server.live.clear()
    assert len(warned.messages) == int(is_told)
    assert [name for name in _names(folder) if name not in {"token", "lock.0"}] == []


def _names(folder: Path) -> list[str]:
    """Return the names of the files without the name of the account."""
    return [path.name.partition(".")[2] for path in folder.iterdir()] if folder.exists() else []


class _Killed(BaseException):
    """Exception that Airflow uses to end a task. It is not a subclass of Exception."""


def _kill(*_: object, **__: object) -> None:
    raise _Killed


@pytest.mark.parametrize(
    ("name", "write"),
    [
        pytest.param(
            "rename",
            lambda folder, warned: FileTokenStore(
                folder, TokenSeal(TokenRequest("https://kyc.example", "client-1", "s3cret")), warned
            ).set(TOKEN),
            id="one host",
        ),
        pytest.param(
            "replace", lambda folder, _: DirectoryTokenBackend(folder).write("a.token", b"x"), id="all hosts"
        ),
    ],
)
@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(lambda monkeypatch, folder: None, id="a file system that works"),
        pytest.param(_fails("unlink", errno.ESTALE), id="a lost server"),
    ],
)
def test_a_kill_during_file_operations_is_raised(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warned: RecordedWarnings,
    name: str,
    write: Callable[[Path, RecordedWarnings], None],
    fail: Fail,
) -> None:
    folder = tmp_path / "tokens"
    fail(monkeypatch, folder)
    monkeypatch.setattr(os, name, _kill)
    with pytest.raises(_Killed):
        write(folder, warned)
