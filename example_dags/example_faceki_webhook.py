# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### Run a DAG when FACEKI sends a webhook

If `[faceki] webhook_enabled` and the Connection's `webhook_token` are set, each
[webhook of FACEKI](https://docs.faceki.com/data-fields/verification-data/ekyc-webhook-structure) becomes an event of
the asset `faceki://faceki_default/verifications`. This event starts a run of this DAG.
[example_faceki_reconcile](/dags/example_faceki_reconcile) finds the decisions for which no webhook arrived.

The webhook is not signed, so it is possibly forged. The DAG therefore uses only the webhook's request id, and fetches
the record with this id from FACEKI. If FACEKI has no such record, the webhook was forged, and the tasks are skipped.

With Airflow 3.2 and later, each verification is a partition of the asset and gets its own run.

Airflow 3.0 and 3.1 have no partitions. Events that arrive within a short time share one run, so the tasks are mapped
over all events. If an event arrives while Airflow creates a run, the next run possibly processes this event.

With Airflow 2, the provider cannot receive webhooks.
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
        """Log the decisions. Replace the log line by your own code, for example to open the account.

        The decision REVIEW is not final. FACEKI possibly sends another webhook after the review.
        """
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
            """Return the request ids in all events of this run."""
            events = [event for each in (triggering_asset_events or {}).values() for event in each]
            return sorted({event.extra["request_id"] for event in events})

        fetch_all = FacekiFetchRecordsOperator.partial(task_id="fetch", skip_if_missing=True).expand(
            request_id=request_ids()
        )
        act.expand(records=fetch_all.output)
