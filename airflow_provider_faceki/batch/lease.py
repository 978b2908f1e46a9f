# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Lease on a batch with a fencing token: only the newest try is allowed to send.

Two tries that run at the same time would bill twice. This situation occurs: Airflow loses contact with a running worker
and starts the next try elsewhere, or a suspended machine resumes. Each try writes a lease file before it reads the
journal. The file's number (the fencing token) is higher than all numbers in the folder. After the try has written its
intents, and before it sends the rows, it lists the folder again. If there is a higher number, it stops. So either the
newer try has read the older try's intents, or the older try sees the newer try's lease.

This needs a storage that lists a file as soon as it is written, as the large object stores do. It needs neither locks
nor clocks.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from airflow_provider_faceki.api.errors import ValidationError
from airflow_provider_faceki.batch.store import Clock, Store, retry_storage

T = TypeVar("T")

#: If the last successful check is older than this number of seconds, the lease is checked again before a charged call.
MAX_UNCHECKED_SECONDS = 5.0


class LeaseLostError(ValidationError):
    """Error: a newer try has the lease, so this try must not send."""


class Lease:
    """The lease of one try.

    :param folder: URI of the folder with the leases.
    :param batch_id: Id of the batch. A folder belongs to one batch.
    """

    def __init__(self, store: Store, folder: str, batch_id: str, clock: Clock | None = None) -> None:
        self._store = store
        self._folder = folder
        self._batch_id = batch_id
        self._clock = clock or Clock()
        self._name = ""
        self._checked_at = float("-inf")
        self._checking = threading.Lock()

    def acquire(self) -> None:
        """Acquire the lease, which invalidates the lease of any other try.

        :raises ValidationError: the folder belongs to another batch, or an even newer try has the lease.
        """
        names = self._retry(self._names)
        owner = next(
            filter(None, (self._retry(partial(self._owner, name)) for name in reversed(names))), None
        )
        if owner is not None and owner != self._batch_id:
            raise ValidationError(
                f"output_path holds another batch, {owner!r}; this one is {self._batch_id!r}. To go on with it, give "
                "this one the same batch_id; else give it an output_path of its own"
            )
        tokens = [int(name[4:10]) for name in names if name[4:10].isdigit()]
        self._name = f"try-{max(tokens, default=0) + 1:06d}-{os.urandom(4).hex()}.json"
        uri = f"{self._folder}/{self._name}"
        content = json.dumps({"batch": self._batch_id}).encode() + b"\n"
        self._retry(partial(self._store.write, uri, content))
        try:
            self._retry(self.ensure_held)
        except ValidationError:
            # If two tries start at the same moment, the losing try must not block the winning try's next try.
            self._retry(partial(self._store.delete, uri))
            raise

    def ensure_held(self) -> None:
        """Check that no newer try has the lease.

        :raises LeaseLostError: a newer try has the lease.
        :raises OSError: the storage failed.
        """
        # The time is read before the folder is listed, because the process is possibly suspended while it waits for the
        # list.
        started_at = self._clock.boottime()
        if self._names()[-1:] != [self._name]:
            raise LeaseLostError("another try has begun to work on this output_path, so this one stops")
        self._checked_at = started_at

    def ensure_fresh(self) -> None:
        """Check the lease again if the last check is too old. Thread-safe.

        The check is too old, for example, after the process was suspended.

        :raises LeaseLostError: a newer try has the lease.
        :raises OSError: the storage failed.
        """
        if self._is_fresh():
            return
        with self._checking:
            if not self._is_fresh():
                self.ensure_held()

    def _retry(self, operation: Callable[[], T]) -> T:
        return retry_storage(operation, self._clock.sleep)

    def _is_fresh(self) -> bool:
        return self._clock.boottime() - self._checked_at <= MAX_UNCHECKED_SECONDS

    def _names(self) -> list[str]:
        found = self._store.list(self._folder)
        return [name for uri in found if (name := uri.rpartition("/")[2]).startswith("try-")]

    def _owner(self, name: str) -> str | None:
        """Return the batch id in a lease file; ``None`` if the file is incomplete or was deleted in the meantime."""
        try:
            document = json.loads(self._store.read(f"{self._folder}/{name}"))
        except ValueError:
            return None
        owner = document.get("batch") if isinstance(document, dict) else None
        return owner if isinstance(owner, str) else None
