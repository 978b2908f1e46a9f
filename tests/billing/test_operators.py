# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Operators: refusals at DAG parse time, routes of a branch, outcomes of a review."""

from __future__ import annotations

import inspect
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_faceki import api, retry_policy
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.operators import images, reports, verification
from airflow_provider_faceki.operators.branch import FacekiDecisionBranchOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.airflow.fakes import TaskInstance
from tests.airflow.running import HAS_STATE_STORE
from tests.billing.conftest import Connect, Verify
from tests.sandbox_delays import HeldDelays
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll for a reviewer's decision every second instead of every minute."""
    monkeypatch.setattr(verification, "REVIEW_POLL_INTERVAL_SECONDS", 1.0)


NEEDED: dict[str, Any] = {"task_id": "t", "selfie": "/a", "documents": ["/a"]}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            {"resubmit": "maybe"}, "resubmit must be one of if_absent, never, always", id="resubmit"
        ),
        pytest.param({"wait_for_review": True, "deferrable": False}, "needs deferrable=True", id="review"),
        pytest.param({"resubmit_after": "150"}, "resubmit_after must be a number of seconds", id="text"),
        pytest.param({"resubmit_after": -1}, "resubmit_after must be", id="negative"),
        pytest.param({"lookup_timeout": float("nan")}, "lookup_timeout must be a number", id="not a number"),
        pytest.param({"lookup_timeout": True}, "lookup_timeout must be a number", id="true"),
        pytest.param({"review_timeout": float("inf")}, "review_timeout must be", id="for ever"),
    ],
)
def test_refused_while_parsing(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        FacekiKycVerificationOperator(**NEEDED, **arguments)


@pytest.mark.parametrize(
    "operator",
    [
        FacekiKycVerificationOperator,
        FacekiDecisionBranchOperator,
        images.FacekiFaceMatchOperator,
        images.FacekiAnalyzeFaceOperator,
        images.FacekiCheckImageOperator,
        reports.FacekiPdfReportOperator,
    ],
)
def test_everything_that_names_something_is_a_template(operator: Any) -> None:
    plain = {"check_rules", "resize_to", "resubmit", "resubmit_after", "lookup_timeout", "fail_on_decline"}
    plain |= {"wait_for_review", "review_timeout", "deferrable"}
    arguments = set(inspect.signature(operator.__init__).parameters)
    assert arguments - {"self", "kwargs"} - plain <= set(operator.template_fields)
    assert operator is FacekiDecisionBranchOperator or "faceki_conn_id" in operator.template_fields


ROUTES: dict[str, Any] = {"accepted": "yes", "declined": ["no", "tell"], "otherwise": "else"}


@pytest.mark.parametrize(
    ("summary", "chosen"),
    [
        pytest.param({"decision": "ACCEPTED"}, "yes", id="accepted"),
        pytest.param({"decision": "DECLINED"}, ["no", "tell"], id="declined"),
        pytest.param({"decision": "REVIEW"}, "else", id="review, unnamed"),
        pytest.param({"decision": "FROZEN"}, "else", id="a word that nobody has documented"),
        pytest.param({"decision": None}, "else", id="none yet"),
        pytest.param({"decision": ["ACCEPTED"]}, "else", id="no word at all"),
        pytest.param([{"decision": "DECLINED"}, {"decision": "ACCEPTED"}], "yes", id="the last of a list"),
        pytest.param([], "else", id="an empty list"),
    ],
)
def test_a_branch_follows_the_decision(summary: Any, chosen: object) -> None:
    branch = FacekiDecisionBranchOperator(task_id="branch", summary=summary, **ROUTES)
    context: Any = {}
    assert branch.choose_branch(context) == chosen


def test_the_review_branch_can_be_set() -> None:
    context: Any = {}
    review = FacekiDecisionBranchOperator(task_id="b", summary={"decision": "REVIEW"}, review="see", **ROUTES)
    assert review.choose_branch(context) == "see"
    nowhere = FacekiDecisionBranchOperator(task_id="b", summary={"decision": "REVIEW"}, review=[], **ROUTES)
    assert nowhere.choose_branch(context) == []


@pytest.mark.parametrize("summary", ["ACCEPTED", None, {"status": "ACCEPTED"}, [1], 7])
def test_no_summary(summary: Any) -> None:
    context: Any = {}
    with pytest.raises(AirflowFailException, match="summary must be a FACEKI summary"):
        FacekiDecisionBranchOperator(task_id="b", summary=summary, **ROUTES).choose_branch(context)


def deciding(sandbox: FacekiSandbox, decision: str) -> Any:
    def decide(deferred: Any) -> None:
        sandbox.decide(deferred.trigger.request_id, decision)

    return decide


@pytest.mark.parametrize("decision", ["ACCEPTED", "DECLINED", "FROZEN"])
def test_a_review_is_waited_for(sandbox: FacekiSandbox, verify: Verify, decision: str) -> None:
    task = verify("review-1", wait_for_review=True, deferrable=True)
    task.meanwhile = deciding(sandbox, decision)
    assert task.go()["decision"] == decision
    (deferred,) = task.deferrals
    assert deferred.method_name == "resume_review"
    assert timedelta(days=7) < deferred.timeout <= timedelta(days=7, minutes=2)
    arguments = deferred.trigger.serialize()[1]
    assert (arguments["record_identifier"], arguments["link"]) == (None, None)
    assert sandbox.ledger == {"review-1": 1}


def test_a_review_s_outcome_may_fail_the_task(sandbox: FacekiSandbox, verify: Verify) -> None:
    task = verify("review-1", wait_for_review=True, deferrable=True, fail_on_decline=True)
    task.meanwhile = deciding(sandbox, "DECLINED")
    with pytest.raises(AirflowFailException, match="FACEKI declined"):
        task.go()


def test_by_default_a_review_is_not_waited_for(sandbox: FacekiSandbox, verify: Verify) -> None:
    task = verify("review-1", deferrable=True)
    assert task.go()["decision"] == "REVIEW"
    assert task.deferrals == []


def test_a_review_that_takes_too_long(sandbox: FacekiSandbox, verify: Verify) -> None:
    task = verify("review-1", wait_for_review=True, deferrable=True, review_timeout=1.0)
    with pytest.raises(AirflowException, match="review took longer than review_timeout=1 second") as caught:
        task.go()
    assert not isinstance(caught.value, AirflowFailException)
    # The next try continues to wait and is not billed again.
    task.meanwhile = deciding(sandbox, "ACCEPTED")
    assert task.go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"review-1": 1}


def test_the_review_deadline_is_kept_over_deferrals(sandbox: FacekiSandbox, verify: Verify) -> None:
    # The deadline is kept, whatever the event contains, and although the task's start has possibly moved.
    task = verify("review-1", wait_for_review=True, deferrable=True)
    sandbox.add_record("review-1", "REVIEW")
    context: Any = {"ti": task.ti, "params": {}}
    with pytest.raises(AirflowException, match="review took longer"):
        task.make().resume_review(context, None, deadline=time.time() - 1.0)
    with pytest.raises(TaskDeferred) as deferred:
        task.make().resume_review(context, None, deadline=time.time() + 100.0)
    assert (deferred.value.kwargs or {})["deadline"] == pytest.approx(time.time() + 100.0, abs=30)
    with pytest.raises(TaskDeferred) as deferred:
        task.make().resume_review(context, None, deadline="soon")
    assert (deferred.value.kwargs or {})["deadline"] == pytest.approx(time.time() + 7 * 24 * 3600, abs=30)


def test_a_later_try_waits_anew_for_a_review(sandbox: FacekiSandbox, verify: Verify) -> None:
    # If a resumed task is cleared while it runs, Airflow 3 gives its next try the event, the arguments and the start
    # time of the earlier try. The next try must ignore this old deadline.
    task = verify("review-1", wait_for_review=True, deferrable=True, review_timeout=100.0)
    sandbox.add_record("review-1", "REVIEW")
    task.ti.try_number, task.ti.start_date = 2, datetime.now(UTC) - timedelta(days=8)
    old = {"deadline": time.time() - 1.0, "parameter": "review_timeout", "try_number": 1}
    with pytest.raises(TaskDeferred) as deferred:
        task.make().resume_review({"ti": task.ti, "params": {}}, {"status": "timeout"}, **old)
    assert (deferred.value.kwargs or {})["deadline"] == pytest.approx(time.time() + 100.0, abs=30)


@pytest.mark.parametrize(
    ("method", "end"), [("resume_review", "deadline"), ("resume_reconciliation", "resubmit_at")]
)
@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        pytest.param("refused", api.ConfigurationError, "same connection 'faceki_default'", id="may not"),
        pytest.param(
            "failed", api.TransportError, "triggerer's log .*'faceki_default'", id="does not succeed"
        ),
    ],
)
def test_a_triggerer_that_gives_up_is_not_asked_again(
    sandbox: FacekiSandbox,
    verify: Verify,
    method: str,
    end: str,
    status: str,
    error: type[Exception],
    told: str,
) -> None:
    fields = {"decision": "REVIEW" if method == "resume_review" else ""}
    record = sandbox.add_record("review-1", "REVIEW", fields=fields)
    task = verify("review-1", wait_for_review=True, deferrable=True)
    context: Any = {"ti": task.ti, "params": {}}
    resume = getattr(task.make(), method)
    with pytest.raises(error, match=told):
        resume(context, {"status": status, "request_id": None}, **{end: time.time() + 3600})
    # The decision that the worker finds is used, even if the triggerer gave up.
    sandbox.decide(str(record["requestId"]), "ACCEPTED")
    decided = resume(context, {"status": status, "request_id": None}, **{end: time.time() + 3600})
    assert decided["decision"] == "ACCEPTED"
    assert "verify" not in sandbox.counters.requests


def test_a_reviewed_record_that_is_gone_is_not_paid_for_again(sandbox: FacekiSandbox, verify: Verify) -> None:
    task = verify("review-1", wait_for_review=True, deferrable=True, review_timeout=1.0)
    task.meanwhile = lambda deferred: sandbox.add_fault("code", route="records", code=8013, count=None)
    with pytest.raises(AirflowException, match="no longer returns|review took longer"):
        task.go()
    assert sandbox.ledger == {"review-1": 1}


DECISIONS = [
    pytest.param(api.ServiceError("x"), "retry", None, id="a failing service"),
    pytest.param(api.RateLimitError("x", retry_after=7.0), "retry", 7.0, id="throttled, with a time"),
    pytest.param(api.ConnectError("x"), "retry", None, id="no connection"),
    pytest.param(api.NotFoundError("x"), "retry", None, id="not there yet"),
    pytest.param(api.ResponseError("x", code=6001), "retry", None, id="a code that nobody explains"),
    pytest.param(api.AuthenticationError("x"), "fail", None, id="wrong credentials"),
    pytest.param(api.ConfigurationError("x"), "fail", None, id="a wrong Connection"),
    pytest.param(api.ValidationError("x"), "fail", None, id="a wrong argument"),
    pytest.param(api.QuotaError("x", code=5003), "fail", None, id="no credit"),
    pytest.param(api.ChargeLimitError("x"), "fail", None, id="the Connection's limit of charged calls"),
    pytest.param(api.VerificationError("x"), "fail", None, id="the same image once more"),
    pytest.param(api.LinkError("x"), "fail", None, id="a dead link"),
    pytest.param(api.TlsError("x"), "fail", None, id="certificates"),
    pytest.param(api.OutcomeUnknownError("x"), "fail", None, id="sent, and maybe billed"),
    pytest.param(RuntimeError("x"), "default", None, id="somebody else's"),
]


@pytest.mark.skipif(not HAS_STATE_STORE, reason="Airflow has retry policies from 3.3 on")
@pytest.mark.parametrize(("error", "action", "seconds"), DECISIONS)
def test_retry_policy(error: Exception, action: str, seconds: float | None) -> None:
    decision = retry_policy.FACEKI_RETRY_POLICY.evaluate(error, 1, 3)
    assert decision.action.value == action
    assert decision.retry_delay == (timedelta(seconds=seconds) if seconds is not None else None)


@pytest.fixture
def timeout_during_delay(held_delays: HeldDelays) -> Iterator[None]:
    """Raise ``AirflowTaskTimeout`` during the first delay of the sandbox, as Airflow does after `execution_timeout`."""

    def time_out(*_: object) -> None:
        raise AirflowTaskTimeout("Timeout")

    def ring() -> None:
        wait_until(lambda: held_delays.begun or over.is_set())
        if not over.is_set():
            signal.pthread_kill(main_thread, signal.SIGALRM)

    over, main_thread = threading.Event(), threading.get_ident()
    before = signal.signal(signal.SIGALRM, time_out)
    alarm = threading.Thread(target=ring)
    alarm.start()
    yield
    over.set()
    alarm.join()
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not HAS_STATE_STORE, reason="Airflow has retry policies from 3.3 on")
@pytest.mark.usefixtures("timeout_during_delay")
@pytest.mark.parametrize("is_charged", [True, False])
def test_a_timeout_during_a_charged_call_is_not_retried(
    sandbox: FacekiSandbox, connect: Connect, images: dict[str, Any], is_charged: bool
) -> None:
    connect(sandbox, timeout=30)
    hook = FacekiHook()
    hook.analyze_face(images["selfie"])
    sandbox.settings.latency = 5.0
    with pytest.raises(AirflowTaskTimeout) as caught:
        _ = hook.analyze_face(images["selfie"]) if is_charged else hook.fetch_records(request_id="x")
    decision = retry_policy.FACEKI_RETRY_POLICY.evaluate(caught.value, 1, 3)
    assert decision.action.value == ("fail" if is_charged else "default")
    other_try: Any = {"ti": TaskInstance(try_number=2)}
    decision = retry_policy.FACEKI_RETRY_POLICY.evaluate(caught.value, 2, 3, other_try)
    assert decision.action.value == "default"


@pytest.mark.skipif(not HAS_STATE_STORE, reason="Airflow has retry policies from 3.3 on")
@pytest.mark.parametrize(
    ("call", "action"),
    [
        pytest.param(
            api.RawCall("POST", "/kycverify/api/kycverify/kyc-verify-link"), "fail", id="may be charged"
        ),
        pytest.param(
            api.RawCall("POST", "/kycverify/api/kycverify/kyc-verify-link", idempotent=True),
            "retry",
            id="harmless",
        ),
        pytest.param(api.RawCall("GET", "/api/v3/kyc_verification"), "retry", id="only asks"),
        pytest.param(api.GenerateKycLink(workflow_id="w"), "retry", id="one link more harms nobody"),
    ],
)
def test_a_lost_response_of_a_charged_call_is_not_retried(
    sandbox: FacekiSandbox, call: api.RawCall | api.GenerateKycLink, action: str
) -> None:
    FacekiHook().get_access_token()
    sandbox.add_fault("reset_after_body", count=None)
    with pytest.raises(api.ResponseLostError) as lost:
        FacekiHook().call(call)
    assert retry_policy.FACEKI_RETRY_POLICY.evaluate(lost.value, 1, 3).action.value == action


def test_retry_policy_is_there_where_airflow_has_it() -> None:
    assert hasattr(retry_policy, "FACEKI_RETRY_POLICY") is HAS_STATE_STORE
    assert retry_policy.__all__ == (["FACEKI_RETRY_POLICY"] if HAS_STATE_STORE else [])


@pytest.mark.parametrize(
    "rendered", ["", " ", None, "None", "null", "undefined", "nan", "<NA>", float("nan")]
)
def test_an_identifier_that_renders_to_nothing_is_not_derived(
    sandbox: FacekiSandbox, verify: Verify, rendered: Any
) -> None:
    operator = verify("{{ a template }}").make()
    operator.record_identifier = rendered
    with pytest.raises(AirflowFailException, match="ValidationError: record_identifier is"):
        operator.execute({"ti": TaskInstance(), "params": {}})
    assert sandbox.counters.total == 0


@pytest.mark.parametrize(
    "rendered", [20260001, 2026.5, True, ["a"], {"a": 1}, b"a", 0, 0.0, False, [], {}, b""]
)
def test_an_identifier_that_is_no_text_is_refused(
    sandbox: FacekiSandbox, verify: Verify, rendered: Any
) -> None:
    operator = verify("{{ a template }}").make()
    operator.record_identifier = rendered
    with pytest.raises(
        AirflowFailException, match="record_identifier must be text.*render_template_as_native_obj"
    ):
        operator.execute({"ti": TaskInstance(), "params": {}})
    assert sandbox.ledger == {}


def test_no_identifier_in_a_mapped_task_is_refused(sandbox: FacekiSandbox, images: dict[str, Any]) -> None:
    context: Any = {"ti": TaskInstance(map_index=1), "params": {}}
    # ``expand(record_identifier=["a", None])`` creates such an operator for its second task.
    with pytest.raises(AirflowFailException, match="record_identifier is None in a mapped task"):
        FacekiKycVerificationOperator(task_id="verify", record_identifier=None, **images).execute(context)
    assert sandbox.ledger == {}
    derived = FacekiKycVerificationOperator(task_id="verify", **images).execute(context)
    assert derived["record_identifier"].startswith("airflow-")
