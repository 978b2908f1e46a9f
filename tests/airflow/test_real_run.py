# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""DAGs in a complete Airflow: scheduler, triggerer, and tasks in separate processes."""

from __future__ import annotations

import json
import sqlite3

import psutil
import pytest

from tests.airflow.ends import ENDS
from tests.airflow.real_run import EVERY, LINK_DAG, SCHEDULED, RealRun
from tests.airflow.running import AIRFLOW_3, reading

pytestmark = pytest.mark.airflow

only_airflow_3 = pytest.mark.skipif(
    not AIRFLOW_3, reason="Airflow 2.11 on SQLite takes five seconds a task; there dag.test() has run these"
)


def test_link_is_made_waited_for_and_branched_on(real: RealRun) -> None:
    assert real.accepted.state == real.declined.state == "success"
    assert real.accepted.xcom("wait_for_decision")["decision"] == "ACCEPTED"
    assert {name: real.accepted.states[name] for name in ("welcome", "decline")} == {
        "welcome": "success",
        "decline": "skipped",
    }


def test_a_killed_triggerer_loses_no_wait(real: RealRun) -> None:
    # The triggerer was killed with SIGKILL during this wait, and the decision was made before a new triggerer started.
    assert real.declined.xcom("wait_for_decision")["decision"] == "DECLINED"
    assert {name: real.declined.states[name] for name in ("welcome", "decline")} == {
        "welcome": "skipped",
        "decline": "success",
    }


def test_one_token_for_all_processes(real: RealRun) -> None:
    forms = {"generate_token": 1}
    if AIRFLOW_3:
        # The token store treats a different authentication flow as a different account.
        forms["access_token_query"] = 1
    assert real.counters["tokens_by_form"] == forms
    assert real.counters["refused"] == 0


def test_what_the_triggerer_was_given(real: RealRun) -> None:
    with sqlite3.connect(real.waiting) as database:
        rows = database.execute(
            "SELECT classpath, kwargs FROM trigger" if not AIRFLOW_3 else TRIGGERS
        ).fetchall()
    assert [path for path, _ in rows] == [
        "airflow_provider_faceki.triggers.faceki.FacekiKycDecisionTrigger"
    ] * 2
    if AIRFLOW_3:
        # Airflow 3 stores the arguments as plain text, so only scalars are allowed. Airflow 2.11 encrypts them.
        for _, text in rows:
            found = json.loads(text)
            found = found.get("__var", found)
            assert found["faceki_conn_id"] == "faceki_default"
            assert all(isinstance(value, str | int | float | bool | None) for value in found.values())


TRIGGERS = "SELECT classpath, kwargs FROM trigger WHERE classpath LIKE '%faceki%'"


@only_airflow_3
def test_scheduled_examples_start_by_themselves(real: RealRun) -> None:
    for dag_id in SCHEDULED:
        assert [run.state for run in real.airflow.runs(dag_id)] == ["success"]


@only_airflow_3
@pytest.mark.parametrize("dag_id", EVERY)
def test_every_path_ends_as_it_must(real: RealRun, dag_id: str) -> None:
    assert real.airflow.run(dag_id, "every").states == ENDS[dag_id]


@only_airflow_3
def test_what_the_user_interface_shows_of_a_link(real: RealRun) -> None:
    made = real.accepted.xcom("make_link")
    assert real.accepted.xcom("make_link", "_link_FacekiHostedPageLink") == made["url"]


def test_no_process_is_left(real: RealRun) -> None:
    home = str(real.airflow.home)
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AIRFLOW_HOME") == home and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    assert left == []


def test_no_task_is_left_half_way(real: RealRun) -> None:
    with reading(real.airflow.database) as database:
        states = {state for (state,) in database.execute("SELECT state FROM task_instance")}
    assert states <= {"success", "failed", "skipped"}
    assert real.airflow.runs(LINK_DAG)
