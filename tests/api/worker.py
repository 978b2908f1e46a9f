# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A worker process, which calls FACEKI once for each line on stdin and writes each outcome to stdout.

After the line ``report waits``, the process also writes ``waits`` if another process has the lock of the token.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.protocol import session
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.tokens.file import FileRefreshLock, FileTokenStore
from airflow_provider_faceki.api.tokens.shared import DirectoryTokenBackend, TokenBackend
from airflow_provider_faceki.api.transport.http_transport import TransportSettings


def main() -> None:
    """Call FACEKI for each line until stdin is closed."""
    url, client_id, secret, folder, bundle, *shared = sys.argv[1:]
    client = FacekiClient(
        client_id,
        secret,
        service=Service(base_url=url),
        transport=TransportSettings(timeout=60.0, verify=bundle),
        token_directory=Path(folder),
        token_backend=_backend(*shared) if shared else None,
    )
    # A worker must wait for a lock until it is released, also on a busy machine.
    session.MAX_LOCK_WAIT_SECONDS = 600.0
    _write("ready")
    for line in sys.stdin:
        if line == "report waits\n":
            _report_waits()
            continue
        try:
            outcome = f"found {len(client.call(FetchRecords(request_id='r-1')))}"
        except FacekiError as error:
            outcome = type(error).__name__
        _write(outcome)


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _report_waits() -> None:
    """Write a line when this process first finds that another process has the lock."""
    store_class: Any = FileTokenStore
    try_lock = store_class.try_lock

    def reporting(store: FileTokenStore, generation: int = 0) -> FileRefreshLock | None:
        lock: FileRefreshLock | None = try_lock(store, generation)
        if lock is None:
            store_class.try_lock = try_lock
            _write("waits")
        return lock

    store_class.try_lock = reporting


def _backend(place: str) -> TokenBackend:
    """Return a token backend: a directory, or the object storage at ``AWS_ENDPOINT_URL``."""
    if place.startswith("/"):
        return DirectoryTokenBackend(Path(place))
    from airflow_provider_faceki.token_backend import ObjectStorageTokenBackend

    backend = ObjectStorageTokenBackend(place)
    backend.connect()
    return backend


if __name__ == "__main__":
    main()
