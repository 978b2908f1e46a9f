# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the records: their fields, the filters of the records call, and its answers if no record is found."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.sandbox.conftest import Caller

FIELDS = {
    "link",
    "record_identifier",
    "requestId",
    "document_data",
    "selfie_data",
    "warnings",
    "notes",
    "aml",
    "verification_summary",
    "document_data_confidence",
    "decision",
    "errorCodes",
    "deviceDetails",
    "createdAt",
    "updatedAt",
    "__v",
    "images",
    "face_id",
    "updateBy",
}


def only_document(record: dict[str, Any]) -> dict[str, Any]:
    (document,) = record["document_data"]
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("name", ["requestId", "face_id", "link", "record_identifier"])
def test_each_filter_finds_its_record_and_no_other(sandbox: FacekiSandbox, call: Caller, name: str) -> None:
    wanted, other = (sandbox.decide(sandbox.create_link(f"order-{n}"), "ACCEPTED") for n in (1, 2))
    found = call.records(**{name: str(wanted[name])}).json()["result"]
    assert found == [wanted]
    assert wanted[name] != other[name]


def test_several_filters_must_all_fit(sandbox: FacekiSandbox, call: Caller) -> None:
    record = sandbox.add_record("order-1")
    both = {"requestId": str(record["requestId"]), "record_identifier": "order-1"}
    assert call.records(**both).json()["result"] == [record]
    assert call.records(**{**both, "record_identifier": "order-2"}).json()["result"] == []


def test_no_filter_is_refused(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_record("order-1")
    answer = call.records()
    assert (answer.status_code, answer.json()["code"]) == (422, 5002)


def test_one_identifier_may_have_several_records(sandbox: FacekiSandbox, call: Caller) -> None:
    made = [sandbox.add_record("order-1", decision) for decision in ("DECLINED", "ACCEPTED")]
    assert call.records(record_identifier="order-1").json()["result"] == made


def test_the_second_records_url_accepts_only_a_request_id(sandbox: FacekiSandbox, call: Caller) -> None:
    record = sandbox.add_record("order-1")
    path = "/kycverify/api/kycverify/records"
    assert call("GET", path, params={"requestId": record["requestId"]}).json()["result"] == [record]
    assert call("GET", path, params={"record_identifier": "order-1"}).json()["code"] == 5002


@pytest.mark.parametrize(
    ("shape", "status", "code"),
    [
        pytest.param("empty", 200, 200, id="[]"),
        ("8013", 200, 8013),
        ("404", 404, 8013),
        ("bare-404", 404, 404),
    ],
)
def test_an_empty_result_has_four_response_forms(
    sandbox: FacekiSandbox, call: Caller, shape: str, status: int, code: int
) -> None:
    sandbox.settings.not_found = shape
    for filters in ({"requestId": "no"}, {"link": sandbox.create_link()}):
        answer = call.records(**filters)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json().get("result", "absent") == ([] if shape == "empty" else "absent")


def test_a_record_has_every_documented_field(sandbox: FacekiSandbox) -> None:
    record = sandbox.add_record("order-1")
    assert set(record) == FIELDS
    document = only_document(record)
    assert document["full_name"] == f"{document['first_name']} {document['last_name']}"
    texts = (
        "age",
        "expiryDay",
        "issuedYear",
        "date_of_birth_day",
        "document_number",
        "mrz",
        "nationality_iso2",
    )
    assert all(isinstance(document[name], str) for name in texts)
    assert document["document_face_match"] == {"similarity": 99.98, "confidence": 99.99}


def test_fields_of_the_person_can_be_replaced(sandbox: FacekiSandbox) -> None:
    sandbox.settings.person = {"first_name": "Canary", "last_name": "Bird", "document_number": "CANARY123"}
    document = only_document(sandbox.add_record("order-1"))
    assert document["full_name"] == "Canary Bird"
    assert document["document_number"] == "CANARY123"
    assert "BIRD<<CANARY" in document["mrz"]
    assert "CANARY123" in document["mrz"]


def test_a_decision_may_change(sandbox: FacekiSandbox, call: Caller) -> None:
    first = sandbox.decide(sandbox.create_link("order-1"), "REVIEW")
    sandbox.clock.advance(86_400)
    sandbox.decide(str(first["requestId"]), "DECLINED")
    (now,) = call.log_in().records(record_identifier="order-1").json()["result"]
    assert (now["decision"], now["updateBy"]) == ("DECLINED", "sandbox")
    assert now["createdAt"] == first["createdAt"]
    assert now["updatedAt"] > str(first["updatedAt"])
    assert sandbox.ledger == {"order-1": 1}, "looking again costs nothing"


def test_fields_can_have_any_value(sandbox: FacekiSandbox, call: Caller) -> None:
    odd = {"decision": None, "requestId": "r-1", "document_data": "none", "new_field": [1]}
    sandbox.add_record("order-1", fields=odd)
    (record,) = call.records(requestId="r-1").json()["result"]
    assert {name: record[name] for name in odd} == odd


@pytest.mark.parametrize("documents", [[], [{}], ["none"], None])
def test_a_record_without_a_name_can_be_decided_and_found(
    sandbox: FacekiSandbox, call: Caller, documents: object
) -> None:
    odd = {"document_data": documents, "document_data_confidence": documents}
    record = sandbox.add_record("order-1", "REVIEW", selfie=b"a face", fields=odd)
    assert sandbox.decide(str(record["requestId"]), "ACCEPTED")["decision"] == "ACCEPTED"
    answer = call("POST", "/facelink/api/face-check", files={"selfie_image": b"a face"})
    assert [each["_id"] for each in answer.json()["data"]["kyc_records"]] == [record["requestId"]]


def test_two_filters_find_a_number_as_one_filter_does(sandbox: FacekiSandbox, call: Caller) -> None:
    record = sandbox.add_record(fields={"requestId": "r-1", "record_identifier": 7})
    assert call.records(record_identifier="7").json()["result"] == [record]
    assert call.records(requestId="r-1", record_identifier="7").json()["result"] == [record]


def test_polls_are_timed(sandbox: FacekiSandbox, call: Caller) -> None:
    link = sandbox.create_link()
    for _ in range(3):
        call.records(link=link)
    moments = sandbox.polls(link=link)
    assert len(moments) == 3
    assert moments == tuple(sorted(moments))
    assert sandbox.polls(link="other") == ()


@pytest.mark.parametrize("by", [{}, {"request_id": "x"}, {"link": "x", "requestId": "x"}])
def test_polls_need_exactly_one_filter(sandbox: FacekiSandbox, by: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="polls: found .*, allowed is one of requestId, face_id, link, "):
        sandbox.polls(**by)
