# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG with mapped tasks for the workers and mapped waits for the triggerers; all of them need a token."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, timezone

from airflow_provider_faceki.operators.faceki import FacekiFetchRecordsOperator
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from tests.distributed.host import WORKERS

#: The record identifiers by the worker that fetches the records.
FETCHED = {worker: [f"known-of-{worker}-{number}" for number in range(4)] for worker in WORKERS}
WAITED = [f"waited-{number}" for number in range(12)]

# A busy machine possibly loses a heartbeat. Then Airflow marks the try as failed.
RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=1)}

with DAG(dag_id="hosts", schedule=None, start_date=timezone.datetime(2026, 1, 1), default_args=RETRIES):
    for worker, fetched in FETCHED.items():
        FacekiFetchRecordsOperator.partial(task_id=f"fetch_on_{worker}", queue=worker).expand(
            record_identifier=fetched
        )
    FacekiKycDecisionSensor.partial(
        task_id="wait", deferrable=True, poke_interval=2, max_wait=4, timeout=1200
    ).expand(record_identifier=WAITED)
