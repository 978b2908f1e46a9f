# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The amount of data that is fetched and kept in memory when an image is read from an object store."""

# mypy finds no types for fsspec.
# mypy: disable-error-code="import-untyped,misc"

from __future__ import annotations

import hashlib
import tracemalloc

import fsspec
import pytest
from fsspec.spec import AbstractBufferedFile

from airflow_provider_faceki import storage
from airflow_provider_faceki.storage import attach

MEBI = 1024 * 1024
IMAGE = b"\xff\xd8\xff" + bytes(range(253)) * (8 * MEBI // 253)
URI = "imagestore://bucket/selfie.jpg"


class _Ranged(AbstractBufferedFile):
    """File that fetches ranges, like the files of S3, GCS and Azure."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        part = IMAGE[start:end]
        self.fs.fetched.append(len(part))
        return part


class _Store(fsspec.AbstractFileSystem):
    protocol = "imagestore"
    cachable = False

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.fetched: list[int] = []

    def info(self, path: str, **_: object) -> dict[str, object]:
        return {"name": path, "size": len(IMAGE), "type": "file"}

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: object) -> _Ranged:
        options.pop("autocommit", None)
        return _Ranged(self, path, mode, block_size or "default", **options)


fsspec.register_implementation("imagestore", _Store, clobber=True)


@pytest.fixture
def store() -> _Store:
    made = _Store()
    attached = attach("imagestore", fs=made)
    attached.fs = made
    return made


def test_checking_an_image_reads_only_its_beginning(store: _Store) -> None:
    image = storage.image("selfie", URI, 20 * MEBI)
    assert (image.media_type, image.size) == ("image/jpeg", len(IMAGE))
    assert sum(store.fetched) < 16 * 1024


def test_an_image_passes_through_in_small_pieces(store: _Store) -> None:
    image = storage.image("selfie", URI, 20 * MEBI)
    digest = hashlib.sha256()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        with image.open() as file:
            while chunk := file.read(64 * 1024):
                digest.update(chunk)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert digest.digest() == hashlib.sha256(IMAGE).digest()
    assert most - before < MEBI, f"{(most - before) / 1024:.0f} KiB"
    assert sum(store.fetched) < len(IMAGE) + 64 * 1024, "nothing is fetched twice"


def test_a_manifest_passes_through_in_pieces_of_limited_size(store: _Store) -> None:
    digest = hashlib.sha256()
    with storage.open_binary(URI) as file:
        while chunk := file.read(64 * 1024):
            digest.update(chunk)
    assert digest.digest() == hashlib.sha256(IMAGE).digest()
    assert max(store.fetched) <= MEBI + 64 * 1024
    assert sum(store.fetched) == len(IMAGE), "nothing is fetched twice"


def test_reading_at_changing_positions_fetches_little_in_vain(store: _Store) -> None:
    piece = 256 * 1024
    with storage.open_binary(URI, is_sequential=False) as file:
        for start in range(0, 2 * MEBI, piece):
            for column in (0, 4 * MEBI):
                file.seek(column + start)
                assert file.read(piece) == IMAGE[column + start : column + start + piece]
    assert sum(store.fetched) < 1.5 * 4 * MEBI
