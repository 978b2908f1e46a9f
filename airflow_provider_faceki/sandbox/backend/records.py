# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The records of verifications. Each record has all fields of the documented example and an invented person.

Source: https://docs.faceki.com/api-integration/verification-apis/fetch-records
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import token_urlsafe
from uuid import uuid4

from airflow_provider_faceki.sandbox.backend import people
from airflow_provider_faceki.sandbox.backend.clock import iso
from airflow_provider_faceki.sandbox.backend.scenarios import ACCEPTED, DECLINED, REVIEW, Scenario
from airflow_provider_faceki.sandbox.backend.workflows import BRANCH_ID, COMPANY_ID, PASSPORT, Workflow


@dataclass
class Record:
    """The record of one verification.

    :param document: the JSON document that the records call returns.
    :param selfie: the SHA-256 digest of the selfie. The face search finds the record by this digest.
    :param report_key: the secret part of the URL of the PDF report.
    """

    request_id: str
    workflow_id: str
    document: dict[str, object]
    selfie: str
    report_key: str = field(default_factory=lambda: token_urlsafe(16), repr=False)

    @property
    def decision(self) -> str:
        return str(self.document["decision"])

    @property
    def full_name(self) -> str:
        documents = self.document.get("document_data")
        first = documents[0] if isinstance(documents, list) and documents else None
        return str(first["full_name"]) if isinstance(first, dict) else ""

    def decide(self, decision: str, now: float, by: str) -> None:
        """Change the decision, as a reviewer does in FACEKI's portal.

        The decision ACCEPTED removes the error codes (assumption).

        :param now: the time of the change in seconds since the epoch.
        :param by: the name of the reviewer.
        """
        if decision == ACCEPTED:
            self.document["errorCodes"] = []
        self.document["verification_summary"] = _summary(decision)
        self.document.update(decision=decision, updatedAt=iso(now), updateBy=by)

    def answer(self) -> dict[str, object]:
        """Return the `result` of the verification call."""
        return {
            "requestId": self.request_id,
            "decision": self.decision,
            "companyId": COMPANY_ID,
            "workflowId": self.workflow_id,
            "branchId": BRANCH_ID,
        }

    def webhook(self) -> dict[str, object]:
        """Return the body of the webhook about this record."""
        return {
            "requestId": self.request_id,
            "fullName": self.full_name,
            "status": self.decision,
            "kycData": self.document,
        }


def new_record(
    workflow: Workflow,
    now: float,
    *,
    record_identifier: str,
    link: str,
    scenario: Scenario,
    selfie: str,
    person: Mapping[str, str],
) -> Record:
    """Create a record.

    :param now: the time of the verification in seconds since the epoch.
    :param link: the id of the link. If empty, the verification used no link.
    :param scenario: the outcome of the verification.
    :param selfie: the SHA-256 digest of the selfie. If empty, a new digest that matches no uploaded selfie is used.
    :param person: values that replace fields of the invented person, by field name.
    """
    decision, code = scenario.decision, scenario.code
    request_id = str(uuid4())
    selfie = selfie or hashlib.sha256(request_id.encode()).hexdigest()
    invented = people.invent(selfie, person)
    kinds = workflow.documents[: workflow.documents_needed]
    documents = [
        people.document_data(invented, kind, f"{kind} {place}", decision != DECLINED, now, person)
        for place, kind in enumerate(kinds, 1)
    ]
    document: dict[str, object] = {
        "link": link,
        "record_identifier": record_identifier,
        "requestId": request_id,
        "document_data": documents,
        "selfie_data": {"liveness_pass": code != 5004},
        "warnings": ["CHECKED BY A PERSON"] if decision == REVIEW else [],
        "notes": [],
        "aml": [],
        "verification_summary": _summary(decision),
        "document_data_confidence": [people.confidence(each) for each in documents],
        "decision": decision,
        "errorCodes": _codes(decision, code),
        "deviceDetails": _DEVICE,
        "createdAt": iso(now),
        "updatedAt": iso(now),
        "__v": 0,
        "images": _images(request_id, kinds),
        "face_id": f"face-{selfie[:16]}",
        "updateBy": "",
    }
    return Record(request_id, workflow.workflow_id, document, selfie)


def _codes(decision: str, code: int | None) -> list[int]:
    if code is not None:
        return [code]
    return [5008] if decision == DECLINED else []


def _summary(decision: str) -> dict[str, bool]:
    passed = decision == ACCEPTED
    return {
        "face_verified": passed,
        "selfie_liveness_verified": True,
        "document_verified": passed,
        "verification_rules_passed": decision != DECLINED,
        "document_liveness_verified": True,
        "image_quality": True,
    }


def _images(request_id: str, kinds: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the storage keys of the images.

    A key is not a URL. FACEKI does not document how a client can fetch an image by its key.
    """
    sides = [("selfie", "front")]
    for kind in kinds:
        sides += [(kind, "front")] if kind == PASSPORT else [(kind, "front"), (kind, "back")]
    return [
        {"documentName": name, "side": side, "key": f"sandbox/{request_id}/{place}.jpg"}
        for place, (name, side) in enumerate(sides)
    ]


_DEVICE = {
    "useragent": "faceki-sandbox",
    "detectResult": {
        "client": {"type": "browser", "name": "Sandbox", "version": "1"},
        "device": {"id": "", "type": "desktop", "brand": "", "model": ""},
    },
}
