# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Branches: a task does not run for a person whose decision did not select it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.dags.branches import PEOPLE, WAYS
from tests.airflow.running import AIRFLOW_VERSION, DAGS, bundles, run


@pytest.fixture(scope="module")
def done(airflow_db: Path) -> DagResult:
    """The finished run. The tests only read it, so they share it."""
    with FacekiSandbox() as sandbox, pytest.MonkeyPatch.context() as patch:
        for name, decision in PEOPLE.items():
            sandbox.add_record(name, decision=decision)
        connection = json.dumps(sandbox.connection())
        for name, value in {"AIRFLOW_CONN_FACEKI_DEFAULT": connection, **bundles(DAGS)}.items():
            patch.setenv(name, value)
        return run(airflow_db, DAGS, "branches")


def test_a_branch_rejects_several_summaries(done: DagResult) -> None:
    states = done.states
    assert states["of_many"] == "failed"
    assert {states[f"mapped[{number}]"] for number in range(len(PEOPLE))} == {"failed"}
    behind = [f"{where}_{way}" for where in ("of_many", "mapped") for way in WAYS.values()]
    assert {states[task] for task in behind} == {"upstream_failed"}


def test_a_branch_in_a_mapped_group_follows_each_decision_or_fails(done: DagResult) -> None:
    states = done.states
    went = {
        (person, way): states[f"person.{way}[{number}]"]
        for number, person in enumerate(PEOPLE)
        for way in WAYS.values()
    }
    # Airflow 3.2 and later would run all of these tasks, so the branch refuses to run.
    others = "upstream_failed" if AIRFLOW_VERSION >= (3, 2) else "skipped"
    expected = dict.fromkeys(went, others)
    if AIRFLOW_VERSION < (3, 2):
        expected |= dict.fromkeys([("anna", "welcome"), ("bob", "decline"), ("carla", "ask")], "success")
    assert went == expected


def test_mapped_tasks_are_filtered_by_decision(done: DagResult) -> None:
    assert done.xcom("accepted_one[0]") == "anna"
    assert done.xcom("declined_one[0]") == "bob"
    assert {"accepted_one[1]", "declined_one[1]"}.isdisjoint(done.states)
