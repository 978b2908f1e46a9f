# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### From a link to a decision

Make a verification link for one person, wait for FACEKI's decision without holding a worker, and go on
accordingly. Send `url` to the person in place of `send`; everyone who has it can act on it, so it goes nowhere
else.

Trigger it with your workflow (or set the Connection's default workflow) and an id of your own.
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
    # Airflow's scheduler fails a try that is decided right after its deferral; the next one finds the decision at once.
    default_args={"retries": 3, "retry_delay": timedelta(seconds=10)},
    params={
        # The trigger form takes a string for a required one, and does not let it be empty.
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
        """Hand the link to your mailer; here it only shows that it arrived."""
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
        """Pick what follows."""
        return {"ACCEPTED": "welcome", "DECLINED": "decline"}.get(summary["decision"], "ask_a_person")

    @task
    def welcome() -> None:
        """Open the account."""

    @task
    def decline() -> None:
        """Tell the person."""

    @task
    def ask_a_person() -> None:
        """Hand the case to a person: FACEKI used a word that is not documented."""

    send(make_link.output) >> wait
    choose(wait.output) >> [welcome(), decline(), ask_a_person()]
