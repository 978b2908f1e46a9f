# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### Ask a person if FACEKI's decision is not final

If FACEKI's decision is REVIEW or an undocumented word, the task `ask_a_person` opens a required action in Airflow's
user interface. The required action shows the summary of the record, without personal data, and a link to FACEKI's
portal. The answer selects the next task. If there is no answer within two days, the answer is *Decline*.

Trigger this DAG with your own record identifier of a person. FACEKI must have verified the person already, or the
person must have a link from `example_faceki_kyc_link`.

The DAG needs Airflow 3.1 or later and version 1.13 or later of the standard provider. With older versions, this file
defines no DAG.
"""

from __future__ import annotations

import inspect
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
    from airflow.providers.standard.operators.hitl import HITLBranchOperator, HITLOperator

    # The DAG needs the operator's argument `response_timeout`. It does not exist in the standard provider before 1.13,
    # and Airflow 3.1's own constraints install an older version than 1.13. With that version, this file defines no DAG.
    HAS_RESPONSE_TIMEOUT = "response_timeout" in inspect.signature(HITLOperator.__init__).parameters
except (ImportError, AirflowOptionalProviderFeatureException):
    HAS_RESPONSE_TIMEOUT = False  # Airflow before 3.1

#: The URL of the portal in which your employees can view a case.
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

if HAS_RESPONSE_TIMEOUT:
    with DAG(
        dag_id="example_faceki_human_review",
        schedule=None,
        start_date=timezone.datetime(2026, 1, 1),
        catchup=False,
        # The sensor needs retries. If FACEKI decides directly after the sensor was deferred, the trigger possibly fires
        # before Airflow's scheduler has processed the deferral. Then the scheduler marks the try of the sensor as
        # failed. In the next try, the sensor asks FACEKI again.
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
            # The sensor does not wait for FACEKI's reviewers, because your own employees decide.
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
            """Open the account of the person. Replace this task by your own code."""

        @task(trigger_rule="none_failed_min_one_success")
        def decline() -> None:
            """Inform the person about the refusal. Replace this task by your own code."""

        ends = [welcome(), decline()]
        choose >> [*ends, ask_a_person]
        ask_a_person >> ends
