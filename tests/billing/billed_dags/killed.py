# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAGs with verifications whose processes the test kills, and with tasks that use the hook and the retry policy."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task, timezone

from airflow_provider_faceki import api, retry_policy
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator

FOLDER = os.environ.get("BILLED_FOLDER", "file:///tmp/billed")
#: Identifiers of the persons of two mapped tasks. After a try was killed, the next try waits for the verification that
#: the killed try possibly sent. The task `sleeping` waits on the worker, the task `deferred` waits in the triggerer.
SLEEPING, DEFERRED = ("accepted-k1", "declined-k2"), ("review-k3", "code-5004-k4")
CONN_ID = "faceki_billing"
DELAYS: dict[str, Any] = {"retries": 5, "retry_delay": timedelta(seconds=1)}

with DAG(dag_id="killed", schedule=None, start_date=timezone.datetime(2026, 1, 1)) as dag:
    for task_id, people in (("sleeping", SLEEPING), ("deferred", DEFERRED)):
        FacekiKycVerificationOperator.partial(
            task_id=task_id,
            faceki_conn_id=CONN_ID,
            selfie=f"{FOLDER}/selfie-0.jpg",
            documents=[{"front": f"{FOLDER}/front.jpg", "back": f"{FOLDER}/back.jpg"}],
            resubmit_after=22.0,
            deferrable=task_id == "deferred",
            output_path=f"{FOLDER}/{{{{ task.task_id }}}}-{{{{ ti.map_index }}}}.json",
            **DELAYS,
        ).expand(record_identifier=[f"slow-10-{person}" for person in people])

# The retry policy does not exist before Airflow 3.3. Airflow must be able to parse this file there too.
POLICY: Any = getattr(retry_policy, "FACEKI_RETRY_POLICY", None)


def hopeless() -> None:
    """Call a path that FACEKI does not know."""
    FacekiHook(CONN_ID).call(api.RawCall("GET", "/api/v3/no/such/thing"))


def throttled() -> int:
    """Make a call that FACEKI rejects at the first try and answers at the second try."""
    return len(FacekiHook(CONN_ID).call(api.FetchRecords(record_identifier="throttled")))


if POLICY is not None:
    with DAG(dag_id="own_tasks", schedule=None, start_date=timezone.datetime(2026, 1, 1)):
        for call in (hopeless, throttled):
            task(retry_policy=POLICY, **DELAYS)(call)()
