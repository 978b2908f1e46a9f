# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A DAG that runs once for each verification of `faceki_burst`, without a worker."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, PartitionedAssetTimetable

from airflow_provider_faceki.assets import faceki_verifications

burst_of = PartitionedAssetTimetable(assets=faceki_verifications("faceki_burst"))
with DAG(dag_id="burst", schedule=burst_of, catchup=False, max_active_runs=50):
    EmptyOperator(task_id="nothing")
