# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What happens when images of a person come in? The one call that costs, so the one that is counted with care.

https://docs.faceki.com/api-integration/verification-apis/perform-kyc-verification
"""

from __future__ import annotations

from airflow_provider_faceki.sandbox.answers import ABSENT, e2, e2_error
from airflow_provider_faceki.sandbox.desk import Desk
from airflow_provider_faceki.sandbox.messages import Answer, Ask
from airflow_provider_faceki.sandbox.state import Link, Refused
from airflow_provider_faceki.sandbox.workflows import Workflow


def verify(desk: Desk, ask: Ask) -> Answer:
    try:
        workflow = desk.state.workflow(ask.text("workflowId"))
        return _look(desk, ask, workflow, ask.text("record_identifier"), None)
    except Refused as refused:
        return _refuse(desk, refused)


def verify_by_link(desk: Desk, ask: Ask) -> Answer:
    try:
        link = desk.state.open_link(ask.text("link"))
        workflow = desk.state.workflow(ask.text("workflowId") or link.workflow_id)
        identifier = ask.text("record_identifier") or link.record_identifier
        return _look(desk, ask, workflow, identifier, link)
    except Refused as refused:
        return _refuse(desk, refused)


def _look(desk: Desk, ask: Ask, workflow: Workflow, record_identifier: str, link: Link | None) -> Answer:
    selfie = ask.upload("selfie")
    if selfie is None:
        raise Refused(5002)
    sides = [[ask.upload(f"document_{n}_{side}") for n in (1, 2, 3)] for side in ("front", "back")]
    fronts, backs = (sum(each is not None for each in side) for side in sides)
    # Which image is which document only FACEKI can see; the sandbox counts.
    if fronts < workflow.documents_needed or backs < workflow.backs_needed:
        raise Refused(5006)
    record = desk.state.verify(workflow.workflow_id, record_identifier, link, selfie.sha256)
    return e2(record.answer())


def _refuse(desk: Desk, refused: Refused) -> Answer:
    """Business errors come with HTTP 200 (seen in official SDKs); `result` may or may not be there."""
    shape = desk.settings.rejection_result
    status = 200 if refused.code == 5002 else refused.status
    if refused.record is not None and shape == "object":
        return e2_error(refused.code, status, refused.record.answer())
    return e2_error(refused.code, status, ABSENT if shape == "missing" else None)
