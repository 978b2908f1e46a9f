# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The table, commands and errors of the Connection page are correct."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_faceki.api.errors import ConfigurationError
from airflow_provider_faceki.connection.schema import ConnectionSettings
from airflow_provider_faceki.connection.settings import StoredConnection, settings_from_connection
from airflow_provider_faceki.hooks.faceki import FacekiHook
from tests.provider.connection_table import connection_table
from tests.provider.connections import read

PAGE = (Path(__file__).parents[2] / "docs" / "connection.md").read_text()
COMMANDS = [
    shlex.split(block.replace("\\\n", " ")) for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
]


def commands(*start: str) -> list[list[str]]:
    found = [command for command in COMMANDS if command[: len(start)] == list(start)]
    assert len(found) == 2
    return found


def matches_the_page(settings: ConnectionSettings) -> bool:
    expected = read(
        conn_id="faceki_default",
        login="my-client-id",
        password="my-client-secret",
        extra={"workflow_id": "my-workflow", "timeout": 20},
    )
    return settings == expected


@pytest.mark.parametrize("command", [pytest.param(0, id="JSON"), pytest.param(1, id="URI")])
def test_environment_variables(command: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = [words for words in COMMANDS if words[0] == "export"]
    assert len(exported) == 2
    name, _, value = exported[command][1].partition("=")
    monkeypatch.setenv(name, value)
    assert matches_the_page(FacekiHook().settings)


def test_connections_add() -> None:
    by_json, by_flags = commands("airflow", "connections", "add", "faceki_default")
    conn = Connection.from_json(by_json[by_json.index("--conn-json") + 1], conn_id="faceki_default")
    assert matches_the_page(settings_from_connection("faceki_default", StoredConnection.of(conn)))
    flags: dict[str, Any] = dict(zip(by_flags[4::2], by_flags[5::2], strict=True))
    conn = Connection(
        conn_id="faceki_default",
        conn_type=flags["--conn-type"],
        login=flags["--conn-login"],
        password=flags["--conn-password"],
        extra=flags["--conn-extra"],
    )
    assert matches_the_page(settings_from_connection("faceki_default", StoredConnection.of(conn)))


def test_the_table_is_that_of_the_schema() -> None:
    assert connection_table() in PAGE, "write it anew: python -m tests.provider.connection_table"


def test_the_page_shows_the_exact_error_message() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(password=None, extra={"timeout": "soon"})
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
