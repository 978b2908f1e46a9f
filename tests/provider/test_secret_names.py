# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Airflow's masker, REST responses and form mask every secret field, because they recognise the field's name.

``airflow connections get``, ``airflow connections export`` and parts of the audit log show secrets.
``docs/connection.md`` documents this, and the tests below verify that it is still correct.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import redact

from airflow_provider_faceki.connection.schema import EXTRA_FIELDS, SPECS
from tests.airflow.running import AIRFLOW_3, AIRFLOW_VERSION
from tests.provider.command_line import airflow

pytestmark = pytest.mark.process

SECRETS = [name for name, spec in EXTRA_FIELDS.items() if spec.secret]
#: Fields that are not secret, or that are secret only if a URL contains a password. Airflow masks them too.
ALSO_MASKED = {"auth_header", "proxies", "token_store"}
CANARY = "canary-value-to-mask-0000000000000000000"


@pytest.mark.parametrize("name", SECRETS)
def test_the_masker_knows_the_name_of_a_secret(name: str) -> None:
    assert redact({name: CANARY}) == {name: "***"}


def test_the_masker_masks_more_fields_because_of_their_names() -> None:
    masked = ALSO_MASKED - (set() if AIRFLOW_VERSION >= (3, 2) else {"auth_header"})
    assert redact(dict.fromkeys(masked, "shown")) == dict.fromkeys(masked, "***")


def test_the_masker_leaves_the_other_fields_alone() -> None:
    plain = {name: "shown" for name, spec in SPECS.items() if not spec.secret and name not in ALSO_MASKED}
    assert redact(plain) == plain


def rest_answer(extra: dict[str, object]) -> str:
    """Return the response of Airflow's REST API for a Connection."""
    from airflow.models import Connection

    conn = Connection(conn_id="kyc", conn_type="faceki", password=CANARY, extra=json.dumps(extra))
    if AIRFLOW_3:
        from airflow.api_fastapi.core_api.datamodels.connections import ConnectionResponse

        conn.team_name = None
        return str(ConnectionResponse.model_validate(conn, from_attributes=True).model_dump_json())
    from airflow.api_connexion.schemas.connection_schema import connection_schema

    return json.dumps(connection_schema.dump(conn))


def test_the_rest_answer_shows_no_secret() -> None:
    answer = rest_answer(dict.fromkeys(SECRETS, CANARY) | {"timeout": 7})
    assert CANARY not in answer
    assert "timeout" in answer


def audited(*command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the command as Airflow writes it into its audit log."""
    from airflow.utils import cli

    monkeypatch.setattr(sys, "argv", ["airflow", "connections", "add", "kyc", *command])
    return str(cli._build_metrics("connections_add", argparse.Namespace())["full_command"])


@pytest.mark.parametrize(
    ("command", "masked"),
    [
        pytest.param(["--conn-password", CANARY], True, id="password"),
        pytest.param(["--conn-json", json.dumps({"password": CANARY})], True, id="password in JSON"),
        pytest.param(["--conn-uri", f"faceki://me:{CANARY}@h"], True, id="password in a URI"),
        pytest.param(["--conn-json", json.dumps({"extra": {SECRETS[0]: CANARY}})], False, id="extra in JSON"),
        pytest.param(["--conn-extra", json.dumps({SECRETS[0]: CANARY})], False, id="extra"),
        pytest.param(["--conn-uri", f"faceki://me:x@h/?{SECRETS[0]}={CANARY}"], False, id="extra in a URI"),
    ],
)
def test_the_audit_log_masks_the_password_alone(
    command: list[str], masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The Connection page documents which values are not masked. From 3.4 on, Airflow masks them all.
    assert (CANARY not in audited(*command, monkeypatch=monkeypatch)) is (masked or AIRFLOW_VERSION >= (3, 4))


def test_export_and_get_show_secrets(airflow_db: Path, tmp_path: Path) -> None:
    file = tmp_path / "exported.json"
    content = {"kyc_masked": {"conn_type": "faceki", "login": "i", "extra": {SECRETS[0]: CANARY}}}
    imported = tmp_path / "imported.json"
    imported.write_text(json.dumps(content))
    done = airflow(
        ["connections", "import", str(imported)],
        ["connections", "get", "kyc_masked", "-o", "json"],
        ["connections", "export", str(file)],
        ["connections", "delete", "kyc_masked"],
    )
    assert done.statuses == [0] * 4
    assert CANARY in file.read_text()
    in_import, in_get, in_export, in_delete = done.outputs
    assert CANARY in in_get
    assert CANARY not in "".join([in_import, in_export, in_delete, *done.complaints])
