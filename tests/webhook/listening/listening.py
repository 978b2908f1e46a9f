# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAGs that listen to webhooks in each way. Airflow's database contains them, but they never run."""

from __future__ import annotations

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_provider_faceki.assets import faceki_verifications

try:
    from airflow.sdk import PartitionedAssetTimetable
except ImportError:  # Airflow 3.0 and 3.1 support only the plain schedule

    def PartitionedAssetTimetable(*, assets):  # type: ignore[no-redef,no-untyped-def]
        return [assets]


def _listen(dag_id: str, schedule: object, paused: bool = False) -> DAG:
    with DAG(dag_id=dag_id, schedule=schedule, catchup=False, is_paused_upon_creation=paused) as dag:
        EmptyOperator(task_id="nothing")
    return dag


default = _listen("partitioned", PartitionedAssetTimetable(assets=faceki_verifications("faceki_default")))
signed = _listen("signed", PartitionedAssetTimetable(assets=faceki_verifications("faceki_signed")))
timed = _listen("timed", PartitionedAssetTimetable(assets=faceki_verifications("faceki_timed")))
renamed = _listen("renamed", [faceki_verifications("faceki_renamed")])
few = _listen("few", PartitionedAssetTimetable(assets=faceki_verifications("faceki_few")))
paused = _listen(
    "paused", PartitionedAssetTimetable(assets=faceki_verifications("faceki_paused")), paused=True
)
plain = _listen("plain", [faceki_verifications("faceki_plain")])
mixed_1 = _listen("mixed_partitioned", PartitionedAssetTimetable(assets=faceki_verifications("faceki_mixed")))
mixed_2 = _listen("mixed_plain", [faceki_verifications("faceki_mixed")])
