# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Cut a manifest into pieces, so that many workers can take part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import InputError
from airflow_provider_faceki.batch import manifest


def split(
    uri: str,
    folder: str,
    rows_a_shard: int,
    columns: Mapping[str, str],
    conn_id: str | None = None,
) -> list[str]:
    """Cut a manifest into NDJSON shards and return their URIs; one shard of rows is in memory at a time.

    A row that cannot be read becomes an empty object, so that its shard's errors tell of it.

    :param uri: URI of the manifest: NDJSON, CSV or Parquet.
    :param folder: URI of the folder for the shards.
    :param rows_a_shard: Rows of each, at least 1.
    :param columns: What columns are called in the manifest, by what they are called in the shards.
    :param conn_id: Connection for that storage.
    :raises InputError: the manifest cannot be read at all, or ``rows_a_shard`` is below 1.
    """
    if rows_a_shard < 1:
        raise InputError(f"rows_a_shard must be at least 1, not {rows_a_shard}")
    rows = manifest.rows(uri, columns, conn_id)
    shards: list[str] = []
    while chunk := list(islice(rows, rows_a_shard)):
        shard = f"{folder.rstrip('/')}/shard-{len(shards) + 1:05d}.ndjson"
        content = "".join(f"{json.dumps(dict(row.values))}\n" for row in chunk).encode()
        shards.append(storage.write_bytes(shard, content, conn_id))
    return shards
