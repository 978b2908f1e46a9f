# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG whose own Python tasks return a link. Airflow logs what a task returns."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, task, timezone

with DAG(dag_id="hook_link", schedule=None, start_date=timezone.datetime(2026, 1, 1)) as dag:

    @task
    def makes_link() -> str:
        """Return the URL of a new link, which contains the id of the link."""
        from airflow_provider_faceki.hooks.faceki import FacekiHook

        return str(FacekiHook().generate_kyc_link(record_identifier="hook_link").url)

    # This task runs in another process than `makes_link`, so Airflow does not mask the link there. The option keeps the
    # link out of the log.
    @task(show_return_value_in_logs=False)
    def returns_it_again(link: str) -> str:
        """Return the link of the other task."""
        return link

    returns_it_again(makes_link())
