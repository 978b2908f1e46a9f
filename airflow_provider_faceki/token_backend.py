# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Store access tokens in any storage of Airflow's ``ObjectStoragePath``, so that hosts can share one access token.

The Connection's ``token_store`` contains the location of the tokens. Here it is a URI such as
``s3://aws_default@bucket/faceki-tokens``, or the absolute path of a directory on a shared volume. The stored tokens are
encrypted with a key that is derived from the client secret.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.tokens.shared import DirectoryTokenBackend

if TYPE_CHECKING:
    from airflow_provider_faceki.api.tokens.shared import TokenBackend


def token_backend(uri: str) -> TokenBackend:
    """Return the backend that stores tokens at a Connection's ``token_store``. Nothing is read or written yet.

    :param uri: URI of a folder in a storage, or the absolute path or ``file`` URI of a directory.
    """
    if uri.startswith("/"):
        return DirectoryTokenBackend(Path(uri))
    if uri.lower().startswith("file://"):
        return DirectoryTokenBackend(Path(uri[len("file://") :]))
    return ObjectStorageTokenBackend(uri)


class ObjectStorageTokenBackend:
    """``TokenBackend`` that stores tokens in an object storage.

    On S3, GCS and Azure, creating an object fails if the object already exists, so only one of several hosts fetches a
    token. On other storages, two hosts that start at the same time possibly fetch one token each, which does no harm.

    :param uri: URI of the folder that contains the tokens. If it contains an ``@``, the part before it is the id of the
        storage's Connection.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        self._folder: tuple[Any, str] | None = None
        # A filesystem of fsspec does not work in a forked child process. The process id shows whether the stored
        # filesystem was created in this process.
        self._process = os.getpid()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectStorageTokenBackend) and other._uri == self._uri

    def __hash__(self) -> int:
        return hash(self._uri)

    @property
    def place(self) -> str:
        """The location of the token store, as log messages show it. It does not contain the Connection id."""
        return storage.redact_uri(self._uri)

    def connect(self) -> tuple[Any, str]:
        """Return the filesystem and the folder's path in it. Look up the storage's Connection once in each process.

        Airflow can look up a Connection only on certain threads. Therefore the hook calls this method before it uses
        the token store. In a task, the hook calls this method on the task's thread. In a triggerer, the hook calls it
        through asgiref.
        """
        if self._folder is None or self._process != os.getpid():
            self._process = os.getpid()
            self._folder = storage.locate(self._uri)
        return self._folder

    def read(self, name: str, max_bytes: int) -> bytes | None:
        filesystem, path = self._locate(name)
        try:
            content: bytes = filesystem.cat_file(path, end=max_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Some storages report EINVAL for an empty object, because they cannot return its first byte (HTTP 416).
            return b""
        return content

    def write(self, name: str, content: bytes) -> None:
        filesystem, path = self._locate(name)
        filesystem.pipe_file(path, content)

    def create(self, name: str, content: bytes) -> bool:
        filesystem, path = self._locate(name)
        try:
            filesystem.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        return True

    def delete(self, name: str) -> None:
        filesystem, path = self._locate(name)
        with suppress(FileNotFoundError):
            filesystem.rm_file(path)

    def _locate(self, name: str) -> tuple[Any, str]:
        filesystem, folder = self.connect()
        return filesystem, f"{folder}/{name}"
