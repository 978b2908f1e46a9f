# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the verification calls: their outcomes, their charges, missing images, and large bodies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import (
    DEFAULT_WORKFLOW,
    WORKFLOW_ANY_ONE,
    WORKFLOW_PASSPORT,
    WORKFLOW_THREE_DOCUMENTS,
    WORKFLOW_TWO_DOCUMENTS,
)
from tests.sandbox.conftest import RECORDS, Caller
from tests.sandbox_delays import HeldDelays

UNKNOWN_WORKFLOW = "5a4db0c5-0000-4000-8000-00000000000f"

BY_LINK = RECORDS + "/requestbylink"


def images(*names: str) -> dict[str, tuple[str, bytes]]:
    return {name: (f"{name}.jpg", name.encode()) for name in names}


@pytest.mark.parametrize(
    ("identifier", "decision"),
    [
        ("", "ACCEPTED"),
        ("order-7", "ACCEPTED"),
        ("accepted-7", "ACCEPTED"),
        ("declined-7", "DECLINED"),
        ("declined", "DECLINED"),
        ("review-7", "REVIEW"),
        ("decision-rejected-7", "REJECTED"),
        ("slow-0.01-declined-7", "DECLINED"),
        ("undeclined-7", "ACCEPTED"),
    ],
)
def test_the_identifier_decides(sandbox: FacekiSandbox, call: Caller, identifier: str, decision: str) -> None:
    answer = call.verify(identifier)
    assert (answer.status_code, answer.json()["code"]) == (200, 200)
    result = answer.json()["result"]
    assert set(result) == {"requestId", "decision", "companyId", "workflowId", "branchId"}
    assert (result["decision"], result["workflowId"]) == (decision, DEFAULT_WORKFLOW)
    (record,) = call.records(requestId=result["requestId"]).json()["result"]
    assert (record["decision"], record["record_identifier"]) == (decision, identifier)
    assert sandbox.ledger == {identifier: 1}
    assert sandbox.settings.credit == 999


@pytest.mark.parametrize("shape", ["object", "null", "missing"])
@pytest.mark.parametrize("code", [5004, 5005, 5010, 8002, 8004, 8019])
def test_rejected_images_are_billed_and_kept(
    sandbox: FacekiSandbox, call: Caller, code: int, shape: str
) -> None:
    sandbox.settings.rejection_result = shape
    answer = call.verify(f"code-{code}-x")
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (200, False, code)
    (record,) = call.records(record_identifier=f"code-{code}-x").json()["result"]
    assert (record["decision"], record["errorCodes"]) == ("DECLINED", [code])
    assert sandbox.ledger == {f"code-{code}-x": 1}
    if shape == "object":
        assert body["result"]["requestId"] == record["requestId"]
    else:
        assert body.get("result", "missing") == (None if shape == "null" else "missing")


def test_rejections_can_be_free(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.settings.bill_rejections = False
    call.verify("code-5004-x")
    call.verify("declined-x")
    assert sandbox.ledger == {"declined-x": 1}


@pytest.mark.parametrize("code", [500, 1000, 5001, 5003, 8003, 8017, 9999])
def test_other_codes_mean_that_nothing_was_done(sandbox: FacekiSandbox, call: Caller, code: int) -> None:
    assert call.verify(f"code-{code}-x").json()["code"] == code
    assert call.records(record_identifier=f"code-{code}-x").json()["result"] == []
    assert sandbox.bills == ()


@pytest.mark.parametrize(
    ("missing", "code"), [("selfie", 5002), ("document_1_front", 5006), ("document_1_back", 5006)]
)
def test_an_image_that_is_missing_is_not_billed(
    sandbox: FacekiSandbox, call: Caller, missing: str, code: int
) -> None:
    answer = call.verify("order-1", leaving_out=missing)
    assert (answer.status_code, answer.json()["code"]) == (200, code)
    assert sandbox.bills == ()


def test_an_empty_image_is_a_missing_one(call: Caller) -> None:
    files = {**images("document_1_front", "document_1_back"), "selfie": ("selfie.jpg", b"")}
    assert call.verify(files=files).json()["code"] == 5002


@pytest.mark.parametrize(
    ("workflow", "names", "code"),
    [
        pytest.param("", ("document_1_front",), 5002, id="no workflow"),
        pytest.param(UNKNOWN_WORKFLOW, ("document_1_front",), 5001, id="no rules"),
        pytest.param(WORKFLOW_PASSPORT, ("document_1_front",), 200, id="a passport has no back"),
        pytest.param(WORKFLOW_PASSPORT, (), 5006, id="no passport"),
        pytest.param(
            WORKFLOW_TWO_DOCUMENTS, ("document_1_front", "document_2_front", "document_2_back"), 200, id="two"
        ),
        pytest.param(
            WORKFLOW_TWO_DOCUMENTS, ("document_1_front", "document_2_front"), 5006, id="no back at all"
        ),
        pytest.param(WORKFLOW_TWO_DOCUMENTS, ("document_1_front", "document_1_back"), 5006, id="one of two"),
        pytest.param(WORKFLOW_ANY_ONE, ("document_1_front",), 200, id="any one"),
        pytest.param(
            WORKFLOW_THREE_DOCUMENTS, ("document_1_front", "document_1_back"), 5006, id="one of three"
        ),
    ],
)
def test_a_workflow_gets_the_documents_it_asks_for(
    call: Caller, workflow: str, names: tuple[str, ...], code: int
) -> None:
    answer = call.verify(data={"workflowId": workflow}, files=images("selfie", *names))
    assert answer.json()["code"] == code


def test_without_credit_verifications_are_rejected(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.settings.credit = 1
    assert [call.verify("order-1").json()["code"] for _ in range(2)] == [200, 5003]
    assert sandbox.ledger == {"order-1": 1}
    assert len(call.records(record_identifier="order-1").json()["result"]) == 1


def test_every_request_is_billed_again(sandbox: FacekiSandbox, call: Caller) -> None:
    for _ in range(3):
        call.verify("order-1")
    assert sandbox.ledger == {"order-1": 3}
    assert sandbox.counters.bills == 3
    assert {bill.what for bill in sandbox.bills} == {"verification"}


def test_verification_needs_a_token_and_says_so_at_once(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    assert anonymous.verify("slow-60-x").status_code == 401
    assert sandbox.bills == ()
    assert sandbox.counters.refused == 1


def test_a_large_body_gets_the_page_of_a_gateway(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.settings.max_upload_bytes = 100_000
    files = {"selfie": ("a.jpg", b"x" * 3_000_000)}
    answer = call.verify(files=files)
    assert answer.status_code == 413
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "413 Request Entity Too Large" in answer.text
    assert sandbox.bills == ()
    assert call.verify("order-1").json()["code"] == 200, "the next request gets through"


def test_a_large_body_of_unknown_length_is_stopped_on_the_way(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.settings.max_upload_bytes = 100_000
    body = (b"--x\r\nContent-Disposition: form-data; name=selfie; filename=a\r\n\r\n", *[b"x" * 50_000] * 10)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert call("POST", RECORDS, data=iter(body), headers=kind).status_code == 413


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param("application/json", b"{}", id="json"),
        pytest.param("multipart/form-data", b"--x--", id="no boundary"),
        pytest.param("multipart/form-data; boundary=x", b"--y\r\n", id="other boundary"),
        pytest.param("multipart/form-data; boundary=x", b"--x\r\nContent-Disp", id="ends early"),
        pytest.param(
            "multipart/form-data; boundary=x", b"--x\r\n\r\nz\r\n--x--\r\n", id="part without a name"
        ),
        pytest.param("", b"x", id="no type"),
    ],
)
def test_a_body_that_is_no_form_is_rejected(call: Caller, kind: str, body: bytes) -> None:
    answer = call("POST", RECORDS, data=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (400, 5002)


def test_verification_by_link_needs_no_token(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    link = sandbox.create_link("review-7")
    files = images("selfie", "document_1_front", "document_1_back")
    first, second = (anonymous("POST", BY_LINK, data={"link": link}, files=files).json() for _ in range(2))
    assert first["result"]["decision"] == "REVIEW"
    assert second["code"] == 5009
    assert sandbox.ledger == {"review-7": 1}
    assert anonymous("POST", BY_LINK, data={"link": "made-up"}, files=files).json()["code"] == 8014


def test_a_slow_verification_does_not_block_others(
    sandbox: FacekiSandbox,
    call: Caller,
    held_delays: HeldDelays,
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    with call.verifying("slow-2-x"):
        eventually(lambda: held_delays.begun == [2.0])
        assert call.records(record_identifier="slow-2-x").json()["result"] == []
    assert call.records(record_identifier="slow-2-x").json()["result"] == []
    assert sandbox.bills == ()
    # The verification is done although the client has left.
    held_delays.end()
    eventually(lambda: call.records(record_identifier="slow-2-x").json()["result"])
    assert sandbox.ledger == {"slow-2-x": 1}
