# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Every way to define a Connection in Airflow results in the same settings."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_faceki.api.errors import ConfigurationError
from airflow_provider_faceki.connection.schema import ConnectionSettings
from airflow_provider_faceki.hooks.faceki import FacekiHook
from tests.provider.command_line import airflow, python

if TYPE_CHECKING:
    from airflow_provider_faceki.sandbox.server import FacekiSandbox

pytestmark = pytest.mark.process

SECRET = "invented/secret+1 =?#"
PROXIES = {"http": "http://me:invented@p.example:3128"}
AS_JSON = {
    "conn_type": "faceki",
    "login": "client:7",
    "password": SECRET,
    "host": "http://127.0.0.1:8080/v1/",
    "extra": {"timeout": 5, "verify": False, "max_attempts": 2, "proxies": PROXIES},
}
# The same Connection as a URI that Airflow generates.
AS_URI = (
    "faceki://client%3A7:invented%2Fsecret%2B1%20%3D%3F%23@http%3A%2F%2F127.0.0.1%3A8080%2Fv1%2F/"
    "?timeout=5&verify=False&max_attempts=2"
    "&proxies=%7B%22http%22%3A%20%22http%3A%2F%2Fme%3Ainvented%40p.example%3A3128%22%7D"
)
# The same Connection as a URI with scheme and port in their usual positions.
AS_PLAIN_URI = (
    "faceki://http://client%3A7:invented%2Fsecret%2B1%20%3D%3F%23@127.0.0.1:8080"
    "?timeout=5&verify=False&max_attempts=2"
    "&proxies=%7B%22http%22%3A%20%22http%3A%2F%2Fme%3Ainvented%40p.example%3A3128%22%7D"
)


def has_expected_settings(found: ConnectionSettings, base_url: str = "http://127.0.0.1:8080/v1") -> bool:
    assert found.client_id == "client:7"
    assert found.client_secret == SECRET
    assert found.base_url == base_url
    assert (found.timeout, found.verify, found.max_attempts) == (5.0, False, 2)
    assert found.proxies == tuple(PROXIES.items())
    return True


@pytest.mark.parametrize(
    ("value", "base_url"),
    [
        pytest.param(json.dumps(AS_JSON), "http://127.0.0.1:8080/v1", id="JSON"),
        pytest.param(
            json.dumps({**AS_JSON, "extra": json.dumps(AS_JSON["extra"])}),
            "http://127.0.0.1:8080/v1",
            id="JSON, extra as text",
        ),
        pytest.param(
            json.dumps({**AS_JSON, "host": "127.0.0.1/v1", "schema": "http", "port": "8080"}),
            "http://127.0.0.1:8080/v1",
            id="JSON, in pieces",
        ),
        pytest.param(AS_URI, "http://127.0.0.1:8080/v1", id="URI"),
        pytest.param(AS_PLAIN_URI, "http://127.0.0.1:8080", id="URI with scheme and port"),
        pytest.param(AS_PLAIN_URI.replace("127.0.0.1", "[::1]"), "http://[::1]:8080", id="URI with IPv6"),
    ],
)
def test_environment_variable(value: str, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KYC", value)
    assert has_expected_settings(FacekiHook("kyc").settings, base_url)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(json.dumps({**AS_JSON, "conn_type": None}), id="null"),
        pytest.param(
            json.dumps({key: AS_JSON[key] for key in AS_JSON if key != "conn_type"}), id="JSON without it"
        ),
        pytest.param(AS_URI.removeprefix("faceki"), id="URI without it"),
        pytest.param(AS_URI.replace("faceki", "FACEKI"), id="capitals"),
    ],
)
def test_an_environment_variable_need_not_name_the_type(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KYC", value)
    assert has_expected_settings(FacekiHook("kyc").settings)


def test_another_service_s_environment_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KYC", f"smtp://me:{'s' * 20}@mail.example")
    with pytest.raises(ConfigurationError, match="its type is 'smtp'"):
        FacekiHook("kyc").settings  # noqa: B018 - the property reads the Connection
    assert FacekiHook("kyc").test_connection()[0] is False


def test_an_invalid_environment_variable_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KYC", f"faceki://i:{'s' * 20}@sdk.example/v1?timeout=soon&verify=None")
    with pytest.raises(ConfigurationError) as caught:
        FacekiHook("kyc").settings  # noqa: B018 - the property reads the Connection
    text = str(caught.value)
    assert "'kyc'" in text
    for part in ("Schema (field 'schema'): found 'v1'", "found 'soon'", "found 'None'"):
        assert part in text
    assert "s" * 20 not in text


BACKENDS = '''
import json
from airflow.providers.common.compat.sdk import Connection
from airflow.secrets import BaseSecretsBackend

FIELDS = json.loads({fields!r})

class Text(BaseSecretsBackend):
    """Hands out text, as vaults do."""
    def get_conn_value(self, conn_id, *args, **kwargs):
        return json.dumps(FIELDS) if conn_id == "kyc" else None

class Whole(BaseSecretsBackend):
    """Hands out a Connection that it has made."""
    def get_connection(self, conn_id, *args, **kwargs):
        more = dict(FIELDS, extra=json.dumps(FIELDS["extra"]))
        return Connection(conn_id=conn_id, **more) if conn_id == "kyc" else None
'''
READ_BY_HOOK = """
import pickle, sys
from airflow_provider_faceki.hooks.faceki import FacekiHook
open(sys.argv[1], "wb").write(pickle.dumps(FacekiHook("kyc").settings))
"""


@pytest.mark.parametrize("backend", ["Text", "Whole"])
def test_custom_secrets_backend(backend: str, tmp_path: Path) -> None:
    (tmp_path / "my_vault.py").write_text(BACKENDS.format(fields=json.dumps(AS_JSON)))
    # A separate process is needed, because Airflow configures its secrets backends once in each process.
    printed = python(
        READ_BY_HOOK,
        str(tmp_path / "settings"),
        AIRFLOW__SECRETS__BACKEND=f"my_vault.{backend}",
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.getcwd()]),
    )
    assert has_expected_settings(pickle.loads((tmp_path / "settings").read_bytes()))  # noqa: S301 - trusted bytes
    assert SECRET not in printed


# The test process started before the encryption key of the database existed, so it cannot read the Connections. This
# script reads them in another process.
READ_STORED = """
import pickle
from airflow.models import Connection
from airflow.utils.session import create_session
from airflow_provider_faceki.connection.settings import StoredConnection, settings_from_connection
with create_session() as session:
    conns = session.query(Connection).order_by(Connection.id)
    found = [settings_from_connection(c.conn_id, StoredConnection.of(c)) for c in conns]
open({file!r}, "wb").write(pickle.dumps(found))
"""


def test_connections_add(airflow_db: Path, tmp_path: Path) -> None:
    added = airflow(
        ["connections", "add", "by_json", "--conn-json", json.dumps(AS_JSON)],
        ["connections", "add", "by_uri", "--conn-uri", AS_URI],
        [
            *("connections", "add", "by_flags", "--conn-type", "faceki"),
            *("--conn-login", "client:7", "--conn-password", SECRET),
            *("--conn-host", "http://127.0.0.1/v1/", "--conn-port", "8080"),
            *("--conn-extra", json.dumps(AS_JSON["extra"])),
        ],
        afterwards=READ_STORED.format(file=str(tmp_path / "settings")),
    )
    assert added.statuses == [0, 0, 0], added.outputs
    found = {each.conn_id: each for each in pickle.loads((tmp_path / "settings").read_bytes())}  # noqa: S301
    for conn_id in ("by_json", "by_uri", "by_flags"):
        assert has_expected_settings(found[conn_id])


def test_connections_test_sends_a_request_to_faceki(airflow_db: Path, faceki_sandbox: FacekiSandbox) -> None:
    right: dict[str, Any] = faceki_sandbox.connection()
    wrong = {**right, "password": "canary-not-this-one"}
    unfit = {**right, "extra": {"timeout": "soon"}}
    # The error text contains this host. Airflow's command line interprets brackets as markup, and would fail if the
    # hook did not replace the brackets.
    marked = {**right, "host": "http://example.com/[/x]"}
    tested = airflow(
        *(["connections", "test", conn_id] for conn_id in ("right", "wrong", "unfit", "marked")),
        AIRFLOW_CONN_RIGHT=json.dumps(right),
        AIRFLOW_CONN_WRONG=json.dumps(wrong),
        AIRFLOW_CONN_UNFIT=json.dumps(unfit),
        AIRFLOW_CONN_MARKED=json.dumps(marked),
    )
    assert tested.statuses[0] == 0
    assert "Connection success!" in tested.outputs[0]
    for output in tested.outputs[1:]:
        assert "Connection failed!" in output
    assert "canary" not in tested.outputs[1]
    assert "Timeout (s) (extra 'timeout'): found 'soon'" in tested.outputs[2]
    assert right["password"] not in tested.outputs[2]
    assert "API base URL (field 'host')" in tested.outputs[3]
