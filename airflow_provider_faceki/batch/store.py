# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Interface to the storage of a batch, retries after temporary storage failures, and clocks."""

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

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Pauses in seconds before a failed storage operation is repeated. There is one repetition after each pause.
RETRY_PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0)
#: A long loop calls a function ``checkpoint`` whenever it has processed this number of items, for example to stop a
#: killed task.
ITEMS_PER_CHECKPOINT = 1000


class Clock:
    """The clocks of this machine. Tests replace them."""

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


class ObjectStore(Protocol):
    """Storage of a batch. Tests use a storage in memory.

    Several threads call the operations. Each operation raises ``OSError`` if the storage fails, and ``ValidationError``
    if the path is wrong. As soon as a file is written, :meth:`list` must contain it, because ``lease.py`` lists files
    to find out whether a newer try has started.
    """

    def write(self, uri: str, content: bytes) -> None:
        """Write a whole file, or replace an existing file. On local disks and object stores, replacing is atomic."""

    def read(self, uri: str) -> bytes:
        """Return the content of a file."""

    def list(self, folder: str) -> list[str]:
        """Return the URIs of the files in a folder, sorted by name. If the folder does not exist, the list is empty."""

    def delete(self, uri: str) -> None:
        """Delete a file. If the file does not exist, do nothing."""


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


def with_checkpoints(items: Iterable[T], checkpoint: Callable[[], object]) -> Iterator[T]:
    """Yield the items. After every 1000 items, call the function ``checkpoint``, for example to stop a killed task."""
    for number, item in enumerate(items, 1):
        yield item
        if number % ITEMS_PER_CHECKPOINT == 0:
            checkpoint()
