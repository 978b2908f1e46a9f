# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Rules for the Connections that a URI can use, and for the files that the rows of a manifest can name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.manifest import read_manifest
from airflow_provider_faceki.storage import UNREADABLE, AccessPolicy
from airflow_provider_faceki.storage_interface import without_uri
from tests.object_store import FAULTY_CONN_ID, ObjectStore

JPEG = b"\xff\xd8\xff" + b"x" * 100
MAX_BYTES = 1000


def reason(uri: str, policy: AccessPolicy, conn_id: str | None = None) -> str | None:
    """Return why an image is refused, without its name. Return ``None`` if the image is accepted."""
    try:
        storage.image("selfie", uri, MAX_BYTES, conn_id, policy)
    except ValidationError as error:
        return error.message
    return None


HIDDEN = f"selfie: {UNREADABLE}"
REFUSED = "selfie: the image is in none of the task's allowed_image_prefixes ("
REFUSED_CONNECTION = "selfie: the Connection before the @ is not in the task's allowed_image_conn_ids"
REFUSED_LOCAL = "selfie: the task accepts no local image, because it has no allowed_image_prefixes"


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda uri: storage.check_path(uri, "own"), id="check_path"),
        pytest.param(lambda uri: storage.write_json(uri, 1, "own"), id="write_json"),
        pytest.param(lambda uri: storage.open_binary(uri, "own"), id="open_binary"),
        pytest.param(lambda uri: storage.size(uri, "own"), id="size"),
        pytest.param(lambda uri: storage.delete(uri, "own"), id="delete"),
        pytest.param(lambda uri: storage.list_files(uri, "own"), id="list_files"),
        pytest.param(lambda uri: storage.image("selfie", uri, 1, "own"), id="image"),
        pytest.param(lambda uri: list(read_manifest(uri, {"record_identifier": "id"}, "own")), id="manifest"),
    ],
)
@pytest.mark.parametrize("user", ["admin@", "own@", "a:b@", "a@b@"])
def test_an_explicit_connection_is_final(use: Callable[[str], object], user: str) -> None:
    with pytest.raises(ValidationError, match="explicit one .* leave one of them out") as caught:
        use(f"s3://{user}bucket/people.csv")
    assert "admin" not in str(caught.value)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Create the allowed folder ``in/`` and two forbidden folders, with images, text files and links."""
    for name in ("in", "out", "in-other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "face.jpg").write_bytes(JPEG)
        (tmp_path / name / "text.txt").write_text("no image")
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "out" / "face.jpg")
    (tmp_path / "in" / "inner.jpg").symlink_to("face.jpg")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "out")
    (tmp_path / "alias").symlink_to(tmp_path / "in")
    return tmp_path


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        pytest.param("{0}/in/face.jpg", None, id="in the folder"),
        pytest.param("file://{0}/in/face.jpg", None, id="as a URI"),
        pytest.param("{0}/alias/face.jpg", None, id="by another name of the folder"),
        pytest.param("{0}/in/inner.jpg", None, id="a link that stays inside"),
        pytest.param("{0}/in/./x/../face.jpg", None, id="dots that stay inside"),
        pytest.param("{0}/in/none.jpg", "No such file", id="missing, inside"),
        pytest.param("{0}/in/text.txt", "is not an image", id="no image, inside"),
        pytest.param("{0}/out/face.jpg", REFUSED, id="outside"),
        pytest.param("{0}/out/none.jpg", REFUSED, id="missing, outside"),
        pytest.param("{0}/out/text.txt", REFUSED, id="no image, outside"),
        pytest.param("{0}/in-other/face.jpg", REFUSED, id="a name that begins alike"),
        pytest.param("{0}/in/../out/face.jpg", REFUSED, id="dots"),
        pytest.param("FILE://{0}/in/../out/face.jpg", REFUSED, id="dots behind a scheme in capitals"),
        pytest.param("FILE://{0}/out/face.jpg", REFUSED, id="scheme in capitals"),
        pytest.param("local://{0}/out/face.jpg", REFUSED, id="another scheme for local files"),
        pytest.param("{0}/in/link.jpg", REFUSED, id="a link to the outside"),
        pytest.param("{0}/in/folder/face.jpg", REFUSED, id="a linked folder"),
        pytest.param("{0}/in/folder/none.jpg", REFUSED, id="missing in a linked folder"),
        pytest.param("/etc/passwd", REFUSED, id="/etc/passwd"),
        pytest.param("/etc/none", REFUSED, id="/etc/none"),
    ],
)
def test_local_images_of_a_manifest(folders: Path, uri: str, expected: str | None) -> None:
    for prefix in (f"{folders}/in", f"{folders}/in/", f"file://{folders}/in", f"{folders}/alias"):
        policy = AccessPolicy.for_manifest([prefix], None)
        found = reason(uri.format(folders), policy)
        assert found is None if expected is None else expected in str(found)
        # Without prefixes, no local file is allowed, and no error reveals anything about local files.
        assert reason(uri.format(folders), AccessPolicy.for_manifest(None, None)) == REFUSED_LOCAL


def test_the_error_shows_the_first_allowed_folders_without_credentials() -> None:
    policy = AccessPolicy(("/a", "https://h/b?sig=s3cret", "/c", "/d"))
    assert reason("/e.jpg", policy) == f"{REFUSED}'/a', 'https://h/b?…', '/c', …) ('/e.jpg')"


def test_a_symlink_changed_after_the_check_is_not_followed(folders: Path) -> None:
    link = folders / "in" / "inner.jpg"
    image = storage.image(
        "selfie", str(link), MAX_BYTES, None, AccessPolicy.for_manifest([f"{folders}/in"], None)
    )
    link.unlink()
    link.symlink_to(folders / "out" / "text.txt")
    with image.open() as file:
        assert file.read() == JPEG


@pytest.mark.parametrize("replaced", ["face.jpg", "deep/er", "deep/er/face.jpg"])
def test_a_path_that_becomes_a_link_after_the_check_is_not_followed(folders: Path, replaced: str) -> None:
    for place in ("in", "out"):
        (folders / place / "deep" / "er").mkdir(parents=True)
        (folders / place / "deep" / "er" / "face.jpg").write_bytes(JPEG)
    policy = AccessPolicy.for_manifest([f"{folders}/in"], None)
    path = folders / "in" / (replaced if replaced.endswith(".jpg") else f"{replaced}/face.jpg")
    image = storage.image("selfie", str(path), MAX_BYTES, None, policy)
    with image.open() as file:
        assert file.read() == JPEG
    (folders / "in" / replaced).rename(folders / "in" / "before")
    (folders / "in" / replaced).symlink_to(folders / "out" / replaced)
    with pytest.raises(ValidationError):
        image.open()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        pytest.param("s3://s3_store@kyc/in/face.jpg", None, id="in the folder"),
        pytest.param("S3://s3_store@kyc/in/face.jpg", None, id="scheme in capitals"),
        pytest.param("s3://s3_store@kyc/in/none.jpg", "no such file", id="missing, inside"),
        pytest.param("s3://s3_store@kyc/in/text.txt", "is not an image", id="no image, inside"),
        pytest.param("s3://s3_store@kyc/out/face.jpg", REFUSED, id="outside"),
        pytest.param("s3://s3_store@kyc/out/none.jpg", REFUSED, id="missing, outside"),
        pytest.param("s3://s3_store@kyc/in-other/face.jpg", REFUSED, id="a name that begins alike"),
        pytest.param("s3://s3_store@kyc/in/../out/face.jpg", REFUSED, id="dots"),
        pytest.param("s3://s3_store@kyc/in/%2e%2E/out/face.jpg", REFUSED, id="encoded dots"),
        pytest.param("s3://s3_store@kyc/in/..\\out/face.jpg", REFUSED, id="dots before a backslash"),
        pytest.param("s3://s3_store@other/in/face.jpg", REFUSED, id="another bucket"),
        pytest.param("s3a://s3_store@kyc/in/face.jpg", REFUSED, id="another scheme"),
        pytest.param(f"s3://{FAULTY_CONN_ID}@kyc/in/face.jpg", REFUSED_CONNECTION, id="another Connection"),
        pytest.param("s3://nobody@kyc/in/face.jpg", REFUSED_CONNECTION, id="a Connection that is not there"),
        pytest.param("s3://s3_store@x@kyc/in/face.jpg", REFUSED_CONNECTION, id="two user parts"),
    ],
)
def test_images_of_a_manifest_on_s3(object_store: ObjectStore, uri: str, expected: str | None) -> None:
    for folder in ("in", "out", "in-other"):
        object_store.put(f"{folder}/face.jpg", JPEG)
        object_store.put(f"{folder}/text.txt", b"no image")
    for prefix in ("s3://kyc/in", "s3://kyc/in/", "S3://kyc/in/"):
        found = reason(uri, AccessPolicy.for_manifest(["/in", prefix], ["s3_store"]))
        assert found is None if expected is None else expected in str(found)
    # Without prefixes, every file of a storage is allowed. The error for a missing file is the same as for a file that
    # is no image.
    found = reason(uri, AccessPolicy.for_manifest(None, ["s3_store"]))
    assert found in (None, HIDDEN, REFUSED_CONNECTION)
    assert reason(uri, AccessPolicy.for_manifest(None, None)) == REFUSED_CONNECTION
    assert reason(uri, AccessPolicy.for_manifest(["s3://kyc/in"], [])) == REFUSED_CONNECTION


@pytest.mark.parametrize(
    "uri", ["https://internal?@kyc.example/a.jpg", "https://internal#@kyc.example/a.jpg"]
)
def test_a_host_that_url_parsers_read_differently(uri: str) -> None:
    policy = AccessPolicy.for_manifest(["https://kyc.example/"], None)
    assert "give the absolute path or the URI of a file" in str(reason(uri, policy))


def test_only_a_file_with_an_image_name_is_reported_as_too_large(object_store: ObjectStore) -> None:
    object_store.put("large.jpg", JPEG * 100)
    object_store.put("large.txt", b"x" * 10_000)
    policy = AccessPolicy.for_manifest(None, None)
    assert "max_image_bytes" in str(reason("s3://kyc/large.jpg", policy, "s3_store"))
    assert reason("s3://kyc/large.txt", policy, "s3_store") == HIDDEN


@pytest.mark.parametrize(
    "prefix",
    [*("", "in", "../in", "s3://", "s3://own@bucket/", "s3:/bucket", "://x"), *("file://in", "local://in/x")],
)
def test_an_invalid_prefix_is_rejected(prefix: str) -> None:
    with pytest.raises(ValidationError, match="allowed prefix"):
        AccessPolicy((prefix,))


def test_uris_of_the_dag_author_can_name_any_file(folders: Path) -> None:
    assert reason(f"{folders}/out/face.jpg", storage.UNRESTRICTED) is None
    assert "No such file" in str(reason(f"{folders}/none.jpg", storage.UNRESTRICTED))
    assert REFUSED in str(reason("s3://bucket/face.jpg", AccessPolicy.for_manifest([str(folders)], None)))
    assert os.path.samefile(folders / "alias" / "face.jpg", folders / "in" / "face.jpg")


@pytest.mark.parametrize("content", [None, b"", b"no image"], ids=["missing", "empty", "no image"])
@pytest.mark.parametrize(
    "name",
    [
        "jane.jpg",
        "o'brien.jpg",
        'the "boss".jpg',
        'o\'b "x".jpg',
        "a/b's/c.jpg",
        "ünï\u3000.jpg",
        "b\\'c.jpg",
    ],
)
def test_an_image_error_names_the_uri_once_so_it_can_be_removed(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True, parents=True)
    if content is not None:
        place.write_bytes(content)
    message = str(reason(str(place), storage.UNRESTRICTED))
    assert message.startswith("selfie")
    assert message.count(repr(str(place))) == 1
    shortened = without_uri(message, str(place))
    assert not any(part in shortened for part in (str(tmp_path), name.rpartition("/")[2], "(", "jpg"))
