# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The smaller calls: faces, images, reports, and the older API."""

from __future__ import annotations

import base64

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
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


def test_a_face_that_nobody_has_seen_costs_too(sandbox: FacekiSandbox, call: Caller) -> None:
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
def test_what_they_cannot_do(sandbox: FacekiSandbox, call: Caller, path: str) -> None:
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


def test_the_older_api_reads_the_same_records(sandbox: FacekiSandbox, call: Caller) -> None:
    link = sandbox.create_link("order-1")
    record = sandbox.decide(link, "ACCEPTED")
    for path, query in ((f"{V2}/link", {"linkId": link}), (f"{V2}/reference", {"referenceId": "order-1"})):
        assert call("GET", path, params=query).json() == {"responseCode": 0, "data": [record]}
        assert call("GET", path, params=dict.fromkeys(query, "no")).json()["responseCode"] == 8013
        assert call("GET", path).json()["responseCode"] == 5002
    summary = call("GET", f"{V2}/kyc-verify-summary").json()["data"]
    assert summary == {"total": 1, "ACCEPTED": 1, "DECLINED": 0, "REVIEW": 0}


def test_the_older_api_has_rules(sandbox: FacekiSandbox, call: Caller) -> None:
    assert call("GET", "/kycrules/api/kycrules").json()["data"]["livenessCheckType"] == "MODERATE"
    link = sandbox.create_link()
    answer = call("GET", f"{V2}/validate-kyc-verify-link", params={"url": link}).json()
    assert answer["data"]["documents"] == ["ID Card"]
    assert call("GET", f"{V2}/validate-kyc-verify-link", params={"url": "no"}).json()["responseCode"] == 8014
