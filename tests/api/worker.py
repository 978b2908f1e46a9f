# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A task's process: asks FACEKI once for each line on stdin, and says on stdout how it went."""

from __future__ import annotations

import sys
from pathlib import Path

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.transport.http_transport import TransportSettings


def main() -> None:
    """Run until stdin ends."""
    url, client_id, secret, folder, bundle = sys.argv[1:]
    client = FacekiClient(
        client_id,
        secret,
        service=Service(base_url=url),
        transport=TransportSettings(timeout=10.0, verify=bundle),
        token_directory=Path(folder),
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


if __name__ == "__main__":
    main()
