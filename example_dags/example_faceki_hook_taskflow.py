# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### Use the hook in your own tasks

With `FacekiHook`, a Python task can make any call to FACEKI. In this example, one mapped task per record identifier
fetches the newest decision. Another task makes a call for which the provider has no operator. All tasks share one
access token.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, Param, task, timezone

with DAG(
    dag_id="example_faceki_hook_taskflow",
    schedule="@hourly",
    start_date=timezone.datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    params={
        "record_identifiers": Param(
            ["customer-1001", "customer-1002"],
            type="array",
            items={"type": "string"},
            description="Your own ids of people, as given when their links were made; one a line",
        )
    },
    doc_md=__doc__,
    tags=["faceki", "example"],
) as dag:

    @task
    def identifiers(params: dict[str, list[str]]) -> list[str]:
        """Return the record identifiers to check."""
        return params["record_identifiers"]

    @task
    def decision(record_identifier: str) -> str:
        """Return FACEKI's newest decision for one record identifier."""
        from airflow_provider_faceki.api import latest
        from airflow_provider_faceki.hooks.faceki import FacekiHook

        newest = latest(FacekiHook().fetch_records(record_identifier=record_identifier))
        return str(newest.decision) if newest else "no record yet"

    @task
    def documents() -> list[str]:
        """Return the kinds of documents that the Connection's default workflow requires."""
        from airflow_provider_faceki.hooks.faceki import FacekiHook

        return list(FacekiHook().get_workflow_rules().documents)

    decision.expand(record_identifier=identifiers())
    documents()
