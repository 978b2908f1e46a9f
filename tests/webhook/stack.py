# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A whole Airflow with the receiver switched on, users that have to log in, and a local FACEKI beside it."""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from airflow_provider_faceki.sandbox import SandboxProcess
from demo.airflow_stack import ROOT, Airflow, wait_for
from demo.processes import Processes

TOKEN = f"current-{secrets.token_urlsafe(32)}"
PREVIOUS = f"previous-{secrets.token_urlsafe(32)}"
SECRET = f"hmac-{secrets.token_urlsafe(32)}"
WEAK = "weak-token-made-up"
PASSWORD = secrets.token_urlsafe(16)
DAGS = Path(__file__).parent / "dags"
SHIPPED = ("example_faceki_webhook", "example_faceki_reconcile")


@dataclass
class LockedAirflow(Airflow):
    """The demonstration's Airflow, but nobody comes in without logging in."""

    def environment(self) -> dict[str, str]:
        """Return the settings."""
        passwords = self.home / "passwords.json"
        passwords.parent.mkdir(parents=True, exist_ok=True)
        passwords.write_text(json.dumps({"ada": PASSWORD}))
        return super().environment() | {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ada:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.home / "dags"),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__FACEKI__WEBHOOK_ENABLED": "True",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        }

    def ask(self, method: str, path: str, document: object = None) -> Any:
        """Ask the REST API as its one user."""
        if self._token is None:
            login = {"username": "ada", "password": PASSWORD}
            self._token = requests.post(f"{self.url}/auth/token", json=login, timeout=30).json()[
                "access_token"
            ]
        return super().ask(method, path, document)


@dataclass
class Stack:
    """What a test may look at."""

    airflow: LockedAirflow
    faceki: SandboxProcess
    log: Path
    processes: Processes = field(repr=False)
    open_cases: Path

    def webhook(self, conn_id: str = "faceki_default", token: str = TOKEN) -> str:
        """Where a webhook goes."""
        return f"{self.airflow.url}/faceki/webhook/{conn_id}/{token}"

    def post(self, url: str, body: object, **more: Any) -> requests.Response:
        """Send what FACEKI might send."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return requests.post(url, data=data, timeout=30, **more)

    def rows(self, query: str, *values: object) -> list[Any]:
        """Read Airflow's database beside Airflow."""
        database = sqlite3.connect(f"file:{self.airflow.home / 'airflow.db'}?mode=ro", uri=True, timeout=30)
        try:
            return list(database.execute(query, values))
        finally:
            database.close()

    def events(self, conn_id: str) -> list[tuple[str | None, dict[str, str]]]:
        """Return partition key and extra of each event of a Connection's asset."""
        found = self.rows(
            "SELECT e.partition_key, e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id"
            " WHERE a.uri = ? ORDER BY e.id",
            f"faceki://{conn_id}/verifications",
        )
        return [(key, json.loads(extra)) for key, extra in found]

    def run_of(self, dag_id: str, key: str) -> str:
        """Return the state of the run of one partition; empty while there is none."""
        found = self.rows("SELECT state FROM dag_run WHERE dag_id = ? AND partition_key = ?", dag_id, key)
        return str(found[0][0]) if found else ""

    def until(self, what: str, done: Any, seconds: float) -> float:
        """Wait until done() and return how long that took."""
        began = time.monotonic()
        wait_for(what, done, seconds, self.processes)
        return time.monotonic() - began


@contextmanager
def running(work: Path) -> Iterator[Stack]:
    """Start it all, and end it all."""
    home = work / "airflow"
    (home / "dags").mkdir(parents=True)
    for name in SHIPPED:
        shutil.copy(ROOT / "example_dags" / f"{name}.py", home / "dags")
    for file in DAGS.glob("*.py"):
        shutil.copy(file, home / "dags")
    cases = work / "open"
    with SandboxProcess() as faceki, Processes(work) as processes:
        airflow = LockedAirflow(home)
        extra = {
            f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections(faceki).items()
        }
        log = airflow.start(processes, {**extra, "FACEKI_EXAMPLE_OPEN": cases.as_uri()})
        airflow.wait_until_ready(processes, [*SHIPPED, "burst"])
        stack = Stack(airflow, faceki, log, processes, cases)
        faceki.control.post("settings", webhook_url=stack.webhook())
        yield stack


def connections(faceki: SandboxProcess) -> dict[str, object]:
    """Connections that want webhooks, in each way, or want none."""
    signed = {"webhook_hmac_secret": SECRET, "webhook_hmac_header": "X-Signature"}
    return {
        "faceki_default": faceki.connection(webhook_token=TOKEN, webhook_token_previous=PREVIOUS),
        "faceki_burst": faceki.connection(webhook_token=TOKEN),
        "faceki_signed": faceki.connection(webhook_token=TOKEN, **signed),
        "faceki_bare": faceki.connection(),
        "faceki_weak": faceki.connection(webhook_token=WEAK),
        "faceki_unheard": faceki.connection(webhook_token=TOKEN),
        "not_faceki": {"conn_type": "http", "host": "localhost", "extra": {"webhook_token": TOKEN}},
    }
