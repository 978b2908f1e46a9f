# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The V2 API, for calls that the provider has no name for.

https://kycdocv2.faceki.com ; what stands in `data` for records and summary is not documented (assumption).
"""

from __future__ import annotations

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.store import Refused
from airflow_provider_faceki.sandbox.backend.workflows import COMPANY_ID
from airflow_provider_faceki.sandbox.envelopes import legacy, legacy_error
from airflow_provider_faceki.sandbox.messages import Request, Response
from airflow_provider_faceki.sandbox.routes.links import rules_of


def rules(backend: Backend, request: Request) -> Response:
    nowhere = {"redirect_url": "", "message": ""}
    return legacy(
        {
            "_id": "sandbox-rules",
            "companyId": COMPANY_ID,
            "__v": 0,
            "allowedCountries": [],
            "allowedKycDocuments": ["Passport", "ID Card", "Driving License"],
            "allowedNationalities": [],
            "createdAt": "2024-01-01T00:00:00.000Z",
            "dataStorageTime": "FOREVER",
            "declined": nowhere,
            "invalid": nowhere,
            "success": nowhere,
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
    )


def by_link(backend: Backend, request: Request) -> Response:
    return _by(backend, "link", request.query.get("linkId", ""))


def by_reference(backend: Backend, request: Request) -> Response:
    return _by(backend, "record_identifier", request.query.get("referenceId", ""))


def _by(backend: Backend, name: str, value: str) -> Response:
    if not value:
        return legacy_error(5002, 422)
    found = backend.store.find(**{name: value})
    return legacy([record.document for record in found]) if found else legacy_error(8013)


def summary(backend: Backend, request: Request) -> Response:
    decisions = backend.store.decisions()
    return legacy({"total": sum(decisions.values()), **decisions})


def validate_link(backend: Backend, request: Request) -> Response:
    try:
        link = backend.open_link(request.query.get("url", ""))
    except Refused as refused:
        return legacy_error(refused.code, refused.status)
    return legacy(rules_of(backend, backend.workflow(link.workflow_id)))
