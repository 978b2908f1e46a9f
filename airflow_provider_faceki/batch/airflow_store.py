# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Access of a batch to any storage that Airflow supports."""

from __future__ import annotations

from typing import IO, BinaryIO, cast

from airflow_provider_faceki import storage
from airflow_provider_faceki.storage_interface import retry_storage


class AirflowObjectStore:
    """:class:`ObjectStore` in any storage that Airflow supports.

    :param conn_id: Id of the Connection for the storage. Default: the Connection in the URI.
    """

    def __init__(self, conn_id: str | None = None) -> None:
        self._conn_id = conn_id

    def write(self, uri: str, content: bytes) -> None:
        storage.write_bytes(uri, content, self._conn_id)

    def read(self, uri: str) -> bytes:
        with storage.open_binary(uri, self._conn_id) as file:
            return file.read()

    def list(self, folder: str) -> list[str]:
        return storage.list_files(folder, self._conn_id)

    def delete(self, uri: str) -> None:
        storage.delete(uri, self._conn_id)


def write_file(uri: str, file: IO[bytes], conn_id: str | None) -> str:
    """Copy the whole ``file`` to ``uri``, and return ``uri``. If the storage fails, repeat the copy after a pause.

    :raises OSError: if the last attempt also failed.
    """

    def write() -> str:
        file.seek(0)
        return storage.write_file(uri, cast("BinaryIO", file), conn_id)

    return retry_storage(write)
