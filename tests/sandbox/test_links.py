# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the links: their creation, the rules of their workflow, and links that are expired or used up."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import (
    DEFAULT_WORKFLOW,
    WORKFLOW_ANY_ONE,
    WORKFLOW_TWO_DOCUMENTS,
)
from tests.sandbox.conftest import Caller

UNKNOWN_WORKFLOW = "5a4db0c5-0000-4000-8000-00000000000f"

CREATE = "/kycverify/api/kycverify/kyc-verify-link"


def make(call: Caller, **body: Any) -> Any:
    return call("POST", CREATE, json={"workflowId": DEFAULT_WORKFLOW, **body})


@pytest.mark.parametrize("status", [201, 200])
def test_a_link_is_new_each_time(sandbox: FacekiSandbox, call: Caller, status: int) -> None:
    sandbox.settings.link_status = status
    first, second = make(call), make(call)
    assert first.status_code == status
    link = first.json()["data"]
    assert first.json() == {"responseCode": 0, "data": link, "url": f"{sandbox.url}/kycverify/{link}"}
    assert str(UUID(link)) == link
    assert second.json()["data"] != link


def test_making_a_link_needs_a_token(anonymous: Caller) -> None:
    assert make(anonymous).status_code == 401


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param({"workflowId": None}, 422, 5002, id="no workflow"),
        pytest.param({"workflowId": 7}, 422, 5002, id="workflow is a number"),
        pytest.param({"workflowId": UNKNOWN_WORKFLOW}, 200, 5001, id="workflow without rules"),
        pytest.param({"workflowId": "somewhere else"}, 200, 5001, id="unknown workflow"),
        pytest.param({"expiryTime": "soon"}, 422, 5002, id="expiry is a word"),
        pytest.param({"expiryTime": -1}, 422, 5002, id="expiry is negative"),
        pytest.param({"expiryTime": 1.5}, 422, 5002, id="expiry is a fraction"),
        pytest.param({"expiryTime": True}, 422, 5002, id="expiry is a truth"),
        pytest.param({"expiryTime": 10**30}, 422, 5002, id="expiry is absurd"),
        pytest.param({"applicationId": 7}, 422, 5002, id="identifier is a number"),
        pytest.param({"redirect_url": ["x"]}, 422, 5002, id="redirect is a list"),
    ],
)
def test_wrong_arguments_are_refused(call: Caller, body: dict[str, Any], status: int, code: int) -> None:
    answer = make(call, **body)
    assert (answer.status_code, answer.json()["responseCode"]) == (status, code)


@pytest.mark.parametrize("minutes", [3, "3"])
def test_a_link_expires_after_its_minutes(sandbox: FacekiSandbox, call: Caller, minutes: object) -> None:
    link = make(call, expiryTime=minutes).json()["data"]
    sandbox.clock.advance(179)
    assert call.records(link=link).json()["result"] == []
    sandbox.clock.advance(2)
    assert call.records(link=link).json()["code"] == 8015


@pytest.mark.parametrize("minutes", [0, "0", None])
def test_a_link_without_minutes_has_no_end(sandbox: FacekiSandbox, call: Caller, minutes: object) -> None:
    link = make(call, expiryTime=minutes).json()["data"]
    sandbox.clock.advance(10_000_000)
    assert call.log_in().records(link=link).json()["result"] == []


def test_the_application_id_becomes_the_record_identifier(sandbox: FacekiSandbox, call: Caller) -> None:
    link = make(call, applicationId="order-7").json()["data"]
    sandbox.decide(link, "ACCEPTED")
    (record,) = call.records(record_identifier="order-7").json()["result"]
    assert record["link"] == link
    assert sandbox.ledger == {"order-7": 1}


@pytest.mark.parametrize(
    ("workflow", "documents", "optional"),
    [
        (DEFAULT_WORKFLOW, ["ID Card"], False),
        (WORKFLOW_TWO_DOCUMENTS, ["ID Card", "Passport"], False),
        (WORKFLOW_ANY_ONE, ["ID Card", "Passport", "Driving License"], True),
    ],
)
def test_rules_say_what_a_workflow_asks_for(
    call: Caller, workflow: str, documents: list[str], optional: bool
) -> None:
    rules = call("GET", "/api/v3/workflows/rules", params={"workflowId": workflow}).json()["result"]
    assert rules["workflowId"] == workflow
    assert rules["documents"] == documents
    assert rules["document_optional"] is optional


@pytest.mark.parametrize(("query", "code"), [({}, 5002), ({"workflowId": "no"}, 5001)])
def test_no_rules_no_result(call: Caller, query: dict[str, str], code: int) -> None:
    answer = call("GET", "/api/v3/workflows/rules", params=query).json()
    assert (answer["status"], answer["code"], answer["result"]) == (False, code, None)


def test_rules_by_link_need_no_token(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    link = sandbox.create_link(workflow_id=WORKFLOW_TWO_DOCUMENTS)
    answer = anonymous("GET", "/api/v3/workflows/rulesbylink", params={"link": link}).json()
    assert answer["result"]["workflowId"] == WORKFLOW_TWO_DOCUMENTS


@pytest.mark.parametrize(("how", "code"), [("unknown", 8014), ("expired", 8015), ("used_up", 5009)])
def test_an_ended_link_returns_its_state(sandbox: FacekiSandbox, call: Caller, how: str, code: int) -> None:
    link = "made-up"
    if how != "unknown":
        link = sandbox.create_link()
        sandbox.end_link(link, how)
    assert call("GET", "/api/v3/workflows/rulesbylink", params={"link": link}).json()["code"] == code
    assert call.records(link=link).json()["code"] == code
    sandbox.settings.link_errors = ()
    assert call.records(link=link).json()["result"] == []


@pytest.mark.parametrize(("reported", "code"), [("expired", 8015), ("used_up", 5009)])
def test_each_state_of_a_link_is_reported_on_its_own(
    sandbox: FacekiSandbox, call: Caller, reported: str, code: int
) -> None:
    link = sandbox.create_link()
    for how in ("expired", "used_up"):
        sandbox.end_link(link, how)
    sandbox.settings.link_errors = (reported,)
    assert call.records(link=link).json()["code"] == code


def test_an_answered_link_shows_its_record_even_when_it_has_expired(
    sandbox: FacekiSandbox, call: Caller
) -> None:
    link = sandbox.create_link(minutes=1)
    sandbox.decide(link, "DECLINED")
    sandbox.clock.advance(61)
    assert [each["decision"] for each in call.records(link=link).json()["result"]] == ["DECLINED"]


def test_links_are_answered_automatically_if_configured(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.settings.auto_answer = 60
    links = {
        word: make(call, applicationId=f"{word}-x").json()["data"]
        for word in ("accepted", "declined", "review")
    }
    ended = sandbox.create_link("accepted-late", minutes=0.5)
    refused = sandbox.create_link("code-5001-x")
    sandbox.clock.advance(59)
    assert all(call.records(link=link).json()["result"] == [] for link in links.values())
    sandbox.clock.advance(2)
    for word, link in links.items():
        assert call.records(link=link).json()["result"][0]["decision"] == word.upper()
    assert call.records(link=ended).json()["code"] == 8015
    assert call.records(link=refused).json()["result"] == []


def test_an_empty_wallet_leaves_links_unanswered(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.settings.update({"auto_answer": 0, "credit": 1})
    links = [make(call).json()["data"] for _ in range(3)]
    assert [len(call.records(link=link).json()["result"]) for link in links] == [1, 0, 0]
