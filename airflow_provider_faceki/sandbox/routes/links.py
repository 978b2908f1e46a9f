# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The call that creates a link, and the calls that return the rules of a workflow.

Source: https://docs.faceki.com/api-integration/verification-apis/generate-kyc-link . The two rules calls come from
official SDKs.
"""

from __future__ import annotations

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.store import Refused
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW, WORKFLOWS, Workflow
from airflow_provider_faceki.sandbox.envelopes import legacy, legacy_error, v3, v3_error
from airflow_provider_faceki.sandbox.messages import Request, Response

MAX_MINUTES = 10 * 365 * 24 * 60
#: The value of `callbackURL` if no webhook URL is set. Official SDKs parse it as a URL and fail on an empty text.
NO_CALLBACK_URL = "https://callback.example/none"


def create(backend: Backend, request: Request) -> Response:
    try:
        link = backend.create_link(
            _text(request.member("applicationId")),
            workflow_id=_workflow(backend, request.member("workflowId")).workflow_id,
            minutes=_minutes(request.member("expiryTime")),
            redirect_url=_text(request.member("redirect_url")),
        )
    except Refused as refused:
        return legacy_error(refused.code, refused.status)
    return legacy(link, backend.settings.link_status, url=f"{request.base_url}/kycverify/{link}")


def _workflow(backend: Backend, workflow_id: object) -> Workflow:
    if workflow_id is None and not backend.dialect.needs_workflow:
        return WORKFLOWS[DEFAULT_WORKFLOW]
    return backend.workflow(workflow_id)


def _minutes(value: object) -> int | None:
    """Return a lifetime in whole minutes.

    A number and a text are accepted, because FACEKI's documentation shows a number on one page and a text on another.
    """
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:12])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_MINUTES:
        raise Refused(5002, 422)
    return value


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(5002, 422)
    return value


def rules(backend: Backend, request: Request) -> Response:
    try:
        return v3(rules_of(backend, backend.workflow(request.query.get("workflowId"))))
    except Refused as refused:
        return v3_error(refused.code, refused.status, None)


def rules_by_link(backend: Backend, request: Request) -> Response:
    """Return the rules of a link's workflow. No token is needed, because the link grants the permission."""
    try:
        link = backend.open_link(request.query.get("link", ""))
        return v3(rules_of(backend, backend.workflow(link.workflow_id)))
    except Refused as refused:
        return v3_error(refused.code, refused.status, None)


def rules_of(backend: Backend, workflow: Workflow) -> dict[str, object]:
    return workflow.rules(backend.settings.webhook_url or NO_CALLBACK_URL)
