# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How is a link made, and what does its workflow ask for?

https://docs.faceki.com/api-integration/verification-apis/generate-kyc-link ; the two rules calls were seen in
official SDKs.
"""

from __future__ import annotations

from airflow_provider_faceki.sandbox.answers import e1, e1_error, e2, e2_error
from airflow_provider_faceki.sandbox.desk import Desk
from airflow_provider_faceki.sandbox.messages import Answer, Ask
from airflow_provider_faceki.sandbox.state import Refused

LONGEST_MINUTES = 10 * 365 * 24 * 60


def create(desk: Desk, ask: Ask) -> Answer:
    try:
        link = desk.state.create_link(
            ask.member("workflowId"),
            _minutes(ask.member("expiryTime")),
            _text(ask.member("applicationId")),
            _text(ask.member("redirect_url")),
        )
    except Refused as refused:
        return e1_error(refused.code, refused.status)
    return e1(link.link, desk.settings.link_status, url=f"{ask.base_url}/kycverify/{link.link}")


def _minutes(value: object) -> int | None:
    """The documentation has a number in one place and a text in another; both are whole minutes."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:12])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LONGEST_MINUTES:
        raise Refused(5002, 422)
    return value


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(5002, 422)
    return value


def rules(desk: Desk, ask: Ask) -> Answer:
    try:
        workflow = desk.state.workflow(ask.query.get("workflowId"))
    except Refused as refused:
        return e2_error(refused.code, refused.status, None)
    return e2(workflow.rules(desk.settings.webhook_url or ""))


def rules_by_link(desk: Desk, ask: Ask) -> Answer:
    """No bearer: who holds the link may know what it asks for."""
    try:
        link = desk.state.open_link(ask.query.get("link", ""))
    except Refused as refused:
        return e2_error(refused.code, refused.status, None)
    return e2(desk.state.workflow(link.workflow_id).rules(desk.settings.webhook_url or ""))
