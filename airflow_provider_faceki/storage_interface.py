# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What the provider expects from a storage: its operations, its errors, and the retry after a failure.

The core of a batch uses this module and must work without Airflow. Therefore this module does not import Airflow.
``storage.py`` and ``batch/airflow_store.py`` reach the storages through Airflow.

The errors are::

    ValidationError                   the path is wrong, so a retry does not help
    ├── StorageFileNotFoundError      the file or bucket does not exist
    └── NotAllowedError               the task does not allow the file
    StorageError (an OSError)         the path is possibly right
    ├── StorageUnavailableError       the storage failed; the same request can succeed later
    └── StorageAccessError            the storage refused: permissions, or credentials that are wrong or expired

The error texts contain no credentials and no sent content, but they can contain the file name. ``StorageError.reason``
contains none of the three.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Protocol, Self, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_chain,
    wait_fixed,
)

from airflow_provider_faceki.api.errors import ValidationError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Pauses in seconds before a failed storage operation is repeated. There is one repetition after each pause.
RETRY_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
# A longer path in an error text is cut after this number of characters, which is the maximum length of an S3 key.
_MAX_SHOWN_CHARACTERS = 1024


class ObjectStore(Protocol):
    """Storage of a batch. Tests use a storage in memory.

    Several threads call the operations. Each operation raises ``OSError`` if the storage fails, and ``ValidationError``
    if the path is wrong. As soon as a file is written, :meth:`list` must contain it, because
    ``batch/lease.py`` lists files to find out whether a newer try has started.
    """

    def write(self, uri: str, content: bytes) -> None:
        """Write a whole file, or replace an existing file. On local disks and object stores, replacing is atomic."""

    def read(self, uri: str) -> bytes:
        """Return the content of a file."""

    def list(self, folder: str) -> list[str]:
        """Return the URIs of the files in a folder, sorted by name. If the folder does not exist, the list is empty."""

    def delete(self, uri: str) -> None:
        """Delete a file. If the file does not exist, do nothing."""


class StorageError(OSError):
    """A storage operation failed. The path is possibly right, so the same operation can succeed later.

    :param message: Text of the error. It shows the URI of the file only as :func:`redact_uri` returns it.
    :param reason: Reason of the failure, without the file's name. It has a default, because pickle calls the class with
        the text alone.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason

    def without_uri(self, name: str) -> Self:
        """Return a copy of the error whose text contains ``name`` instead of the file's URI.

        The URI is replaced, because it possibly contains a person's name.
        """
        return type(self)(f"{name} cannot be read now: {self.reason}", self.reason)


class StorageUnavailableError(StorageError):
    """The storage failed. The same request can succeed later."""


class StorageAccessError(StorageError):
    """The storage refused the request, because permissions are missing, or credentials are wrong or expired."""


class StorageFileNotFoundError(ValidationError):
    """The file or bucket does not exist."""


class NotAllowedError(ValidationError):
    """The task does not allow the file. Whether the file exists was not checked. The text does not contain the URI."""


def without_uri(message: str, uri: str) -> str:
    """Return the error text ``message`` without the URI ``uri``.

    If the URI stands in parentheses, it is removed. In other places it is replaced by ``<path not shown>``.
    """
    shown = redact_uri(uri)
    return message.replace(f" ({shown})", "").replace(shown, "<path not shown>")


def redact_uri(uri: str) -> str:
    """Return ``uri`` in quotation marks and without credentials.

    Two parts are removed, because they can contain credentials: the part of a URI before the ``@``, and everything
    after the ``?`` or ``#`` of an ``http`` or ``https`` address. A text that is longer than any usual path is cut.
    """
    text = re.sub(r"://[^/]*@", "://…@", uri)
    if text.lower().startswith("http"):
        text = re.sub(r"[?#].*", "?…", text, flags=re.DOTALL)
    return repr(text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…")


def retry_storage(operation: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """Call a storage operation and return its result. If it raises ``OSError``, repeat the call after a pause.

    :param operation: Storage operation that is safe to call several times.
    :param sleep: Function that waits a number of seconds.
    :raises OSError: if the last attempt also failed.
    """
    retrying = Retrying(
        sleep=sleep,
        stop=stop_after_attempt(1 + len(RETRY_PAUSES_SECONDS)),
        wait=wait_chain(*map(wait_fixed, RETRY_PAUSES_SECONDS)),
        retry=retry_if_exception_type(OSError),
        before_sleep=_warn,
        reraise=True,
    )
    return retrying(operation)


def _warn(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("The storage failed; trying again: %s", type(error).__name__)
