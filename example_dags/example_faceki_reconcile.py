# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""
### What the webhooks missed

FACEKI does not promise that its webhook arrives, or that it comes again if it did not. So, every hour: for each open
case ask FACEKI for its records, and where a verification says something that no event of the asset
`faceki://faceki_default/verifications` has said, emit that event. Then
[example_faceki_webhook](/dags/example_faceki_webhook) runs as if the webhook had come. A case that is decided
is open no longer.

A case is open while there is a file of its name in the folder `OPEN`; make it when you make the link:
`write_json(f"{OPEN}/{record_identifier}", {})`. The name is all that counts, so there is nothing about a person in
it, and an id of yours should not be something like an e-mail address either.

Needs Airflow 3.3, where a task can name the partition of an event. On 3.0 and 3.1, where there are no partitions, it
emits plain events; on 3.2 partitions are there but tasks cannot name them, so that its events start nothing.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from tempfile import gettempdir
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task, timezone

from airflow_provider_faceki.assets import faceki_verifications
from airflow_provider_faceki.operators.faceki import FacekiFetchRecordsOperator

#: A folder in any storage that Airflow knows.
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
        """List the record identifiers that wait for a decision."""
        from airflow_provider_faceki.storage import list_files

        return [uri.rsplit("/", 1)[-1] for uri in list_files(OPEN)]

    @task(inlets=[verifications])
    def missed(fetched: Any, inlet_events: Any = None) -> list[dict[str, str]]:
        """List what FACEKI's records say and no event has said. A record without a decision says nothing."""
        from airflow_provider_faceki.api import WebhookNotification

        decided = [record for records in fetched for record in records if record["decision"]]
        began = [record["created_at"] for record in decided]
        events = inlet_events[verifications]
        if began and all(began) and hasattr(events, "after"):
            # No event is older than its verification. A day more, for clocks that go wrong.
            oldest = min(datetime.fromisoformat(moment) for moment in began)
            events = events.after((oldest - timedelta(days=1)).isoformat())
        said = {(event.extra.get("request_id"), event.extra.get("status")) for event in events}
        hints = [WebhookNotification.of(record["request_id"], record["decision"]) for record in decided]
        return [hint.extra for hint in hints if (hint.request_id, hint.status) not in said]

    @task(outlets=[verifications], map_index_template="{{ hint['request_id'] }}")
    def announce(hint: dict[str, str], outlet_events: Any = None) -> None:
        """Emit one event, as the webhook would have."""
        event = outlet_events[verifications]
        event.extra = hint
        if hasattr(event, "add_partitions"):
            event.add_partitions(hint["request_id"])

    @task(trigger_rule="none_failed")
    def close(cases: list[str], fetched: Any) -> list[str]:
        """Forget the cases that are decided."""
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
    announce.expand(hint=missed(fetch.output)) >> close(cases, fetch.output)
