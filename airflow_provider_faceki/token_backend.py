# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Store access tokens in any storage of Airflow's ``ObjectStoragePath``, so that hosts can share one access token.

The Connection's ``token_store`` contains the location of the tokens. The location is a URI such as
``s3://aws_default@bucket/faceki-tokens``, or the absolute path of a directory on a shared volume. The stored tokens are
encrypted with a key that is derived from the client secret.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_faceki import storage
from airflow_provider_faceki.api.errors import ConfigurationError, FacekiError
from airflow_provider_faceki.api.tokens.shared import SUSPEND_SECONDS, DirectoryTokenBackend
from airflow_provider_faceki.storage_interface import redact_uri

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


#: Error codes of S3 that mean that another client has prevented the creation of an object. s3fs does not always convert
#: them into a FileExistsError. For both codes, :meth:`create` returns ``False``, as if the object existed.
#:
#: - ``ConditionalRequestConflict``: Another client is deleting the object, so it possibly does not exist any more. The
#:   result ``False`` does no harm, because the caller tries to create the object again after a short pause.
#: - ``PreconditionFailed``: The object exists. s3fs recognizes this only if the answer contains the element
#:   ``Condition``. Some servers with the API of S3 do not send this element.
_LOST_CODES = frozenset({"ConditionalRequestConflict", "PreconditionFailed"})


class ObjectStorageTokenBackend:
    """``TokenBackend`` that stores tokens in an object storage.

    Before a host fetches a token, it creates an object as a lock. On S3, GCS and Azure, creating an object fails if the
    object already exists, so only one of several hosts fetches a token. On other storages, two hosts that start at the
    same time possibly fetch one token each, which does no harm.

    :param uri: URI of the folder that contains the tokens. If the URI contains an ``@``, the text before the ``@`` is
        the id of the storage's Connection.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectStorageTokenBackend) and other._uri == self._uri

    def __hash__(self) -> int:
        return hash(self._uri)

    @property
    def place(self) -> str:
        """The location of the token store, as log messages show it. It does not contain the Connection id."""
        return redact_uri(self._uri)

    @property
    def needs_connect(self) -> bool:
        """Whether :meth:`connect` would look up the storage's Connection now."""
        known = _attempts.get(self._uri)
        return known is None or (known.folder is None and time.monotonic() >= known.retry_at)

    def connect(self) -> None:
        """Look up the storage's Connection, once in each process.

        Airflow can look up a Connection only on certain threads. Therefore the hook calls this method before it uses
        the token store. In a task, the hook calls it on the task's thread. In a triggerer, the hook calls it through
        asgiref. The other methods are called on other threads and never look up a Connection.

        A failed lookup is repeated at the earliest after ``SUSPEND_SECONDS``. This method does not raise the error of
        the lookup. The other methods raise an error with the same reason, and the token store logs the reason.
        """
        if not self.needs_connect:
            return
        try:
            _attempts[self._uri] = _Attempt(storage.locate(self._uri))
        except Exception as error:  # noqa: BLE001 - secrets backends and storages raise exceptions of any class
            # The reason is logged. For an exception of another library, the reason is only the class name, because the
            # text of the exception possibly contains credentials.
            reason = error.message if isinstance(error, FacekiError) else type(error).__name__
            _attempts[self._uri] = _Attempt(None, reason, time.monotonic() + SUSPEND_SECONDS)

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
            # Therefore the result is empty.
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
        except OSError as error:
            if storage.error_labels(error) & _LOST_CODES:
                return False
            raise
        return True

    def delete(self, name: str) -> None:
        filesystem, path = self._locate(name)
        with suppress(FileNotFoundError):
            filesystem.rm_file(path)

    def _locate(self, name: str) -> tuple[Any, str]:
        known = _attempts.get(self._uri, _NO_ATTEMPT)
        if known.folder is None:
            raise ConfigurationError(known.reason)
        filesystem, folder = known.folder
        return filesystem, f"{folder}/{name}"


class _Attempt(NamedTuple):
    """Result of the last lookup of a storage's Connection.

    :param folder: The filesystem, and the folder's path in it. ``None`` if the lookup failed.
    :param reason: Reason of the failure, without credentials.
    :param retry_at: Time on the monotonic clock from which the lookup can be repeated.
    """

    folder: tuple[Any, str] | None
    reason: str = ""
    retry_at: float = 0.0


_NO_ATTEMPT = _Attempt(None, "its Connection has not been looked up in this process")
#: Result of the last lookup of the storage's Connection, for each URI of a token store. All backends with the same URI
#: share the result. An attribute of one backend would not be enough, because two different backends are used:
#:
#: - A hook calls :meth:`connect` of the backend that belongs to its own client.
#: - Tokens are read and written through the backend of the first client with the same token store.
_attempts: dict[str, _Attempt] = {}

# A filesystem of fsspec does not work in a forked child process. Therefore the child process looks up the Connection
# again.
os.register_at_fork(after_in_child=_attempts.clear)
