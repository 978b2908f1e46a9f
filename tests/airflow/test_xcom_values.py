# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Strange values from XCom in each template field: each is refused clearly, or used exactly as it is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException

from airflow_provider_faceki import api
from airflow_provider_faceki.operators import batch, branch, faceki, images, reports, verification
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from tests.airflow.conftest import Connect
from tests.airflow.fakes import context
from tests.billing.image_files import write

#: Maximum length of an error text. Errors are logged, so an error must not contain a whole value of 10 MB.
MAX_ERROR_CHARACTERS = 3000
#: Template fields that need a text. All other fields also accept lists or mappings.
TEXTS = {
    *("faceki_conn_id", "workflow_id", "record_identifier", "request_id", "link", "face_id", "redirect_url"),
    *("path", "selfie", "image", "manifest", "batch_id", "output_path"),
    *("image_conn_id", "output_conn_id", "files_conn_id", "manifest_conn_id"),
}
#: Template fields that may be empty. An empty ``workflow_id`` means the Connection's workflow.
OPTIONAL = {"workflow_id", "query", "json", "data", "files", "review"}
_FILTERS = ("request_id", "link", "record_identifier", "face_id")

Arguments = dict[str, Any]


def _output(folder: Path) -> Arguments:
    return {"output_path": f"{folder}/out.json", "output_conn_id": "conn"}


def _selfie(folder: Path) -> Arguments:
    return {"selfie": write(folder, "s.jpg")}


def _manifest(folder: Path) -> Arguments:
    row = {"record_identifier": "accepted-1", **_selfie(folder), "document_1_front": write(folder, "d.jpg")}
    (folder / "rows.ndjson").write_text(json.dumps(row))
    return {"manifest": f"{folder}/rows.ndjson", "output_path": f"{folder}/out"}


#: Class and arguments of each task.
TASKS: dict[str, tuple[Any, Callable[[Path], Arguments]]] = {
    "link": (faceki.FacekiGenerateKycLinkOperator, lambda folder: {}),
    "fetch": (faceki.FacekiFetchRecordsOperator, _output),
    "call": (
        faceki.FacekiApiOperator,
        lambda folder: {
            **{"method": "POST", "path": "/v2/none", "files": {"selfie": write(folder, "s.jpg")}},
            **_output(folder),
        },
    ),
    "verification": (
        verification.FacekiKycVerificationOperator,
        lambda folder: {**_selfie(folder), "documents": [write(folder, "d.jpg")], **_output(folder)},
    ),
    "face match": (images.FacekiFaceMatchOperator, lambda folder: {**_selfie(folder), **_output(folder)}),
    "face analysis": (images.FacekiAnalyzeFaceOperator, _selfie),
    "image check": (images.FacekiCheckImageOperator, lambda folder: {"image": write(folder, "s.jpg")}),
    "report": (reports.FacekiPdfReportOperator, lambda folder: {"request_id": "r-1", **_output(folder)}),
    "batch": (
        batch.FacekiBatchVerificationOperator,
        lambda folder: {**_manifest(folder), "allowed_image_prefixes": [str(folder)]},
    ),
    "tables": (batch.FacekiBatchFetchRecordsOperator, lambda folder: {"output_path": f"{folder}/out"}),
    "branch": (
        branch.FacekiDecisionBranchOperator,
        lambda folder: {
            "summary": {"decision": "REVIEW"},
            "accepted": "a",
            "declined": "d",
            "otherwise": "o",
        },
    ),
    "sensor": (FacekiKycDecisionSensor, lambda folder: {}),
}


def _make(name: str, folder: Path, field: str, value: object) -> Any:
    """Return a task whose ``field`` is set to ``value`` when the DAG is parsed."""
    kind, arguments = TASKS[name]
    given = {**arguments(folder), field: value}
    if name in {"fetch", "sensor"} and not set(_FILTERS) & set(given):
        given["record_identifier"] = "accepted-1"
    if name == "tables" and not {"identifiers", "manifest"} & set(given):
        given["identifiers"] = ["accepted-1"]
    return kind(task_id="task", **given)


def _run(task: Any) -> tuple[str, str]:
    """Run the task; return the outcome and the text of the error.

    The outcome is ``refused`` if the task rejected the value, and ``used`` otherwise. An unknown Connection and errors
    of FACEKI (such as a missing record) also count as ``used``. All other errors fail the test.
    """
    error: Exception | None = None
    try:
        if isinstance(task, FacekiKycDecisionSensor):
            task.poke(context())
        elif isinstance(task, branch.FacekiDecisionBranchOperator):
            task.choose_branch(context())
        else:
            task.execute(context())
    except (AirflowFailException, AirflowNotFoundException, api.FacekiError) as raised:
        error = raised
    return "refused" if isinstance(error, AirflowFailException) else "used", str(error or "")


def _nested(depth: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(depth):
        document = {"a": document}
    return document


@pytest.fixture
def sandbox(faceki_sandbox: FacekiSandbox, connect: Connect) -> FacekiSandbox:
    connect(faceki_sandbox, pdf_report_path=faceki_sandbox.settings.pdf_path)
    return faceki_sandbox


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"id": "accepted-1"}, id="mapping"),
        pytest.param({}, id="empty mapping"),
        pytest.param(["accepted-1", 7], id="list"),
        pytest.param([], id="empty list"),
        pytest.param(_nested(60), id="60 levels"),
        pytest.param(20260001, id="number"),
        pytest.param(0, id="zero"),
        pytest.param(math.nan, id="NaN"),
        pytest.param(True, id="true"),
        pytest.param("/" + "x" * 10_000_000, id="10 MB"),
        pytest.param("/a\0b", id="U+0000"),
        pytest.param("/a\ud800b", id="half a surrogate pair"),
    ],
)
def test_a_template_field_with_a_value_that_is_no_text(
    sandbox: FacekiSandbox, tmp_path: Path, name: str, value: object
) -> None:
    outcomes = {}
    for field in TASKS[name][0].template_fields:
        task = _make(name, tmp_path, field, "{{ value }}")
        setattr(task, field, value)
        billed = dict(sandbox.ledger)
        outcomes[field], text = _run(task)
        assert len(text) <= MAX_ERROR_CHARACTERS
        assert outcomes[field] == "used" or sandbox.ledger == billed
    assert [field for field in outcomes if field in TEXTS and outcomes[field] != "refused"] == []


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    "value",
    [pytest.param(None, id="none"), pytest.param("", id="empty"), pytest.param("None", id="the word None")],
)
def test_a_given_field_that_renders_to_nothing_is_not_replaced_by_its_default(
    sandbox: FacekiSandbox, tmp_path: Path, name: str, value: object
) -> None:
    outcomes = {}
    for field in TASKS[name][0].template_fields:
        task = _make(name, tmp_path, field, "{{ value }}")
        setattr(task, field, value)
        outcomes[field], _ = _run(task)
    if name == "branch":
        # The other fields of a branch are task ids. Any text is accepted as a task id.
        outcomes = {"summary": outcomes["summary"]}
    assert [field for field in outcomes if outcomes[field] != "refused" and field not in OPTIONAL] == []
    assert sandbox.ledger == {}


@pytest.mark.parametrize("name", TASKS)
def test_a_template_in_a_value_is_not_rendered(sandbox: FacekiSandbox, tmp_path: Path, name: str) -> None:
    value = "{{ 7919 * 7907 }}"
    for field in TASKS[name][0].template_fields:
        task = _make(name, tmp_path, field, "{{ value }}")
        task.render_template_fields(context(value=value))
        assert getattr(task, field) == value
        _, text = _run(task)
        assert "62615533" not in text
    assert "62615533" not in json.dumps(sandbox.ledger)
