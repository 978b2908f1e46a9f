# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### Create a verification link and wait for the decision

The DAG creates a verification link for one person and waits for FACEKI's decision. During the wait, the sensor is
deferred and occupies no worker slot. The decision selects the next task.

Replace the task `send` by a task that sends `url` to the person. Everyone who knows this URL can use it, so do not send
or log it elsewhere.

Trigger this DAG with your own record identifier. Also select your workflow, or set the default workflow in the
Connection.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Param, task, timezone

from airflow_provider_faceki.operators.faceki import FacekiGenerateKycLinkOperator
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor

log = logging.getLogger(__name__)

with DAG(
    dag_id="example_faceki_kyc_link",
    schedule=None,
    start_date=timezone.datetime(2026, 1, 1),
    catchup=False,
    # The sensor needs retries. If FACEKI decides directly after the sensor was deferred, the trigger possibly fires
    # before Airflow's scheduler has processed the deferral. Then the scheduler marks the try of the sensor as failed.
    # In the next try, the sensor finds the decision at once.
    default_args={"retries": 3, "retry_delay": timedelta(seconds=10)},
    params={
        # Airflow's form for starting a DAG run shows a field for this parameter. With the type "string" alone, the form
        # would refuse an empty field.
        "workflow_id": Param(
            None, type=["null", "string"], description="Empty: the Connection's default workflow"
        ),
        "record_identifier": Param(
            "customer-1001",
            type="string",
            description="Your own id of the person; no name or e-mail address, for it is in logs and in XCom",
        ),
    },
    doc_md=__doc__,
    tags=["faceki", "example"],
) as dag:
    make_link = FacekiGenerateKycLinkOperator(
        task_id="make_link",
        workflow_id="{{ params.workflow_id or '' }}",
        record_identifier="{{ params.record_identifier }}",
        expires_in_minutes=3 * 24 * 60,
    )

    @task
    def send(made: dict[str, str]) -> None:
        """Send the link to the person. Replace the log line by a call of your mail service."""
        log.info("A link for %s is ready, good until %s", made["record_identifier"], made["expires_at"])

    wait = FacekiKycDecisionSensor(
        task_id="wait_for_decision",
        link="{{ ti.xcom_pull(task_ids='make_link')['link'] }}",
        deferrable=True,
        poke_interval=5,
        timeout=timedelta(days=3).total_seconds(),
    )

    @task.branch
    def choose(summary: dict[str, str]) -> str:
        """Return the id of the task that follows the decision."""
        return {"ACCEPTED": "welcome", "DECLINED": "decline"}.get(summary["decision"], "ask_a_person")

    @task
    def welcome() -> None:
        """Open the account of the person. Replace this task by your own code."""

    @task
    def decline() -> None:
        """Inform the person about the refusal. Replace this task by your own code."""

    @task
    def ask_a_person() -> None:
        """Assign the case to an employee, because FACEKI's decision is an undocumented word."""

    send(make_link.output) >> wait
    choose(wait.output) >> [welcome(), decline(), ask_a_person()]
