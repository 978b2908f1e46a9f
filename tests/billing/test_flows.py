# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operators in DAGs: mapped, templated, branching, and in the example DAG."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki import charged_call
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import WORKFLOW_PASSPORT
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.running import EXAMPLES, bundles, run
from tests.billing.conftest import DAGS, FEW_ATTEMPTS
from tests.billing.image_files import image_bytes, write

pytestmark = pytest.mark.long

PEOPLE = ("accepted-1", "declined-2", "review-3", "decision-frozen-4", "code-8009-5")


@pytest.fixture(scope="module")
def flows(
    airflow_db: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DagResult, Path, FacekiSandbox]]:
    """The finished run, the folder that it read from and wrote to, and the sandbox that it used."""
    folder = tmp_path_factory.mktemp("billed")
    for number in range(len(PEOPLE)):
        write(folder, f"selfie-{number}.jpg", image_bytes(seed=number))
    for name in ("front.jpg", "back.jpg"):
        write(folder, name)
    with FacekiSandbox() as sandbox, pytest.MonkeyPatch.context() as patch:
        # On a busy machine, the task state store responds slowly. By default a charged call is not sent then, because
        # another execution possibly sends it. Here no second execution exists, so a slow store is accepted.
        patch.setattr(charged_call, "_MAX_WRITE_SECONDS", 600.0)
        sandbox.settings.client_id = "billed-flows"
        connection = json.dumps(sandbox.connection(**FEW_ATTEMPTS))
        patch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", connection)
        patch.setenv("AIRFLOW_CONN_FACEKI_OTHER", connection)
        patch.setenv("BILLED_FOLDER", folder.as_uri())
        for name, value in bundles(EXAMPLES, DAGS).items():
            patch.setenv(name, value)
        conf = {
            "selfie": f"{folder.as_uri()}/selfie-0.jpg",
            "passport": WORKFLOW_PASSPORT,
            "connection": "faceki_other",
        }
        yield run(airflow_db, DAGS, "billed_flows", **conf), folder, sandbox


Flows = tuple[DagResult, Path, FacekiSandbox]


def test_the_run_and_all_its_tasks_succeed(flows: Flows) -> None:
    done, _, _ = flows
    assert {task: state for task, state in done.states.items() if state not in ("success", "skipped")} == {}
    assert done.state == "success"


def test_mapped_verifications(flows: Flows) -> None:
    done, folder, sandbox = flows
    found = [done.xcom(f"verify[{index}]") for index in range(len(PEOPLE))]
    assert [summary["record_identifier"] for summary in found] == list(PEOPLE)
    assert [summary["decision"] for summary in found] == [
        "ACCEPTED",
        "DECLINED",
        "REVIEW",
        "FROZEN",
        "DECLINED",
    ]
    assert [summary["retake_selfie"] for summary in found] == [False, False, False, False, True]
    for index, summary in enumerate(found):
        place = done.xcom(f"verify[{index}]", "output_path")
        record = json.loads(Path(place.removeprefix("file://")).read_text())
        assert place == f"{folder.as_uri()}/verify-{index}.json"
        assert record["requestId"] == summary["request_id"]
    assert {who: sandbox.ledger[who] for who in PEOPLE} == dict.fromkeys(PEOPLE, 1)


def test_mapped_reports(flows: Flows) -> None:
    done, folder, _ = flows
    for index in range(len(PEOPLE)):
        assert done.xcom(f"report[{index}]") == f"{folder.as_uri()}/report-{index}.pdf"
        content = (folder / f"report-{index}.pdf").read_bytes()
        assert done.xcom(f"verify[{index}]")["request_id"].encode() in content


def test_mapped_images(flows: Flows) -> None:
    done, _, _ = flows
    for index, who in enumerate(("accepted-1", "declined-2")):
        assert who in [summary["record_identifier"] for summary in done.xcom(f"match[{index}]")]
        assert done.xcom(f"analyze[{index}]")["gender"] == "Female"
        assert done.xcom(f"check[{index}]")["objects"] == ["face"]


@pytest.mark.parametrize(
    ("branch", "taken"),
    [
        pytest.param("route_declined", {"no", "also_no"}, id="declined: two ways, one of them a template"),
        pytest.param("route_review", {"else"}, id="review that has no way of its own"),
        pytest.param("route_found", {"yes"}, id="a list of summaries"),
    ],
)
def test_branches(flows: Flows, branch: str, taken: set[str]) -> None:
    done, _, _ = flows
    ways = {way: done.states[f"{branch}_{way}"] for way in ("yes", "no", "also_no", "else")}
    assert ways == {way: "success" if way in taken else "skipped" for way in ways}


def test_a_run_fetches_one_token_and_the_rules_once_per_workflow(flows: Flows) -> None:
    _, _, sandbox = flows
    assert sandbox.counters.tokens_issued == 1
    assert sandbox.counters.requests["rules"] == 2


@pytest.fixture
def example(airflow: Path, sandbox: FacekiSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("selfie.jpg", "front.jpg", "back.jpg"):
        write(tmp_path, name)
    monkeypatch.setenv("FACEKI_EXAMPLE_IMAGES", tmp_path.as_uri())
    monkeypatch.setenv("FACEKI_EXAMPLE_REPORTS", f"{tmp_path.as_uri()}/reports")
    return airflow


@pytest.mark.parametrize(
    ("fault", "taken"),
    [
        pytest.param(None, "report", id="accepted"),
        pytest.param({"kind": "code", "code": 8009, "processed": True}, "decline", id="declined"),
    ],
)
def test_the_example(
    example: Path, sandbox: FacekiSandbox, tmp_path: Path, fault: dict[str, Any] | None, taken: str
) -> None:
    if fault:
        sandbox.add_fault(**fault, route="verify")
    done = run(example, EXAMPLES, "example_faceki_verification")
    assert done.state == "success"
    ways = {way: done.states[way] for way in ("report", "decline", "ask_a_person")}
    assert ways == {way: "success" if way == taken else "skipped" for way in ways}
    assert list(sandbox.ledger.values()) == [1]
    assert list(sandbox.ledger) == [done.xcom("verify")["record_identifier"]]
    reports = list((tmp_path / "reports").glob("*.pdf")) if (tmp_path / "reports").exists() else []
    assert [report.stem for report in reports] == (
        [done.xcom("verify")["request_id"]] if taken == "report" else []
    )
