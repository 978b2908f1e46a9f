# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the control API: each call, the errors for invalid input, and the refusal of other hosts and web pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_faceki.sandbox import Clock, FacekiSandbox
from airflow_provider_faceki.sandbox.backend.clock import iso
from airflow_provider_faceki.sandbox.control import ControlClient, ControlError
from tests.sandbox.conftest import Caller


@pytest.fixture
def control(sandbox: FacekiSandbox) -> ControlClient:
    return ControlClient(sandbox.url)


def test_a_case_from_link_to_review(sandbox: FacekiSandbox, control: ControlClient, call: Caller) -> None:
    link = str(control.post("links", record_identifier="order-1", minutes=5))
    record: Any = control.post("decide", link=link, decision="REVIEW")
    assert call.records(link=link).json()["result"] == [record]
    control.post("decide", request_id=record["requestId"], decision="ACCEPTED")
    state: Any = control.get("state")
    assert state["decisions"]["ACCEPTED"] == 1
    assert state["ledger"] == {"order-1": 1}
    assert [each["link"] for each in state["links"]] == [link]
    assert "records" in state["routes"]
    assert len(control.get("polls", key=f"link={link}")) == 1  # type: ignore[arg-type]  # The answer is a list.
    counters: Any = control.get("counters")
    assert counters["requests"] == {"token": 1, "records": 1}
    assert counters["total"] == 2, "control calls are not counted"


def test_each_control_call_takes_effect(sandbox: FacekiSandbox, control: ControlClient, call: Caller) -> None:
    control.post("faults", kind="status", route="records", status=503)
    assert [each["kind"] for each in control.get("faults")] == ["status"]  # type: ignore[attr-defined]  # A list.
    assert control.delete("faults") == []
    settings: Any = control.post("settings", latency=0.01, not_found="404")
    assert (settings["latency"], sandbox.settings.not_found) == (0.01, "404")
    assert control.post("credit", credit=3) == {"credit": 3}
    control.post("records", record_identifier="old-1", decision="DECLINED")
    assert call.records(record_identifier="old-1").json()["result"][0]["decision"] == "DECLINED"
    link = sandbox.create_link()
    control.post("end-link", link=link, how="used_up")
    assert call.records(link=link).json()["code"] == 5009
    before = sandbox.clock.now()
    assert control.post("clock", advance=60)["now"] >= before + 60  # type: ignore[index]  # The answer is a dict.
    assert control.post("revoke-tokens") == {"revoked": 1}
    control.post("reset")
    assert (sandbox.settings.credit, sandbox.counters.total, sandbox.ledger) == (1000, 0, {})


def test_what_is_secret_is_not_shown(sandbox: FacekiSandbox, control: ControlClient) -> None:
    control.post(
        "settings", person={"first_name": "Canary"}, webhook_url="http://127.0.0.1:9/hook/secret-token"
    )
    shown = repr(control.get("settings")) + repr(control.get("state")) + repr(sandbox.settings)
    assert sandbox.client_secret not in shown
    assert "Canary" not in shown
    assert "secret-token" not in shown


@pytest.mark.parametrize(
    ("name", "document", "complaint"),
    [
        (
            "settings",
            {"latency": "soon"},
            "sandbox setting latency: found 'soon', allowed is a number from 0 to 600",
        ),
        ("settings", {"latncy": 1}, "'latncy' does not exist"),
        ("settings", {"client_secret": 7}, "found int, allowed is text"),
        ("faults", {"status": 500}, "fault kind: missing"),
        ("faults", {"kind": "status", "status": True}, "found True"),
        ("faults", {"kind": []}, "fault kind: found []"),
        (
            "faults",
            {"kind": "drip", "code": 5003},
            "fault code: no such option; allowed for drip is count, delay, record_identifier, route, skip",
        ),
        ("decide", {"decision": "ACCEPTED"}, "link or request_id: missing or empty, allowed is text"),
        ("decide", {"link": "x"}, "decision: missing or empty"),
        ("decide", {"link": 7, "decision": "ACCEPTED"}, "link: found int, allowed is text"),
        (
            "decide",
            {"link": "x", "decision": "ACCEPTED", "by": "me"},
            "'by': no such member; allowed is link",
        ),
        (
            "decide",
            {"link": "nope", "decision": "ACCEPTED"},
            "decide: found 'nope', allowed is the id of a link or a requestId of this sandbox",
        ),
        (
            "decide",
            {"link": "x", "decision": "accept"},
            "decision: found 'accept', allowed is one of ACCEPTED, DECLINED, REVIEW, or another word in capitals",
        ),
        ("records", {"identifier": "x"}, "no such member"),
        ("records", {"code": "x"}, "code: found 'x'"),
        ("records", {"fields": 7}, "fields: allowed is an object"),
        ("records", {"record_identifier": 7}, "record_identifier: found int"),
        ("links", {"minutes": "x"}, "minutes: found 'x'"),
        ("links", {"minutes": float("inf")}, "minutes: found inf, allowed is a number from 0 to 5256000"),
        ("links", {"minutes": float("nan")}, "minutes: found nan"),
        ("links", {"minutes": 10**400}, "minutes: found 1000"),
        ("links", {"workflow_id": "no"}, "code 5001"),
        ("end-link", {"link": "x", "how": "expired"}, "link: found 'x', allowed is a link of this sandbox"),
        ("end-link", {"link": "x", "how": "burnt"}, "'expired' or 'used_up'"),
        ("clock", {"advance": -1}, "found -1"),
        ("clock", {"advance": "x"}, "found 'x'"),
        ("clock", {"advance": 1e11}, "found 100000000000.0, allowed is a number from 0 to "),
        ("clock", {"seconds": 60}, "'seconds': no such member; allowed is advance"),
        ("clock", {}, "found None"),
        ("revoke-tokens", {"all": True}, "'all': no such member; allowed is none"),
        ("settings", {"webhook_url": "http://[x/"}, "allowed is an http or https URL, or None"),
        ("credit", {"credit": -1}, "found -1"),
        ("fake-webhook", {"status": "ACCEPTED"}, "request_id: missing"),
        (
            "fake-webhook",
            {"request_id": "x", "status": "x", "full_name": 1},
            "full_name: found int, allowed is text",
        ),
        ("nothing", {}, "no such control call; allowed is GET /_sandbox/state, "),
    ],
)
def test_wrong_input_gets_an_error_that_names_what_is_allowed(
    control: ControlClient, name: str, document: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ControlError) as caught:
        control.post(name, **document)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("key", ["order-1", "request_id=x", "=x", "self=x"])
def test_polls_of_an_unknown_filter_are_refused(control: ControlClient, key: str) -> None:
    with pytest.raises(ControlError, match="polls: found .*, allowed is one of requestId, face_id, link, "):
        control.get("polls", key=key)


def test_one_wrong_setting_changes_none(sandbox: FacekiSandbox) -> None:
    with pytest.raises(ValueError, match="latency"):
        sandbox.settings.update({"credit": 1, "latency": float("inf")})
    assert sandbox.settings.credit == 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("refusal_status", 403),
        ("refusal_status", True),
        ("link_status", 200.0),
        ("send_expires_in", 1),
        ("token_forms", "generate_token"),
        ("token_forms", ["generate"]),
        ("link_errors", ["lost"]),
        ("credit", 1.5),
        ("client_id", ""),
        ("pdf_path", "/report"),
        ("pdf_path", "{requestId}"),
        ("webhook_url", "ftp://x"),
        ("webhook_url", "http://"),
        ("webhook_mode", "sometimes"),
        ("person", {"age": 7}),
        ("auto_answer", -1),
        ("max_upload_bytes", 0),
        ("token_lifetime", 0),
    ],
)
def test_wrong_settings_are_refused(sandbox: FacekiSandbox, name: str, value: object) -> None:
    before = getattr(sandbox.settings, name)
    with pytest.raises(ValueError, match=f"sandbox setting {name}: found .*, allowed is "):
        setattr(sandbox.settings, name, value)
    assert getattr(sandbox.settings, name) == before


@pytest.mark.parametrize(
    ("more", "status"),
    [
        pytest.param(
            {"data": "{}", "headers": {"Content-Type": "text/plain"}}, 415, id="what a form may send"
        ),
        pytest.param({"data": {"x": "y"}}, 415, id="a form"),
        pytest.param({"data": "[]", "headers": {"Content-Type": "application/json"}}, 422, id="a list"),
        pytest.param(
            {"data": "{", "headers": {"Content-Type": "application/json"}}, 422, id="half an object"
        ),
        pytest.param(
            {"data": b"[" * 99_999, "headers": {"Content-Type": "application/json"}}, 422, id="deep"
        ),
        pytest.param({"json": {"x": "y" * 2_000_000}}, 413, id="too much"),
    ],
)
def test_a_web_page_cannot_control_it(anonymous: Caller, more: dict[str, Any], status: int) -> None:
    assert anonymous("POST", "/_sandbox/reset", **more).status_code == status


def test_a_lone_surrogate_does_not_prevent_the_response(
    sandbox: FacekiSandbox, control: ControlClient
) -> None:
    control.post("links", record_identifier="\ud800")
    state: Any = control.get("state")
    assert [each["record_identifier"] for each in state["links"]] == ["\ud800"]


def test_the_clock_stays_within_the_calendar() -> None:
    clock = Clock()
    clock.advance(9e9)
    with pytest.raises(ValueError, match="allowed is a number from 0 to 1000000000.0"):
        clock.advance(9e9)
    assert iso(clock.now()) < "2400"


@pytest.mark.parametrize("path", ["/_sandbox/state", "/kycverify/x", "/api/v3/kyc_verification"])
@pytest.mark.parametrize(
    "host",
    ["rebound.example", "127.0.0.1.rebound.example:80", "127.0.0.2@rebound.example", "192.0.2.1", "", "["],
)
def test_other_host_names_are_refused(anonymous: Caller, path: str, host: str) -> None:
    assert anonymous("GET", path, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize(
    "host",
    ["localhost:80", "LOCALHOST", "127.0.0.1", "127.0.0.2", "127.8.8.8:80", "[::1]:80", "[0:0:0:0:0:0:0:1]"],
)
def test_loopback_host_names_are_accepted(anonymous: Caller, host: str) -> None:
    assert anonymous("GET", "/_sandbox/state", headers={"Host": host}).status_code == 200


def test_the_case_of_the_content_type_does_not_matter(anonymous: Caller) -> None:
    headers = {"Content-Type": "Application/JSON; charset=UTF-8"}
    assert anonymous("POST", "/_sandbox/reset", data="{}", headers=headers).status_code == 200


def test_the_control_client_needs_a_url() -> None:
    with pytest.raises(ValueError, match="url: allowed is"):
        ControlClient("127.0.0.1:80")


def test_links_are_answered_automatically_without_a_request(
    sandbox: FacekiSandbox, control: ControlClient, eventually: Callable[[Callable[[], object]], None]
) -> None:
    """Check that a due automatic answer needs no request. Otherwise its webhook would be sent too late."""
    sandbox.settings.auto_answer = 0.05
    sandbox.create_link("order-1")
    eventually(lambda: sandbox.ledger == {"order-1": 1})
