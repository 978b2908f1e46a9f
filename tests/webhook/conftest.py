# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fixtures: Airflow's database with DAGs that listen to webhooks, and a receiver that uses it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.airflow.running import AIRFLOW_3
from tests.virtual_time import VirtualExecutor, VirtualTime, use_virtual_time
from tests.webhook.served import Served, connections, serving

if TYPE_CHECKING:
    from airflow_provider_faceki.webhook.app import Receiver

LISTENING = Path(__file__).parent / "listening"


@pytest.fixture(scope="session")
def listening(airflow_db: Path) -> Path:
    """Return the path of the database that contains the DAGs of `listening/`."""
    # Airflow reads its environment variables when it is imported, so only a new process can use this environment.
    environment = {
        **os.environ,
        "AIRFLOW__CORE__DAGS_FOLDER": str(LISTENING),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    }
    command = [sys.executable, "-m", "airflow", "dags", "reserialize"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return airflow_db


@pytest.fixture
def _connections(monkeypatch: pytest.MonkeyPatch) -> None:
    # These Connections exist only during a test that asks for them. Otherwise a test of another file that forgets to
    # create its own Connection could find one of them.
    for name, value in connections().items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(value))


@pytest.fixture
def receiver() -> Receiver:
    """Return a new receiver, as the API server creates it. It has not counted any request for its rate limits yet."""
    from airflow_provider_faceki.webhook import app, auth, events

    return app.Receiver(auth.load_credentials, events.store_events)


@pytest.fixture
def virtual_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the clocks and threads of each receiver virtual; see ``tests/virtual_time.py``."""
    from airflow_provider_faceki.webhook import app, auth, events

    use_virtual_time(monkeypatch, app, auth)
    for module in (auth, events):
        monkeypatch.setattr(module, "ThreadPoolExecutor", VirtualExecutor)
    # The default of the parameter `clock` of these classes is the real clock, so the virtual clock is passed to them.
    for module, name in ((app, "TokenBucket"), (auth, "Authenticator"), (auth, "ExpectedConnections")):
        monkeypatch.setattr(module, name, partial(getattr(module, name), clock=VirtualTime.monotonic))


@pytest.fixture
def served(listening: Path, _connections: None, receiver: Receiver) -> Iterator[Served]:
    """Return the receiver behind a running server."""
    if not AIRFLOW_3:
        pytest.skip("Airflow 2 receives no webhooks")
    # The API server imports these modules before the first webhook arrives.
    importlib.import_module("airflow.models.connection")
    importlib.import_module("airflow.assets.manager")
    from airflow_provider_faceki.webhook.app import create_app

    with serving(create_app(receiver), listening) as found:
        # The webhooks of earlier tests must not count for the limit of webhooks per day, so they are made 25 hours
        # older.
        found.rows("UPDATE asset_event SET timestamp = datetime(timestamp, '-25 hours')")
        yield found
