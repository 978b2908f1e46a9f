# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG in which every kind of task is mapped, including its Connection id."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, timezone

from airflow_provider_faceki.operators.faceki import (
    FacekiApiOperator,
    FacekiFetchRecordsOperator,
    FacekiGenerateKycLinkOperator,
)
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor

COUNTRIES = ("fr", "it")

with DAG(dag_id="mapped", schedule=None, start_date=timezone.datetime(2026, 1, 1)) as dag:
    make = FacekiGenerateKycLinkOperator.partial(task_id="make").expand_kwargs(
        [
            {"faceki_conn_id": f"faceki_{country}", "record_identifier": f"accepted-{country}"}
            for country in COUNTRIES
        ]
    )

    def _wait_for(made: dict[str, str]) -> dict[str, str]:
        return {"link": made["link"], "faceki_conn_id": f"faceki_{made['record_identifier'][-2:]}"}

    for name, deferrable in (("wait_poking", False), ("wait_deferred", True)):
        wait = FacekiKycDecisionSensor.partial(
            task_id=name, deferrable=deferrable, poke_interval=0.5, timeout=86_400
        ).expand_kwargs(make.output.map(_wait_for))

    wait >> FacekiFetchRecordsOperator.partial(task_id="fetch").expand_kwargs(
        [
            {"faceki_conn_id": f"faceki_{country}", "record_identifier": f"accepted-{country}"}
            for country in COUNTRIES
        ]
    )
    wait >> FacekiApiOperator.partial(task_id="call", path="/api/v3/kyc_verification").expand_kwargs(
        [
            {"faceki_conn_id": f"faceki_{country}", "query": {"record_identifier": f"accepted-{country}"}}
            for country in COUNTRIES
        ]
    )
