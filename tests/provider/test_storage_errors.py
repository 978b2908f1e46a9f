# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""All storages (local files, S3, memory) raise the same kinds of errors while a file is opened or read."""

# mypy finds no types for fsspec.
# mypy: disable-error-code="import-untyped,misc,no-untyped-call,arg-type"

from __future__ import annotations

import errno
import gc
import io
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.storage import attach
from airflow_provider_faceki.storage_interface import (
    StorageAccessError,
    StorageError,
    StorageFileNotFoundError,
    StorageUnavailableError,
)
from tests.object_store import BUCKET, Fault, ObjectStore

pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

JPEG = b"\xff\xd8\xff" + b"x" * 2_000_000


def read(uri: str) -> None:
    with storage.open_binary(uri) as file:
        while file.read(64 * 1024):
            pass


def write(uri: str) -> None:
    storage.write_bytes(uri, b"x")


def upload(uri: str) -> None:
    with open("/dev/null", "rb") as file:
        storage.write_file(uri, file)


def look(uri: str) -> None:
    storage.image("selfie", uri, 10_000_000)


def list_folder(uri: str) -> None:
    storage.list_files(uri.rpartition("/")[0])


ACTIONS = [
    pytest.param(action, id=action.__name__)
    for action in (read, write, upload, look, storage.size, list_folder)
]


def check_text(error: BaseException, uri: str) -> None:
    """Check that an error names the file and contains no text of the storage."""
    assert uri.rpartition("/")[0].rpartition("@")[2] in str(error)
    assert "canary" not in str(error)
    assert error.__cause__ is None


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(Fault(403, "AccessDenied"), StorageAccessError, id="403"),
        pytest.param(Fault(400, "ExpiredToken"), StorageAccessError, id="expired credentials"),
        pytest.param(Fault(403, "InvalidAccessKeyId"), StorageAccessError, id="unknown key"),
        pytest.param(Fault(403, "SignatureDoesNotMatch"), StorageAccessError, id="wrong secret"),
        pytest.param(Fault(500, "InternalError"), StorageUnavailableError, id="500"),
        pytest.param(Fault(503, "SlowDown"), StorageUnavailableError, id="slow down"),
        pytest.param(Fault(0), StorageUnavailableError, id="connection closed"),
    ],
)
def test_s3_refusals_and_failures_are_distinguished(
    object_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    action: Callable[[str], None],
    fault: Fault,
    kind: type[StorageError],
) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    object_store.put("folder/selfie.jpg", JPEG)
    object_store.choose_fault = lambda method, path: fault
    uri = object_store.uri("folder/selfie.jpg", faulty=True)
    with pytest.raises(StorageError) as caught:
        action(uri)
    assert type(caught.value) is kind
    check_text(caught.value, uri)
    assert object_store.requests


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["folder/", "folder/1.json"], ["1.json"], id="marker and file"),
        pytest.param(["folder/"], [], id="marker alone"),
        pytest.param(["folder/", "folder/below/"], [], id="marker of a folder below"),
        pytest.param(["folder"], [], id="file with the name of the folder"),
    ],
)
def test_the_marker_of_a_folder_is_not_one_of_its_files(
    object_store: ObjectStore, names: list[str], expected: list[str]
) -> None:
    for name in names:
        object_store.put(name, b"")
    folder = object_store.uri("folder")
    assert storage.list_files(folder) == [f"{folder}/{name}" for name in expected]


@pytest.mark.parametrize(
    "key", [pytest.param("folder/2.json", id="new file"), pytest.param("folder/1.json", id="replaced file")]
)
def test_what_another_worker_wrote_after_a_listing_is_seen(object_store: ObjectStore, key: str) -> None:
    object_store.put("folder/1.json", b"old")
    assert len(storage.list_files(object_store.uri("folder"))) == 1
    uri = object_store.put(key, b"the new content")
    assert storage.size(uri) == len(b"the new content")
    storage.list_files(object_store.uri("folder"))
    object_store.put(key, b"the newest content")
    with storage.open_binary(uri) as file:
        assert file.read() == b"the newest content"


@pytest.mark.parametrize("action", [pytest.param(a, id=a.__name__) for a in (read, look, storage.size)])
@pytest.mark.parametrize("bucket", ["kyc", "no-such-bucket"])
def test_a_missing_file_or_bucket_is_reported(
    object_store: ObjectStore,
    action: Callable[[str], None],
    bucket: str,
) -> None:
    with pytest.raises(StorageFileNotFoundError, match="no such file or bucket"):
        action(f"s3://s3_store@{bucket}/none.jpg")


def test_a_refused_connection_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    monkeypatch.setenv(
        "AIRFLOW_CONN_S3_DOWN",
        '{"conn_type": "aws", "login": "a", "password": "b", "extra": {"endpoint_url": "http://127.0.0.1:9",'
        ' "region_name": "us-east-1", "config_kwargs": {"retries": {"max_attempts": 0}}}}',
    )
    for action in (read, write, look):
        with pytest.raises(StorageUnavailableError, match="EndpointConnectionError"):
            action("s3://s3_down@kyc/folder/selfie.jpg")


def test_a_body_that_is_cut_is_a_failure_of_the_storage(
    object_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    object_store.put("folder/selfie.jpg", JPEG)
    uri = object_store.uri("folder/selfie.jpg", faulty=True)
    image = storage.image("selfie", uri, 10_000_000)
    object_store.choose_fault = lambda method, path: Fault(cut_after=1000) if method == "GET" else None
    for open_file in (image.open, lambda: storage.open_binary(uri)):
        with pytest.raises(StorageUnavailableError) as caught, open_file() as file:
            file.read()
        check_text(caught.value, uri)


def test_credentials_that_expire_while_a_file_is_read(
    object_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    object_store.put("folder/selfie.jpg", JPEG)
    uri = object_store.uri("folder/selfie.jpg", faulty=True)
    image = storage.image("selfie", uri, 10_000_000)
    with image.open() as file:
        assert file.read(10)
        object_store.choose_fault = lambda method, path: Fault(400, "ExpiredToken")
        with pytest.raises(StorageAccessError):
            file.read()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        pytest.param(errno.ENOENT, StorageFileNotFoundError, id="ENOENT"),
        pytest.param(errno.EACCES, StorageAccessError, id="EACCES"),
        pytest.param(errno.EPERM, StorageAccessError, id="EPERM"),
        pytest.param(errno.EROFS, StorageAccessError, id="EROFS"),
        pytest.param(errno.ENOTDIR, ValidationError, id="ENOTDIR"),
        pytest.param(errno.ENAMETOOLONG, ValidationError, id="ENAMETOOLONG"),
        pytest.param(errno.ENOSPC, StorageUnavailableError, id="ENOSPC"),
        pytest.param(errno.EIO, StorageUnavailableError, id="EIO"),
        pytest.param(errno.ESTALE, StorageUnavailableError, id="ESTALE"),
        pytest.param(errno.EMFILE, StorageUnavailableError, id="EMFILE"),
    ],
)
def test_errors_of_local_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    (tmp_path / "a.json").write_text("1")
    monkeypatch.setattr(os, "open", fail)
    for action in (read, write):
        with pytest.raises(kind, match=os.strerror(number)) as caught:
            action(f"{tmp_path}/a.json")
        assert type(caught.value) is kind


def test_a_disk_that_fails_while_a_local_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text("1")
    file = storage.open_binary(f"{tmp_path}/a.json")

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "failing")

    class Failing:
        read = fail
        close = staticmethod(lambda: None)

    file.raw._file = Failing()  # type: ignore[attr-defined]
    with pytest.raises(StorageUnavailableError, match="Input/output error"), file:
        file.read()


class ClientAuthenticationError(Exception):
    """Stand-in with the class name of Azure's error."""

    status_code = 401


class HttpError(Exception):
    """Stand-in with the class name of Google's error."""

    def __init__(self, code: int) -> None:
        super().__init__("canary")
        self.code = code


class NoCredentialsError(Exception):
    """Stand-in with the class name of Amazon's error."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(ClientAuthenticationError("canary"), StorageAccessError, id="Azure, 401"),
        pytest.param(HttpError(403), StorageAccessError, id="Google, 403"),
        pytest.param(HttpError(404), StorageFileNotFoundError, id="Google, 404"),
        pytest.param(HttpError(503), StorageUnavailableError, id="Google, 503"),
        pytest.param(NoCredentialsError("canary"), StorageAccessError, id="Amazon, no credentials"),
        pytest.param(PermissionError("canary"), StorageAccessError, id="PermissionError"),
        pytest.param(FileNotFoundError("canary"), StorageFileNotFoundError, id="FileNotFoundError"),
        pytest.param(IsADirectoryError("canary"), ValidationError, id="IsADirectoryError"),
        pytest.param(TimeoutError("canary"), StorageUnavailableError, id="TimeoutError"),
        pytest.param(OSError(errno.EINVAL, "canary"), StorageUnavailableError, id="OSError"),
        pytest.param(RuntimeError("canary"), StorageUnavailableError, id="anything else"),
    ],
)
def test_errors_of_other_stores(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    memory = fsspec.filesystem("memory")
    attach("memory", fs=memory)
    memory.pipe_file("/bucket/r.json", JPEG)
    file = storage.open_binary("memory://bucket/r.json")

    def fail(*_: object, **__: object) -> None:
        raise error

    for name in ("open", "pipe_file", "info", "ls", "rm_file"):
        monkeypatch.setattr(memory, name, fail)
    try:
        actions: tuple[Callable[[str], object], ...] = (read, write, look, storage.size, list_folder)
        for action in (*actions, storage.delete):
            if kind is StorageFileNotFoundError and action in (list_folder, storage.delete):
                continue
            with pytest.raises(kind) as caught:
                action("memory://bucket/folder/r.json")
            assert type(caught.value) is kind
            check_text(caught.value, "memory://bucket/folder/r.json")
        monkeypatch.setattr(file.raw._file, "read", fail, raising=False)  # type: ignore[attr-defined]
        with pytest.raises(kind):
            file.read()
    finally:
        memory.store.clear()


def test_an_error_can_be_shown_without_the_file_name(tmp_path: Path) -> None:
    error = StorageAccessError("cannot read 's3://bucket/jane.jpg' now", "permission denied")
    copied = pickle.loads(pickle.dumps(error.without_uri("selfie")))  # noqa: S301 - trusted bytes
    for same in (error.without_uri("selfie"), copied):
        assert (type(same), str(same)) == (StorageAccessError, "selfie cannot be read now: permission denied")
        assert same.reason == "permission denied"
    assert "jane.jpg" in str(error)


class _Killed(BaseException):
    """Exception that Airflow uses to end a task. It is not a subclass of Exception."""


class _Source(io.BytesIO):
    def __init__(self, size: int, error: BaseException) -> None:
        super().__init__(b"x" * size)
        self.error = error

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if not content:
            raise self.error
        return content


@pytest.mark.any_airflow
@pytest.mark.parametrize("error", [_Killed(), ConnectionResetError("gone")], ids=["killed", "broken"])
@pytest.mark.parametrize("size", [1_000_000, 120_000_000], ids=["one part", "several parts"])
def test_an_upload_that_ends_early_leaves_nothing_on_s3(
    object_store: ObjectStore, error: BaseException, size: int
) -> None:
    uri = object_store.put("reports/r.pdf", b"old")
    with pytest.raises((_Killed, StorageUnavailableError)):
        storage.write_file(uri, _Source(size, error))
    gc.collect()
    assert object_store.get("reports/r.pdf") == b"old"
    assert "Uploads" not in object_store.client.list_multipart_uploads(Bucket=BUCKET)


@pytest.mark.any_airflow
@pytest.mark.parametrize("fault", [Fault(403, "AccessDenied"), Fault(0)], ids=["not allowed", "outage"])
def test_an_upload_that_cannot_be_discarded_is_not_published(object_store: ObjectStore, fault: Fault) -> None:
    object_store.put("reports/r.pdf", b"old")
    object_store.choose_fault = lambda method, path: fault if method == "DELETE" else None
    with pytest.raises(_Killed):
        storage.write_file(object_store.uri("reports/r.pdf", faulty=True), _Source(20_000_000, _Killed()))
    gc.collect()
    assert any(method == "DELETE" for method, path in object_store.requests)
    assert object_store.get("reports/r.pdf") == b"old"
    (left,) = object_store.client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    object_store.client.abort_multipart_upload(Bucket=BUCKET, Key=left["Key"], UploadId=left["UploadId"])


@pytest.mark.any_airflow
def test_an_upload_whose_end_fails_leaves_nothing_on_s3(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    object_store.put("reports/r.pdf", b"old")
    object_store.choose_fault = lambda method, path: (
        Fault(403, "AccessDenied") if "partNumber=3" in path else None
    )
    with pytest.raises(StorageAccessError):
        storage.write_file(object_store.uri("reports/r.pdf", faulty=True), io.BytesIO(bytes(20_000_000)))
    assert object_store.get("reports/r.pdf") == b"old"
    assert "Uploads" not in object_store.client.list_multipart_uploads(Bucket=BUCKET)


@pytest.mark.any_airflow
def test_an_upload_holds_one_part_of_five_mebibytes_in_memory(object_store: ObjectStore) -> None:
    content = b"x" * (20 * 1024 * 1024)
    storage.write_file(object_store.uri("reports/r.pdf", faulty=True), io.BytesIO(content))
    assert object_store.get("reports/r.pdf") == content
    parts = [path for method, path in object_store.requests if method == "PUT" and "partNumber=" in path]
    assert len(parts) == 4


class _Stalling(io.BytesIO):
    """Source that stops after its bytes were read, until the process is killed."""

    def __init__(self, content: bytes, stalled: Any) -> None:
        super().__init__(content)
        self.stalled = stalled

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if not content:
            self.stalled.set()
            threading.Event().wait()
        return content


def _upload_until_killed(uri: str, stalled: Any) -> None:
    storage.write_file(uri, _Stalling(b"x" * 60_000_000, stalled))


@pytest.mark.any_airflow
def test_a_process_that_is_killed_leaves_parts_for_the_lifecycle_rule(object_store: ObjectStore) -> None:
    uri = object_store.put("reports/r.pdf", b"old")
    context = multiprocessing.get_context("fork")
    stalled = context.Event()
    writer = context.Process(target=_upload_until_killed, args=(uri, stalled))
    writer.start()
    try:
        assert stalled.wait(120)
    finally:
        writer.kill()
        writer.join(120)
    assert object_store.get("reports/r.pdf") == b"old"
    (left,) = object_store.client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert left["Key"] == "reports/r.pdf"
    # The parts are no object, so nobody finds them by listing. The next write does not publish or remove them.
    assert object_store.keys() == ["reports/r.pdf"]
    storage.write_file(uri, io.BytesIO(b"new"))
    # This is what the documented lifecycle rule does.
    object_store.client.abort_multipart_upload(Bucket=BUCKET, Key=left["Key"], UploadId=left["UploadId"])
    assert object_store.get("reports/r.pdf") == b"new"
    assert "Uploads" not in object_store.client.list_multipart_uploads(Bucket=BUCKET)


@pytest.mark.any_airflow
def test_a_part_that_s3_refuses_leaves_no_upload(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)

    def refuse(method: str, path: str) -> Fault | None:
        return Fault(500, "InternalError") if "partNumber=2" in path else None

    object_store.choose_fault = refuse
    uri = object_store.uri("reports/r.pdf", faulty=True)
    with pytest.raises(StorageUnavailableError), open("/dev/zero", "rb") as source:
        storage.write_file(uri, io.BytesIO(source.read(120_000_000)))
    assert object_store.keys() == []
    assert "Uploads" not in object_store.client.list_multipart_uploads(Bucket=BUCKET)
