# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The result or the error for each sample of FACEKI's answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.endpoints.links import GenerateKycLink
from airflow_provider_faceki.api.endpoints.raw import RawCall
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.endpoints.workflows import GetWorkflowRules
from airflow_provider_faceki.api.errors import ResponseError
from airflow_provider_faceki.api.protocol.auth import TokenRequest
from airflow_provider_faceki.api.protocol.envelope import is_token_refusal, read_payload
from tests.api.sample_files import DECLINED_REQUEST_ID, LINK, NAMES, REQUEST_ID, WORKFLOW, response, sample

LINKS = GenerateKycLink(workflow_id=WORKFLOW, record_identifier="case-4711")
RECORDS = FetchRecords(link=LINK)
RULES = GetWorkflowRules(workflow_id=WORKFLOW)
ANY = RawCall("GET", "/anything")


class Bad(NamedTuple):
    """A sample that becomes an error."""

    name: str
    status: int
    kind: type[ResponseError]
    code: int | None
    code_name: str | None = None


BAD = [
    Bad("token_client_id_missing", 422, errors.InvalidRequestError, 422, "UNPROCESSABLE"),
    Bad("token_unprocessable", 422, errors.InvalidRequestError, 422, "UNPROCESSABLE"),
    Bad("token_unprocessable", 200, errors.InvalidRequestError, 422, "UNPROCESSABLE"),
    Bad("refused_v3", 401, errors.AuthenticationError, 1, "UNAUTHORIZED"),
    Bad("refused_v3", 200, errors.AuthenticationError, 1, "UNAUTHORIZED"),
    Bad("refused_legacy", 200, errors.AuthenticationError, 1, "UNAUTHORIZED"),
    Bad("link_not_made", 200, errors.ServiceError, 8016, "FAIL_TO_GENERATE_LINK"),
    Bad("link_unknown", 200, errors.LinkError, 8014, "INVALID_VERIFICATION_LINK"),
    Bad("link_expired", 200, errors.LinkError, 8015, "VERIFICATION_LINK_EXPIRED"),
    Bad("link_used_up", 200, errors.LinkError, 5009, "LINK_LIMIT_REACH"),
    Bad("rules_missing", 200, errors.WorkflowError, 5001, "WORKFLOW_RULES_MISSING"),
    Bad("records_not_found", 200, errors.NotFoundError, 8013, "DATA_NOT_FOUND"),
    Bad("records_not_found", 404, errors.NotFoundError, 8013, "DATA_NOT_FOUND"),
    Bad("wallet_empty", 200, errors.QuotaError, 5003, "NOT_ENOUGH_WALLET_CREDIT"),
    Bad("wallet_empty", 402, errors.QuotaError, 5003, "NOT_ENOUGH_WALLET_CREDIT"),
    Bad("field_missing", 200, errors.InvalidRequestError, 5002, "INVALID_MISSING_REQUEST_FIELDS"),
    Bad("selfie_not_live", 200, errors.VerificationError, 5004, "SELFIE_LIVENESS_FAILED"),
    Bad("code_of_tomorrow", 200, errors.ResponseError, 5013, "DOCUMENT_TOO_SHINY"),
    Bad("failed_inside", 200, errors.ServiceError, 500, "INTERNAL_SYSTEM_ERROR"),
    Bad("failed_inside", 500, errors.ServiceError, 500, "INTERNAL_SYSTEM_ERROR"),
    Bad("failed_inside_v2", 200, errors.ServiceError, 1000, "INTERNAL_SYSTEM_ERROR"),
    Bad("v2_document_failed", 200, errors.VerificationError, 8002, "DOCUMENT_VERIFY_FAILED"),
]


@pytest.mark.parametrize("bad", [pytest.param(bad, id=f"{bad.name}-{bad.status}") for bad in BAD])
def test_failures(bad: Bad) -> None:
    with pytest.raises(ResponseError) as caught:
        read_payload(response(bad.name, bad.status))
    error = caught.value
    assert type(error) is bad.kind
    assert (error.code, error.code_name, error.http_status) == (bad.code, bad.code_name, bad.status)
    assert is_token_refusal(error) is (bad.code == 1)


def test_a_failed_verification_still_names_its_request() -> None:
    with pytest.raises(errors.VerificationError) as caught:
        read_payload(response("selfie_not_live"))
    assert caught.value.request_id == REQUEST_ID
    assert caught.value.is_ambiguous


#: For each successful sample: a function that reads it with its endpoint, and the expected result.
GOOD: dict[str, tuple[Callable[[], Any], Any]] = {
    "token": (
        lambda: (
            TokenRequest("https://a.invalid", "i", "s").read(read_payload(response("token")), 5.0).lifetime
        ),
        3600.0,
    ),
    "link": (
        lambda: (
            (made := LINKS.read(read_payload(response("link", 201)))).link,
            made.url,
            made.record_identifier,
        ),
        (LINK, f"https://apps.faceki.com/kycverify/{LINK}", "case-4711"),
    ),
    "rules": (
        lambda: (
            (rules := RULES.read(read_payload(response("rules")))).documents,
            rules.document_optional,
            rules.document,
        ),
        (
            ("ID Card", "Passport", "Driving License"),
            True,
            sample("rules")["result"],  # type: ignore[call-overload,index]  # the sample is an object
        ),
    ),
    "records": (
        lambda: [
            (record.request_id, record.decision, record.error_codes, record.flags["face_verified"])
            for record in RECORDS.read(read_payload(response("records")))
        ],
        [(DECLINED_REQUEST_ID, "DECLINED", (5005, 5010, 8999), False), (REQUEST_ID, "ACCEPTED", (), True)],
    ),
    "records_none": (lambda: RECORDS.read(read_payload(response("records_none"))), ()),
    "records_legacy": (
        lambda: [r.request_id for r in RECORDS.read(read_payload(response("records_legacy")))],
        [REQUEST_ID],
    ),
    "record_lone": (
        lambda: [r.request_id for r in RECORDS.read(read_payload(response("record_lone")))],
        [REQUEST_ID],
    ),
    "record_review": (
        lambda: [
            (r.decision, r.record_identifier, r.document["somethingNew"])
            for r in RECORDS.read(read_payload(response("record_review")))
        ],
        [("REVIEW", None, {"deep": [1]})],
    ),
    "record_new_decision": (
        lambda: [r.decision for r in RECORDS.read(read_payload(response("record_new_decision")))],
        ["ESCALATED"],
    ),
    "verification": (
        lambda: ANY.read(read_payload(response("verification"))),
        sample("verification")["result"],  # type: ignore[call-overload,index]
    ),
    "face_analysis": (
        lambda: ANY.read(read_payload(response("face_analysis"))),
        sample("face_analysis")["result"],  # type: ignore[call-overload,index]
    ),
    "image_check": (lambda: ANY.read(read_payload(response("image_check"))), sample("image_check")),
}


@pytest.mark.parametrize("name", GOOD)
def test_successes(name: str) -> None:
    made, expected = GOOD[name]
    assert made() == expected


def test_a_token_answer_without_a_token() -> None:
    with pytest.raises(errors.AuthenticationError, match="does not accept the client id"):
        TokenRequest("https://a.invalid", "i", "s").read(read_payload(response("token_field_keyed")), 5.0)


@pytest.mark.parametrize("name", ["rules_unknown_workflow", "rules_no_result"])
def test_a_workflow_without_rules(name: str) -> None:
    with pytest.raises(errors.WorkflowError):
        RULES.read(read_payload(response(name)))


def test_an_envelope_without_a_result_does_not_say_whether_there_are_records() -> None:
    with pytest.raises(errors.UnexpectedResponseError, match="null_result"):
        RECORDS.read(read_payload(response("rules_no_result")))


def test_every_sample_is_used() -> None:
    others = {"token_field_keyed", "rules_unknown_workflow", "rules_no_result"}
    assert {bad.name for bad in BAD} | set(GOOD) | others == set(NAMES)
