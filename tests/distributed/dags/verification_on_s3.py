# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG that verifies one person by an image on S3; the run's conf names the person and the folder in the bucket."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, timezone

from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator

IMAGE = "s3://kyc/{{ params.person }}/face.jpg"

with DAG(
    dag_id="verification_on_s3",
    schedule=None,
    start_date=timezone.datetime(2026, 1, 1),
    params={"person": ""},
):
    FacekiKycVerificationOperator(
        task_id="verify",
        selfie=IMAGE,
        documents=[{"front": IMAGE, "back": IMAGE}],
        record_identifier="{{ params.person }}",
        image_conn_id="s3_store",
        retries=8,
        retry_delay=timedelta(seconds=1),
    )
