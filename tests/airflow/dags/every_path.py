# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG with each operator and sensor, on each path that succeeds or fails, for the leak tests.

The id of a task is also the identifier that it works with, so that the sandbox can treat each task differently. Each
Connection is named after its fault.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.common.compat.sdk import DAG, timezone

from airflow_provider_faceki.operators.faceki import (
    FacekiApiOperator,
    FacekiFetchRecordsOperator,
    FacekiGenerateKycLinkOperator,
)
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor

RECORDS = "/api/v3/kyc_verification"
OUTPUT = os.environ.get("EVERY_PATH_OUTPUT", "/tmp/every-path")  # noqa: S108 - only if parsed without a run
#: Connections that cannot work. Their tasks must report the error without revealing secrets.
BROKEN = (
    "wrong_secret",
    "wrong_secret_in_query",
    "unreachable",
    "unreachable_in_query",
    "not_tls",
    "not_tls_in_query",
    "bad_settings",
    "proxy_gone",
    "no_such_connection",
)
#: Faults that the sandbox applies to the requests of a task, by task id.
FAULTS: dict[str, dict[str, Any]] = {
    "fault_502": {"kind": "status", "status": 502},
    "fault_429": {"kind": "status", "status": 429},
    "fault_413": {"kind": "status", "status": 413},
    "fault_422": {"kind": "status", "status": 422},
    "fault_5003": {"kind": "code", "code": 5003},
    "fault_unknown_code": {"kind": "code", "code": 77777},
    "fault_redirect": {"kind": "redirect"},
    "fault_truncated": {"kind": "truncated"},
    "fault_cut_off": {"kind": "cut_off"},
    "fault_reset": {"kind": "reset_after_body"},
    "fault_hang": {"kind": "hang", "delay": 0.2},
}
#: Dead links, by their key in the run's conf.
DEAD_LINKS = ("link_expired", "link_used_up", "link_unknown")
#: Further tasks that end as failed.
FAILS = ("declined", "missing", "too_large", "unwritable", "link_as_id", "no_time_left")

with DAG(dag_id="every_path", schedule=None, start_date=timezone.datetime(2026, 1, 1)) as dag:
    FacekiGenerateKycLinkOperator(task_id="makes_link", record_identifier="makes_link")
    FacekiGenerateKycLinkOperator(
        task_id="makes_link_in_query", record_identifier="makes_link", faceki_conn_id="faceki_in_query"
    )
    FacekiFetchRecordsOperator(
        task_id="writes_records",
        record_identifier="writes_records",
        output_path=f"{OUTPUT}/{{{{ run_id }}}}.json",
    )
    FacekiApiOperator(
        task_id="calls",
        path="/api/v3/workflows/rules",
        query={"workflowId": "{{ dag_run.conf['workflow'] }}"},
    )
    for mode in ("poke", "reschedule"):
        FacekiKycDecisionSensor(
            task_id=f"waits_{mode}", mode=mode, link=f"{{{{ dag_run.conf['waits_{mode}'] }}}}"
        )
    FacekiKycDecisionSensor(
        task_id="waits_deferred",
        deferrable=True,
        poke_interval=1,
        link="{{ dag_run.conf['waits_deferred'] }}",
    )

    FacekiFetchRecordsOperator(task_id="declined", record_identifier="declined", fail_on_decline=True)
    FacekiFetchRecordsOperator(task_id="missing", record_identifier="missing")
    FacekiApiOperator(
        task_id="too_large", path=RECORDS, query={"record_identifier": "too_large"}, max_xcom_bytes=10
    )
    FacekiFetchRecordsOperator(
        task_id="unwritable", record_identifier="unwritable", output_path="/dev/null/records.json"
    )
    FacekiFetchRecordsOperator(
        task_id="link_as_id",
        request_id="https://faceki.example/kycverify/{{ dag_run.conf['link_expired'] }}",
    )
    FacekiKycDecisionSensor(
        task_id="no_time_left", deferrable=True, timeout=0, link="{{ dag_run.conf['no_time_left'] }}"
    )
    for name in BROKEN:
        FacekiFetchRecordsOperator(
            task_id=name, link="{{ dag_run.conf['waits_poke'] }}", faceki_conn_id=f"faceki_{name}"
        )
    for name in FAULTS:
        FacekiFetchRecordsOperator(task_id=name, link=f"{{{{ dag_run.conf['{name}'] }}}}")
    for name in DEAD_LINKS:
        FacekiKycDecisionSensor(task_id=name, link=f"{{{{ dag_run.conf['{name}'] }}}}")
        FacekiKycDecisionSensor(
            task_id=f"{name}_deferred", deferrable=True, link=f"{{{{ dag_run.conf['{name}'] }}}}"
        )
