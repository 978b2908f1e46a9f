# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the calls for faces, images and PDF reports, and of the V2 API."""

from __future__ import annotations

import base64

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import WORKFLOW_PASSPORT
from tests.sandbox.conftest import RECORDS, Caller

SELFIE = {"selfie": ("me.jpg", b"a face")}


def test_a_face_that_was_seen_is_found_and_paid_for(sandbox: FacekiSandbox, call: Caller) -> None:
    call.verify("order-1")
    sandbox.add_record("order-2", selfie=b"a face")
    sandbox.add_record("order-3", selfie=b"another face")
    found = call("POST", RECORDS + "/search-by-face", files=SELFIE).json()["result"]
    assert [each["record_identifier"] for each in found] == ["order-1", "order-2"]
    assert found[0]["face_id"] == found[1]["face_id"]
    assert [bill.what for bill in sandbox.bills] == ["verification", "face_match"]


def test_an_unknown_face_is_billed(sandbox: FacekiSandbox, call: Caller) -> None:
    assert call("POST", RECORDS + "/search-by-face", files=SELFIE).json()["result"] == []
    sandbox.settings.not_found = "8013"
    assert call("POST", RECORDS + "/search-by-face", files=SELFIE).json()["code"] == 8013
    assert sandbox.counters.bills == 2


def test_a_face_is_analysed(sandbox: FacekiSandbox, call: Caller) -> None:
    result = call("POST", RECORDS + "/analyzeFace", files=SELFIE).json()["result"]
    assert set(result) == {
        "minAge",
        "maxAge",
        "gender",
        "genderConfidence",
        "faceDetectionConfidence",
        "livenessScore",
    }
    assert [bill.what for bill in sandbox.bills] == ["analyze_face"]


@pytest.mark.parametrize("path", ["/search-by-face", "/analyzeFace"])
def test_rejected_calls_are_not_billed(sandbox: FacekiSandbox, call: Caller, path: str) -> None:
    assert call("POST", RECORDS + path, files={"photo": ("x", b"x")}).json()["code"] == 5002
    sandbox.settings.credit = 0
    assert call("POST", RECORDS + path, files=SELFIE).json()["code"] == 5003
    sandbox.revoke_tokens()
    assert call("POST", RECORDS + path, files=SELFIE).status_code == 401
    assert sandbox.bills == ()


@pytest.mark.parametrize("path", ["/detect", "/advance/detect"])
def test_the_add_on_checks_an_image_without_a_token(anonymous: Caller, path: str) -> None:
    said = anonymous("POST", path, files={"image": ("x.jpg", b"x")}).json()
    assert said["quality"] == "123.4"
    assert said["liveness"]["actual"] is True
    assert anonymous("POST", path, files={"photo": ("x.jpg", b"x")}).status_code == 400


@pytest.mark.parametrize("form", ["bytes", "json-url", "json-base64"])
@pytest.mark.parametrize("path", ["/sandbox/report/{requestId}", "/api/v9/{requestId}/report.pdf"])
def test_a_report_comes_in_three_forms(
    sandbox: FacekiSandbox, call: Caller, anonymous: Caller, form: str, path: str
) -> None:
    sandbox.settings.update({"pdf_form": form, "pdf_path": path, "pdf_size": 100_000})
    request_id = str(sandbox.add_record()["requestId"])
    answer = call("GET", path.replace("{requestId}", request_id))
    if form == "bytes":
        content = answer.content
        assert answer.headers["Content-Type"] == "application/pdf"
    elif form == "json-base64":
        content = base64.b64decode(answer.json()["result"]["pdf"])
    else:
        address = answer.json()["result"]["url"].removeprefix(sandbox.url)
        assert request_id not in address
        content = anonymous("GET", address).content
    assert content.startswith(b"%PDF-1.4\n")
    assert content.endswith(b"%%EOF\n")
    assert request_id.encode() in content
    assert len(content) > 100_000
    assert sandbox.counters.requests["pdf"] == 1


def test_the_report_that_does_not_exist(sandbox: FacekiSandbox, call: Caller) -> None:
    assert (
        call("GET", "/sandbox/report/nobody").status_code,
        call("GET", "/sandbox/report/").status_code,
    ) == (404, 404)
    assert call("GET", "/sandbox/report-file/nobody").status_code == 404
    request_id = sandbox.add_record()["requestId"]
    sandbox.revoke_tokens()
    assert call("GET", f"/sandbox/report/{request_id}").status_code == 401


V2 = "/kycverify/api/kycverify"


def test_v2_reads_the_same_records(sandbox: FacekiSandbox, call: Caller) -> None:
    link = sandbox.create_link("order-1")
    record = sandbox.decide(link, "ACCEPTED")
    for path, query in ((f"{V2}/link", {"linkId": link}), (f"{V2}/reference", {"referenceId": "order-1"})):
        assert call("GET", path, params=query).json() == {"responseCode": 0, "data": [record]}
        assert call("GET", path, params=dict.fromkeys(query, "no")).json()["responseCode"] == 8013
        assert call("GET", path).json()["responseCode"] == 5002
    summary = call("GET", f"{V2}/kyc-verify-summary").json()["data"]
    assert summary == {"total": 1, "ACCEPTED": 1, "DECLINED": 0, "REVIEW": 0}


def test_v2_rules(sandbox: FacekiSandbox, call: Caller) -> None:
    assert call("GET", "/kycrules/api/kycrules").json()["data"]["livenessCheckType"] == "MODERATE"
    link = sandbox.create_link()
    del call.session.headers["Authorization"]  # Official SDKs send no token here.
    answer = call("GET", f"{V2}/validate-kyc-verify-link", params={"url": link}).json()
    assert answer["data"]["allowSingle"] is False
    assert answer["data"]["allowedKycDocuments"] == ["ID Card"]
    assert call("GET", f"{V2}/validate-kyc-verify-link", params={"url": "no"}).json()["responseCode"] == 8014


SINGLE = ("selfie_image", "doc_front_image", "doc_back_image")
SEVERAL = ("selfie_image", "id_front_image", "id_back_image")


@pytest.mark.parametrize(
    ("path", "images"),
    [
        pytest.param("kyc-verification", SINGLE, id="single"),
        pytest.param("multi-kyc-verification", SEVERAL, id="several"),
        pytest.param("request-kyc", SINGLE, id="single by link"),
        pytest.param("multiple-kyc-verification", SEVERAL, id="several by link"),
    ],
)
def test_v2_uploads(sandbox: FacekiSandbox, call: Caller, path: str, images: tuple[str, ...]) -> None:
    by_link = path in ("request-kyc", "multiple-kyc-verification")
    link = sandbox.create_link("order-1")
    fields = {"link": link, "selectedDoc": "ID Card"} if by_link else {"record_identifier": "order-1"}
    if by_link:
        call.session.headers.pop("Authorization")
    files = {name: (f"{name}.jpg", name.encode()) for name in images}
    too_few = {**files}
    too_few.pop(images[1])
    refused = call("POST", f"{V2}/{path}", data=fields, files=too_few).json()
    assert (refused["responseCode"], sandbox.ledger) == (8001, {})
    data = call("POST", f"{V2}/{path}", data=fields, files=files).json()["data"]
    assert data["verification"]["passed"] is True
    assert data["responseID"]
    assert sandbox.ledger == {"order-1": 1}


def test_a_v2_upload_by_link_uses_the_workflow_of_the_link(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    link = sandbox.create_link("order-1", workflow_id=WORKFLOW_PASSPORT)
    files = {name: (f"{name}.jpg", name.encode()) for name in SINGLE}
    anonymous("POST", f"{V2}/request-kyc", data={"link": link}, files=files)
    (record,) = sandbox.store.find(link=link)
    assert record.workflow_id == WORKFLOW_PASSPORT
    assert record.document["document_data"][0]["reference"] == "Passport 1"  # type: ignore[index]  # It is a list.


def test_a_v2_upload_that_fails_names_the_code_in_its_data(call: Caller) -> None:
    files = {name: (f"{name}.jpg", b"x") for name in SINGLE}
    answer = call(
        "POST", f"{V2}/kyc-verification", data={"record_identifier": "code-8002-a"}, files=files
    ).json()
    assert answer == {
        "responseCode": 8002,
        "data": {"error": {"message": "DOCUMENT_VERIFY_FAILED", "code": 8002}},
    }


def test_v2_face_check(sandbox: FacekiSandbox, call: Caller) -> None:
    record = sandbox.add_record("order-1", selfie=b"a face")
    path = "/facelink/api/face-check"
    found = call("POST", path, files={"selfie_image": ("x", b"a face")}).json()["data"]
    assert (found["face_verified"], found["all_face_ids"]) == (True, [record["face_id"]])
    assert found["kyc_records"][0]["_id"] == record["requestId"]
    nobody = call("POST", path, files={"selfie_image": ("x", b"b")}).json()["data"]
    assert nobody == {"face_verified": False, "all_face_ids": [], "kyc_records": []}
    assert call("POST", path, files={"selfie": ("x", b"b")}).json()["responseCode"] == 8001
    assert sandbox.counters.bills == 2
