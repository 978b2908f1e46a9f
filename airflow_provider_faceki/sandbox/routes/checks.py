# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The calls for faces, images and PDF reports, and the answer to an unknown URL.

Source of the face match: https://docs.faceki.com/api-integration/verification-apis/face-match-api

The calls analyzeFace and the image check come from official SDKs. No public source contains the route of the PDF
report, so its path here is invented.
"""

from __future__ import annotations

import base64

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.pdf import report
from airflow_provider_faceki.sandbox.backend.store import Refused
from airflow_provider_faceki.sandbox.envelopes import (
    gateway_page,
    html,
    json_response,
    unauthorized,
    v3,
    v3_error,
)
from airflow_provider_faceki.sandbox.messages import Request, Response
from airflow_provider_faceki.sandbox.routes.records import nothing_found


def search_by_face(backend: Backend, request: Request) -> Response:
    """Find the records with the same selfie, byte for byte.

    The call is billed even if no record is found (assumption).
    """
    selfie = request.upload("selfie")
    try:
        if selfie is None:
            raise Refused(5002)
        backend.charge("", "face_match")
    except Refused as refused:
        return v3_error(refused.code)
    found = backend.store.find_face(selfie.sha256)
    return v3([record.document for record in found]) if found else nothing_found(backend)


def analyze_face(backend: Backend, request: Request) -> Response:
    try:
        if request.upload("selfie") is None:
            raise Refused(5002)
        backend.charge("", "analyze_face")
    except Refused as refused:
        return v3_error(refused.code)
    return v3(
        {
            "minAge": 25,
            "maxAge": 33,
            "gender": "Female",
            "genderConfidence": 100,
            "faceDetectionConfidence": 99.999,
            "livenessScore": 0.999,
        }
    )


def detect(backend: Backend, request: Request) -> Response:
    """Return the result of an image check, as FACEKI's add-on host returns it.

    The answer is JSON without an envelope, and its `quality` is a number in a text.
    """
    image = request.upload("image")
    if image is None:
        return json_response({"error": "image is required", "message": "image is required"}, 400)
    return json_response(
        {
            "objects_detected": ["face"],
            "quality": "123.4",
            "liveness": {"actual": True, "livenessScore": 0.91, "message": "live"},
        }
    )


def pdf(backend: Backend, request: Request) -> Response:
    record = backend.store.get(request.path.get("requestId", ""))
    if record is None:
        return v3_error(8013, 404)
    if backend.settings.pdf_form == "json-url":
        return v3({"url": f"{request.base_url}/sandbox/report-file/{record.report_key}"})
    if backend.settings.pdf_form == "redirect":
        return html(302, "", {"Location": f"{request.base_url}/sandbox/report-file/{record.report_key}"})
    content = report(record.request_id, record.decision, backend.settings.pdf_size)
    if backend.settings.pdf_form == "json-base64":
        return v3({"pdf": base64.b64encode(content).decode()})
    return Response(200, content, "application/pdf")


def pdf_file(backend: Backend, request: Request) -> Response:
    """Return a PDF report without a token check, because the URL contains a secret, as a signed storage URL does."""
    record = backend.store.find_report(request.path.get("key", ""))
    if record is None:
        return v3_error(8013, 404)
    return Response(
        200, report(record.request_id, record.decision, backend.settings.pdf_size), "application/pdf"
    )


def unknown(backend: Backend, request: Request) -> Response:
    return unauthorized(404)


def moved(backend: Backend, request: Request) -> Response:
    """Return a web page with HTTP 404, if a dialect has replaced the documented path by another path."""
    return gateway_page(404, "Not Found")
