# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The storage of a batch: one object for its four operations, and retries of what fails for a moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_chain,
    wait_fixed,
)

from airflow_provider_faceki import storage

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Pauses before a storage that failed is called again.
RETRY_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
#: Items of a long loop between two checkpoints.
ITEMS_PER_CHECKPOINT = 1000


class Store(Protocol):
    """What a batch needs of a storage. Each operation raises ``OSError`` if the storage failed."""

    def write(self, uri: str, content: bytes) -> None:
        """Write a file in one step, replacing an older one."""

    def read(self, uri: str) -> bytes:
        """Return the content of a file."""

    def list(self, folder: str) -> list[str]:
        """Return the URIs of the files in a folder, sorted by name; none if there is no such folder."""

    def delete(self, uri: str) -> None:
        """Delete a file if it exists."""


class ObjectStore:
    """A :class:`Store` in any storage that Airflow knows.

    :param conn_id: Connection for that storage.
    """

    def __init__(self, conn_id: str | None = None) -> None:
        self._conn_id = conn_id

    def write(self, uri: str, content: bytes) -> None:
        """Write a file in one step, replacing an older one."""
        storage.write_bytes(uri, content, self._conn_id)

    def read(self, uri: str) -> bytes:
        """Return the content of a file."""
        with storage.open_binary(uri, self._conn_id) as file:
            return file.read()

    def list(self, folder: str) -> list[str]:
        """Return the URIs of the files in a folder, sorted by name; none if there is no such folder."""
        return storage.list_files(folder, self._conn_id)

    def delete(self, uri: str) -> None:
        """Delete a file if it exists."""
        storage.delete(uri, self._conn_id)


def retry_storage(operation: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """Return the result of ``operation``, calling it again while the storage fails.

    :param operation: May be called several times.
    :param sleep: Waits a number of seconds.
    :raises OSError: it failed at the last attempt too.
    """
    retrying = Retrying(
        stop=stop_after_attempt(len(RETRY_PAUSES_SECONDS) + 1),
        # tenacity asks for a pause after the last attempt too, and does not wait.
        wait=wait_chain(*map(wait_fixed, (*RETRY_PAUSES_SECONDS, 0.0))),
        retry=retry_if_exception_type(OSError),
        before_sleep=_warn,
        sleep=sleep,
        reraise=True,
    )
    return retrying(operation)


def _warn(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("The storage failed; trying again: %s", type(error).__name__)


def with_checkpoints(items: Iterable[T], checkpoint: Callable[[], object]) -> Iterator[T]:
    """Yield ``items`` and call ``checkpoint`` after every 1000 of them, for example to stop a killed task."""
    for number, item in enumerate(items, 1):
        yield item
        if number % ITEMS_PER_CHECKPOINT == 0:
            checkpoint()
