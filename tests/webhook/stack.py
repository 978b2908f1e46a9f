# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A complete Airflow with an enabled receiver, a user who must log in, and a sandbox."""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from airflow_provider_faceki.api import FacekiClient, FetchRecords, Service
from airflow_provider_faceki.sandbox import SandboxProcess
from demo.airflow_stack import ROOT, Airflow, wait_for
from demo.processes import Processes
from tests.webhook.served import PREVIOUS, SECRET, TOKEN, WEAK, Served

log = logging.getLogger(__name__)

#: The example that a webhook starts.
LISTENER = "example_faceki_webhook"
#: The verified person. No other file of an Airflow installation can contain these names.
PERSON = {"first_name": "Canariella", "last_name": "Leckwasser", "document_number": "UT-7731-CANARY"}
PASSWORD = secrets.token_urlsafe(16)
DAGS = Path(__file__).parent / "running"
SHIPPED = (LISTENER, "example_faceki_reconcile")


@dataclass
class LockedAirflow(Airflow):
    """The Airflow of the demonstration, with a user who must log in."""

    def environment(self) -> dict[str, str]:
        """Return the environment variables with the settings."""
        passwords = self.home / "passwords.json"
        passwords.write_text(json.dumps({"ada": PASSWORD}))
        return super().environment() | {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ada:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.home / "dags"),
            "AIRFLOW__FACEKI__WEBHOOK_ENABLED": "True",
        }

    def call(self, method: str, path: str, document: object = None) -> Any:
        """Call the REST API as the only user."""
        if self._token is None:
            login = {"username": "ada", "password": PASSWORD}
            self._token = requests.post(f"{self.url}/auth/token", json=login, timeout=300).json()[
                "access_token"
            ]
        return super().call(method, path, document)

    @property
    def token(self) -> str:
        """The bearer token of the user for the REST API."""
        assert self._token is not None
        return self._token


@dataclass
class Stack(Served):
    """The running processes that a test can inspect and control."""

    airflow: LockedAirflow = field(repr=False)
    faceki: SandboxProcess = field(repr=False)
    log: Path = field(repr=False)
    processes: Processes = field(repr=False)
    cases: Path = field(repr=False)

    def hosted_page(self, record_identifier: str) -> str:
        """Create a link and return the URL of its page."""
        link = self.faceki.control.post("links", record_identifier=record_identifier)
        return f"{self.faceki.url}/kycverify/{link}"

    def decide(self, record_identifier: str, decision: str) -> str:
        """Create a link, open its page and press a button, as a browser does. Return the request id."""
        page, pressed = self.hosted_page(record_identifier), {"decision": decision}
        assert requests.get(page, timeout=300).status_code == 200
        assert requests.post(page, data=pressed, timeout=300, allow_redirects=False).status_code == 303
        return self.request_id(record_identifier)

    def request_id(self, record_identifier: str) -> str:
        """Return FACEKI's request id of a decided case."""
        client = FacekiClient(
            client_id=self.faceki.client_id,
            client_secret=self.faceki.client_secret,
            service=Service(self.faceki.url),
        )
        return str(client.call(FetchRecords(record_identifier=record_identifier))[-1].request_id)

    def run_of(self, dag_id: str, key: str) -> tuple[str, str]:
        """Return the id and the state of the newest run of one partition, or empty texts if there is no run."""
        query = "SELECT run_id, state FROM dag_run WHERE dag_id = ? AND partition_key = ? ORDER BY id DESC"
        found = self.rows(query, dag_id, key)
        return (str(found[0][0]), str(found[0][1])) if found else ("", "")

    def tasks(self, run_id: str) -> dict[str, str]:
        """Return the states of all tasks of a run."""
        return dict(self.rows("SELECT task_id, state FROM task_instance WHERE run_id = ?", run_id))

    def finished(self, dag_id: str, key: str) -> dict[str, str]:
        """Wait until the run of a partition has finished, and return the states of its tasks."""
        self.until("a run to finish", lambda: self.run_of(dag_id, key)[1] in ("success", "failed"))
        return self.tasks(self.run_of(dag_id, key)[0])

    def expect_whole_loop(self, request_id: str, decision: str, pressed: float) -> None:
        """Wait for all results of the pressed button and check each of them."""
        states = self.finished(LISTENER, request_id)
        took = time.monotonic() - pressed
        log.info("from the button to the end of the run: %.1f s", took)
        assert states == {"fetch": "success", "act": "success"}
        assert self.events()[-1] == (request_id, {"request_id": request_id, "status": decision})
        run_id, _ = self.run_of(LISTENER, request_id)
        (record,) = self.airflow.xcom(LISTENER, run_id, "fetch")
        assert (record["request_id"], record["decision"]) == (request_id, decision)
        assert self.airflow.xcom(LISTENER, run_id, "act") == decision

    def until(self, what: str, done: Callable[[], bool], seconds: float = 600.0) -> float:
        """Wait until done() returns true. Return the duration in seconds."""
        began = time.monotonic()
        wait_for(what, done, seconds, self.processes)
        return time.monotonic() - began

    def run(self, dag_id: str) -> dict[str, str]:
        """Trigger a DAG, wait until its run has finished, and return the states of its tasks."""
        made = self.airflow.trigger(dag_id, {})
        query = "SELECT 1 FROM dag_run WHERE run_id = ? AND state IN ('success', 'failed')"
        self.until(f"{dag_id} to finish", lambda: bool(self.rows(query, made)))
        return self.tasks(made)


@contextmanager
def running(work: Path, *more: str) -> Iterator[Stack]:
    """Start all processes, with additional examples if named. Warm them up, and end them after the test."""
    home, cases = work / "airflow", work / "open"
    (home / "dags").mkdir(parents=True)
    examples = (*SHIPPED, *more)
    for file in (*(ROOT / "example_dags" / f"{name}.py" for name in examples), *DAGS.glob("*.py")):
        shutil.copy(file, home / "dags")
    with SandboxProcess() as faceki, Processes(work) as processes:
        airflow = LockedAirflow(home)
        places = {"FACEKI_EXAMPLE_OPEN": cases.as_uri()}
        printed = airflow.start(processes, {**_connections(faceki), **places})
        dags = (*examples, "burst", "warm_up")
        airflow.wait_until_ready(processes, dags)
        stack = Stack(airflow.url, home / "airflow.db", [], airflow, faceki, printed, processes, cases)
        for dag_id in dags:
            airflow.unpause(dag_id)
        assert stack.run("warm_up") == {"think": "success"}
        faceki.control.post("settings", webhook_url=stack.at(), person=PERSON)
        yield stack


def _connections(faceki: SandboxProcess) -> dict[str, str]:
    signed = {"webhook_hmac_secret": SECRET, "webhook_hmac_header": "X-Signature"}
    made = {
        "faceki_default": faceki.connection(webhook_token=TOKEN, webhook_token_previous=PREVIOUS),
        "faceki_burst": faceki.connection(webhook_token=TOKEN),
        "faceki_signed": faceki.connection(webhook_token=TOKEN, **signed),
        "faceki_weak": faceki.connection(webhook_token=WEAK),
    }
    return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in made.items()}
