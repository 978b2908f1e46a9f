# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The human review example on a complete Airflow: it opens a required action and follows the answer from the API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.airflow.running import AIRFLOW_VERSION
from tests.airflow.shared import RestApi, SharedAirflow
from tests.airflow.whole_airflow import WholeAirflow

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(
        AIRFLOW_VERSION < (3, 2), reason="the pinned standard provider does not let an answer time out"
    ),
]

DAG_ID = "example_faceki_human_review"
#: The answer (None if the person's decision needs no human review), and the end states of the two final tasks.
CASES = {
    "review-welcome": ("Welcome", {"welcome": "success", "decline": "skipped"}),
    "review-decline": ("Decline", {"welcome": "skipped", "decline": "success"}),
    "accepted": (None, {"welcome": "success", "decline": "skipped"}),
}


@pytest.fixture(scope="module")
def reviewed(shared_airflow: SharedAirflow) -> tuple[WholeAirflow, dict[str, Any]]:
    """Airflow with a finished run for each case, and the required actions that the runs opened."""
    airflow, api = shared_airflow.airflow, shared_airflow.api
    for name in CASES:
        decision = "REVIEW" if name.startswith("review") else "ACCEPTED"
        record = {"record_identifier": name, "decision": decision}
        shared_airflow.sandboxes["default"].control.post("records", **record)
    airflow.wait_until_ready(DAG_ID)
    shared_airflow.begin(*((DAG_ID, name, {"record_identifier": name}) for name in CASES))
    opened = {}
    for name, (option, _) in CASES.items():
        if option is not None:
            airflow.wait(f"the question about {name}", lambda name=name: bool(actions(api, name)))  # type: ignore[misc]
            (opened[name],) = actions(api, name)
            airflow.wait_for_ended_processes()
            path = f"dags/{DAG_ID}/dagRuns/{name}/taskInstances/ask_a_person/-1/hitlDetails"
            api.call("PATCH", path, {"chosen_options": [option]})
    airflow.wait(
        "all runs",
        lambda: all(airflow.run(DAG_ID, name).state in {"success", "failed"} for name in CASES),
    )
    return airflow, opened


def actions(api: RestApi, run_id: str) -> list[Any]:
    """Return the required actions of a run."""
    found: list[Any] = api.call("GET", f"dags/{DAG_ID}/dagRuns/{run_id}/hitlDetails")["hitl_details"]
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_run_follows_the_reviewers_response(
    reviewed: tuple[WholeAirflow, dict[str, Any]], name: str
) -> None:
    airflow, _ = reviewed
    done, (option, ends) = airflow.run(DAG_ID, name), CASES[name]
    assert done.state == "success"
    assert {task: done.states[task] for task in ends} == ends
    assert done.states["ask_a_person"] == ("skipped" if option is None else "success")


def test_the_review_question_shows_the_summary_without_personal_data(
    reviewed: tuple[WholeAirflow, dict[str, Any]],
) -> None:
    _, opened = reviewed
    assert set(opened) == {"review-welcome", "review-decline"}
    question = opened["review-welcome"]
    assert question["subject"] == "Decide about review-welcome"
    assert question["options"] == ["Welcome", "Decline"]
    assert question["defaults"] == ["Decline"]
    body = question["body"]
    assert "| Decision of FACEKI | REVIEW |" in body
    assert "https://apps.faceki.com" in body
    assert "{%" not in body
