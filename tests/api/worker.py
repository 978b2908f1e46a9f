# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A worker process, which calls FACEKI once for each line on stdin and writes each outcome to stdout."""

from __future__ import annotations

import sys
from pathlib import Path

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.service import Service
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
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        try:
            outcome = f"found {len(client.call(FetchRecords(request_id='r-1')))}"
        except FacekiError as error:
            outcome = type(error).__name__
        sys.stdout.write(f"{outcome}\n")
        sys.stdout.flush()


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
