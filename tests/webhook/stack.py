# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The shared Airflow as the receiver of the webhooks of a sandbox."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import requests

from airflow_provider_faceki.api import FacekiClient, FetchRecords, Service
from airflow_provider_faceki.sandbox import SandboxProcess
from tests.airflow.shared import RestApi, SharedAirflow
from tests.airflow.whole_airflow import WholeAirflow
from tests.webhook.served import Served

log = logging.getLogger(__name__)

#: The example that a webhook starts.
LISTENER = "example_faceki_webhook"
#: The verified person. No other file of an Airflow installation can contain these names.
PERSON = {"first_name": "Canariella", "last_name": "Leckwasser", "document_number": "UT-7731-CANARY"}
STARTED = (LISTENER, "example_faceki_reconcile", "example_faceki_kyc_link", "burst")


@dataclass
class Stack(Served):
    """The running processes that a test can inspect and control."""

    airflow: WholeAirflow = field(repr=False)
    api: RestApi = field(repr=False)
    faceki: SandboxProcess = field(repr=False)
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
        (record,) = self.api.xcom(LISTENER, run_id, "fetch")
        assert (record["request_id"], record["decision"]) == (request_id, decision)
        assert self.api.xcom(LISTENER, run_id, "act") == decision

    def until(self, what: str, done: Callable[[], bool]) -> float:
        """Wait until done() returns true. Return the duration in seconds."""
        began = time.monotonic()
        self.airflow.wait(what, done)
        return time.monotonic() - began

    def run(self, dag_id: str) -> dict[str, str]:
        """Trigger a DAG, wait until its run has finished, and return the states of its tasks."""
        made = self.api.trigger(dag_id, {})
        query = "SELECT 1 FROM dag_run WHERE run_id = ? AND state IN ('success', 'failed')"
        self.until(f"{dag_id} to finish", lambda: bool(self.rows(query, made)))
        return self.tasks(made)


def stack_of(shared_airflow: SharedAirflow) -> Stack:
    """Let the sandbox send its webhooks to the shared Airflow, and unpause the DAGs of the webhook tests."""
    airflow, api = shared_airflow.airflow, shared_airflow.api
    airflow.wait_until_ready(*STARTED)
    for dag_id in STARTED:
        api.unpause(dag_id)
    faceki = shared_airflow.sandboxes["default"]
    stack = Stack(api.url, airflow.database, [], airflow, api, faceki, shared_airflow.folder / "open")
    faceki.control.post("settings", webhook_url=stack.at(), person=PERSON)
    return stack
