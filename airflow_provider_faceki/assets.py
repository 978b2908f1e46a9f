# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The Airflow asset of a FACEKI account. Each event of the asset reports one decision."""

from __future__ import annotations

import re

from airflow.providers.common.compat.sdk import Asset

from airflow_provider_faceki.connection.schema import DEFAULT_CONN_ID

_ALLOWED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


def fits_uri(conn_id: str) -> bool:
    """Return True if a Connection id has at most 200 characters and can be part of a URI without escaping."""
    return _ALLOWED.fullmatch(conn_id) is not None


def faceki_verifications(conn_id: str = DEFAULT_CONN_ID) -> Asset:
    """Return the asset of a FACEKI account. Each event of the asset reports the decision of one verification.

    The name and the URI of the asset are both ``faceki://<conn_id>/verifications``. The extra of an event is a mapping
    with the keys ``request_id`` and ``status``. If a partitioned DAG is scheduled on the asset (Airflow 3.2 and later),
    the partition key of an event is FACEKI's request id. An event is only a notification and no proof of a decision.
    Therefore fetch the record from FACEKI before you rely on the status.

    :param conn_id: Id of a Connection of type ``faceki``. The id becomes part of a URI. Therefore it must have at most
        200 characters. Only ASCII letters, digits and ``. _ -`` are allowed, and the first character must not be ``.``
        or ``-``.
    :raises ValueError: if the id does not follow these rules.
    """
    if not fits_uri(conn_id):
        raise ValueError(
            f"conn_id: found {conn_id!r}, which cannot be part of the asset's URI; allowed are up to "
            "200 of the characters A-Z a-z 0-9 . _ -, and the first one must not be . or -"
        )
    return Asset(uri=f"faceki://{conn_id}/verifications")
