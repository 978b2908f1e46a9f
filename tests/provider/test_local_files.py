# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A killed write leaves no file, or one that the next write deletes. Files and folders are private to their owner."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki import local_files, storage

pytestmark = [
    pytest.mark.process,
    pytest.mark.any_airflow,
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

OLD = time.time() - 3600


@pytest.fixture(autouse=True)
def _reset_swept_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_files, "_swept_folders", set())


@pytest.fixture(params=["unnamed", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of writing: a file without a name until it is complete, and a named file where this is unsupported."""
    if request.param == "named":
        monkeypatch.setattr(local_files, "_open_unnamed", lambda folder: None)
    return str(request.param)


def test_a_file_is_written_and_replaced(tmp_path: Path, way: str) -> None:
    for content in (b"one", b"two", b"three" * 100_000):
        storage.write_bytes(f"{tmp_path}/new/folder/r.json", content)
        assert (tmp_path / "new/folder/r.json").read_bytes() == content
    assert os.listdir(tmp_path / "new/folder") == ["r.json"]
    modes = [
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "new/folder", "new/folder/r.json")
    ]
    assert modes == [0o700, 0o700, 0o600]


def test_the_longest_name(tmp_path: Path, way: str) -> None:
    for _ in range(2):
        storage.write_bytes(f"{tmp_path}/{'x' * 255}", b"1")
    assert os.listdir(tmp_path) == ["x" * 255]


class _Endless:
    """Source that returns bytes until the process is killed."""

    def __init__(self, started: Any) -> None:
        self._started = started

    def read(self, size: int = -1) -> bytes:
        self._started.set()
        time.sleep(0.01)
        return b"full record"


def _write(uri: str, started: Any) -> None:
    storage.write_file(uri, _Endless(started))  # type: ignore[arg-type]


@pytest.mark.parametrize("exists", [False, True], ids=["new", "replaced"])
def test_a_write_that_is_killed(tmp_path: Path, way: str, exists: bool) -> None:
    target = tmp_path / "r.json"
    if exists:
        target.write_bytes(b"old")
    context = multiprocessing.get_context("fork")
    started = context.Event()
    # A daemon process ends with this process, even if an assertion fails before `writer.kill()`.
    writer = context.Process(target=_write, args=(str(target), started), daemon=True)
    writer.start()
    assert started.wait(120)
    left = set(os.listdir(tmp_path)) - {"r.json"}
    assert len(left) == (way == "named")
    # No other process is allowed to delete a file that is being written.
    for name in left:
        os.utime(tmp_path / name, (OLD, OLD))
    storage.write_bytes(f"{tmp_path}/other.json", b"1")
    assert left <= set(os.listdir(tmp_path))
    writer.kill()
    writer.join(120)
    local_files._swept_folders.clear()
    for name in left:
        os.utime(tmp_path / name, (OLD, OLD))
    storage.write_bytes(f"{tmp_path}/next.json", b"1")
    expected = {"next.json", "other.json"} | ({"r.json"} if exists else set())
    assert set(os.listdir(tmp_path)) == expected


@pytest.mark.parametrize(
    ("name", "kind", "age", "is_deleted"),
    [
        pytest.param(".faceki-1.part", "file", 3600, True, id="left behind"),
        pytest.param(".faceki-1.part", "file", 5, False, id="perhaps not locked yet"),
        pytest.param(".faceki-1.part", "locked", 3600, False, id="being written"),
        pytest.param(".faceki-1.part", "folder", 3600, False, id="a folder"),
        pytest.param(".faceki-1.part", "link", 3600, False, id="a link"),
        pytest.param(".faceki-1.part", "pipe", 3600, False, id="a pipe"),
        pytest.param("faceki-1.part", "file", 3600, False, id="another name"),
        pytest.param(".faceki-1.txt", "file", 3600, False, id="another ending"),
    ],
)
def test_what_is_deleted(tmp_path: Path, name: str, kind: str, age: int, is_deleted: bool) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    part, victim = folder / name, tmp_path / "victim"
    victim.write_text("untouched")
    if kind == "folder":
        part.mkdir()
    elif kind == "link":
        part.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(part)
    else:
        part.write_text("full record")
    os.utime(part, (time.time() - age,) * 2, follow_symlinks=False)
    with open(victim if kind != "locked" else part) as file:
        if kind == "locked":
            fcntl.flock(file, fcntl.LOCK_EX)
        storage.write_bytes(f"{folder}/r.json", b"1")
    assert os.path.lexists(part) is not is_deleted
    assert victim.read_text() == "untouched"


def test_old_partial_files_are_removed_on_nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider locks an old file before it deletes the file. On NFS, the file must be open for writing.

    See flock(2), "NFS details".
    """
    flock = fcntl.flock

    def flock_of_nfs(handle: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)
    part = tmp_path / ".faceki-1.part"
    part.write_text("full record")
    os.utime(part, (OLD, OLD))
    storage.write_bytes(f"{tmp_path}/r.json", b"1")
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_folder_is_searched_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    monkeypatch.setattr(local_files, "_delete_abandoned_parts", searched.append)
    for number in range(5):
        storage.write_bytes(f"{tmp_path}/part-{number}", b"1")
    assert len(searched) == 1
