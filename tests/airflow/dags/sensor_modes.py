# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAG with one sensor for each mode and each outcome, and a second one with soft_fail for some outcomes.

The id of a task is also the identifier that it waits for, so that a test can prepare each outcome separately.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, timezone

from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor

MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferred": {"deferrable": True},
}
#: Sensor arguments by outcome, in addition to the defaults.
OUTCOMES: dict[str, dict[str, Any]] = {
    "accepted": {},
    "late": {},
    "review_returned": {"wait_for_review": False},
    "borne": {"max_failures": 2},
    "declined_fails": {"fail_on_decline": True},
    "never": {"timeout": 3.0},
    "review_awaited": {"timeout": 3.0},
    "expired_link": {},
    "wrong_secret": {"faceki_conn_id": "faceki_wrong"},
    "not_borne": {"max_failures": 1},
}
#: Outcomes that end in a failure. For each of them, a second sensor runs with soft_fail.
BAD = ("declined_fails", "never", "expired_link", "wrong_secret", "not_borne")

with DAG(dag_id="sensor_modes", schedule=None, start_date=timezone.datetime(2026, 1, 1)) as dag:
    for mode, how in MODES.items():
        for outcome, what in OUTCOMES.items():
            for soft in (False, True) if outcome in BAD else (False,):
                name = f"{outcome}-{mode}-{'soft' if soft else 'hard'}"
                by = "link" if outcome == "expired_link" else "record_identifier"
                told = {
                    "poke_interval": 0.5,
                    "timeout": 86_400,
                    by: f"{{{{ dag_run.conf['{name}'] }}}}" if by == "link" else name,
                    "soft_fail": soft,
                }
                FacekiKycDecisionSensor(task_id=name, **{**told, **how, **what})
