# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Writing and reading files: valid paths, the content that a reader sees, and the errors for invalid paths."""

# mypy finds no types for fsspec.
# mypy: disable-error-code="import-untyped,misc,no-untyped-call,arg-type"

from __future__ import annotations

import io
import json
import multiprocessing
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException, ObjectStoragePath
from fsspec.spec import AbstractBufferedFile

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.storage import attach
from airflow_provider_faceki.storage_interface import StorageAccessError, StorageUnavailableError
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

RECORD = {"full_name": "Zoë Ünreal", "note": "\ud800"}


@pytest.fixture(scope="module", autouse=True)
def _memory_storage() -> None:
    """Register fsspec's in-memory store in Airflow, as if a provider for object storage were installed."""
    attach("memory", fs=fsspec.filesystem("memory"))


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://bucket/faceki"
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def test_a_record_comes_back(tmp_path: Path, memory: str) -> None:
    for uri in (
        f"{tmp_path}/plain.json",
        f"{tmp_path}/with space/ünï.json",
        f"file://{tmp_path}/a?b#c%20d.json",
        f"{memory}/2026/with space.json",
        "memory:///without-bucket.json",
    ):
        assert storage.write_json(uri, RECORD) == uri
        with storage.open_binary(uri) as file:
            content = file.read()
        assert json.loads(content) == RECORD
        assert content.endswith(b"}\n")
        assert content.isascii()
        assert storage.size(uri) == len(content)
        with ObjectStoragePath(uri).open("rb") as file:
            assert file.read() == content, "the path that was returned is one that Airflow reads"


def test_overwriting_replaces_all_of_it(tmp_path: Path, memory: str) -> None:
    for uri in (f"{tmp_path}/r.json", f"{memory}/r.json"):
        storage.write_bytes(uri, b"x" * 100_000)
        storage.write_json(uri, [])
        with storage.open_binary(uri) as file:
            assert file.read() == b"[]\n"


def test_paths_may_be_objects(tmp_path: Path) -> None:
    assert storage.write_json(tmp_path / "a.json", 1) == f"{tmp_path}/a.json"
    assert (
        storage.write_json(ObjectStoragePath(f"file://{tmp_path}/b.json"), 1) == f"file://{tmp_path}/b.json"
    )
    assert storage.size(tmp_path / "b.json") == 2


def test_a_local_file_is_for_its_owner_only(tmp_path: Path) -> None:
    target = tmp_path / "r.json"
    target.write_text("open to all")
    target.chmod(0o666)
    storage.write_json(str(target), RECORD)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("untouched")
    (tmp_path / "link").symlink_to(elsewhere)
    storage.write_json(f"{tmp_path}/link", 1)
    assert elsewhere.read_text() == "untouched"
    assert not (tmp_path / "link").is_symlink()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"{tmp_path}/r.json"
    storage.write_json(uri, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    # The next try possibly finds free space. So this is no ValidationError, because Airflow does not retry after one.
    with pytest.raises(OSError, match="No space left") as caught:
        storage.write_json(uri, "new")
    assert not isinstance(caught.value, ValidationError)
    assert Path(uri).read_text() == '"old"\n'
    assert os.listdir(tmp_path) == ["r.json"]


def _write_for_ever(uri: str, started: object) -> None:
    for turn in range(1_000_000):
        storage.write_json(uri, [turn] * 5_000)
        started.set()  # type: ignore[attr-defined]


def test_a_reader_never_sees_a_partial_file(tmp_path: Path) -> None:
    uri = f"{tmp_path}/r.json"
    context = multiprocessing.get_context("fork")
    started = context.Event()
    writer = context.Process(target=_write_for_ever, args=(uri, started))
    writer.start()
    try:
        assert started.wait(120)
        seen: set[int] = set()

        def read() -> bool:
            with storage.open_binary(uri) as file:
                values = json.loads(file.read())
            assert len(values) == 5_000
            assert len(set(values)) == 1
            seen.add(values[0])
            return len(seen) >= 10

        wait_until(read)
    finally:
        writer.kill()
        writer.join(120)


_NEVER_WRITABLE = [
    pytest.param("", "absolute path or the URI", id="empty"),
    pytest.param("  ", "absolute path or the URI", id="blank"),
    pytest.param(None, "absolute path or the URI", id="none"),
    pytest.param(7, "absolute path or the URI", id="number"),
    pytest.param(b"/usr/x", "absolute path or the URI", id="bytes"),
    pytest.param("/usr/a\0b", "absolute path or the URI", id="NUL"),
    pytest.param("records.json", "'records.json'", id="relative"),
    pytest.param("~/records.json", "absolute path", id="home"),
    pytest.param("file:records.json", "absolute path", id="scheme without slashes"),
    pytest.param("file://records.json", "folder|begins with file:///", id="two slashes"),
    pytest.param("file://tmp/records.json", "begins with file:///", id="two slashes and a folder"),
    pytest.param("gopher://bucket/key", "is the Airflow provider for it installed", id="unknown scheme"),
    pytest.param("oss://bucket/key", "is the Airflow provider for it installed", id="provider missing"),
    pytest.param("s3://bucket", "name a file in it", id="bucket only"),
    pytest.param("s3://bucket/", "name a file in it", id="bucket and slash"),
    pytest.param("s3://bucket/folder/", "name a file in it", id="folder in a bucket"),
    pytest.param("/usr/", "name a file in it", id="slash at the end"),
    pytest.param("/usr", "name a file in it", id="a directory"),
    pytest.param("/dev/null", "not a regular file", id="a device"),
    pytest.param("/usr/" + "x" * 300, "(?i)too long", id="name too long"),
    pytest.param(
        "/dev/null/r.json", "(?i)a folder on the way to it is a file|not a directory", id="below a file"
    ),
]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        *_NEVER_WRITABLE,
        pytest.param("/proc/none/r.json", "cannot write to '/proc/none", id="unwritable"),
    ],
)
def test_places_that_cannot_be_written(uri: str, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        storage.write_json(uri, RECORD)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize(("uri", "expected"), _NEVER_WRITABLE)
def test_check_path_rejects_an_unwritable_place(uri: str, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        storage.check_path(uri)


def test_a_folder_without_permission_is_rejected_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []

    def access(path: object, mode: int) -> bool:
        closed.append(path)
        return False

    # The function is replaced, because the tests possibly run as root, which may write to each folder.
    monkeypatch.setattr(os, "access", access)
    for path in (tmp_path / "r.json", tmp_path / "new" / "folder" / "r.json"):
        # Permissions can be repaired, so a later try of the task can succeed.
        with pytest.raises(StorageAccessError, match="(?i)permission denied"):
            storage.check_path(path)
    assert closed == [str(tmp_path)] * 2
    assert os.listdir(tmp_path) == []


def test_check_path_accepts_a_writable_place_and_writes_nothing(tmp_path: Path, memory: str) -> None:
    (tmp_path / "old.json").write_text("old")
    for uri in (tmp_path / "new" / "r.json", tmp_path / "old.json", f"{memory}/r.json"):
        storage.check_path(uri)
    assert os.listdir(tmp_path) == ["old.json"]
    assert not fsspec.filesystem("memory").store


def test_places_that_cannot_be_read(tmp_path: Path, memory: str) -> None:
    storage.write_json(f"{memory}/folder/r.json", 1)
    for uri in (str(tmp_path), f"{tmp_path}/none", f"{memory}/none", f"{memory}/folder", "r.json"):
        for read in (storage.size, storage.open_binary):
            with pytest.raises(ValidationError, match=r"cannot read|absolute path"):
                read(uri)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("arn:aws:iam::1:user/canary is not allowed")

    monkeypatch.setattr(fsspec.filesystem("memory"), "pipe_file", refuse)
    with pytest.raises(StorageAccessError, match="permission denied") as caught:
        storage.write_json("memory://bucket/r.json", 1)
    assert "canary" not in str(caught.value)


_CANARY = "secret-canary"


def _no_connection(_: object) -> None:
    raise AirflowNotFoundException("The conn_id `wasb_of_ours` isn't defined")


def _odd_connection(_: object) -> None:
    raise ValueError(f"{_CANARY} is no account key")


def _no_package(_: object) -> None:
    raise ModuleNotFoundError(f"No module named 'adlfs' {_CANARY}", name="adlfs")


def _storage_fails(_: object) -> None:
    raise RuntimeError(_CANARY)


@pytest.mark.parametrize(
    ("factory", "kind", "expected"),
    [
        pytest.param(_no_connection, ValidationError, "no Connection wasb_of_ours", id="no Connection"),
        pytest.param(_odd_connection, ValidationError, "its Connection right", id="odd Connection"),
        pytest.param(_no_package, ValidationError, "adlfs is missing", id="package missing"),
        pytest.param(_storage_fails, OSError, "now: RuntimeError", id="anything else"),
    ],
)
def test_a_storage_that_cannot_be_created_is_reported(
    factory: Callable[[object], None], kind: type[Exception], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = attach("teststore", conn_id="unmade")
    monkeypatch.setattr(type(store), "fs", property(factory))
    for touch in (storage.check_path, storage.size, storage.open_binary):
        with pytest.raises(kind, match=expected) as caught:
            touch("teststore://bucket/r.json", "unmade")
        assert _CANARY not in str(caught.value)
        assert "teststore://bucket/r.json" in str(caught.value)


def test_what_may_be_a_credential_is_not_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        storage.write_json("https://me:canary@host.example/r.json?sig=canary#canary", 1)
    assert "canary" not in str(caught.value)
    assert "host.example/r.json" in str(caught.value)


def test_only_json_is_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        storage.write_json(f"{tmp_path}/r.json", float("nan"))
    assert os.listdir(tmp_path) == []


class _Upload(AbstractBufferedFile):
    def _initiate_upload(self) -> None:
        self.sent = b""

    def _upload_chunk(self, final: bool = False) -> bool:
        self.sent += self.buffer.getvalue()
        if final:
            self.fs.objects[self.path] = self.sent
        return True


class _Store(fsspec.AbstractFileSystem):
    """Object store that behaves like real ones: an object becomes visible when its upload is closed."""

    protocol = "teststore"
    cachable = False

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.objects: dict[str, bytes] = {}

    def _open(self, path: str, mode: str = "rb", **_: object) -> _Upload:
        return _Upload(self, path, mode=mode)


fsspec.register_implementation("teststore", _Store, clobber=True)


class _Breaking(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 5_000_000:
            raise ConnectionResetError("gone")
        return super().read(size)


def test_a_broken_copy_is_not_published(tmp_path: Path) -> None:
    store = _Store()
    attach("teststore", fs=store)
    large = b"x" * 12_000_000
    for uri in ("teststore://bucket/r.pdf", f"{tmp_path}/r.pdf"):
        with pytest.raises(StorageUnavailableError, match="ConnectionResetError"):
            storage.write_file(uri, _Breaking(large))
    assert store.objects == {}
    assert os.listdir(tmp_path) == []
    for uri in ("teststore://bucket/r.pdf", f"{tmp_path}/r.pdf"):
        assert storage.write_file(uri, io.BytesIO(large)) == uri
    assert store.objects == {"bucket/r.pdf": large}
    assert (tmp_path / "r.pdf").read_bytes() == large


def test_the_connection_of_a_storage_is_named_in_the_call_or_in_the_uri() -> None:
    one, other = _Store(), _Store()
    attach("teststore", conn_id="one", fs=one)
    attach("teststore", conn_id="other", fs=other)
    storage.write_json("teststore://bucket/r.json", 1, "one")
    storage.write_json("teststore://other@bucket/r.json", 2)
    assert one.objects == {"bucket/r.json": b"1\n"}
    assert other.objects == {"bucket/r.json": b"2\n"}
