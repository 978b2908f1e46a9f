# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Lease on a batch: a file that shows which try is the newest. Only the newest try is allowed to send rows.

Two tries that run at the same time would bill the same rows twice. This situation occurs if Airflow loses contact with
a running worker and starts the next try on another worker. It also occurs if a machine is suspended, and resumes after
Airflow has started the next try.

Each try writes a lease file before it reads the journal, which contains the states of all rows. The number in the file
name is the fencing token. This number is higher than all earlier numbers in the folder. Before a try sends rows, it
writes an intent (a note that the row is about to be sent) for each of these rows to the journal. Then the try lists the
folder of the lease files again. If the folder contains a higher number, the try stops. Therefore no row is sent twice:

- If the older try writes its intents before the newer try reads the journal, the newer try finds these intents. It
  treats the rows as possibly sent.
- If the older try writes its intents later, it finds the lease file of the newer try and stops.

There is one exception: the older try can be suspended after it has listed the folder, and before it has sent the rows.
docs/batch.md describes what the older try can send in this case.

This algorithm needs a storage that lists a file as soon as the file is written. S3, Google Cloud Storage and Azure do
this. The algorithm needs neither locks nor synchronized clocks.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.storage_interface import ObjectStore, retry_storage

T = TypeVar("T")

#: Maximum age in seconds of the last successful check of the lease (the right to send rows) when a row is sent. If the
#: check is older, the try first checks again that no newer try has the lease.
MAX_UNCHECKED_SECONDS = 5.0


class LeaseLostError(ValidationError):
    """Error: a newer try has the lease (the right to send rows), so this try must not send any row."""


class LeaseUncheckedError(ValidationError):
    """Error: while a row was sent, it could not be checked whether a newer try has started.

    Therefore the sending was stopped. FACEKI has received only an incomplete request.
    """


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


class Lease:
    """Lease of one try on a batch. Only the try with the newest lease is allowed to send rows.

    :param folder: URI of the folder with the lease files of all tries. The folder belongs to only one batch.
    :param batch_id: Id of the batch.
    :param clock: Clock of this machine. Tests replace it.
    """

    def __init__(self, store: ObjectStore, folder: str, batch_id: str, clock: Clock | None = None) -> None:
        self._store = store
        self._folder = folder
        self._batch_id = batch_id
        self._clock = clock or Clock()
        self._name = ""
        self._checked_at = float("-inf")
        self._checking = threading.Lock()

    def acquire(self) -> None:
        """Acquire the lease, which is the right to send rows. After this call, no older try has a valid lease.

        :raises ValidationError: if the folder belongs to another batch, or if a newer try has acquired the lease.
        :raises OSError: if the storage failed.
        """
        names = self._retry(self._names)
        owner = next(
            filter(None, (self._retry(partial(self._owner, name)) for name in reversed(names))), None
        )
        if owner is not None and owner != self._batch_id:
            raise ValidationError(
                f"output_path contains another batch, {owner!r}; this one is {self._batch_id!r}. To "
                "continue the other batch, set its batch_id; otherwise set another output_path"
            )
        tokens = [int(name[4:10]) for name in names if name[4:10].isdigit()]
        self._name = f"try-{max(tokens, default=0) + 1:06d}-{os.urandom(4).hex()}.json"
        uri = f"{self._folder}/{self._name}"
        content = json.dumps({"batch": self._batch_id}).encode() + b"\n"
        self._retry(partial(self._store.write, uri, content))
        try:
            self._retry(self.ensure_held)
        except ValidationError:
            # If two tries start at the same moment, only one of them gets the lease (the right to send rows). The other
            # try deletes its own lease file, because nobody needs it any more.
            self._retry(partial(self._store.delete, uri))
            raise

    def ensure_held(self) -> None:
        """Check that this try still has the lease, which is the right to send rows.

        :raises LeaseLostError: if a newer try has the lease.
        :raises OSError: if the storage failed.
        """
        # The clock is read before the lease files are listed, and this value is stored as the time of the check. If the
        # process is suspended during the listing, a newer try can start without being listed. In this case the stored
        # time is old when the process resumes, so the check is repeated before a row is sent.
        started_at = self._clock.boottime()
        if self._names()[-1:] != [self._name]:
            raise LeaseLostError("another try has begun to work on this output_path, so this one stops")
        self._checked_at = started_at

    def ensure_fresh(self) -> None:
        """If the last check of the lease (the right to send rows) is too old, check again. This method is thread-safe.

        For example, the last check is too old after the process was suspended.

        :raises LeaseLostError: if a newer try has the lease.
        :raises OSError: if the storage failed.
        """
        if self._is_fresh():
            return
        with self._checking:
            if not self._is_fresh():
                self.ensure_held()

    def ensure_fresh_while_sending(self) -> None:
        """Check the lease (the right to send rows) like :meth:`ensure_fresh`, while images are read and sent.

        :raises LeaseLostError: if a newer try has the lease.
        :raises LeaseUncheckedError: if the storage failed. ``OSError`` is not used here, because the caller would think
            that an image cannot be read.
        """
        try:
            self.ensure_fresh()
        except OSError as error:
            raise LeaseUncheckedError(
                f"output_path could not be read while a row was sent: {type(error).__name__}"
            ) from None

    def _retry(self, operation: Callable[[], T]) -> T:
        return retry_storage(operation, self._clock.sleep)

    def _is_fresh(self) -> bool:
        return self._clock.boottime() - self._checked_at <= MAX_UNCHECKED_SECONDS

    def _names(self) -> list[str]:
        found = self._store.list(self._folder)
        return [name for uri in found if (name := uri.rpartition("/")[2]).startswith("try-")]

    def _owner(self, name: str) -> str | None:
        """Return the id of the batch to which a lease file belongs. The file contains this id.

        If the file is incomplete or was deleted, return ``None``.

        :param name: Name of the lease file in the folder of the leases.
        """
        try:
            document = json.loads(self._store.read(f"{self._folder}/{name}"))
        except ValueError:
            return None
        owner = document.get("batch") if isinstance(document, dict) else None
        return owner if isinstance(owner, str) else None
