# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Connections as tests hand them over, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_faceki.api.errors import ConfigurationError
from airflow_provider_faceki.settings import ConnectionSettings, connection_settings

SECRET = "canary-secret-0451"
LONG_KEY = "canary-key-" + "k" * 32


def read(
    *,
    login: str | None = "client-7",
    password: str | None = SECRET,
    host: str | None = None,
    port: int | None = None,
    schema: str | None = None,
    extra: object = None,
) -> ConnectionSettings:
    return connection_settings(
        conn_id="kyc", login=login, password=password, host=host, port=port, schema=schema, extra=extra
    )


def refused(**fields: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(**fields)
    text = str(caught.value)
    assert "connection 'kyc'" in text
    assert SECRET not in text
    assert SECRET not in repr(caught.value)
    return text
