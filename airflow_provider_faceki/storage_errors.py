# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Errors of storages, and the form in which an error text shows a URI.

The core of a batch uses this module and must work without Airflow. Therefore this module does not import Airflow.

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

import re
from typing import Self

from airflow_provider_faceki.api.errors import ValidationError

# A longer path in an error text is cut after this number of characters, which is the maximum length of an S3 key.
_MAX_SHOWN_CHARACTERS = 1024


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

    If the URI stands in parentheses, it is removed. In other places it is replaced by ``…``.
    """
    shown = redact_uri(uri)
    return message.replace(f" ({shown})", "").replace(shown, "…")


def redact_uri(uri: str) -> str:
    """Return ``uri`` in quotation marks and without credentials.

    Two parts are removed, because they can contain credentials: the part of a URI before the ``@``, and everything
    after the ``?`` or ``#`` of an ``http`` or ``https`` address. A text that is longer than any usual path is cut.
    """
    text = re.sub(r"://[^/]*@", "://…@", uri)
    if text.lower().startswith("http"):
        text = re.sub(r"[?#].*", "?…", text, flags=re.DOTALL)
    return repr(text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…")
