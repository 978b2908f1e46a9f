# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Can anything that a client says break the sandbox itself?"""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.routes import ROUTES, Body
from tests.sandbox.conftest import Caller

FIELDS = (
    "clientId",
    "clientSecret",
    "workflowId",
    "expiryTime",
    "applicationId",
    "redirect_url",
    "link",
    "decision",
)
VALUES: list[Any] = [None, True, 0, -1, 1.5, 10**400, "", "x" * 10_000, "\ud800", "\x00", "é", [], {}, [[]]]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_no_route_falls_over(
    sandbox: FacekiSandbox, call: Caller, caplog: pytest.LogCaptureFixture, route: Any
) -> None:
    path = route.path.replace("{link}", sandbox.create_link("\ud800")).replace("{key}", "x")
    for value in VALUES:
        if route.body is Body.JSON:
            answer = call(route.method, path, data=json.dumps(dict.fromkeys(FIELDS, value)).encode())
        elif route.body is Body.FORM:
            answer = call(route.method, path, data=dict.fromkeys(FIELDS, repr(value)), files={"selfie": b"x"})
        else:
            filters = ("linkId", "referenceId", "url", "requestId", "record_identifier", *FIELDS)
            answer = call(route.method, path, params=dict.fromkeys(filters, repr(value)[:500]))
        assert answer.status_code < 500
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_page_with_half_a_character_is_shown(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    link = sandbox.create_link(redirect_url="https://shop.example/\ud800")
    assert anonymous("POST", f"/kycverify/{link}", data={"decision": "ACCEPTED"}).status_code == 200


def test_its_own_failure_is_not_taken_for_a_fault(
    sandbox: FacekiSandbox, call: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    record = sandbox.add_record("order-1", fields={"odd": {1, 2}})
    assert record["odd"] == {1, 2}
    answer = call.records(record_identifier="order-1")
    assert (answer.status_code, "the sandbox itself failed" in answer.text) == (500, True)
    assert "the sandbox itself failed" in caplog.text


def test_an_empty_key_decides_for_nobody(sandbox: FacekiSandbox) -> None:
    before = sandbox.add_record("order-1", "REVIEW")
    with pytest.raises(Exception, match="8014"):
        sandbox.decide("", "ACCEPTED")
    assert sandbox.decide(str(before["requestId"]), "ACCEPTED")["decision"] == "ACCEPTED"
