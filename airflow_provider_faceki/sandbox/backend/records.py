# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The records of verifications. Each record has all fields of FACEKI's documented example and a fictitious person.

With the setting `person`, a test can replace fields of the person by known words. The test can then search logs and
XComs for these words, to prove that logs and XComs contain no personal data.

Source: https://docs.faceki.com/api-integration/verification-apis/fetch-records
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_urlsafe
from uuid import uuid4

from airflow_provider_faceki.sandbox.backend.clock import iso
from airflow_provider_faceki.sandbox.backend.outcomes import ACCEPTED, DECLINED, REVIEW, Scenario
from airflow_provider_faceki.sandbox.backend.workflows import (
    BRANCH_ID,
    COMPANY_ID,
    DRIVING_LICENSE,
    ID_CARD,
    PASSPORT,
    Workflow,
)

_DEVICE = {
    "useragent": "faceki-sandbox",
    "detectResult": {
        "client": {"type": "browser", "name": "Sandbox", "version": "1"},
        "device": {"id": "", "type": "desktop", "brand": "", "model": ""},
    },
}
_FIRST = ("Amaltea", "Borisal", "Ceciliane", "Dariolo", "Elwinia", "Faridun", "Gudrune", "Hakimel")
_LAST = ("Testwell", "Probemann", "Muestrano", "Fantasio", "Inventari", "Beispiel", "Sampleton", "Nemoskyj")
# The country of the fictitious persons must not exist. Therefore the name "Utopia" and the three-letter code UTO are
# used, as in the specimen documents of the standard ICAO 9303. The two-letter code is XU. No real country has this
# code, because ISO 3166 reserves the codes XA-XZ and QM-QZ for private use.
_NATION = {"nationality": "Utopian", "nationality_iso": "XU", "nationality_iso2": "UTO"}
_ISSUER = {"issuer": "Utopia", "issuer_iso": "XU", "issuer_iso2": "UTO"}
_KINDS = {
    ID_CARD: ("I", "Identity Card"),
    PASSPORT: ("P", "Passport"),
    DRIVING_LICENSE: ("D", "Driving License"),
}


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
        return str(self.first_of("document_data").get("full_name", ""))

    def first_of(self, name: str) -> Mapping[str, object]:
        """Return the first JSON object of a list in the record, for example of `document_data`.

        If the list is empty, or if a test has replaced the list by another value, return an empty mapping.
        """
        values = self.document[name]
        first = values[0] if isinstance(values, list) and values else None
        return first if isinstance(first, dict) else {}

    def decide(self, decision: str, now: float, by: str) -> None:
        """Change the decision, as a reviewer does in FACEKI's portal.

        If the new decision is ACCEPTED, the error codes are removed. This is an assumption, because FACEKI does not
        document this case.

        :param now: the time of the change in seconds since the epoch.
        :param by: the name of the reviewer.
        """
        if decision == ACCEPTED:
            self.document["errorCodes"] = []
        self.document["verification_summary"] = _summary(decision)
        self.document.update(decision=decision, updatedAt=iso(now), updateBy=by)

    def answer(self) -> dict[str, object]:
        """Return the member `result` of the answer to the verification call."""
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
    :param person: values that replace fields of `document_data`, by field name.
    """
    decision, code = scenario.decision, scenario.code
    request_id = str(uuid4())
    selfie = selfie or hashlib.sha256(request_id.encode()).hexdigest()
    invented = _invent(selfie, person)
    kinds = workflow.documents[: workflow.documents_needed]
    documents = [
        _document_data(invented, kind, f"{kind} {place}", decision != DECLINED, now, person)
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
        "document_data_confidence": [_confidence(each) for each in documents],
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
    """Return one JSON object for each image of a verification.

    The object contains the name of the document, the side of the document, and an invented storage key of the image. A
    key is not a URL. FACEKI does not document how a client can fetch an image by its key.
    """
    sides = [("selfie", "front")]
    for kind in kinds:
        sides += [(kind, "front")] if kind == PASSPORT else [(kind, "front"), (kind, "back")]
    return [
        {"documentName": name, "side": side, "key": f"sandbox/{request_id}/{place}.jpg"}
        for place, (name, side) in enumerate(sides)
    ]


@dataclass(frozen=True)
class Person:
    """A fictitious person.

    :param born: the day, the month and the year of birth, as texts.
    :param number: the document number.
    """

    first_name: str
    last_name: str
    gender: str
    born: tuple[str, str, str]
    number: str

    @property
    def full_name(self) -> str:
        return f"{self.first_name} {self.last_name}"

    def age(self, now: float) -> int:
        """Return the age of the person in full years.

        :param now: the time of the verification in seconds since the epoch.
        """
        day, month, year = map(int, self.born)
        today = datetime.fromtimestamp(now, UTC)
        return today.year - year - ((today.month, today.day) < (month, day))


def _invent(seed: str, overrides: Mapping[str, str]) -> Person:
    """Generate a person.

    :param seed: a text that determines the person. The same seed always generates the same person.
    :param overrides: values that replace generated fields, by field name. Only `first_name`, `last_name`, `gender` and
        `document_number` are used.
    """
    dice = hashlib.sha256(seed.encode()).digest()
    year = 1950 + dice[2] % 50
    return Person(
        first_name=overrides.get("first_name", _FIRST[dice[0] % len(_FIRST)]),
        last_name=overrides.get("last_name", _LAST[dice[1] % len(_LAST)]),
        gender=overrides.get("gender", "FM"[dice[3] % 2]),
        born=(f"{1 + dice[4] % 28:02}", f"{1 + dice[5] % 12:02}", str(year)),
        number=overrides.get("document_number", f"UT{int.from_bytes(dice[6:10]) % 10_000_000:07}"),
    )


def _document_data(
    person: Person, kind: str, reference: str, passed: bool, now: float, overrides: Mapping[str, str]
) -> dict[str, object]:
    """Return the data of one identity document, as one element of the record field `document_data`.

    Days, months, years and the age are texts, as in FACEKI's documented example.

    :param kind: the kind of the document, for example `ID Card`.
    :param reference: the name of the document, for example `ID Card 1`. It is unique within the verification.
    :param passed: whether the document was accepted.
    :param now: the time of the verification in seconds since the epoch.
    :param overrides: values that replace generated fields, by field name.
    """
    day, month, year = person.born
    code, name = _KINDS[kind]
    made: dict[str, object] = {
        "reference": reference,
        "full_name": person.full_name,
        "first_name": person.first_name,
        "local_name": "",
        "last_name": person.last_name,
        "middle_name": "",
        **_NATION,
        **_ISSUER,
        "gender": person.gender,
        "dob": f"{year}-{month}",
        "age": str(person.age(now)),
        "expiry": "2039-06-30",
        "expiryDay": "30",
        "expiryMonth": "06",
        "expiryYear": "2039",
        **dict.fromkeys(("issued", "issuedDay", "issuedMonth", "issuedYear", "documentAdditionalNumber"), ""),
        "document_number": person.number,
        "document_type": code,
        "document_type_full": name,
        "mrz": _mrz(person, code),
        "document_face_match": {"similarity": 99.98 if passed else 41.5, "confidence": 99.99},
        "passed": passed,
        "date_of_birth": f"{year}-{month}-{day}",
        "date_of_birth_day": day,
        "date_of_birth_month": month,
        "date_of_birth_year": year,
    }
    return {**made, **overrides}


def _confidence(document: Mapping[str, object]) -> dict[str, object]:
    """Return an invented confidence value of the text recognition for each field of an identity document."""
    keys = (key for key in document if key not in ("reference", "document_face_match", "passed"))
    sure = dict.fromkeys(keys, 0.99)
    return {"reference": document["reference"], **sure, "placeOfBirth": 0.0, "personal_number": 0.0}


def _mrz(person: Person, code: str) -> str:
    """Return the machine-readable zone of an identity document, as three lines with the character ^ between them.

    The zone has no check digits, so that it cannot be mistaken for the zone of a real document.
    """
    day, month, year = person.born
    names = f"{person.last_name}<<{person.first_name}".upper().replace(" ", "<")
    return (
        f"{code}<UTO{person.number}".ljust(30, "<")
        + f"^{year[2:]}{month}{day}<{person.gender}<390630<UTO".ljust(31, "<")
        + "^"
        + names.ljust(30, "<")
    )
