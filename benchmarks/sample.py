# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A typical answer of FACEKI: one record of about three kilobytes. The person is fictitious.

The fields are documented at https://docs.faceki.com/api-integration/verification-apis/fetch-records
"""

from __future__ import annotations

REQUEST_ID = "7d3c5f0e-58a1-4d0e-9f0b-2f6a1c9be001"

_DOCUMENT = {
    "documentName": "ID CARD 1",
    "status": True,
    "full_name": "BELINDA BENCHMARK",
    "first_name": "BELINDA",
    "last_name": "BENCHMARK",
    "document_number": "X0000000",
    "nationality": "Utopia",
    "nationality_iso": "UT",
    "nationality_iso2": "UTO",
    "gender": "F",
    "age": "41",
    "date_of_birth": "1985-01-31",
    "issue_date": "2020-02-29",
    "expiry_date": "",
    "address": "1 Loopback Lane, 127001 Localhost",
    "mrz": "IDUTOX0000000<<<<<<<<<<<<<<<<<<8501314F3012317UTO<<<<<<<<<<<4BENCHMARK<<BELINDA<<<<<<<<<<<<",
    "face_match_confidence": 98,
    "warnings": ["invented"],
}

RECORD = {
    "link": "benchmarklink0001",
    "record_identifier": "case-0001",
    "requestId": REQUEST_ID,
    "document_data": [_DOCUMENT, {**_DOCUMENT, "documentName": "PASSPORT 2"}],
    "selfie_data": {"liveness_pass": True},
    "warnings": [],
    "notes": [],
    "aml": [{"name": "NOBODY", "score": 0.1, "sources": [f"list {number}" for number in range(40)]}],
    "verification_summary": {
        "face_verified": True,
        "selfie_liveness_verified": True,
        "document_verified": True,
        "verification_rules_passed": True,
        "document_liveness_verified": True,
        "image_quality": True,
    },
    "document_data_confidence": [dict.fromkeys(_DOCUMENT, 97), dict.fromkeys(_DOCUMENT, 96)],
    "decision": "ACCEPTED",
    "errorCodes": [],
    "deviceDetails": {
        "useragent": "benchmark",
        "detectResult": {"client": {"type": "browser", "version": "1"}},
    },
    "createdAt": "2026-01-01T00:00:00.000Z",
    "updatedAt": "2026-01-01T00:00:01.000Z",
    "__v": 0,
    "images": [
        {"documentName": "ID CARD 1", "side": side, "key": f"benchmark/{REQUEST_ID}/{side}.jpg"}
        for side in ("front", "back")
    ],
    "face_id": "face-0001",
    "updateBy": "",
}
