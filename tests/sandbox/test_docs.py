# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Does the page about the sandbox name everything that can be set, broken or called?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_faceki.sandbox.__main__ import parser
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW
from airflow_provider_faceki.sandbox.control import CONTROL_CALLS
from airflow_provider_faceki.sandbox.dialects import DIALECTS
from airflow_provider_faceki.sandbox.faults import KINDS
from airflow_provider_faceki.sandbox.routes.table import ROUTE_NAMES
from airflow_provider_faceki.sandbox.settings import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sandbox.md").read_text()
PROSE = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
QUOTED = set(re.findall(r"`([^`]+)`", PROSE))


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(set(Settings().values()), id="settings"),
        pytest.param(set(DIALECTS), id="dialects"),
        pytest.param(set(KINDS), id="fault kinds"),
        pytest.param(set().union(*KINDS.values()), id="fault options"),
        pytest.param(set(ROUTE_NAMES), id="routes"),
        pytest.param({DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_WORKFLOW}, id="defaults"),
        pytest.param(
            {each for action in parser()._actions for each in action.option_strings} - {"-h", "--help"},
            id="options",
        ),
    ],
)
def test_it_is_named(names: set[str]) -> None:
    assert names - QUOTED == set()


def test_each_control_call_is_named() -> None:
    assert {name for _, name in CONTROL_CALLS if f"/_sandbox/{name}" not in PAGE} == set()


def test_each_dialect_is_described_as_in_the_code() -> None:
    missing = [name for name, dialect in DIALECTS.items() if f"| `{name}` | {dialect.summary} |" not in PAGE]
    assert missing == []
