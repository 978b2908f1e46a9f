# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG with one batch; the run's conf defines the Connection, the manifest and the output."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, timezone

from airflow_provider_faceki.operators.batch import FacekiBatchVerificationOperator

with DAG(
    dag_id="batch_verify",
    schedule=None,
    start_date=timezone.datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=4,
    params={"faceki": "faceki_default", "manifest": "", "output": ""},
) as dag:
    FacekiBatchVerificationOperator(
        task_id="verify",
        faceki_conn_id="{{ params.faceki }}",
        manifest="{{ params.manifest }}",
        output_path="{{ params.output }}",
        allowed_image_prefixes=["{{ params.manifest.rpartition('/')[0] }}"],
        resubmit_after=4.0,
        lookup_timeout=2.0,
        retries=8,
        retry_delay=timedelta(seconds=1),
    )
