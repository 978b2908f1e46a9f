# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Where does Airflow live during the tests? In a home of its own, made before anything imports Airflow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.object_store import _object_store_server as _object_store_server
from tests.object_store import object_store as object_store

ROOT = Path(__file__).resolve().parent.parent
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))


def _isolate_environment() -> None:
    """Airflow reads its environment once, at import, so this cannot wait for a fixture."""
    for name in list(os.environ):
        # A developer's own Airflow, connections or proxies must not decide what a test says.
        if name.startswith(("AIRFLOW_", "_AIRFLOW_")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ.update(
        AIRFLOW_HOME=str(AIRFLOW_HOME),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "example_dags"),
        AIRFLOW__CORE__TEST_CONNECTION="Enabled",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        AIRFLOW__LOGGING__LOGGING_LEVEL="INFO",
        NO_COLOR="1",
    )


_isolate_environment()


def pytest_unconfigure() -> None:
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put each test that uses Airflow's database into the tier of tests with a real Airflow."""
    for item in items:
        if "airflow_db" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.airflow)


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """The session's AIRFLOW_HOME."""
    return AIRFLOW_HOME


@pytest.fixture(scope="session")
def airflow_db(airflow_home: Path) -> Path:
    """A migrated metadata database in the session's AIRFLOW_HOME, made when a test first asks."""
    # A process of its own: the migration rearranges logging, and a failure is shown with all it printed.
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return airflow_home / "airflow.db"


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium. Where there is none the test is skipped, saying so."""
    for name in (os.environ.get("CHROMIUM", "chromium"), "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium: set CHROMIUM, or run as root on Debian, where `make test` installs it")
