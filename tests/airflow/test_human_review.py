# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The human review example on a complete Airflow: it opens a required action and follows the answer from the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_faceki.sandbox import SandboxProcess
from tests.airflow.running import AIRFLOW_VERSION, EXAMPLES, bundles
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


class Api:
    """Client of Airflow's API, which sends the same requests as a user's browser."""

    def __init__(self, airflow: WholeAirflow) -> None:
        self._url = airflow.environment["AIRFLOW__API__BASE_URL"]
        self._token = self._call("GET", "/auth/token")["access_token"]

    def actions(self, run_id: str) -> list[Any]:
        found = self._call("GET", f"/api/v2/dags/{DAG_ID}/dagRuns/{run_id}/hitlDetails")
        actions: list[Any] = found["hitl_details"]
        return actions

    def answer(self, run_id: str, option: str) -> None:
        path = f"/api/v2/dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/ask_a_person/-1/hitlDetails"
        self._call("PATCH", path, {"chosen_options": [option]})

    def _call(self, method: str, path: str, body: object = None) -> Any:
        headers = {} if path == "/auth/token" else {"authorization": f"Bearer {self._token}"}
        response = requests.request(method, self._url + path, json=body, headers=headers, timeout=300)
        response.raise_for_status()
        return response.json()


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WholeAirflow, dict[str, Any]]]:
    """Airflow with a finished run for each case, and the required actions that the runs opened."""
    home: Path = tmp_path_factory.mktemp("human_review")
    with SandboxProcess() as faceki:
        for name in CASES:
            decision = "REVIEW" if name.startswith("review") else "ACCEPTED"
            faceki.control.post("records", record_identifier=name, decision=decision)
        connection = json.dumps(faceki.connection())
        with WholeAirflow(home, {"AIRFLOW_CONN_FACEKI_DEFAULT": connection, **bundles(EXAMPLES)}) as airflow:
            airflow.wait_until_ready(DAG_ID)
            airflow.tell(
                ("dags", "unpause", DAG_ID),
                *(airflow.trigger(DAG_ID, name, {"record_identifier": name}) for name in CASES),
            )
            api, opened = Api(airflow), {}
            for name, (option, _) in CASES.items():
                if option is not None:
                    airflow.wait(f"the question about {name}", lambda name=name: bool(api.actions(name)))  # type: ignore[misc]
                    (opened[name],) = api.actions(name)
                    airflow.wait_for_ended_processes()
                    api.answer(name, option)
            airflow.wait(
                "all runs",
                lambda: all(airflow.run(DAG_ID, name).state in {"success", "failed"} for name in CASES),
            )
            yield airflow, opened


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
