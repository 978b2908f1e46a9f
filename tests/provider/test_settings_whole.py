# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Whole Connections: all errors in one report, types, the extra, and hidden secrets."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest

from airflow_provider_faceki.api.errors import ConfigurationError
from airflow_provider_faceki.connection import settings
from airflow_provider_faceki.connection.schema import ConnectionSettings
from tests.provider.connections import LONG_KEY, SECRET, read, refused


def test_one_error_names_all_invalid_fields() -> None:
    text = refused(login=None, password=None, host="ftp://h", extra={"timeout": "soon", "verify": 7})
    named = ["'login'", "'password'", "'host'", "'timeout'", "'verify'"]
    lines = text.splitlines()
    assert [sum(name in line for line in lines) for name in named] == [1] * 5
    assert len(lines) == 7


@pytest.mark.parametrize("key", ["timeout", "auth_flow", "verify", "workflow_id", "records_path", "host"])
def test_a_secret_in_the_wrong_field_is_not_shown(key: str) -> None:
    misplaced = f"  {SECRET}"
    text = refused(host=misplaced) if key == "host" else refused(extra={key: misplaced})
    assert f"text of {len(misplaced)} characters" in text


def test_repr_and_pickle() -> None:
    secrets = {
        "webhook_token": "canary-token-" + "a" * 32,
        "webhook_token_previous": "canary-token-" + "b" * 32,
        "webhook_hmac_secret": "canary-hmac-" + "c" * 32,
        "pii_hash_secret": LONG_KEY,
    }
    found = read(
        extra={
            **secrets,
            "webhook_hmac_header": "X-Sig",
            "proxies": {"http": "http://me:canary%2Fpass@p.example"},
        }
    )
    assert "canary" not in repr(found)
    assert "client-7" in repr(found)
    assert set(found.secrets) == {SECRET, *secrets.values(), "canary%2Fpass", "canary/pass"}
    assert {found: "the same"}[pickle.loads(pickle.dumps(found))] == "the same"  # noqa: S301 - trusted bytes


class _Conn:
    """Stand-in with the fields of an Airflow Connection."""

    def __init__(self, extra: str | None, conn_type: str | None = "faceki") -> None:
        self.conn_type = conn_type
        self.login, self.password, self.host, self.port, self.schema = "i", SECRET, None, None, None
        self.extra = extra

    @property
    def extra_dejson(self) -> dict[str, object]:
        raise AssertionError("would block an event loop")


def _settings(conn: _Conn) -> ConnectionSettings:
    return settings.settings_from_connection("kyc", settings.StoredConnection.of(conn))


@pytest.mark.parametrize(
    ("extra", "timeout"),
    [
        pytest.param(None, 30, id="none"),
        pytest.param("", 30, id="empty"),
        pytest.param("  ", 30, id="blank"),
        pytest.param("null", 30, id="null"),
        pytest.param('{"timeout": 5}', 5, id="object"),
    ],
)
def test_extra_is_read_from_its_text(extra: str | None, timeout: float) -> None:
    assert _settings(_Conn(extra)).timeout == timeout


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(f'{{"timeout": {SECRET}', id="broken"),
        pytest.param(f'["{SECRET}"]', id="list"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param("7", id="number"),
    ],
)
def test_an_extra_that_is_no_json_object_is_rejected(extra: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Extra \(field 'extra'\).*a JSON object") as caught:
        _settings(_Conn(extra))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("conn_type", ["faceki", "generic", "", None])
def test_a_faceki_or_missing_connection_type_is_accepted(conn_type: str | None) -> None:
    assert _settings(_Conn(None, conn_type)).client_id == "i"


@pytest.mark.parametrize(
    ("conn_type", "shown"),
    [
        pytest.param("smtp", "its type is 'smtp'", id="another service's"),
        pytest.param("http", "its type is 'http'", id="any server's"),
        pytest.param(f"me:{SECRET}@x", "its type is another one", id="what is no type"),
    ],
)
def test_a_connection_type_of_another_service_is_rejected(conn_type: str, shown: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"{shown}; allowed are 'faceki'.*connection 'kyc'"
    ) as caught:
        _settings(_Conn(None, conn_type))
    assert SECRET not in str(caught.value)


def test_unknown_keys_are_named_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "_WARNED", set())
    caplog.set_level(logging.WARNING, logger=settings.__name__)
    for _ in range(3):
        read(extra={"timeuot": 5, "x": SECRET, "timeout": 6})
    read(extra={"x": 1})
    assert [record.getMessage() for record in caplog.records] == [
        "Connection 'kyc': unknown keys in extra are ignored: 'timeuot' (did you mean timeout?), 'x'",
        "Connection 'kyc': unknown keys in extra are ignored: 'x'",
    ]


def test_the_token_directory_is_in_airflows_home(airflow_home: Path) -> None:
    assert settings.token_directory() == airflow_home / "faceki_tokens"
