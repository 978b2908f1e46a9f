# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the faults: what the client receives, and whether the request is billed."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from airflow_provider_faceki.sandbox import FacekiSandbox, Fault
from airflow_provider_faceki.sandbox.faults import Faults
from tests.sandbox.conftest import Caller
from tests.sandbox_delays import HeldDelays

Eventually = Callable[[Callable[[], object]], None]


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (408, "application/json", '"code":400'),
        (429, "application/json", '"code":400'),
        (500, "application/json", '"code":500'),
        (502, "text/html; charset=utf-8", "502 Bad Gateway"),
        (503, "text/html; charset=utf-8", "503 Service Unavailable"),
        (504, "text/html; charset=utf-8", "504 Gateway Time-out"),
    ],
)
def test_a_status_is_answered_instead(
    sandbox: FacekiSandbox, call: Caller, status: int, kind: str, says: str
) -> None:
    sandbox.add_fault("status", status=status)
    answer = call.verify("order-1")
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, kind)
    assert says in answer.text
    assert sandbox.bills == ()
    assert call.verify("order-1").status_code == 200, "once"
    assert sandbox.counters.faults_fired == 1


@pytest.mark.parametrize("value", [7, 0.5, pytest.param(10**400, id="huge"), "Wed, 21 Oct 2037 07:28:00 GMT"])
def test_retry_after_is_sent_as_given(sandbox: FacekiSandbox, call: Caller, value: float | str) -> None:
    sandbox.add_fault("status", status=429, retry_after=value)
    assert call.records(requestId="x").headers["Retry-After"] == str(value)


def test_a_code_comes_in_the_envelope_of_its_route(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault("code", code=5003, count=2)
    answers = [call.records(requestId="x"), call("POST", "/kycverify/api/kycverify/kyc-verify-link", json={})]
    assert [each.status_code for each in answers] == [200, 200]
    assert answers[0].json()["code"] == 5003
    assert answers[1].json() == {"responseCode": 5003, "data": {}}


def test_a_redirect_leads_elsewhere(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault("redirect", route="unknown", status=307, location="https://elsewhere.example/")
    answer = call("GET", "/moved", allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (307, "https://elsewhere.example/")


def test_a_huge_body_is_huge(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault("huge", size=3_000_000)
    assert len(call.records(requestId="x").content) > 3_000_000


@pytest.mark.parametrize(
    ("fault", "bills"),
    [
        pytest.param({"kind": "status", "status": 502}, 0, id="502 before"),
        pytest.param({"kind": "status", "status": 502, "processed": True}, 1, id="502 after"),
        pytest.param({"kind": "code", "code": 500, "processed": True}, 1, id="code after"),
        pytest.param({"kind": "truncated"}, 1, id="truncated"),
        pytest.param({"kind": "cut_off"}, 1, id="cut off"),
        pytest.param({"kind": "content_type"}, 1, id="wrong type"),
        pytest.param({"kind": "reset"}, 0, id="reset before the body"),
        pytest.param({"kind": "reset_after_body"}, 0, id="reset after the body"),
        pytest.param({"kind": "hang", "delay": 0.05}, 0, id="hang"),
        pytest.param({"kind": "process_then_reset"}, 1, id="processed, then reset"),
        pytest.param({"kind": "reset_then_process", "delay": 0.05}, 1, id="reset, then processed"),
        pytest.param({"kind": "slow", "delay": 0.05}, 1, id="slow"),
        pytest.param({"kind": "drip", "delay": 0.05}, 1, id="drip"),
    ],
)
def test_the_ledger_counts_processed_requests(
    sandbox: FacekiSandbox, call: Caller, eventually: Eventually, fault: dict[str, Any], bills: int
) -> None:
    sandbox.add_fault(route="verify", **fault)
    answered = True
    try:
        call.verify("order-1").json()
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.JSONDecodeError):
        answered = False
    if bills:
        eventually(lambda: sandbox.ledger)
    else:
        eventually(lambda: sandbox.counters.in_flight == 0)
    assert sandbox.ledger == ({"order-1": 1} if bills else {})
    assert len(call.records(record_identifier="order-1").json()["result"]) == bills
    assert answered == (
        fault["kind"] in ("status", "code", "content_type", "slow", "drip") and "502" not in str(fault)
    )


def test_half_an_answer_is_not_json(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault("truncated")
    answer = call.records(requestId="x")
    assert answer.headers["Content-Length"] == str(len(answer.content))
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


def test_a_body_that_is_cut_off_promised_more(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault("cut_off")
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        call.records(requestId="x")


def test_a_correct_body_with_a_wrong_content_type(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault("content_type", content_type="text/plain")
    answer = call.records(requestId="x")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.json()["result"] == []


@pytest.mark.parametrize("kind", ["reset", "reset_after_body", "process_then_reset", "reset_then_process"])
def test_a_reset_is_a_reset(sandbox: FacekiSandbox, call: Caller, kind: str) -> None:
    sandbox.add_fault(kind)
    with pytest.raises(requests.ConnectionError, match="ConnectionResetError"):
        call.records(requestId="x")


def test_a_reset_before_the_body_leaves_a_large_upload_unread(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault("reset", route="verify")
    files = {"selfie": ("a.jpg", b"x" * 20_000_000)}
    with pytest.raises(requests.ConnectionError):
        call.verify(files=files)
    assert sandbox.bills == ()


def test_processing_may_outlive_the_connection(
    sandbox: FacekiSandbox, call: Caller, held_delays: HeldDelays, eventually: Eventually
) -> None:
    sandbox.add_fault("reset_then_process", route="verify", delay=1.5)
    with pytest.raises(requests.ConnectionError):
        call.verify("order-1")
    eventually(lambda: held_delays.begun == [1.5])
    assert call.records(record_identifier="order-1").json()["result"] == [], "not yet"
    assert sandbox.ledger == {}
    held_delays.end()
    eventually(lambda: sandbox.ledger == {"order-1": 1})


def test_a_reset_of_the_sandbox_ends_what_is_still_to_come(
    sandbox: FacekiSandbox, call: Caller, held_delays: HeldDelays, eventually: Eventually
) -> None:
    sandbox.add_fault("reset_then_process", route="verify", delay=0.1)
    with pytest.raises(requests.ConnectionError):
        call.verify("order-1")
    eventually(lambda: held_delays.begun == [0.1])
    sandbox.reset()
    held_delays.end()
    eventually(lambda: held_delays.ended == 1)
    # The sandbox has one event loop. When the loop has answered this call, it has also run all work that was ready
    # before the call.
    call.records(requestId="x")
    assert sandbox.ledger == {}


@pytest.mark.parametrize("processed", [True, False])
def test_a_slow_request_is_processed_after_the_client_left(
    sandbox: FacekiSandbox, call: Caller, held_delays: HeldDelays, eventually: Eventually, processed: bool
) -> None:
    sandbox.add_fault("slow", route="verify", delay=1.5, processed=processed)
    with call.verifying("order-1"):
        eventually(lambda: held_delays.begun == [1.5])
    assert bool(call.records(record_identifier="order-1").json()["result"]) is processed
    assert sandbox.ledger == ({"order-1": 1} if processed else {})
    held_delays.end()
    eventually(lambda: sandbox.ledger == {"order-1": 1})


def test_a_dripping_body_is_complete(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault("drip", delay=0.3)
    begun = time.monotonic()
    assert call.records(requestId="x").json()["result"] == []
    assert time.monotonic() - begun > 0.25


def test_latency_delays_every_answer(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.settings.latency = 0.2
    begun = time.monotonic()
    call.records(requestId="x")
    assert time.monotonic() - begun > 0.19


def test_a_fault_hits_only_its_route_and_its_identifiers(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault("status", route="verify", record_identifier="bad-", status=500, count=None)
    link = sandbox.create_link("bad-link")
    assert call.verify("good-1").status_code == 200
    assert call.records(record_identifier="bad-1").status_code == 200
    assert [call.verify("bad-1").status_code for _ in range(3)] == [500] * 3
    sandbox.clear_faults()
    assert call.verify("bad-1").status_code == 200
    sandbox.add_fault("status", route="records", record_identifier="bad-", status=500)
    assert call.records(link=link).status_code == 500, "a link leads to its identifier"


def test_faults_come_in_the_order_they_were_given(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault("status", route="records", status=502, count=2)
    sandbox.add_fault("status", route="records", status=429)
    sandbox.add_fault("reset", route="records")
    assert [call.records(requestId="x").status_code for _ in range(3)] == [502, 502, 429]
    with pytest.raises(requests.ConnectionError):
        call.records(requestId="x")
    assert call.records(requestId="x").status_code == 200


def test_a_fault_can_skip_requests(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault("status", route="records", status=503, skip=2)
    assert [call.records(requestId="x").status_code for _ in range(4)] == [200, 200, 503, 200]


def test_the_token_call_can_fail_too(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    sandbox.add_fault("status", route="token", status=503, retry_after=1)
    pair = {"clientId": sandbox.client_id, "clientSecret": sandbox.client_secret}
    statuses = [anonymous("POST", "/auth/api/generate-token", json=pair).status_code for _ in range(2)]
    assert statuses == [503, 200]
    assert sandbox.counters.tokens_issued == 1


def test_requests_in_flight_are_counted(
    sandbox: FacekiSandbox, held_delays: HeldDelays, eventually: Eventually
) -> None:
    sandbox.add_fault("slow", route="records", count=5)
    lines = [http.client.HTTPConnection(sandbox.url.removeprefix("http://"), timeout=60) for _ in range(5)]
    for line in lines:
        line.request("GET", "/api/v3/kyc_verification?requestId=x")
    eventually(lambda: sandbox.counters.in_flight == 5)
    held_delays.end()
    assert [line.getresponse().status for line in lines] == [401] * 5
    for line in lines:
        line.close()
    eventually(lambda: sandbox.counters.in_flight == 0)
    assert sandbox.counters.in_flight_max == 5
    assert sandbox.counters.requests["records"] == 5


def test_a_request_that_began_before_a_reset_is_not_counted_after_it(
    sandbox: FacekiSandbox, held_delays: HeldDelays, eventually: Eventually
) -> None:
    sandbox.add_fault("slow", route="records")
    line = http.client.HTTPConnection(sandbox.url.removeprefix("http://"), timeout=60)
    line.request("GET", "/api/v3/kyc_verification?requestId=x")
    eventually(lambda: sandbox.counters.requests.get("records") == 1)
    sandbox.reset()
    held_delays.end()
    assert line.getresponse().status == 500
    line.close()
    counters = sandbox.counters
    assert (counters.requests, counters.statuses, counters.refused) == ({}, {}, 0)
    assert (counters.in_flight, counters.in_flight_max) == (0, 0)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"kind": "explode"}, "fault kind: found 'explode'"),
        ({"kind": ["status"]}, r"fault kind: found \['status'\]"),
        ({"kind": "status", "status": 99}, "fault status: found 99"),
        ({"kind": "status", "status": "503"}, "fault status: found '503'"),
        ({"kind": "status", "count": 0}, "fault count: found 0"),
        ({"kind": "status", "skip": -1}, "fault skip: found -1"),
        ({"kind": "status", "retry_after": []}, "fault retry_after"),
        ({"kind": "status", "retry_after": float("nan")}, "fault retry_after"),
        ({"kind": "status", "retry_after": "x\r\ny"}, "fault retry_after"),
        ({"kind": "status", "processed": 1}, "fault processed: found 1"),
        ({"kind": "redirect", "status": 200}, "fault status: found 200"),
        ({"kind": "redirect", "location": "x\ny"}, "fault location"),
        ({"kind": "slow", "delay": True}, "fault delay: found True"),
        ({"kind": "slow", "code": 5003}, "fault code: no such option; allowed for slow is "),
        ({"kind": "reset", "record_identifier": "x"}, "use reset_after_body"),
        ({"kind": "status", "route": "recrods"}, "fault route: found 'recrods'"),
        ({"kind": "status", "flavour": "salt"}, "fault 'flavour': no such option"),
        ({"kind": "huge", "size": 0}, "fault size: found 0"),
        ({"kind": "status", "record_identifier": 7}, "fault record_identifier"),
    ],
)
def test_a_wrong_fault_is_refused(sandbox: FacekiSandbox, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        sandbox.add_fault(**given)


def test_a_fault_can_be_made_beforehand(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.add_fault(Fault("code", code=1, route="records"))
    assert json.loads(call.records(requestId="x").content)["code"] == 1


def test_the_options_of_a_finished_fault_are_not_ignored(sandbox: FacekiSandbox) -> None:
    with pytest.raises(ValueError, match="fault route: allowed only if the kind is a name"):
        sandbox.add_fault(Fault("status"), route="records")


def test_a_fault_that_is_skipped_does_not_delay_a_reset() -> None:
    """Check that a reset is found before the body is read, although another fault stands before it in the queue.

    The other fault ignores its first five requests (`skip=5`), so it does not apply yet.
    """
    faults = Faults()
    faults.add(Fault("status", skip=5))
    faults.add(Fault("reset", route="verify"))
    assert faults.next_is_reset("verify")
    assert not faults.next_is_reset("records")
    faults.add(Fault("reset", skip=1))
    assert not faults.next_is_reset("records")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("reference", "referenceId"),
        pytest.param("link", "linkId", id="link"),
        pytest.param("validate-kyc-verify-link", "url", id="rules of a link"),
    ],
)
def test_a_fault_finds_the_identifier_in_a_v2_call(
    sandbox: FacekiSandbox, call: Caller, path: str, name: str
) -> None:
    value = "order-1" if name == "referenceId" else sandbox.create_link("order-1")
    sandbox.add_fault("status", record_identifier="order-1", status=503)
    answer = call("GET", f"/kycverify/api/kycverify/{path}", params={name: value})
    assert answer.status_code == 503
