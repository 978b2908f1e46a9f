# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the fixture `faceki_sandbox` in another project, with and without the packages of the extra `sandbox`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]

USERS_TESTS = """
import json, os, sys
import pytest

def test_nothing_is_imported_before_it_is_wanted():
    assert "starlette" not in sys.modules and "uvicorn" not in sys.modules

def connection():
    return json.loads(os.environ["AIRFLOW_CONN_FACEKI_DEFAULT"])

SEEN = []

@pytest.mark.parametrize("n", range(3))
def test_fresh_each_time(faceki_sandbox, n):
    assert connection()["host"] == faceki_sandbox.url
    assert connection()["login"] == faceki_sandbox.client_id
    assert faceki_sandbox.ledger == {}
    faceki_sandbox.decide(faceki_sandbox.create_link("order-1"), "ACCEPTED")
    faceki_sandbox.settings.latency = 5
    SEEN.append((faceki_sandbox.url, faceki_sandbox.client_id))

def test_one_server_three_clients():
    assert len({url for url, _ in SEEN}) == 1
    assert len({client for _, client in SEEN}) == 3
    assert "AIRFLOW_CONN_FACEKI_DEFAULT" not in os.environ
"""

WITHOUT_THE_EXTRA = """
import importlib.util, pytest
real = importlib.util.find_spec

@pytest.fixture(autouse=True)
def _no_starlette(monkeypatch):
    absent = lambda name, *more: None if name == "starlette" else real(name, *more)
    monkeypatch.setattr(importlib.util, "find_spec", absent)
"""


def run(folder: Path, tests: str, conftest: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "test_users.py").write_text(tests)
    (folder / "conftest.py").write_text(conftest)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    command += ["-p", "airflow_provider_faceki.sandbox.pytest_plugin", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # Only `-p` loads the plugin. Otherwise the entry point of an installed provider would load it a second time.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    environment.pop("AIRFLOW_CONN_FACEKI_DEFAULT", None)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def test_a_users_tests(tmp_path: Path) -> None:
    done = run(tmp_path, USERS_TESTS)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_it(faceki_sandbox): pass\n", WITHOUT_THE_EXTRA)
    assert done.returncode == 1
    assert "the sandbox needs starlette: install the extra 'sandbox'" in done.stdout
    assert "Traceback" not in done.stdout
