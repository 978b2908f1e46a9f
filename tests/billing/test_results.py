# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Responses to a verification: results, errors and bills."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki import api
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.records import Record
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW
from tests.billing.conftest import NOWHERE, Connect, Verify
from tests.billing.image_files import image_bytes, verification, write
from tests.billing.tries import FileStateStore

UNKNOWN_WORKFLOW = "5a4db0c5-0000-4000-8000-00000000000f"

REJECTIONS = {
    5004: "SELFIE_LIVENESS_FAILED",
    5005: "DOCUMENT_FACE_MATCH_FAILED",
    5007: "MISMATCH_AS_PER_RULES",
    5008: "KYC_FAILED",
    5010: "EXPIRED_DOCUMENT",
    5011: "EXPIRY_NOT_FOUND",
    5012: "DOCUMENT_LIVENESS_FAILED",
    8002: "DOCUMENT_VERIFY_FAILED",
    8004: "FACE_CROPPED",
    8005: "FACE_TOO_CLOSED",
    8006: "FACE_NOT_FOUND",
    8007: "FACE_CLOSED_TO_BORDER",
    8008: "FACE_TOO_SMALL",
    8009: "POOR_LIGHT",
    8010: "ID_VERIFY_FAIL",
    8011: "DL_VERIFY_FAIL",
    8012: "PASSPORT_VERIFY_FAIL",
    8018: "SELFIE_MULTIPLE_FACES",
    8019: "FACE_BLUR",
}
RETAKE = {5004, 8004, 8005, 8006, 8007, 8008, 8009, 8018, 8019}

SUMMARY = {
    "request_id",
    "record_identifier",
    "link",
    "decision",
    "error_codes",
    "verification_summary",
    "created_at",
    "updated_at",
    "retake_selfie",
}


@pytest.fixture
def store(tmp_path: Path) -> FileStateStore:
    """Airflow's task state store. These tests are not repeated without a store; other modules test that case."""
    return FileStateStore(tmp_path / "store.json")


@pytest.mark.parametrize("code", REJECTIONS)
def test_a_rejected_image_is_a_result(sandbox: FacekiSandbox, hook: FacekiHook, code: int) -> None:
    summary = hook.call(verification(f"code-{code}-x", DEFAULT_WORKFLOW)).summary()
    assert summary["decision"] == "DECLINED"
    assert summary["error_codes"] == [{"code": code, "name": REJECTIONS[code]}]
    assert summary["retake_selfie"] is (code in RETAKE)
    assert summary["record_identifier"] == f"code-{code}-x"
    assert sandbox.ledger == {f"code-{code}-x": 1}
    assert sandbox.counters.requests["verify"] == 1


@pytest.mark.parametrize("shape", ["object", "null", "missing"])
def test_a_rejection_is_a_result_in_every_response_form(
    sandbox: FacekiSandbox, verify: Verify, shape: str, tmp_path: Path
) -> None:
    sandbox.settings.rejection_result = shape
    task = verify("code-5005-x", output_path=f"{tmp_path.as_uri()}/record.json")
    summary = task.go()
    assert (summary["decision"], summary["retake_selfie"]) == ("DECLINED", False)
    # If the response has no request id, the operator takes it from the record, which it fetches for ``output_path``.
    assert summary["request_id"] is not None
    # The full record is found in each case, either by FACEKI's id or by the caller's id.
    assert json.loads((tmp_path / "record.json").read_text())["selfie_data"] == {"liveness_pass": True}


def test_the_summary_of_a_decline_holds_its_reasons(sandbox: FacekiSandbox, verify: Verify) -> None:
    summary = verify("declined-1").go()
    assert summary["error_codes"] == [{"code": 5008, "name": "KYC_FAILED"}]
    assert summary["verification_summary"]["document_verified"] is not None
    assert summary["created_at"] is not None
    before = sandbox.counters.requests["records"]
    sandbox.add_fault("status", route="records", status=503, count=None, skip=1)
    assert verify("declined-2").go()["decision"] == "DECLINED"
    assert sandbox.counters.requests["records"] > before


def test_an_accepted_verification_needs_no_further_request(sandbox: FacekiSandbox, verify: Verify) -> None:
    assert verify("accepted-1").go()["decision"] == "ACCEPTED"
    # This one request is the lookup before the charged call.
    assert sandbox.counters.requests["records"] == 1


@pytest.mark.parametrize(
    ("word", "decision"),
    [("accepted", "ACCEPTED"), ("declined", "DECLINED"), ("review", "REVIEW"), ("decision-frozen", "FROZEN")],
)
def test_a_decision_is_a_result(sandbox: FacekiSandbox, verify: Verify, word: str, decision: str) -> None:
    summary = verify(f"{word}-1").go()
    assert summary.keys() == SUMMARY
    assert (summary["decision"], summary["record_identifier"]) == (decision, f"{word}-1")
    assert summary["retake_selfie"] is False
    assert json.loads(json.dumps(summary)) == summary
    assert sandbox.ledger == {f"{word}-1": 1}


@pytest.mark.parametrize(
    ("request_id", "decision", "codes"),
    [
        pytest.param("9d0f", "ACCEPTED", (), id="accepted"),
        pytest.param(None, "DECLINED", (5004, 6001), id="declined, without FACEKI's id"),
        pytest.param("9d0f", "FROZEN", (), id="a decision that nobody has documented"),
        pytest.param("9d0f", None, (), id="not decided"),
    ],
)
def test_a_stored_verification_is_restored(
    request_id: str | None, decision: str | None, codes: tuple[int, ...]
) -> None:
    record = api.VerificationRecord.from_fields(
        record_identifier="mine", request_id=request_id, decision=decision, codes=codes
    )
    kept = api.KycVerification(record, is_whole=True).to_dict()
    again = api.KycVerification.from_dict(json.loads(json.dumps(kept)))
    assert again is not None
    assert again.to_dict() == kept
    assert again.summary() == {**record.summary(), "retake_selfie": 5004 in codes}
    assert not again.is_whole


def test_no_more_is_kept_than_ids_decision_and_codes() -> None:
    document: Any = {"requestId": "9d0f", "decision": "ACCEPTED", "document_data": [{"full_name": "A Name"}]}
    kept = api.KycVerification(api.VerificationRecord(document), is_whole=True).to_dict()
    assert kept == {"record_identifier": None, "request_id": "9d0f", "decision": "ACCEPTED", "codes": []}


@pytest.mark.parametrize(
    "kept", [None, "ACCEPTED", [], {}, {"decision": 1}, {"request_id": ""}, {"codes": [5004]}], ids=repr
)
def test_an_invalid_stored_verification_is_ignored(kept: object) -> None:
    assert api.KycVerification.from_dict(kept) is None


def test_odd_codes_are_dropped() -> None:
    again = api.KycVerification.from_dict({"decision": "DECLINED", "codes": [5004, "x", None, True, 1.5]})
    assert again is not None
    assert again.record.error_codes == (5004,)


def is_unmarked(store: FileStateStore) -> bool:
    return not store.has_intent


@pytest.mark.parametrize(
    ("identifier", "told"),
    [
        pytest.param("code-5003-x", "QuotaError: .*5003 NOT_ENOUGH_WALLET_CREDIT", id="5003"),
        pytest.param("code-8017-x", "QuotaError: .*8017 KYC_VERIFICATION_LIMIT_REACHED", id="8017"),
        pytest.param("code-5001-x", "WorkflowError: .*5001 WORKFLOW_RULES_MISSING", id="5001"),
        pytest.param("code-5002-x", "InvalidRequestError: .*5002", id="5002"),
        pytest.param("code-5006-x", "InvalidRequestError: .*5006 REQUIRED_DOCUMENT_MISSING", id="5006"),
    ],
)
def test_a_permanent_error_fails_without_a_retry(
    sandbox: FacekiSandbox, verify: Verify, store: FileStateStore, identifier: str, told: str
) -> None:
    with pytest.raises(AirflowFailException, match=told):
        verify(identifier).go()
    assert sandbox.bills == ()
    assert sandbox.counters.requests["verify"] == 1
    assert is_unmarked(store)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param({"kind": "code", "code": 5003}, "QuotaError: .*5003", id="no credit"),
        pytest.param({"kind": "code", "code": 8017}, "QuotaError: .*8017", id="a limit"),
        pytest.param({"kind": "code", "code": 5001}, "WorkflowError: .*5001", id="no such workflow"),
        pytest.param({"kind": "status", "status": 401}, "AuthenticationError: ", id="a token refused twice"),
        pytest.param({"kind": "status", "status": 403}, "InvalidRequestError: ", id="forbidden"),
        pytest.param({"kind": "code", "code": 422}, "InvalidRequestError: ", id="a workflow id that is none"),
    ],
)
def test_an_error_code_instead_of_rules_fails_before_any_charge(
    sandbox: FacekiSandbox, verify: Verify, fault: dict[str, Any], error: str
) -> None:
    sandbox.add_fault(**fault, route="rules", count=None)
    with pytest.raises(AirflowFailException, match=error):
        verify("accepted-1").go()
    assert "verify" not in sandbox.counters.requests


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "reset"}, id="no answer"),
        pytest.param({"kind": "code", "code": 1}, id="a URL that FACEKI does not know"),
        pytest.param({"kind": "status", "status": 502}, id="a failure"),
    ],
)
def test_missing_rules_do_not_stop_a_verification(
    sandbox: FacekiSandbox, verify: Verify, fault: dict[str, Any]
) -> None:
    sandbox.add_fault(**fault, route="rules", count=None)
    assert verify("accepted-1").go()["decision"] == "ACCEPTED"
    # Before the verification, the rules were requested twice, which is ``max_attempts`` of the Connection.
    assert sandbox.counters.requests["rules"] == 2


def test_empty_wallet(sandbox: FacekiSandbox, verify: Verify) -> None:
    sandbox.settings.credit = 0
    with pytest.raises(AirflowFailException, match="the wallet is empty"):
        verify("accepted-1").go()
    assert sandbox.bills == ()


def test_an_unknown_workflow_is_rejected_before_anything_is_sent(
    sandbox: FacekiSandbox, verify: Verify
) -> None:
    with pytest.raises(AirflowFailException, match=r"WorkflowError.*5001"):
        verify("accepted-1", workflow_id=UNKNOWN_WORKFLOW).go()
    assert "verify" not in sandbox.counters.requests


def test_too_large_for_faceki(
    sandbox: FacekiSandbox, verify: Verify, store: FileStateStore, tmp_path: Path
) -> None:
    sandbox.settings.max_upload_bytes = 100_000
    selfie = write(tmp_path, "large.jpg", image_bytes(1_000_000))
    with pytest.raises(
        AirflowFailException, match=r"InvalidRequestError: the images are too large.*HTTP 413"
    ):
        verify("accepted-1", selfie=selfie).go()
    assert sandbox.bills == ()
    assert is_unmarked(store)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "status", "status": 429, "count": None}, id="throttled for good"),
        pytest.param({"kind": "status", "status": 400}, id="an HTTP 400 with a code of 400"),
    ],
)
def test_what_faceki_refuses_leaves_nothing_to_reconcile(
    sandbox: FacekiSandbox, verify: Verify, store: FileStateStore, fault: dict[str, Any]
) -> None:
    sandbox.add_fault(**fault, route="verify")
    with pytest.raises((api.RateLimitError, AirflowFailException)):
        verify("accepted-1").go()
    assert sandbox.bills == ()
    assert is_unmarked(store)


def test_declined_may_fail_the_task_and_its_record_is_kept(
    sandbox: FacekiSandbox, verify: Verify, tmp_path: Path
) -> None:
    task = verify("declined-1", fail_on_decline=True, output_path=f"{tmp_path.as_uri()}/record.json")
    with pytest.raises(AirflowFailException, match=r"FACEKI declined verification [0-9a-f-]+ \("):
        task.go()
    assert json.loads((tmp_path / "record.json").read_text())["decision"] == "DECLINED"
    assert task.ti.pushed == {"output_path": f"{tmp_path.as_uri()}/record.json"}


def test_accepted_does_not_fail_the_task(sandbox: FacekiSandbox, verify: Verify) -> None:
    assert verify("accepted-1", fail_on_decline=True).go()["decision"] == "ACCEPTED"


def test_the_record_is_written_whole(sandbox: FacekiSandbox, verify: Verify, tmp_path: Path) -> None:
    summary = verify("accepted-1", output_path=str(tmp_path / "record.json")).go()
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["document_data"][0]["full_name"]
    assert (record["requestId"], record["decision"]) == (summary["request_id"], "ACCEPTED")
    assert "full_name" not in json.dumps(summary)


@pytest.mark.parametrize(("output_path", "told"), NOWHERE)
def test_an_unwritable_output_path_fails_before_any_request(
    sandbox: FacekiSandbox, verify: Verify, output_path: str, told: str
) -> None:
    with pytest.raises(AirflowFailException, match=told):
        verify("accepted-1", output_path=output_path).go()
    assert sandbox.counters.total == 0


def test_where_faceki_keeps_no_records_its_answer_is_written(
    sandbox: FacekiSandbox, verify: Verify, tmp_path: Path, connect: Connect
) -> None:
    task = verify("accepted-1", output_path=str(tmp_path / "record.json"))
    # The first lookup finds nothing, because nothing was sent. The second lookup finds nothing because of the fault.
    sandbox.add_fault("code", route="records", code=8013, skip=1)
    summary = task.go()
    assert summary["decision"] == "ACCEPTED"
    assert json.loads((tmp_path / "record.json").read_text()).keys() >= {"requestId", "decision", "companyId"}


@pytest.mark.parametrize(
    ("request_id", "is_shown"),
    [
        pytest.param("0c3d2f60-98f1-4d5e-8f5c-1f3cf2a1a001", True, id="as FACEKI's are"),
        pytest.param("Anna Example, 12 Some Street", False, id="a sentence"),
        pytest.param("1\nINFO - another line", False, id="lines"),
        pytest.param("Example", False, id="a name"),
        pytest.param("9" * 65, False, id="long"),
    ],
)
@pytest.mark.parametrize("is_found", [True, False], ids=["found", "verified"])
def test_the_log_shows_only_valid_ids(
    sandbox: FacekiSandbox,
    verify: Verify,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    request_id: str,
    is_shown: bool,
    is_found: bool,
) -> None:
    if is_found:
        sandbox.add_record("accepted-1", fields={"requestId": request_id})
    else:
        answer = Record.answer
        monkeypatch.setattr(Record, "answer", lambda self: {**answer(self), "requestId": request_id})
    # pytest does not capture the output of Airflow's own loggers.
    monkeypatch.setattr(FacekiKycVerificationOperator, "log", logging.getLogger("seen by pytest"))
    with caplog.at_level(logging.INFO):
        verify("accepted-1").go()
    logged = [record.getMessage() for record in caplog.records]
    assert any("(not shown here)" in line for line in logged) is not is_shown
    assert any(request_id in line for line in logged) is is_shown
