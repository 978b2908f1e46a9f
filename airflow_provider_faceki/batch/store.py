# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Storage access of a batch, retries after temporary storage failures, and clocks. Tests replace storage and clocks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, BinaryIO, TypeVar, cast

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

#: Pauses in seconds before a failed storage operation is repeated. There is one repetition after each pause.
RETRY_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
#: A long loop calls a function ``checkpoint`` whenever it has processed this number of items, for example to stop a
#: killed task.
ITEMS_PER_CHECKPOINT = 1000


class Clock:
    """The clocks of this machine."""

    def time(self) -> float:
        """Return the Unix time."""
        return time.time()

    def monotonic(self) -> float:
        """Return a time in seconds that never moves backwards."""
        return time.monotonic()

    def boottime(self) -> float:
        """Return a time in seconds that also advances while the machine is suspended.

        If the system has no such clock, return the monotonic time.
        """
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""
        time.sleep(seconds)


class ObjectStore:
    """Storage operations that a batch needs, in any storage that Airflow supports.

    Each operation raises ``OSError`` if the storage fails, and ``ValidationError`` if the path is wrong.

    :param conn_id: Id of the Connection for the storage. Default: the Connection in the URI.
    """

    def __init__(self, conn_id: str | None = None) -> None:
        self._conn_id = conn_id

    def write(self, uri: str, content: bytes) -> None:
        """Write a whole file. An existing file is replaced, on local disks and object storages atomically."""
        storage.write_bytes(uri, content, self._conn_id)

    def read(self, uri: str) -> bytes:
        """Return the content of a file."""
        with storage.open_binary(uri, self._conn_id) as file:
            return file.read()

    def list(self, folder: str) -> list[str]:
        """Return the URIs of the files in a folder, sorted by name. If the folder does not exist, the list is empty."""
        return storage.list_files(folder, self._conn_id)

    def delete(self, uri: str) -> None:
        """Delete a file. If the file does not exist, do nothing."""
        storage.delete(uri, self._conn_id)


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


def write_file(uri: str, file: IO[bytes], conn_id: str | None) -> str:
    """Write a complete temporary file to ``uri``, and return ``uri``. If the storage fails, write again after a pause.

    :raises OSError: if the last attempt also failed.
    """

    def write() -> str:
        file.seek(0)
        return storage.write_file(uri, cast("BinaryIO", file), conn_id)

    return retry_storage(write)


def _warn(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("The storage failed; trying again: %s", type(error).__name__)


def with_checkpoints(items: Iterable[T], checkpoint: Callable[[], object]) -> Iterator[T]:
    """Yield the items. After every 1000 items, call the function ``checkpoint``, for example to stop a killed task."""
    for number, item in enumerate(items, 1):
        yield item
        if number % ITEMS_PER_CHECKPOINT == 0:
            checkpoint()
