# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Is what the page about the Connection says so?"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_faceki import connection_form
from airflow_provider_faceki.api.errors import ConfigurationError
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.settings import ConnectionSettings, connection_settings, settings_from_connection

PAGE = (Path(__file__).parents[2] / "docs" / "connection.md").read_text()
COMMANDS = [
    shlex.split(block.replace("\\\n", " ")) for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
]


def commands(*start: str) -> list[list[str]]:
    found = [command for command in COMMANDS if command[: len(start)] == list(start)]
    assert len(found) == 2
    return found


def is_what_the_page_means(settings: ConnectionSettings) -> bool:
    expected = connection_settings(
        conn_id="faceki_default",
        login="my-client-id",
        password="my-client-secret",
        host=None,
        extra={"workflow_id": "my-workflow", "timeout": 20},
    )
    return settings == expected


@pytest.mark.parametrize("command", [pytest.param(0, id="JSON"), pytest.param(1, id="URI")])
def test_environment_variables(command: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = [words for words in COMMANDS if words[0] == "export"]
    assert len(exported) == 2
    name, _, value = exported[command][1].partition("=")
    monkeypatch.setenv(name, value)
    assert is_what_the_page_means(FacekiHook().settings)


def test_connections_add() -> None:
    by_json, by_flags = commands("airflow", "connections", "add", "faceki_default")
    read = Connection.from_json(by_json[by_json.index("--conn-json") + 1], conn_id="faceki_default")
    assert is_what_the_page_means(settings_from_connection("faceki_default", read))
    flags: dict[str, Any] = dict(zip(by_flags[4::2], by_flags[5::2], strict=True))
    read = Connection(
        conn_id="faceki_default",
        conn_type=flags["--conn-type"],
        login=flags["--conn-login"],
        password=flags["--conn-password"],
        extra=flags["--conn-extra"],
    )
    assert is_what_the_page_means(settings_from_connection("faceki_default", read))


def test_the_table_has_every_field_with_its_default_and_limits() -> None:
    rows = [line.split("|") for line in PAGE.splitlines() if line.startswith("|") and "extra `" in line]
    told = {key: row for row in rows for key in re.findall(r"`(\w+)`", row[2])}
    assert told.keys() == connection_form.EXTRA_FIELDS.keys()
    for key, row in told.items():
        default = connection_form.DEFAULTS.get(key)
        if default is not None:
            assert row[3].strip(" `") == str(default).replace("True", "true"), key
        if key in connection_form.LIMITS:
            low, high = connection_form.LIMITS[key]
            assert f"{low} to {high}" in row[4], key
        if not key.startswith("webhook_hmac"):  # the two share a row
            assert row[1].strip() == connection_form.EXTRA_FIELDS[key].label


def test_the_error_is_shown_as_it_is() -> None:
    with pytest.raises(ConfigurationError) as caught:
        connection_settings(conn_id="x", login="i", password=None, host=None, extra={"timeout": "soon"})
    assert caught.value.message in PAGE


def test_every_link_within_the_docs_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in PAGE.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://"):
            assert (Path(__file__).parents[2] / "docs" / target).exists()
