# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG with many mapped waits, each for a different person, all in the triggerer at the same time."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, timezone

from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor

CONN_ID = "faceki_many_waits"
PEOPLE = [f"person-{number}" for number in range(24)]

with DAG(dag_id="many_waits", schedule=None, start_date=timezone.datetime(2026, 1, 1), max_active_tasks=50):
    FacekiKycDecisionSensor.partial(
        task_id="wait",
        faceki_conn_id=CONN_ID,
        deferrable=True,
        poke_interval=2,
        max_wait=4,
        timeout=1200,
    ).expand(record_identifier=PEOPLE)
