# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of docs/sandbox.md, which names all settings, options and calls, and of the example in docs/testing.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_faceki.sandbox.__main__ import parser
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW
from airflow_provider_faceki.sandbox.control import CONTROL_CALLS
from airflow_provider_faceki.sandbox.dialects import DIALECTS
from airflow_provider_faceki.sandbox.faults import KINDS
from airflow_provider_faceki.sandbox.routes import ROUTE_NAMES
from airflow_provider_faceki.sandbox.settings import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Settings

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "sandbox.md").read_text()
TESTING = (ROOT / "docs" / "testing.md").read_text()
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
def test_the_page_names(names: set[str]) -> None:
    assert names - QUOTED == set()


def test_each_control_call_is_named() -> None:
    assert {name for _, name in CONTROL_CALLS if f"/_sandbox/{name}" not in PAGE} == set()


def test_each_dialect_is_described_as_in_the_code() -> None:
    rows = []
    for name, dialect in DIALECTS.items():
        needs = ", ".join(f"`{setting}`: `{value}`" for setting, value in dialect.connection.items())
        rows.append(f"| `{name}` | {dialect.summary} | {needs} |")
    assert [row for row in rows if row not in PAGE] == []


def test_the_example_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", TESTING, flags=re.MULTILINE | re.DOTALL)
    assert [name for name, _ in blocks] == ["conftest.py", "test_onboarding.py"]
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    # The Airflow variables of our conftest.py are removed, so that the example runs as on the machine of a user.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command += ["-p", "airflow_provider_faceki.sandbox.pytest_plugin", str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=550, check=False
    )
    assert "4 passed" in done.stdout, done.stdout[-5000:] + done.stderr[-2000:]
    assert not (tmp_path / "airflow").exists(), "the user's own home is not touched"
