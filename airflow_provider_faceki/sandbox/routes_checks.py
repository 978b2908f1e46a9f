# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The smaller calls: find a face, analyse a face, check an image, fetch a report; and what no call is.

https://docs.faceki.com/api-integration/verification-apis/face-match-api ; analyzeFace and the image check were
seen in official SDKs; the report's route is in no public source and its path here is made up.
"""

from __future__ import annotations

import base64

from airflow_provider_faceki.sandbox.answers import as_json, e2, e2_error, refusal
from airflow_provider_faceki.sandbox.desk import Desk
from airflow_provider_faceki.sandbox.messages import Answer, Ask
from airflow_provider_faceki.sandbox.report import report
from airflow_provider_faceki.sandbox.routes_records import nothing_found
from airflow_provider_faceki.sandbox.state import Refused


def search_by_face(desk: Desk, ask: Ask) -> Answer:
    """The same bytes are the same face. Charged whether or not somebody is found (assumption)."""
    selfie = ask.upload("selfie")
    try:
        if selfie is None:
            raise Refused(5002)
        desk.state.charge("", "face_match")
    except Refused as refused:
        return e2_error(refused.code)
    found = desk.state.faces(selfie.sha256)
    return e2([record.document for record in found]) if found else nothing_found(desk)


def analyze_face(desk: Desk, ask: Ask) -> Answer:
    try:
        if ask.upload("selfie") is None:
            raise Refused(5002)
        desk.state.charge("", "analyze_face")
    except Refused as refused:
        return e2_error(refused.code)
    return e2(
        {
            "minAge": 25,
            "maxAge": 33,
            "gender": "Female",
            "genderConfidence": 100,
            "faceDetectionConfidence": 99.999,
            "livenessScore": 0.999,
        }
    )


def detect(desk: Desk, ask: Ask) -> Answer:
    """The add-on host answers bare JSON in no envelope; `quality` is a number written as text."""
    image = ask.upload("image")
    if image is None:
        return as_json({"error": "image is required", "message": "image is required"}, 400)
    return as_json(
        {
            "objects_detected": ["face"],
            "quality": "123.4",
            "liveness": {"actual": True, "livenessScore": 0.91, "message": "live"},
        }
    )


def pdf(desk: Desk, ask: Ask) -> Answer:
    record = desk.state.record(ask.path.get("requestId", ""))
    if record is None:
        return e2_error(8013, 404)
    if desk.settings.pdf_form == "json-url":
        return e2({"url": f"{ask.base_url}/sandbox/report-file/{record.report_key}"})
    content = report(record.request_id, record.decision, desk.settings.pdf_size)
    if desk.settings.pdf_form == "json-base64":
        return e2({"pdf": base64.b64encode(content).decode()})
    return Answer(200, content, "application/pdf")


def pdf_file(desk: Desk, ask: Ask) -> Answer:
    """What a signed storage URL would be: whoever has the address has the file."""
    record = desk.state.record_of_report(ask.path.get("key", ""))
    if record is None:
        return e2_error(8013, 404)
    return Answer(200, report(record.request_id, record.decision, desk.settings.pdf_size), "application/pdf")


def unknown(desk: Desk, ask: Ask) -> Answer:
    return refusal(404)
