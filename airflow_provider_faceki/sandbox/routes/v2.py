# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The calls of FACEKI's older V2 API.

The provider has no operators for these calls, but a DAG can make them with `FacekiApiOperator`.

Three calls need no token, because an official SDK sends no token with them: the call that checks a link, and the two
calls that verify a person through a link.

For the following calls, the content of the member `data` in the answer is not documented, so it is an assumption: the
calls that return records, the summary call, and the verification calls with several documents.

Source: https://kycdocv2.faceki.com
"""

from __future__ import annotations

from typing import Final

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.outcomes import ACCEPTED, name_of
from airflow_provider_faceki.sandbox.backend.records import Record
from airflow_provider_faceki.sandbox.backend.store import Link, Refused
from airflow_provider_faceki.sandbox.backend.workflows import COMPANY_ID, DEFAULT_WORKFLOW, WORKFLOWS
from airflow_provider_faceki.sandbox.messages import (
    Body,
    Envelope,
    Request,
    Response,
    Route,
    json_response,
    legacy,
    legacy_error,
)

_SINGLE = ("selfie_image", "doc_front_image", "doc_back_image")
_SEVERAL = ("selfie_image", "id_front_image", "id_back_image")


def rules(backend: Backend, request: Request) -> Response:
    return legacy(_RULES)


def validate_link(backend: Backend, request: Request) -> Response:
    """Return the rules (required documents and settings) for a verification by a link.

    The required documents come from the workflow of the link. The other rules are the same for each link.
    """
    link = backend.open_link(request.query.get("url", ""))
    documents = list(backend.workflow(link.workflow_id).documents)
    return legacy({**_RULES, "allowedKycDocuments": documents, "link": link.link})


def by_link(backend: Backend, request: Request) -> Response:
    return _find(backend, "link", request.query.get("linkId", ""))


def by_reference(backend: Backend, request: Request) -> Response:
    return _find(backend, "record_identifier", request.query.get("referenceId", ""))


def _find(backend: Backend, name: str, value: str) -> Response:
    if not value:
        return legacy_error(5002, 422)
    found = backend.store.find(**{name: value})
    return legacy([record.document for record in found]) if found else legacy_error(8013)


def summary(backend: Backend, request: Request) -> Response:
    decisions = backend.store.decisions()
    return legacy({"total": sum(decisions.values()), **decisions})


def verify(backend: Backend, request: Request) -> Response:
    return _verify(backend, request, _SINGLE, by_link=False)


def verify_several(backend: Backend, request: Request) -> Response:
    return _verify(backend, request, _SEVERAL, by_link=False)


def verify_by_link(backend: Backend, request: Request) -> Response:
    return _verify(backend, request, _SINGLE, by_link=True)


def verify_several_by_link(backend: Backend, request: Request) -> Response:
    return _verify(backend, request, _SEVERAL, by_link=True)


def _verify(backend: Backend, request: Request, images: tuple[str, ...], by_link: bool) -> Response:
    link: Link | None = None
    try:
        workflow = WORKFLOWS[DEFAULT_WORKFLOW]
        if by_link:
            link = backend.open_link(request.text("link"))
            workflow = backend.workflow(link.workflow_id)
        uploads = [request.upload(name) for name in images]
        if uploads[0] is None or None in uploads:
            raise Refused(8001)
        identifier = request.text("record_identifier") or (link.record_identifier if link else "")
        record = backend.verify(workflow, identifier, link, uploads[0].sha256)
    except Refused as refused:
        if refused.record is None:
            raise
        error = {"message": name_of(refused.code), "code": refused.code}
        return json_response({"responseCode": refused.code, "data": {"error": error}})
    return legacy(_kyc(record))


def _kyc(record: Record) -> dict[str, object]:
    """Return the JSON object that describes the result of a verification in the form of the V2 API.

    :param record: the record of the verification, which contains the decision.
    """
    passed = record.decision == ACCEPTED
    return {
        "verification": {"passed": passed, "result": {"face": passed, "notexpired": True}},
        "face": {"isIdentical": passed, "confidence": 0.99 if passed else 0.41},
        "confidence": record.first_of("document_data_confidence"),
        "result": record.first_of("document_data"),
        "authentication": {},
        "aml": record.document["aml"],
        "responseID": record.request_id,
        "images": dict.fromkeys(("doc_back_image", "doc_front_image", "selfie_image"), ""),
        "livenessResponse": {},
    }


def face_check(backend: Backend, request: Request) -> Response:
    selfie = request.upload("selfie_image")
    found = backend.search_face(selfie.sha256 if selfie else None, missing=8001)
    return legacy(
        {
            "face_verified": bool(found),
            "all_face_ids": sorted({str(record.document["face_id"]) for record in found}),
            "kyc_records": [
                {"_id": record.request_id, "kycResponse": {"result": _kyc(record)["result"]}}
                for record in found
            ],
        }
    )


_NOWHERE = {"redirect_url": "", "message": ""}
_RULES: dict[str, object] = {
    "_id": "sandbox-rules",
    "companyId": COMPANY_ID,
    "__v": 0,
    "allowSingle": False,
    "allowedCountries": [],
    "allowedKycDocuments": ["Passport", "ID Card", "Driving License"],
    "allowedNationalities": [],
    "createdAt": "2024-01-01T00:00:00.000Z",
    "dataStorageTime": "FOREVER",
    "declined": _NOWHERE,
    "invalid": _NOWHERE,
    "success": _NOWHERE,
    "invalidDocuments": [],
    "isRecapturedDocumentInvalid": False,
    "link": "",
    "livenessCheckType": "MODERATE",
    "multiKYCEnabled": True,
    "status": "ACTIVE",
    "storedData": True,
    "updatedAt": "2024-01-01T00:00:00.000Z",
    "validAge": 18,
}

_KYC: Final = "/kycverify/api/kycverify"

# Arguments of `Route` that several routes share. Each tuple contains the values of `body`, `bearer`, `envelope` and
# `takes_time`.
_UPLOAD: Final = (Body.FORM, True, Envelope.LEGACY, True)
_UPLOAD_BY_LINK: Final = (Body.FORM, False, Envelope.LEGACY, True)

ROUTES: Final = (
    Route("v2_rules", "GET", "/kycrules/api/kycrules", rules, envelope=Envelope.LEGACY),
    Route("v2_link", "GET", f"{_KYC}/link", by_link, envelope=Envelope.LEGACY),
    Route("v2_reference", "GET", f"{_KYC}/reference", by_reference, envelope=Envelope.LEGACY),
    Route("v2_summary", "GET", f"{_KYC}/kyc-verify-summary", summary, envelope=Envelope.LEGACY),
    Route(
        "v2_validate_link",
        "GET",
        f"{_KYC}/validate-kyc-verify-link",
        validate_link,
        bearer=False,
        envelope=Envelope.LEGACY,
    ),
    Route("v2_verify", "POST", f"{_KYC}/kyc-verification", verify, *_UPLOAD),
    Route("v2_verify_several", "POST", f"{_KYC}/multi-kyc-verification", verify_several, *_UPLOAD),
    Route("v2_verify_by_link", "POST", f"{_KYC}/request-kyc", verify_by_link, *_UPLOAD_BY_LINK),
    Route(
        "v2_verify_several_by_link",
        "POST",
        f"{_KYC}/multiple-kyc-verification",
        verify_several_by_link,
        *_UPLOAD_BY_LINK,
    ),
    Route("v2_face_check", "POST", "/facelink/api/face-check", face_check, Body.FORM, True, Envelope.LEGACY),
)
