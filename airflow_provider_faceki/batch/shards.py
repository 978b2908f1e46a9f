# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Cut a manifest into pieces, so that many workers can take part.

A row's shard follows from its identifier. So whoever is in the manifest twice is in one shard twice, where the second
row is an error and no second bill; and a manifest that has grown since is cut so that everybody stays where they were.
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
from airflow_provider_faceki.batch import manifest
from airflow_provider_faceki.batch.formats import REQUIRED
from airflow_provider_faceki.batch.known import row_key
from airflow_provider_faceki.batch.patience import insist

#: Shards at the most: each is an open file while the manifest is read.
MOST_SHARDS = 256
#: Bytes of a shard that are in memory before it goes to disk.
_IN_MEMORY = 64 * 1024


def split(
    uri: str,
    folder: str,
    shards: int,
    columns: Mapping[str, str],
    conn_id: str | None = None,
    output_conn_id: str | None = None,
    manifest_format: str | None = None,
    required: Collection[str] = REQUIRED,
) -> list[str]:
    """Cut a manifest into NDJSON shards of about the same size and return their URIs, each of them also if empty.

    The rows keep their numbers, and what is wrong with those that cannot be read.

    :param uri: URI of the manifest: NDJSON, CSV or Parquet.
    :param folder: URI of the folder for the shards.
    :param shards: How many. Another number puts people into other shards: keep it over the tries of a batch.
    :param columns: What columns are called in the manifest, by what they are called in the shards.
    :param conn_id: Connection for the manifest's storage.
    :param output_conn_id: Connection for the folder's storage.
    :param manifest_format: ``ndjson``, ``csv`` or ``parquet``. Default: by the file's ending.
    :param required: Columns, by what they are called in the shards, that a manifest with a header must have.
    :raises ValidationError: the manifest cannot be read at all, or there cannot be so many shards.
    """
    if not 1 <= shards <= MOST_SHARDS:
        raise ValidationError(f"shards must be between 1 and {MOST_SHARDS}, not {shards}")
    with ExitStack() as stack:
        files: list[IO[bytes]] = [
            stack.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY)) for _ in range(shards)
        ]
        for row in manifest.rows(uri, columns, conn_id, manifest_format, required):
            key = row_key(row.number, row.values.get("record_identifier"))
            files[_place(key, shards)].write(row.shard_line())
        return [
            insist(
                partial(
                    _write,
                    f"{folder.rstrip('/')}/shard-{number:03d}-of-{shards:03d}.ndjson",
                    file,
                    output_conn_id,
                )
            )
            for number, file in enumerate(files, 1)
        ]


def _write(uri: str, file: IO[bytes], conn_id: str | None) -> str:
    file.seek(0)
    whole: BinaryIO = file  # type: ignore[assignment]  # a spooled file is one in all but name
    return storage.write_file(uri, whole, conn_id)


def _place(key: str, shards: int) -> int:
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards
