# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### Verify a person by images and pay only once

The DAG sends a selfie and a document to FACEKI. The decision selects the next task. If the person is accepted, the DAG
stores FACEKI's PDF report.

The verification is billed only once, even if the task is killed, times out or is cleared. The next try first checks
whether the previous try has already sent the images.

Trigger this DAG with the URIs of three images. The task `report` needs `pdf_report_path` in the Connection's extra.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from tempfile import gettempdir

from airflow.providers.common.compat.sdk import DAG, Param, task, timezone

from airflow_provider_faceki.operators.branch import FacekiDecisionBranchOperator
from airflow_provider_faceki.operators.reports import FacekiPdfReportOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator

log = logging.getLogger(__name__)

#: The URIs of two folders: one for the images of the person, one for the PDF reports. The folders can be in any
#: storage that Airflow supports, for example s3://…, gs://…, abfs://… or file://….
IMAGES = os.environ.get("FACEKI_EXAMPLE_IMAGES", f"file://{gettempdir()}/faceki_images")
REPORTS = os.environ.get("FACEKI_EXAMPLE_REPORTS", f"file://{gettempdir()}/faceki_reports")

with DAG(
    dag_id="example_faceki_verification",
    schedule=None,
    start_date=timezone.datetime(2026, 1, 1),
    catchup=False,
    # The task `verify` needs retries. If FACEKI decides directly after the task was deferred, the trigger possibly
    # fires before Airflow's scheduler has processed the deferral. Then the scheduler marks the try of the task as
    # failed. In the next try, the task finds the verification that the failed try has sent.
    default_args={"retries": 3, "retry_delay": timedelta(seconds=10)},
    params={
        "selfie": Param(f"{IMAGES}/selfie.jpg", type="string", description="URI of the selfie"),
        "front": Param(f"{IMAGES}/front.jpg", type="string", description="URI of the document's front"),
        "back": Param(f"{IMAGES}/back.jpg", type="string", description="URI of the document's back"),
    },
    doc_md=__doc__,
    tags=["faceki", "example"],
) as dag:
    verify = FacekiKycVerificationOperator(
        task_id="verify",
        selfie="{{ params.selfie }}",
        documents=[{"front": "{{ params.front }}", "back": "{{ params.back }}"}],
        wait_for_review=True,
        deferrable=True,
    )

    choose = FacekiDecisionBranchOperator(
        task_id="choose",
        summary=verify.output,
        accepted="report",
        declined="decline",
        otherwise="ask_a_person",
    )

    report = FacekiPdfReportOperator(
        task_id="report",
        request_id="{{ ti.xcom_pull(task_ids='verify')['request_id'] }}",
        output_path=REPORTS + "/{{ ti.xcom_pull(task_ids='verify')['request_id'] }}.pdf",
    )

    @task
    def decline(summary: dict[str, object]) -> None:
        """Inform the person about the refusal. Ask for another selfie if this can change the decision."""
        log.info("Declined; another selfie may help: %s", summary["retake_selfie"])

    @task
    def ask_a_person() -> None:
        """Assign the case to an employee. Replace this task by your own code."""

    choose >> [report, decline(verify.output), ask_a_person()]
