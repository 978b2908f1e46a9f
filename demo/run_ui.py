# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The command `make ui`: run a complete Airflow with the provider, a Connection and the sandbox until Ctrl-C.

The Connection is stored in Airflow's database and not in an environment variable. Therefore the user can view and edit
the Connection in Airflow's form.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path

from airflow_provider_faceki.connection.schema import EXTRA_FIELDS
from airflow_provider_faceki.sandbox import SandboxProcess
from demo.airflow_stack import Airflow, AirflowRefused, fresh_directory, say
from demo.examples import BATCH, KNOWN, connection_to, example_places
from demo.processes import Interrupted, Processes, ProcessFailed, interruptible
from demo.run_demo import EXAMPLES, FETCH_DAG, HOOK_DAG, LINK_DAG, VERIFY_DAG, tail

CONNECTION = "faceki_default"
WEBHOOK_DAG = "example_faceki_webhook"
BATCH_DAG = "example_faceki_batch"
RECONCILE_DAG = "example_faceki_reconcile"
HUMAN_REVIEW_DAG = "example_faceki_human_review"
SHOWN = (*EXAMPLES, WEBHOOK_DAG, BATCH_DAG, RECONCILE_DAG, HUMAN_REVIEW_DAG)
#: The record identifier of a person with the decision REVIEW, which means that a human must decide.
TO_REVIEW = "customer-1004"


def prepare(airflow: Airflow, faceki: SandboxProcess, processes: Processes, work: Path) -> None:
    """Start Airflow, store the Connection, add the records to the sandbox, and unpause the example DAGs."""
    airflow.start(processes, {**example_places(work), "AIRFLOW__FACEKI__WEBHOOK_ENABLED": "True"})
    airflow.wait_until_ready(processes, SHOWN)
    connection, token = connection_to(faceki), secrets.token_urlsafe(32)
    # The Connection contains all fields, empty fields as null, because Airflow's form shows only fields that the stored
    # Connection contains.
    connection["extra"] = dict.fromkeys(EXTRA_FIELDS) | connection["extra"] | {"webhook_token": token}
    faceki.control.post("settings", webhook_url=f"{airflow.url}/faceki/webhook/{CONNECTION}/{token}")
    # Airflow 3.3 cannot test a stored Connection without a port, so the port is 0. The value is never used, because the
    # URL in the field `host` contains the real port.
    connection |= {"connection_id": CONNECTION, "port": 0, "extra": json.dumps(connection["extra"])}
    airflow.call("POST", "connections", connection)
    for identifier, decision in (*KNOWN.items(), (TO_REVIEW, "REVIEW")):
        faceki.control.post("records", record_identifier=identifier, decision=decision)
    for dag_id in SHOWN:
        airflow.unpause(dag_id)


def guide(airflow: Airflow, faceki: SandboxProcess) -> str:
    """Return the instructions for the user: the URLs to open and the buttons to click."""
    return f"""
Airflow        {airflow.url}   (no login needed)
Connection     {airflow.url}/connections   faceki_default: test it (the first icon), or edit it

From a link to a decision
  1. {airflow.url}/dags/{LINK_DAG}
     Trigger, and Trigger in the form. In the run's list of tasks open make_link as soon as it is green, there Details,
     there the button "FACEKI hosted page".
  2. On that page you are the person and FACEKI: decide.
  3. {airflow.url}/dags/{WEBHOOK_DAG}
     FACEKI's webhook has started a run here, within seconds. The sensor in the run of step 1 polls by itself, and the
     pauses between its polls grow. So that run possibly ends some minutes later.

The result of a task is on its page, in Airflow 3.3 under Storage, then XCom: the decision and ids, no personal data.

Also there
  {airflow.url}/dags/{VERIFY_DAG}   by images; Trigger, they are prepared
  {airflow.url}/dags/{BATCH_DAG}   a manifest of {len(BATCH)} people; Trigger, it is prepared
  {airflow.url}/dags/{HUMAN_REVIEW_DAG}   asks you to decide; Trigger with the
     identifier {TO_REVIEW}, then open Required Actions in the run
  {airflow.url}/dags/{FETCH_DAG}   has run, as scheduled
  {airflow.url}/dags/{HOOK_DAG}   has run, as scheduled
  {airflow.url}/dags/{RECONCILE_DAG}   has run, as scheduled: finds decisions without a webhook
  {faceki.url}/_sandbox/state   the sandbox: its links, decisions, tokens

Ctrl-C ends all of it, within half a minute."""


def show(work: Path) -> None:
    with SandboxProcess() as faceki, Processes(work) as processes:
        say("Starting Airflow and the sandbox, a FACEKI on this machine ...")
        airflow = Airflow(work / "airflow")
        prepare(airflow, faceki, processes, work)
        say(guide(airflow, faceki))
        try:
            while True:
                processes.check()
                time.sleep(1)
        except Interrupted:
            say("\nEnding Airflow ...")
            raise


def main() -> int:
    work = fresh_directory("ui")
    try:
        with interruptible():
            show(work)
    except Interrupted:
        say("\nEnded; nothing is left running.")
        return 0
    except (ProcessFailed, AirflowRefused, TimeoutError) as error:
        say(f"\nThe last lines of Airflow's log:\n{tail(work / 'airflow.log')}\n\nFAILED\n  {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
