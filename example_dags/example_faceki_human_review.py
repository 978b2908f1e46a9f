# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### A person decides what FACEKI leaves open

Where FACEKI's decision is REVIEW, or a word that it has not documented, the task `ask_a_person` opens a required action
in Airflow's user interface. It shows the summary of the record, without personal data, and a link to FACEKI's portal.
The run goes on by the answer. Without an answer within two days it goes on as if the answer were *Decline*.

Trigger it with your own id of a person whom FACEKI has verified, or is about to verify by a link of
`example_faceki_kyc_link`.

Needs Airflow 3.1 and the standard provider. On older Airflow this file defines no DAG.
"""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowOptionalProviderFeatureException,
    Param,
    task,
    timezone,
)

from airflow_provider_faceki.operators.branch import FacekiDecisionBranchOperator
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor

try:
    from airflow.providers.standard.operators.hitl import HITLBranchOperator
except (ImportError, AirflowOptionalProviderFeatureException):
    HITLBranchOperator = None  # type: ignore[assignment,misc]  # before Airflow 3.1

#: Where your people look at a case.
PORTAL = os.environ.get("FACEKI_EXAMPLE_PORTAL", "https://apps.faceki.com")

BODY = (
    """{% set found = ti.xcom_pull(task_ids='wait_for_decision') %}
| | |
|---|---|
| Record identifier | `{{ found['record_identifier'] }}` |
| Request id | `{{ found['request_id'] }}` |
| Decision of FACEKI | {{ found['decision'] }} |
| Codes | {{ found['error_codes'] | map(attribute='name') | join(', ') or 'none' }} |
| Verified at | {{ found['created_at'] }} |

[Open FACEKI's portal]("""
    + PORTAL
    + ")"
)

if HITLBranchOperator is not None:
    with DAG(
        dag_id="example_faceki_human_review",
        schedule=None,
        start_date=timezone.datetime(2026, 1, 1),
        catchup=False,
        # Airflow's scheduler fails a try that is decided right after its deferral; the next one asks again.
        default_args={"retries": 3, "retry_delay": timedelta(seconds=10)},
        params={
            "record_identifier": Param(
                "customer-1001", type="string", description="Your own id of the person or case"
            )
        },
        doc_md=__doc__,
        tags=["faceki", "example"],
    ) as dag:
        wait = FacekiKycDecisionSensor(
            task_id="wait_for_decision",
            record_identifier="{{ params.record_identifier }}",
            # FACEKI's reviewers are not waited for: your own people decide.
            wait_for_review=False,
            deferrable=True,
            poke_interval=5,
            timeout=timedelta(days=3).total_seconds(),
        )

        choose = FacekiDecisionBranchOperator(
            task_id="choose",
            summary=wait.output,
            accepted="welcome",
            declined="decline",
            otherwise="ask_a_person",
        )

        ask_a_person = HITLBranchOperator(
            task_id="ask_a_person",
            subject="Decide about {{ params.record_identifier }}",
            body=BODY,
            options=["Welcome", "Decline"],
            options_mapping={"Welcome": "welcome", "Decline": "decline"},
            defaults=["Decline"],
            response_timeout=timedelta(days=2),
        )

        @task(trigger_rule="none_failed_min_one_success")
        def welcome() -> None:
            """Open the account."""

        @task(trigger_rule="none_failed_min_one_success")
        def decline() -> None:
            """Tell the person."""

        ends = [welcome(), decline()]
        choose >> [*ends, ask_a_person]
        ask_a_person >> ends
