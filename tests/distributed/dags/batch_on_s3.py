# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG with one batch whose files are all on S3; the run's conf names the folder in the bucket."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, timezone

from airflow_provider_faceki.operators.batch import FacekiBatchVerificationOperator

with DAG(
    dag_id="batch_on_s3", schedule=None, start_date=timezone.datetime(2026, 1, 1), params={"folder": ""}
):
    FacekiBatchVerificationOperator(
        task_id="verify",
        manifest="s3://kyc/{{ params.folder }}/people.ndjson",
        output_path="s3://kyc/{{ params.folder }}/out",
        manifest_conn_id="s3_store",
        image_conn_id="s3_store",
        output_conn_id="s3_store",
        resubmit_after=4.0,
        lookup_timeout=2.0,
        retries=8,
        retry_delay=timedelta(seconds=1),
    )
