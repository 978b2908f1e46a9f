# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The verification calls, which are billed.

Source: https://docs.faceki.com/api-integration/verification-apis/perform-kyc-verification
"""

from __future__ import annotations

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.store import Link, Refused
from airflow_provider_faceki.sandbox.backend.workflows import Workflow
from airflow_provider_faceki.sandbox.envelopes import ABSENT, v3, v3_error
from airflow_provider_faceki.sandbox.messages import Request, Response


def verify(backend: Backend, request: Request) -> Response:
    try:
        workflow = backend.workflow(request.text("workflowId"))
        return _verify(backend, request, workflow, request.text("record_identifier"), None)
    except Refused as refused:
        return _refuse(backend, refused)


def verify_by_link(backend: Backend, request: Request) -> Response:
    try:
        link = backend.open_link(request.text("link"))
        workflow = backend.workflow(request.text("workflowId") or link.workflow_id)
        identifier = request.text("record_identifier") or link.record_identifier
        return _verify(backend, request, workflow, identifier, link)
    except Refused as refused:
        return _refuse(backend, refused)


def _verify(
    backend: Backend, request: Request, workflow: Workflow, record_identifier: str, link: Link | None
) -> Response:
    selfie = request.upload("selfie")
    if selfie is None:
        raise Refused(5002)
    sides = [[request.upload(f"document_{n}_{side}") for n in (1, 2, 3)] for side in ("front", "back")]
    fronts, backs = (sum(each is not None for each in side) for side in sides)
    # FACEKI recognises the kinds of the documents. The sandbox only counts the images.
    if fronts < workflow.documents_needed or backs < workflow.backs_needed:
        raise Refused(5006)
    record = backend.verify(workflow, record_identifier, link, selfie.sha256)
    return v3(record.answer())


def _refuse(backend: Backend, refused: Refused) -> Response:
    """Return an error answer.

    The HTTP status is 200, because official SDKs expect it for error codes. The setting `rejection_result` selects
    whether `result` is an object, null or missing.
    """
    shape = backend.settings.rejection_result
    status = 200 if refused.code == 5002 else refused.status
    if refused.record is not None and shape == "object":
        return v3_error(refused.code, status, refused.record.answer())
    return v3_error(refused.code, status, ABSENT if shape == "missing" else None)
