# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Helpers that read valid Connections and check the errors of invalid Connections."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_faceki.api.errors import ConfigurationError
from airflow_provider_faceki.connection.schema import ConnectionSettings
from airflow_provider_faceki.connection.settings import StoredConnection, settings_from_connection

SECRET = "canary-secret-0451"
LONG_KEY = "canary-key-" + "k" * 32


def read(
    *,
    login: str | None = "client-7",
    password: str | None = SECRET,
    host: str | None = None,
    port: int | None = None,
    schema: str | None = None,
    extra: Any = None,
    conn_type: str | None = "faceki",
    conn_id: str = "kyc",
) -> ConnectionSettings:
    stored = StoredConnection(conn_type, login, password, host, port, schema, extra)
    return settings_from_connection(conn_id, stored)


def refused(**fields: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(**fields)
    text = str(caught.value)
    assert "connection 'kyc'" in text
    assert SECRET not in text
    assert SECRET not in repr(caught.value)
    return text
