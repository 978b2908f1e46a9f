# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A DAG that runs once per verification of `faceki_burst`, and does nothing: a task of this kind needs no worker."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, PartitionedAssetTimetable

from airflow_provider_faceki.assets import faceki_verifications

with DAG(
    dag_id="burst",
    schedule=PartitionedAssetTimetable(assets=faceki_verifications("faceki_burst")),
    catchup=False,
    max_active_runs=50,
) as dag:
    EmptyOperator(task_id="nothing")
