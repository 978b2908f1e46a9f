# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fixtures for tests with real Airflow: a database, DAG folders, and Connections to a sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_faceki import charged_call
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.running import DAGS, EXAMPLES, bundles

#: Connection settings for tests that cause faults: one attempt, no pause.
FEW_ATTEMPTS = {"max_attempts": 1, "max_wait": 1, "timeout": 120}

Connect = Callable[..., str]


@pytest.fixture(autouse=True)
def short_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the waiting time of the fence, and let it accept a task state store that responds slowly.

    The fence prevents two executions of one task instance from sending a charged call twice. These tests run only one
    execution at a time, so the fence would only slow them down.
    """
    monkeypatch.setattr(charged_call, "MIN_FENCE_SECONDS", 0.0)
    monkeypatch.setattr(charged_call, "_MAX_WRITE_SECONDS", 600.0)


@pytest.fixture
def airflow(airflow_db: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Airflow's database, with the example DAGs and the tests' own DAGs in its bundles."""
    for name, value in bundles(EXAMPLES, DAGS).items():
        monkeypatch.setenv(name, value)
    return airflow_db


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Function that creates a Connection: `connect(sandbox, "other", timeout=1)` creates `other` and returns its id."""

    def make(
        sandbox: FacekiSandbox, conn_id: str = "faceki_default", *, fields: object = None, **extra: object
    ) -> str:
        connection = sandbox.connection(**{**FEW_ATTEMPTS, **extra})
        connection.update(fields if isinstance(fields, dict) else {})
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return conn_id

    return make
