# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A verification whose response is lost, on a worker's thread and on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.api.arguments import DEFAULT_LOOKUP_TIMEOUT_SECONDS
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW
from tests.billing.conftest import Connect
from tests.billing.image_files import verification
from tests.waiting import patch_sleep

Ask = Callable[[FacekiHook, Any], Any]


def on_a_thread(hook: FacekiHook, endpoint: Any) -> Any:
    return hook.call(endpoint)


def on_a_loop(hook: FacekiHook, endpoint: Any) -> Any:
    return asyncio.run(hook.acall(endpoint))


@pytest.fixture(params=[on_a_thread, on_a_loop])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Function that makes a call, on a thread or on an event loop."""
    asks: Ask = request.param
    return asks


def fault(kind: str, **options: object) -> dict[str, object]:
    return {"kind": kind, "route": "verify", **options}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault("process_then_reset"), id="connection dropped after processing"),
        pytest.param(fault("reset_then_process", delay=0.5), id="connection dropped, FACEKI finishes later"),
        pytest.param(fault("slow", delay=1.2), id="no answer in time, FACEKI finishes later"),
        pytest.param(fault("slow", delay=1.2, processed=True), id="answer comes too late"),
        pytest.param(fault("drip", delay=2.0), id="answer drips"),
        pytest.param(fault("status", status=502, processed=True), id="502 after processing"),
        pytest.param(fault("status", status=504, processed=True), id="504 after processing"),
        pytest.param(fault("code", code=500, processed=True), id="code 500 after processing"),
        pytest.param(fault("code", code=8003, processed=True), id="code 8003 after processing"),
        pytest.param(fault("code", code=6123, processed=True), id="a code that nobody explains"),
        pytest.param(fault("truncated"), id="half of the JSON"),
        pytest.param(fault("cut_off"), id="half of the body, then the end"),
        pytest.param(fault("redirect", processed=True), id="redirect after processing"),
        pytest.param(fault("huge", size=34 * 1024 * 1024, processed=True), id="larger than any answer"),
    ],
)
def test_a_processed_verification_is_found(
    sandbox: FacekiSandbox, connect: Connect, ask: Ask, fault: dict[str, object]
) -> None:
    connect(sandbox, upload_timeout=1)
    sandbox.add_fault(**fault)  # type: ignore[arg-type]
    made = ask(FacekiHook(), verification("declined-1", DEFAULT_WORKFLOW, lookup_timeout=5.0))
    assert (made.decision, made.record.record_identifier) == (api.Decision.DECLINED, "declined-1")
    assert made.is_whole
    assert sandbox.ledger == {"declined-1": 1}
    assert sandbox.counters.requests["verify"] == 1


@pytest.mark.parametrize(
    ("fault", "not_found"),
    [
        pytest.param(fault("reset"), "empty", id="dropped before the body"),
        pytest.param(fault("reset_after_body"), "8013", id="dropped before processing"),
        pytest.param(fault("hang", delay=1.5), "404", id="never an answer"),
        pytest.param(fault("status", status=502), "empty", id="502 before processing"),
        pytest.param(fault("status", status=503, retry_after=0), "8013", id="503 that asks to come back"),
        pytest.param(fault("redirect"), "bare-404", id="redirect"),
    ],
)
def test_an_unprocessed_verification_stays_unknown_and_is_not_resent(
    sandbox: FacekiSandbox, connect: Connect, ask: Ask, fault: dict[str, object], not_found: str
) -> None:
    connect(sandbox, upload_timeout=1)
    sandbox.settings.not_found = not_found
    sandbox.add_fault(**fault)  # type: ignore[arg-type]
    began = time.monotonic()
    with pytest.raises(api.OutcomeUnknownError, match="look it up by its record_identifier") as caught:
        ask(FacekiHook(), verification("accepted-1", DEFAULT_WORKFLOW, lookup_timeout=0.3))
    assert caught.value.is_ambiguous
    # Without `lookup_timeout`, the lookups would go on for a minute.
    assert time.monotonic() - began < DEFAULT_LOOKUP_TIMEOUT_SECONDS
    assert sandbox.ledger == {}
    assert sandbox.counters.requests["verify"] == 1
    assert len(sandbox.polls(record_identifier="accepted-1")) >= 2


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault("status", status=429, retry_after=0), id="429"),
        pytest.param(fault("code", code=429), id="429 in the body"),
        pytest.param(fault("status", status=401), id="401"),
        pytest.param(fault("code", code=1), id="code 1"),
    ],
)
def test_a_verification_reported_as_not_processed_is_sent_again(
    sandbox: FacekiSandbox, ask: Ask, fault: dict[str, object]
) -> None:
    sandbox.add_fault(**fault)  # type: ignore[arg-type]
    made = ask(FacekiHook(), verification("accepted-1", DEFAULT_WORKFLOW))
    assert made.decision is api.Decision.ACCEPTED
    assert not made.is_whole
    assert sandbox.ledger == {"accepted-1": 1}
    assert sandbox.counters.requests["verify"] == 2


@pytest.mark.parametrize("refusal_status", [401, 200])
def test_a_revoked_token_is_renewed_before_the_charged_call(
    sandbox: FacekiSandbox, hook: FacekiHook, ask: Ask, refusal_status: int
) -> None:
    sandbox.settings.refusal_status = refusal_status
    hook.get_access_token()
    sandbox.revoke_tokens()
    made = ask(hook, verification("accepted-1", DEFAULT_WORKFLOW))
    assert made.decision is api.Decision.ACCEPTED
    assert sandbox.ledger == {"accepted-1": 1}
    assert sandbox.counters.tokens_issued == 2


def test_a_failed_token_request_is_not_ambiguous(sandbox: FacekiSandbox, hook: FacekiHook) -> None:
    sandbox.add_fault("status", route="token", status=503, count=None)
    with pytest.raises(api.ServiceError) as caught:
        hook.call(verification("accepted-1", DEFAULT_WORKFLOW, lookup_timeout=30.0))
    assert not caught.value.is_ambiguous
    assert "verify" not in sandbox.counters.requests


def test_a_failed_token_renewal_is_not_ambiguous(sandbox: FacekiSandbox, hook: FacekiHook) -> None:
    hook.get_access_token()
    sandbox.revoke_tokens()
    sandbox.add_fault("reset_after_body", route="token", count=None)
    with pytest.raises(api.ResponseLostError) as caught:
        hook.call(verification("accepted-1", DEFAULT_WORKFLOW, lookup_timeout=30.0))
    assert not caught.value.is_ambiguous
    assert sandbox.ledger == {}


def test_failed_lookups_are_tolerated(sandbox: FacekiSandbox, hook: FacekiHook) -> None:
    sandbox.add_fault("process_then_reset", route="verify")
    sandbox.add_fault("status", route="records", status=502, count=3)
    made = hook.call(verification("review-1", DEFAULT_WORKFLOW, lookup_timeout=10.0))
    assert made.decision is api.Decision.REVIEW
    assert sandbox.ledger == {"review-1": 1}


@pytest.mark.parametrize(
    ("records_path", "code"),
    [
        pytest.param("/api/v3/records", 1, id="no such route"),
        pytest.param("/kycverify/api/kycverify/records", 5002, id="a route that knows no such filter"),
    ],
)
def test_without_a_records_route_the_outcome_is_unknown_at_once(
    sandbox: FacekiSandbox,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    records_path: str,
    code: int,
) -> None:
    connect(sandbox, records_path=records_path)
    sandbox.add_fault("process_then_reset", route="verify")
    pauses: list[float] = []
    patch_sleep(monkeypatch, pauses.append)
    with pytest.raises(api.OutcomeUnknownError, match="cannot be fetched"):
        FacekiHook().call(verification("accepted-1", DEFAULT_WORKFLOW, lookup_timeout=30.0))
    assert sum(pauses) <= 1.0
    assert sandbox.counters.requests["verify"] == 1


def test_lookup_timeout_is_a_time_and_not_a_number_of_requests(
    sandbox: FacekiSandbox, connect: Connect
) -> None:
    connect(sandbox, timeout=1, max_attempts=1)
    sandbox.add_fault("process_then_reset", route="verify")
    sandbox.add_fault("hang", route="records", delay=1.5, count=None)
    with pytest.raises(api.OutcomeUnknownError, match="has returned no record of it for"):
        FacekiHook().call(verification("accepted-1", DEFAULT_WORKFLOW, lookup_timeout=2.0))
    # Each poll takes one second here. If only the pauses between polls were counted, there would be a third poll.
    assert sandbox.counters.requests["records"] <= 2
