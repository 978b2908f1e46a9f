# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### Fetch records from FACEKI on a schedule

The DAG runs every night and fetches FACEKI's records of some verifications. All tasks share one access token, even if
they run in different processes.

The tasks return summaries without personal data, so XCom contains no personal data. Because `output_path` is set, the
tasks also write the full records to your storage.

Before the first run, set the param `record_identifiers` to your own ids, and create your Connection `faceki_default`.
"""

from __future__ import annotations

import os
from datetime import timedelta
from tempfile import gettempdir

from airflow.providers.common.compat.sdk import DAG, Param, task, timezone

from airflow_provider_faceki.operators.faceki import FacekiFetchRecordsOperator

#: The URI of the folder for the fetched records. It can be in any storage that Airflow supports, for example s3://…,
#: gs://…, abfs://… or file://….
RECORDS = os.environ.get("FACEKI_EXAMPLE_RECORDS", f"file://{gettempdir()}/faceki_records")

with DAG(
    dag_id="example_faceki_fetch_records",
    schedule="0 3 * * *",
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
        """Return the record identifiers to fetch. In production, read them from your own table."""
        return params["record_identifiers"]

    fetch = FacekiFetchRecordsOperator.partial(
        task_id="fetch",
        fail_if_missing=False,
        output_path=RECORDS + "/{{ run_id | replace(':', '') }}/{{ ti.map_index }}.json",
    ).expand(record_identifier=identifiers())

    @task
    def report(fetched: list[list[dict[str, str]]]) -> dict[str, int]:
        """Return the number of records for each decision."""
        counts: dict[str, int] = {}
        for summaries in fetched:
            for summary in summaries:
                counts[summary["decision"]] = counts.get(summary["decision"], 0) + 1
        return counts

    report(fetch.output)
