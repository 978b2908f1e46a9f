# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Every operator with ``output_path`` reports its output, with or without the OpenLineage provider."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.links.faceki import (
    OUTPUT_URL_KEY,
    RECORD_URL_KEY,
    FacekiHostedPageLink,
    FacekiOutputLink,
    FacekiRecordLink,
)
from airflow_provider_faceki.operators.batch import (
    FacekiBatchFetchRecordsOperator,
    FacekiBatchVerificationOperator,
)
from airflow_provider_faceki.operators.faceki import (
    FacekiApiOperator,
    FacekiFetchRecordsOperator,
    FacekiGenerateKycLinkOperator,
)
from airflow_provider_faceki.operators.images import FacekiFaceMatchOperator
from airflow_provider_faceki.operators.reports import FacekiPdfReportOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from tests.airflow.fakes import context
from tests.batch.harness import BatchHarness

PERSON = "accepted-jane"
COLLECTOR = "airflow.providers.common.compat.lineage.hook.get_hook_lineage_collector"


class Collector:
    """Replacement for Airflow's collector of hook lineage. It shortens URIs below one folder to relative paths."""

    def __init__(self, folder: Path) -> None:
        self._root = f"{folder.as_uri()}/"
        self.inputs: list[str] = []
        self.outputs: list[str] = []

    def add_input_asset(self, context: object, uri: str) -> None:
        self.inputs.append(uri.removeprefix(self._root))

    def add_output_asset(self, context: object, uri: str) -> None:
        self.outputs.append(uri.removeprefix(self._root))


@pytest.fixture
def harness(faceki_sandbox: FacekiSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchHarness:
    """A sandbox with one person's record, its Connection, and the person's images."""
    connection = faceki_sandbox.connection(
        portal_record_url="https://portal.example/{requestId}",
        pdf_report_path=faceki_sandbox.settings.pdf_path,
    )
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
    faceki_sandbox.add_record(record_identifier=PERSON, decision="ACCEPTED")
    (tmp_path / "in").mkdir()
    found = BatchHarness(tmp_path / "in")
    # The folder of an image possibly identifies the person, so the output is in another folder.
    found.out = tmp_path / "out"
    return found


@pytest.fixture
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collector:
    found = Collector(tmp_path)
    monkeypatch.setattr(COLLECTOR, lambda: found)
    return found


def request_id() -> str:
    (record,) = FacekiHook().fetch_records(record_identifier=PERSON)
    return str(record.request_id)


Make = Callable[[BatchHarness, FacekiSandbox], Any]
RESULTS = {"results": 1, "errors": 0}
TABLES = {"verifications": 1, "documents": 1, "aml_hits": 0, "images": 3, "errors": 0}


def verify(harness: BatchHarness, _: FacekiSandbox) -> Any:
    return FacekiKycVerificationOperator(
        task_id="t",
        record_identifier=PERSON,
        selfie=harness.selfie,
        documents=[{"front": harness.front, "back": harness.back}],
        output_path=f"{harness.out}/{PERSON}/record.json",
    )


def fetch(harness: BatchHarness, _: FacekiSandbox) -> Any:
    return FacekiFetchRecordsOperator(
        task_id="t", record_identifier=PERSON, output_path=f"{harness.out}/{PERSON}.json"
    )


def match(harness: BatchHarness, _: FacekiSandbox) -> Any:
    return FacekiFaceMatchOperator(
        task_id="t", selfie=harness.selfie, output_path=f"{harness.out}/selfie/found.json"
    )


def report(harness: BatchHarness, _: FacekiSandbox) -> Any:
    found = request_id()
    return FacekiPdfReportOperator(
        task_id="t", request_id=found, output_path=f"{harness.out}/{found}/report.pdf"
    )


def call(harness: BatchHarness, _: FacekiSandbox) -> Any:
    return FacekiApiOperator(
        task_id="t",
        path="/api/v3/kyc_verification",
        query={"record_identifier": PERSON},
        output_path=f"{harness.out}/{PERSON}/answer.json",
    )


def batch(harness: BatchHarness, _: FacekiSandbox) -> Any:
    return harness.batch(harness.everybody(PERSON))


def tables(harness: BatchHarness, _: FacekiSandbox) -> Any:
    return FacekiBatchFetchRecordsOperator(
        task_id="t", identifiers=[PERSON], output_path=harness.out.as_uri(), partition_by_date=True
    )


@pytest.mark.parametrize(
    ("make", "inputs", "outputs"),
    [
        pytest.param(verify, {}, {"out": 1}, id="verification"),
        pytest.param(fetch, {}, {"out": 1}, id="records"),
        pytest.param(match, {}, {"out": 0}, id="face match"),
        pytest.param(report, {}, {"out": None}, id="report"),
        pytest.param(call, {}, {"out": None}, id="any call"),
        pytest.param(
            batch,
            {"in/people.ndjson": 1},
            {f"out/{name}": rows for name, rows in RESULTS.items()},
            id="batch",
        ),
        pytest.param(tables, {}, {f"out/{name}": rows for name, rows in TABLES.items()}, id="tables"),
    ],
)
def test_what_is_reported(
    make: Make,
    inputs: dict[str, int | None],
    outputs: dict[str, int | None],
    harness: BatchHarness,
    collector: Collector,
    faceki_sandbox: FacekiSandbox,
) -> None:
    operator = make(harness, faceki_sandbox)
    operator.execute(context())
    assert (collector.inputs, collector.outputs) == (list(inputs), list(outputs))
    told = operator.get_openlineage_facets_on_complete(None)
    root = f"{harness.out.parent}/"
    assert [each.name.removeprefix(root) for each in told.inputs] == list(inputs)
    assert {
        each.name.removeprefix(root): getattr(each.outputFacets.get("outputStatistics"), "rowCount", None)
        for each in told.outputs
    } == outputs


def test_nothing_is_reported_before_it_is_written(
    harness: BatchHarness, faceki_sandbox: FacekiSandbox
) -> None:
    told = fetch(harness, faceki_sandbox).get_openlineage_facets_on_complete(None)
    assert (told.inputs, told.outputs, told.run_facets) == ([], [], {})


def test_a_batch_that_is_stopped_reports_what_it_wrote(
    harness: BatchHarness, collector: Collector, faceki_sandbox: FacekiSandbox
) -> None:
    faceki_sandbox.settings.credit = 1
    operator: FacekiBatchVerificationOperator = harness.batch(
        harness.everybody("accepted-1", "accepted-2", "accepted-3"), concurrency=1
    )
    with pytest.raises(Exception, match="2 of 3 rows are left"):
        operator.execute(context())
    told = operator.get_openlineage_facets_on_complete(None)
    facet = told.run_facets["faceki_batch"]
    assert (facet.rows, facet.succeeded, facet.failed, facet.open) == (3, 1, 0, 2)
    assert collector.outputs == ["out/results", "out/errors"]


def test_the_provider_of_openlineage_is_not_needed(
    harness: BatchHarness, faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if "openlineage" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openlineage", None)
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage", None)
    assert len(fetch(harness, faceki_sandbox).execute(context())) == 1


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(verify, id="verification"),
        pytest.param(fetch, id="records"),
        pytest.param(report, id="report"),
        pytest.param(lambda *_: FacekiKycDecisionSensor(task_id="t", record_identifier=PERSON), id="sensor"),
    ],
)
def test_the_address_of_the_record(make: Make, harness: BatchHarness, faceki_sandbox: FacekiSandbox) -> None:
    found = context()
    operator = make(harness, faceki_sandbox)
    operator.execute(found)
    pushed = found["ti"].pushed
    assert pushed[RECORD_URL_KEY].startswith("https://portal.example/")
    # The outputs of this test are local files, which have no web address.
    assert OUTPUT_URL_KEY not in pushed
    # Airflow 3's worker passes the running task instance. The links then read the operator's attributes and not XCom,
    # because a read of an XCom that does not exist would log an error.
    running: Any = found["ti"]
    assert FacekiRecordLink().get_link(operator, ti_key=running) == pushed[RECORD_URL_KEY]
    assert FacekiOutputLink().get_link(operator, ti_key=running) == ""


@pytest.mark.usefixtures("harness")
def test_the_worker_reads_no_xcom_for_the_hosted_page() -> None:
    """After a failed task, there is no XCom, and Airflow 3's worker would log an error for the attempt to read it."""
    operator = FacekiGenerateKycLinkOperator(task_id="t", record_identifier=PERSON)
    running: Any = context()["ti"]
    assert FacekiHostedPageLink().get_link(operator, ti_key=running) == ""
    made = operator.execute(context())
    assert FacekiHostedPageLink().get_link(operator, ti_key=running) == made["url"]


def test_without_the_portal_s_address_there_is_no_link(
    harness: BatchHarness, faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(faceki_sandbox.connection()))
    found = context()
    operator = fetch(harness, faceki_sandbox)
    operator.execute(found)
    assert RECORD_URL_KEY not in found["ti"].pushed
    assert FacekiRecordLink().get_link(operator, ti_key=found["ti"]) == ""
