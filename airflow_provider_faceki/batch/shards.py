# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Split a manifest into shards for several workers.

The shard of a row is derived from its identifier. So all rows with the same identifier are in one shard, where the
second row becomes an error instead of a second bill. Rows that are added later do not move other rows to another shard.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import partial
from typing import IO, BinaryIO

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.manifest import REQUIRED_COLUMNS, read_manifest
from airflow_provider_faceki.batch.row_index import row_key
from airflow_provider_faceki.batch.store import retry_storage

#: Maximum number of shards: each shard is an open file while the manifest is read.
MAX_SHARDS = 256
#: Bytes of a shard that are stored in memory. The rest is written to disk.
_MAX_MEMORY_BYTES = 64 * 1024


def split(
    uri: str,
    folder: str,
    shards: int,
    columns: Mapping[str, str],
    conn_id: str | None = None,
    output_conn_id: str | None = None,
    manifest_format: str | None = None,
    required: Collection[str] = REQUIRED_COLUMNS,
) -> list[str]:
    """Split a manifest into NDJSON shards of about the same size and return the URIs of all shards.

    Empty shards are written too. Rows keep their numbers. An unreadable row is written with its problem.

    :param uri: URI of the manifest: NDJSON, CSV or Parquet.
    :param folder: URI of the folder for the shards.
    :param shards: Number of shards. Use the same number in all tries of a batch, because a different number moves rows
        to other shards.
    :param columns: Mapping from the column names in the shards to the column names in the manifest.
    :param conn_id: Connection for the manifest's storage.
    :param output_conn_id: Connection for the folder's storage.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: derived from the file's suffix.
    :param required: Columns, by their names in the shards, that a manifest with a header must contain.
    :raises ValidationError: the manifest as a whole is not readable, or ``shards`` is out of range.
    """
    if not 1 <= shards <= MAX_SHARDS:
        raise ValidationError(f"shards must be between 1 and {MAX_SHARDS}, not {shards}")
    with ExitStack() as stack:
        files: list[IO[bytes]] = [
            stack.enter_context(tempfile.SpooledTemporaryFile(_MAX_MEMORY_BYTES)) for _ in range(shards)
        ]
        for row in read_manifest(uri, columns, conn_id, manifest_format, required):
            key = row_key(row.number, row.values.get("record_identifier"))
            files[_shard_of(key, shards)].write(row.to_shard_line())
        root = folder.rstrip("/")
        return [
            retry_storage(
                partial(_write, f"{root}/shard-{number:03d}-of-{shards:03d}.ndjson", file, output_conn_id)
            )
            for number, file in enumerate(files, 1)
        ]


def _write(uri: str, file: IO[bytes], conn_id: str | None) -> str:
    file.seek(0)
    binary: BinaryIO = file  # type: ignore[assignment]  # typeshed does not define a spooled file as BinaryIO
    return storage.write_file(uri, binary, conn_id)


def _shard_of(key: str, shards: int) -> int:
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards
