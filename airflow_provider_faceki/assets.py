# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The asset that stands for the decisions of a FACEKI account."""

from __future__ import annotations

import re

from airflow.providers.common.compat.sdk import Asset

from airflow_provider_faceki.connection.schema import DEFAULT_CONN_ID

_ALLOWED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


def fits_uri(conn_id: str) -> bool:
    """Return whether a Connection id can be the host of a URI as it is."""
    return _ALLOWED.fullmatch(conn_id) is not None


def faceki_verifications(conn_id: str = DEFAULT_CONN_ID) -> Asset:
    """Return the asset of the verifications that a FACEKI account reports.

    Its name and its URI are both ``faceki://<conn_id>/verifications``. Each event reports one
    decision: its partition key is FACEKI's request id (Airflow 3.2 and later), its extra is
    ``{"request_id", "status"}``. Both are only hints: fetch the record before you rely on them.

    :param conn_id: Connection of type ``faceki``. Its id becomes part of a URI, so it has to consist of letters,
        digits and ``. _ -``, and begin with none of ``. -``.
    :raises ValueError: it does not.
    """
    if not fits_uri(conn_id):
        raise ValueError(
            f"conn_id: found {conn_id!r}, which cannot stand in the asset's URI; allowed are up to 200 of the "
            "characters A-Z a-z 0-9 . _ -, the first of them none of . and -"
        )
    return Asset(uri=f"faceki://{conn_id}/verifications")
