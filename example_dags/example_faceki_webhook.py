# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### FACEKI calls, a DAG runs

[FACEKI's webhook](https://docs.faceki.com/data-fields/verification-data/ekyc-webhook-structure) becomes an event of the
asset `faceki://faceki_default/verifications`, where `[faceki] webhook_enabled` and the Connection's `webhook_token` are
set. [example_faceki_reconcile](/dags/example_faceki_reconcile) finds what did not arrive. With
Airflow 3.2 and later each verification is a partition of it, and gets a run of its own. The webhook is not
signed, so nothing in it is believed but the request id, and that only as something to ask FACEKI for: what counts is
the record that FACEKI hands out. If there is none, the webhook was made up, and the run is skipped.

Before Airflow 3.2 there are no partitions: events that come close together share one run, so that the tasks are mapped
over all of them; and one that arrives while a run is being made can wait for the next. Airflow 2 receives no webhooks.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task, timezone

from airflow_provider_faceki.assets import faceki_verifications
from airflow_provider_faceki.operators.faceki import FacekiFetchRecordsOperator

log = logging.getLogger(__name__)

verifications = faceki_verifications("faceki_default")
schedule: Any
try:
    from airflow.sdk import PartitionedAssetTimetable
except ImportError:
    schedule, partitioned = [verifications], False
else:
    schedule, partitioned = PartitionedAssetTimetable(assets=verifications), True

with DAG(
    dag_id="example_faceki_webhook",
    schedule=schedule,
    start_date=timezone.datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    doc_md=__doc__,
    tags=["faceki", "example"],
) as dag:

    @task
    def act(records: list[dict[str, Any]]) -> str:
        """Open the account, or tell the person; a REVIEW is followed by another webhook, or by nothing."""
        for record in records:
            log.info("FACEKI's record of %s says %s", record["request_id"], record["decision"])
        return str(records[-1]["decision"])

    if partitioned:
        fetch = FacekiFetchRecordsOperator(
            task_id="fetch", request_id="{{ dag_run.partition_key }}", skip_if_missing=True
        )
        act(fetch.output)
    else:

        @task
        def request_ids(triggering_asset_events: Any = None) -> list[str]:
            """List each verification that one of this run's events names."""
            events = [event for each in (triggering_asset_events or {}).values() for event in each]
            return sorted({event.extra["request_id"] for event in events})

        fetch_all = FacekiFetchRecordsOperator.partial(task_id="fetch", skip_if_missing=True).expand(
            request_id=request_ids()
        )
        act.expand(records=fetch_all.output)
