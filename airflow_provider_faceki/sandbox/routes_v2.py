# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The older API, as far as it reads: enough to try calls that the provider has no name for.

https://kycdocv2.faceki.com ; what stands in `data` for records and summary is not documented (assumption).
"""

from __future__ import annotations

from airflow_provider_faceki.sandbox.answers import e1, e1_error
from airflow_provider_faceki.sandbox.desk import Desk
from airflow_provider_faceki.sandbox.messages import Answer, Ask
from airflow_provider_faceki.sandbox.state import Refused
from airflow_provider_faceki.sandbox.workflows import COMPANY_ID


def rules(desk: Desk, ask: Ask) -> Answer:
    nowhere = {"redirect_url": "", "message": ""}
    return e1(
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


def by_link(desk: Desk, ask: Ask) -> Answer:
    return _by(desk, "link", ask.query.get("linkId", ""))


def by_reference(desk: Desk, ask: Ask) -> Answer:
    return _by(desk, "record_identifier", ask.query.get("referenceId", ""))


def _by(desk: Desk, name: str, value: str) -> Answer:
    if not value:
        return e1_error(5002, 422)
    found = desk.state.records(**{name: value})
    return e1([record.document for record in found]) if found else e1_error(8013)


def summary(desk: Desk, ask: Ask) -> Answer:
    decisions = desk.state.summary()
    return e1({"total": sum(decisions.values()), **decisions})


def validate_link(desk: Desk, ask: Ask) -> Answer:
    try:
        link = desk.state.open_link(ask.query.get("url", ""))
    except Refused as refused:
        return e1_error(refused.code, refused.status)
    return e1(desk.state.workflow(link.workflow_id).rules(desk.settings.webhook_url or ""))
