# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The steps of a call (token, request, refused token), executed by the fake driver."""

from __future__ import annotations

import json

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.endpoints.links import GenerateKycLink
from airflow_provider_faceki.api.endpoints.raw import RawCall
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.endpoints.workflows import GetWorkflowRules
from airflow_provider_faceki.api.errors import FacekiError, ResponseError, ValidationError
from airflow_provider_faceki.api.protocol import session
from airflow_provider_faceki.api.protocol.envelope import Payload, read_payload
from airflow_provider_faceki.api.protocol.messages import HttpResponse, Json
from airflow_provider_faceki.api.protocol.session import (
    LOCK_POLL_SECONDS,
    MAX_LOCK_WAIT_SECONDS,
    CountToken,
    MaskSecret,
    RunBlocking,
    SendRequest,
)
from tests.api.fake_driver import NOW, FakeDriver, token, token_answer

FETCH = FetchRecords(request_id="r-1")
NONE = Payload([], [])
COLD = ["read", "lock", "read", "token request"]


def _refusal(status: int, document: Json) -> ResponseError:
    with pytest.raises(ResponseError) as caught:
        read_payload(HttpResponse(status, {}, json.dumps(document).encode()))
    return caught.value


def _bearers(driver: FakeDriver) -> list[str | None]:
    return [dict(request.headers).get("authorization") for request in driver.requests]


def test_a_usable_token_in_memory_is_used() -> None:
    driver = FakeDriver()
    driver.store.set(token("t1"))
    driver.events.clear()
    assert driver.run(session.call(driver.session, FETCH), NONE) == ()
    assert driver.events == ["mask t1", "request"]
    assert _bearers(driver) == ["Bearer t1"]


def test_without_a_token_one_is_fetched_under_the_lock_and_stored() -> None:
    driver = FakeDriver()
    driver.run(session.call(driver.session, FETCH), token_answer("t1", 900.0), NONE)
    assert driver.events == [*COLD, "set t1", "release", "mask t1", "request"]
    assert _bearers(driver) == [None, "Bearer t1"]
    assert driver.store.peek() == token("t1", lifetime=900.0)


@pytest.mark.parametrize(
    ("age", "renewed"),
    [
        pytest.param(3539.0, False, id="before the margin"),
        pytest.param(3540.0, True, id="within the margin"),
        pytest.param(-61.0, True, id="from the future"),
    ],
)
def test_a_token_that_is_not_usable_is_renewed(age: float, renewed: bool) -> None:
    driver = FakeDriver()
    driver.store.set(token("t1", age))
    answers = [token_answer("t2"), NONE] if renewed else [NONE]
    driver.run(session.call(driver.session, FETCH), *answers)
    assert _bearers(driver)[-1] == ("Bearer t2" if renewed else "Bearer t1")


def test_the_lifetime_of_a_token_begins_with_its_request() -> None:
    driver = FakeDriver()
    steps = session.token(driver.session)
    effect = next(steps)
    while isinstance(effect, RunBlocking):
        effect = steps.send(effect.operation())
    driver.now += 25.0
    assert steps.send(token_answer("t1")) == CountToken()
    effect = steps.send(None)
    assert isinstance(effect, RunBlocking)
    effect.operation()
    assert driver.store.peek() == token("t1")


def test_another_caller_finishes_between_read_and_lock() -> None:
    driver = FakeDriver()
    steps = session.token(driver.session)
    assert isinstance(read := next(steps), RunBlocking)
    assert isinstance(lock := steps.send(read.operation()), RunBlocking)
    driver.store.set(token("theirs"))
    assert isinstance(read_again := steps.send(lock.operation()), RunBlocking)
    assert steps.send(read_again.operation()) == MaskSecret("theirs")
    assert driver.events == ["read", "set theirs", "lock", "read", "release"]


def test_while_another_caller_fetches_the_store_is_polled() -> None:
    driver = FakeDriver()
    theirs = driver.store.try_lock()
    assert theirs is not None
    driver.events.clear()

    def finish() -> None:
        if driver.events.count("sleep") == 3:
            driver.store.set(token("theirs", -3 * LOCK_POLL_SECONDS))
            theirs.release()

    driver.between = finish
    driver.run(session.call(driver.session, FETCH), NONE)
    waiting = ["read", "no lock", "sleep"]
    assert driver.events == [*waiting * 3, "set theirs", "release", "read", "mask theirs", "request"]


def test_a_released_lock_is_acquired_by_the_next_caller() -> None:
    driver = FakeDriver()
    theirs = driver.store.try_lock()
    assert theirs is not None
    driver.events.clear()
    driver.between = theirs.release
    driver.run(session.call(driver.session, FETCH), token_answer("ours"), NONE)
    assert driver.events[:4] == ["read", "no lock", "sleep", "release"]
    assert driver.events[4:] == [*COLD, "set ours", "release", "mask ours", "request"]


def test_a_lock_that_is_never_released_is_waited_for_until_the_limit() -> None:
    driver = FakeDriver()
    theirs = driver.store.try_lock()
    driver.events.clear()
    driver.run(session.call(driver.session, FETCH), token_answer("ours"), NONE)
    assert driver.now - NOW == pytest.approx(MAX_LOCK_WAIT_SECONDS, abs=2 * LOCK_POLL_SECONDS)
    assert driver.events[-7:] == [
        "lock",
        "read",
        "token request",
        "set ours",
        "release",
        "mask ours",
        "request",
    ]
    # The first caller still owns its lock.
    assert theirs is not None
    assert not driver.store.is_free


def test_the_first_caller_that_times_out_fetches_for_the_others() -> None:
    driver = FakeDriver()
    held = [driver.store.try_lock()]
    driver.between = lambda: held.append(driver.store.try_lock(1)) if len(held) == 1 else None
    driver.run(session.call(driver.session, FETCH), token_answer("ours"), NONE)
    # The caller waits for the second owner as long as for the first one.
    assert None not in held
    assert driver.now - NOW == pytest.approx(2 * MAX_LOCK_WAIT_SECONDS, abs=2 * LOCK_POLL_SECONDS)


REFUSALS = [
    pytest.param(status, document, id=f"{status}-{name}")
    for name, document in {
        "legacy": {"responseCode": 1, "data": None},
        "v3": {"status": False, "code": 1, "message": "UNAUTHORIZED/INVALID URL"},
        "validation": {"status": False, "statusCode": 1, "message": "", "data": {}},
        "code 401": {"status": False, "code": 401},
    }.items()
    for status in (200, 201, 400, 401, 403, 404, 500)
] + [
    pytest.param(401, None, id="401-empty"),
    pytest.param(401, {"status": True, "code": 200}, id="401-success"),
]


@pytest.mark.parametrize(("status", "document"), REFUSALS)
def test_a_refused_token_is_replaced_once(status: int, document: Json) -> None:
    driver = FakeDriver()
    driver.store.set(token("old"))
    driver.events.clear()
    refusal = _refusal(status, document)
    assert driver.run(session.call(driver.session, FETCH), refusal, token_answer("new"), NONE) == ()
    assert driver.events == [
        *("mask old", "request", "invalidate old"),
        *(*COLD, "set new", "release", "mask new", "request"),
    ]
    assert _bearers(driver) == ["Bearer old", None, "Bearer new"]


@pytest.mark.parametrize(("status", "document"), REFUSALS)
def test_a_second_401_is_raised(status: int, document: Json) -> None:
    driver = FakeDriver()
    driver.store.set(token("old"))
    first, second = _refusal(status, document), _refusal(status, document)
    with pytest.raises(FacekiError) as caught:
        driver.run(session.call(driver.session, FETCH), first, token_answer("new"), second)
    assert caught.value is second
    assert isinstance(second, errors.AuthenticationError)
    assert len(driver.requests) == 3
    # Possibly the token is valid and the URL is wrong. So the token stays in the store.
    assert driver.store.peek() == token("new")
    assert driver.store.is_free


def test_a_refused_token_replaced_meanwhile_needs_no_token_request() -> None:
    driver = FakeDriver()
    driver.store.set(token("old"))
    steps = session.call(driver.session, FETCH)
    assert next(steps) == MaskSecret("old")
    assert isinstance(steps.send(None), SendRequest)
    driver.store.set(token("theirs"))
    assert isinstance(drop := steps.throw(_refusal(401, None)), RunBlocking)
    assert steps.send(drop.operation()) == MaskSecret("theirs")
    asked = steps.send(None)
    assert isinstance(asked, SendRequest)
    assert dict(asked.request.headers)["authorization"] == "Bearer theirs"
    steps.close()


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(errors.ConnectError("x"), id="no connection"),
        pytest.param(errors.ResponseLostError("x"), id="lost"),
        pytest.param(errors.ServiceError("x", http_status=500), id="failed"),
        pytest.param(errors.RateLimitError("x", http_status=429), id="throttled"),
        pytest.param(errors.AuthenticationError("x", http_status=403), id="forbidden"),
        pytest.param(errors.QuotaError("x", code=5003), id="wallet"),
    ],
)
def test_any_other_error_keeps_the_token(error: FacekiError) -> None:
    driver = FakeDriver()
    driver.store.set(token("t1"))
    with pytest.raises(FacekiError) as caught:
        driver.run(session.call(driver.session, FETCH), error)
    assert caught.value is error
    assert driver.store.peek() == token("t1")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(errors.ConnectError("x"), errors.ConnectError, id="no connection"),
        pytest.param(errors.ResponseLostError("x"), errors.ResponseLostError, id="lost"),
        pytest.param(_refusal(401, None), errors.AuthenticationError, id="wrong credentials"),
        pytest.param(_refusal(404, None), errors.ConfigurationError, id="unknown form"),
        pytest.param(_refusal(503, None), errors.ServiceError, id="failed"),
        pytest.param(Payload({}, {}), errors.UnexpectedResponseError, id="no token in it"),
    ],
)
def test_a_failed_fetch_releases_the_lock(answer: Payload | FacekiError, kind: type[FacekiError]) -> None:
    driver = FakeDriver()
    with pytest.raises(kind) as caught:
        driver.run(session.call(driver.session, FETCH), answer)
    assert type(caught.value) is kind
    assert driver.events == [*COLD, "release"]
    assert driver.store.is_free
    # The request that needs the token was not sent, so FACEKI has certainly not executed it.
    assert not caught.value.is_ambiguous
    if isinstance(answer, ResponseError):
        assert caught.value.__suppress_context__


def test_a_failed_token_renewal_is_raised() -> None:
    driver = FakeDriver()
    driver.store.set(token("old"))
    with pytest.raises(errors.AuthenticationError, match="does not accept the client id"):
        driver.run(session.call(driver.session, FETCH), _refusal(401, None), _refusal(401, None))
    assert len(driver.requests) == 2
    assert driver.store.peek() is None
    assert driver.store.is_free


@pytest.mark.parametrize("effects", range(1, 8))
def test_steps_that_are_closed_midway_release_the_lock(effects: int) -> None:
    driver = FakeDriver()
    steps = session.call(driver.session, FETCH)
    effect = next(steps)
    for _ in range(effects):
        match effect:
            case RunBlocking(operation):
                effect = steps.send(operation())
            case SendRequest(request):
                effect = steps.send(NONE if request.authenticated else token_answer("t1"))
            case _:
                effect = steps.send(None)
        if isinstance(effect, SendRequest) and effect.request.authenticated:
            break
    steps.close()
    assert driver.events.count("release") == driver.events.count("lock") == (effects > 1)
    assert driver.store.is_free


def test_each_token_is_masked_once() -> None:
    driver = FakeDriver()
    for _ in range(3):
        answers = [NONE] if driver.requests else [token_answer("t1"), NONE]
        driver.run(session.call(driver.session, FETCH), *answers)
    driver.store.invalidate(token("t1"))
    driver.run(session.call(driver.session, FETCH), token_answer("t2"), NONE)
    driver.run(session.call(driver.session, FETCH), NONE)
    assert [event for event in driver.events if event.startswith("mask")] == ["mask t1", "mask t2"]
    for before, after in (("mask t1", "request"), ("mask t2", "request")):
        assert driver.events[driver.events.index(before) + 1] == after


def test_by_link_no_token_is_requested_or_sent() -> None:
    driver = FakeDriver()
    rules = driver.run(
        session.call(driver.session, GetWorkflowRules(link="l-1")),
        Payload({"documents": ["Passport"]}, {"documents": ["Passport"]}),
    )
    assert rules.documents == ("Passport",)
    assert driver.events == ["request"]
    assert _bearers(driver) == [None]


def test_a_401_of_a_call_without_a_token_renews_no_token() -> None:
    driver = FakeDriver()
    driver.store.set(token("t1"))
    with pytest.raises(errors.AuthenticationError):
        driver.run(session.call(driver.session, GetWorkflowRules(link="l-1")), _refusal(401, None))
    assert driver.store.peek() == token("t1")


NOT_FOUND = [
    pytest.param(lambda: _refusal(404, {"status": False, "code": 404}), id="404"),
    pytest.param(lambda: _refusal(200, {"status": False, "code": 8013}), id="code 8013"),
]


@pytest.mark.parametrize("refusal", NOT_FOUND)
def test_not_found_is_a_result_for_some_endpoints(refusal: object) -> None:
    assert callable(refusal)
    driver = FakeDriver()
    driver.store.set(token("t1"))
    assert driver.run(session.call(driver.session, FETCH), refusal()) == ()


@pytest.mark.parametrize("refusal", NOT_FOUND)
@pytest.mark.parametrize(
    "endpoint", [GenerateKycLink(workflow_id="w"), RawCall("GET", "/x"), GetWorkflowRules(workflow_id="w")]
)
def test_not_found_is_an_error_for_the_others(refusal: object, endpoint: GenerateKycLink) -> None:
    assert callable(refusal)
    driver = FakeDriver()
    driver.store.set(token("t1"))
    with pytest.raises(errors.NotFoundError):
        driver.run(session.call(driver.session, endpoint), refusal())


def test_an_unknown_token_route_is_not_mistaken_for_no_records() -> None:
    driver = FakeDriver()
    with pytest.raises(
        errors.ConfigurationError, match=r"does not know the token request.*faceki\.check` finds out"
    ):
        driver.run(session.call(driver.session, FETCH), _refusal(404, None))


def test_fetching_a_token_bypasses_the_store() -> None:
    driver = FakeDriver()
    driver.store.set(token("t1"))
    driver.events.clear()
    assert driver.run(session.fetch_token(driver.session), token_answer("t2")) == token("t2")
    assert driver.events == ["token request"]
    assert driver.store.peek() == token("t1")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        pytest.param("r-1", "not str", id="text"),
        pytest.param(None, "not NoneType", id="nothing"),
        pytest.param(FetchRecords, r"FetchRecords\(…\), not FetchRecords", id="a class"),
        pytest.param({"request_id": "r-1"}, "not dict", id="arguments"),
    ],
)
def test_a_value_that_is_no_endpoint_is_rejected_before_any_step(asked: object, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        next(session.call(FakeDriver().session, asked))  # type: ignore[arg-type]
