# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Which Airflow Connection leads to a sandbox?"""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_faceki.sandbox.workflows import DEFAULT_WORKFLOW


def connection(
    url: str, client_id: str, client_secret: str, tls: tuple[str, str] | None, extra: Mapping[str, object]
) -> dict[str, object]:
    """`json.dumps` of it fits into `AIRFLOW_CONN_FACEKI_DEFAULT`. `extra` adds to, or replaces, what is in extra.

    The image check and the report would otherwise go to FACEKI's own add-on host, or nowhere.
    """
    made: dict[str, object] = {
        "workflow_id": DEFAULT_WORKFLOW,
        "addon_url": url,
        "pdf_report_path": "/sandbox/report/{requestId}",
    }
    if tls:
        made["verify"] = tls[0]
    return {
        "conn_type": "faceki",
        "host": url,
        "login": client_id,
        "password": client_secret,
        "extra": {**made, **extra},
    }
