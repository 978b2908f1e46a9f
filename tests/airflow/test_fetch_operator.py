# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operator that fetches records: what it returns and writes, and when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki import api
from airflow_provider_faceki.operators.faceki import FacekiFetchRecordsOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.fakes import execute

PERSON = {"first_name": "Quirina", "last_name": "Zzyzxdottir", "document_number": "QZ7700991"}


@pytest.mark.parametrize(
    ("by", "field"),
    [
        pytest.param("request_id", "requestId", id="by FACEKI's id"),
        pytest.param("link", "link", id="by link"),
        pytest.param("record_identifier", "record_identifier", id="by one's own id"),
        pytest.param("face_id", "face_id", id="by person"),
    ],
)
def test_summaries_hold_no_personal_data(faceki_sandbox: FacekiSandbox, by: str, field: str) -> None:
    faceki_sandbox.settings.person = PERSON
    record = faceki_sandbox.add_record("customer-1", "DECLINED", link=faceki_sandbox.create_link(), code=5005)
    faceki_sandbox.add_record("customer-2")
    given: dict[str, Any] = {by: "{{ params.it }}"}
    found, pushed = execute(
        FacekiFetchRecordsOperator(task_id="fetch", **given), {"params": {"it": record[field]}}
    )
    assert found == [
        {
            "request_id": record["requestId"],
            "record_identifier": "customer-1",
            "link": record["link"],
            "decision": "DECLINED",
            "error_codes": [{"code": 5005, "name": "DOCUMENT_FACE_MATCH_FAILED"}],
            "verification_summary": found[0]["verification_summary"],
            "created_at": found[0]["created_at"],
            "updated_at": found[0]["updated_at"],
        }
    ]
    assert set(found[0]["verification_summary"].values()) <= {True, False}
    assert not any(word in json.dumps(found) for word in PERSON.values())
    assert pushed == {}


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"link": "a", "request_id": "b"}, id="two ids"),
        pytest.param({"link": "{{ params.a }}", "face_id": "{{ params.b }}"}, id="two templates"),
    ],
)
def test_exactly_one_id_while_the_dag_is_parsed(given: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match="exactly one of request_id, link, record_identifier and face_id; found"
    ):
        FacekiFetchRecordsOperator(task_id="fetch", **given)


@pytest.mark.parametrize("name", ["request_id", "link", "record_identifier", "face_id"])
def test_a_template_that_renders_to_nothing(faceki_sandbox: FacekiSandbox, name: str) -> None:
    operator = FacekiFetchRecordsOperator(task_id="fetch", **{name: "{{ params.none }}"})
    with pytest.raises(AirflowFailException, match=f"ValidationError: {name} is empty") as raised:
        execute(operator, {"params": {"none": ""}})
    assert isinstance(raised.value.__cause__, api.ValidationError)
    assert faceki_sandbox.counters.total == 0


@pytest.mark.parametrize("shape", ["empty", "8013", "404"])
def test_missing_record(faceki_sandbox: FacekiSandbox, shape: str) -> None:
    faceki_sandbox.settings.not_found = shape
    # The error is not an AirflowFailException, because the record possibly exists when the task is retried.
    with pytest.raises(api.NotFoundError, match=r"no such record .*'faceki_default'"):
        execute(FacekiFetchRecordsOperator(task_id="fetch", record_identifier="nobody"))
    calm = FacekiFetchRecordsOperator(task_id="fetch", record_identifier="nobody", fail_if_missing=False)
    assert execute(calm) == ([], {})


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        pytest.param(
            {"request_id": "order-7"}, "request_id, and this value is not an id of FACEKI", id="own id"
        ),
        pytest.param(
            {"request_id": "0b5cde5e-3a52-4e8c-9f0f-6a0c1d2e3f40"}, "by request_id (connection", id="UUID"
        ),
        pytest.param({"record_identifier": "order-7"}, "by record_identifier (connection", id="identifier"),
    ],
)
@pytest.mark.usefixtures("faceki_sandbox")
def test_a_missing_record_names_the_filter(given: dict[str, str], hint: str) -> None:
    with pytest.raises(api.NotFoundError) as raised:
        execute(FacekiFetchRecordsOperator(task_id="fetch", **given))
    assert hint in str(raised.value)
    assert "order-7" not in str(raised.value)


@pytest.mark.parametrize(
    ("decisions", "fails"),
    [
        pytest.param(["DECLINED"], True, id="declined"),
        pytest.param(["DECLINED", "ACCEPTED"], False, id="declined first, accepted later"),
        pytest.param(["ACCEPTED", "DECLINED"], True, id="accepted first, declined later"),
        pytest.param(["REVIEW"], False, id="under review"),
        pytest.param(["REJECTED"], False, id="a word that nobody has documented"),
    ],
)
def test_fail_on_decline(
    faceki_sandbox: FacekiSandbox, tmp_path: Path, decisions: list[str], fails: bool
) -> None:
    for decision in decisions:
        code = 5005 if decision == "DECLINED" else None
        newest = faceki_sandbox.add_record("customer-1", decision, code=code)
    out = tmp_path / "records.json"
    operator = FacekiFetchRecordsOperator(
        task_id="fetch", record_identifier="customer-1", fail_on_decline=True, output_path=str(out)
    )
    if fails:
        told = f"declined verification {newest['requestId']} .*5005 DOCUMENT_FACE_MATCH_FAILED"
        with pytest.raises(AirflowFailException, match=told):
            execute(operator)
    else:
        assert [each["decision"] for each in execute(operator)[0]] == decisions
    # The record was paid for and requested, so it is written even if the task fails.
    assert [each["decision"] for each in json.loads(out.read_text())] == decisions


def test_full_records_go_to_storage_only(faceki_sandbox: FacekiSandbox, tmp_path: Path) -> None:
    faceki_sandbox.settings.person = PERSON
    record = faceki_sandbox.add_record("customer-1")
    operator = FacekiFetchRecordsOperator(
        task_id="fetch",
        record_identifier="customer-1",
        output_path=f"{tmp_path.as_uri()}/{{{{ ti.run_id }}}}/records.json",
    )
    found, pushed = execute(operator)
    out = tmp_path / "run" / "records.json"
    assert pushed == {"output_path": out.as_uri()}
    assert json.loads(out.read_text()) == [record]
    assert PERSON["last_name"] in out.read_text()
    assert PERSON["last_name"] not in json.dumps(found)
    assert out.stat().st_mode & 0o077 == 0
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("records.json", id="a relative path"),
        pytest.param("nostore://bucket/records.json", id="a storage that is not installed"),
        pytest.param("/dev/null/records.json", id="below a file"),
    ],
)
def test_an_unwritable_output_path_is_rejected(faceki_sandbox: FacekiSandbox, where: str) -> None:
    faceki_sandbox.add_record("customer-1")
    with pytest.raises(AirflowFailException, match=r"ValidationError: .*(storage|write)"):
        execute(
            FacekiFetchRecordsOperator(task_id="fetch", record_identifier="customer-1", output_path=where)
        )
