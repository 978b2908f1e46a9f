# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### Find decisions for which no webhook arrived

FACEKI does not guarantee that a webhook arrives, or that it is sent again after a failure. This DAG therefore runs
every hour:

1. It fetches FACEKI's records for each open case.
2. If a record has a decision for which the asset `faceki://faceki_default/verifications` has no event, the DAG emits
   the missing event. Then [example_faceki_webhook](/dags/example_faceki_webhook) runs in the same way as after a
   webhook.
3. It closes the cases with a final decision.

A case is open as long as the folder `OPEN` contains a file with the record identifier as its name. Create this file
when you create the link: `write_json(f"{OPEN}/{record_identifier}", {})`. Only the name of the file is used. Do not
write personal data into the file, and do not use an e-mail address or other personal data as the identifier.

On Airflow 3.2, the events of this DAG start no run, because a task cannot set the partition of an event. In Airflow 3.3
and later, a task can set the partition. Airflow 3.0 and 3.1 have no partitions, and the DAG emits plain events.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from tempfile import gettempdir
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task, timezone

from airflow_provider_faceki.assets import faceki_verifications
from airflow_provider_faceki.operators.faceki import FacekiFetchRecordsOperator

#: The URI of the folder with one file for each open case. It can be in any storage that Airflow supports.
OPEN = os.environ.get("FACEKI_EXAMPLE_OPEN", f"file://{gettempdir()}/faceki_open")
DECIDED = ("ACCEPTED", "DECLINED")

verifications = faceki_verifications("faceki_default")

with DAG(
    dag_id="example_faceki_reconcile",
    schedule="@hourly",
    start_date=timezone.datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["faceki", "example"],
) as dag:

    @task
    def open_cases() -> list[str]:
        """Return the record identifiers of the cases without a final decision."""
        from airflow_provider_faceki.storage import list_files

        return [uri.rsplit("/", 1)[-1] for uri in list_files(OPEN)]

    @task(inlets=[verifications])
    def missed(fetched: Any, inlet_events: Any = None) -> list[dict[str, str]]:
        """Return the decisions in FACEKI's records for which no event exists.

        Records without a decision are ignored.
        """
        from airflow_provider_faceki.api import WebhookNotification

        decided = [record for records in fetched for record in records if record["decision"]]
        began = [record["created_at"] for record in decided]
        events = inlet_events[verifications]
        if began and all(began) and hasattr(events, "after"):
            # Asset events that are older than the oldest fetched verification are not read. They belong to other
            # verifications, because no event is older than its verification. One day is subtracted, in case the clocks
            # of FACEKI and Airflow differ.
            oldest = min(datetime.fromisoformat(moment) for moment in began)
            events = events.after((oldest - timedelta(days=1)).isoformat())
        said = {(event.extra.get("request_id"), event.extra.get("status")) for event in events}
        notifications = [
            WebhookNotification.of(record["request_id"], record["decision"]) for record in decided
        ]
        return [each.extra for each in notifications if (each.request_id, each.status) not in said]

    @task(outlets=[verifications], map_index_template="{{ notification['request_id'] }}")
    def announce(notification: dict[str, str], outlet_events: Any = None) -> None:
        """Emit one event of the asset `verifications`, with the same content as the event after a webhook."""
        event = outlet_events[verifications]
        event.extra = notification
        if hasattr(event, "add_partitions"):
            event.add_partitions(notification["request_id"])

    @task(trigger_rule="none_failed")
    def close(cases: list[str], fetched: Any) -> list[str]:
        """Close the cases with a final decision, and return their record identifiers."""
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        def newest(records: list[dict[str, Any]]) -> dict[str, Any]:
            return max(records, key=lambda record: record["created_at"] or "", default={})

        answers = zip(cases, fetched or [], strict=True)
        done = [case for case, records in answers if newest(records).get("decision") in DECIDED]
        for case in done:
            ObjectStoragePath(f"{OPEN}/{case}").unlink(missing_ok=True)
        return done

    cases = open_cases()
    fetch = FacekiFetchRecordsOperator.partial(task_id="fetch", fail_if_missing=False).expand(
        record_identifier=cases
    )
    announce.expand(notification=missed(fetch.output)) >> close(cases, fetch.output)
