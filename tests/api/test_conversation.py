# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""In which order do token, question and refusal come? Each conversation is held by hand."""

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
from airflow_provider_faceki.api.protocol.http import HttpResponse, Json
from airflow_provider_faceki.api.protocol.session import (
    LOCK_POLL_SECONDS,
    MAX_LOCK_WAIT_SECONDS,
    MaskSecret,
    RunBlocking,
    SendRequest,
)
from tests.api.fake_driver import NOW, Table, token, token_answer

FETCH = FetchRecords(request_id="r-1")
NONE = Payload([], [])
COLD = ["read", "claim", "read", "ask token"]


def _refusal(status: int, document: Json) -> ResponseError:
    with pytest.raises(ResponseError) as caught:
        read_payload(HttpResponse(status, {}, json.dumps(document).encode()))
    return caught.value


def _bearers(table: Table) -> list[str | None]:
    return [dict(request.headers).get("authorization") for request in table.requests]


def test_a_usable_token_in_memory_is_used_without_any_ado() -> None:
    table = Table()
    table.store.set(token("t1"))
    table.notes.clear()
    assert table.play(session.call(table.account, FETCH), NONE) == ()
    assert table.notes == ["conceal t1", "ask"]
    assert _bearers(table) == ["Bearer t1"]


def test_without_a_token_one_is_fetched_under_a_claim_and_kept() -> None:
    table = Table()
    table.play(session.call(table.account, FETCH), token_answer("t1", 900.0), NONE)
    assert table.notes == [*COLD, "keep t1", "release", "conceal t1", "ask"]
    assert _bearers(table) == [None, "Bearer t1"]
    assert table.store.peek() == token("t1", lifetime=900.0)


@pytest.mark.parametrize(
    ("age", "renewed"),
    [
        pytest.param(3539.0, False, id="before the margin"),
        pytest.param(3540.0, True, id="within the margin"),
        pytest.param(-61.0, True, id="from the future"),
    ],
)
def test_a_token_that_is_not_usable_is_renewed(age: float, renewed: bool) -> None:
    table = Table()
    table.store.set(token("t1", age))
    answers = [token_answer("t2"), NONE] if renewed else [NONE]
    table.play(session.call(table.account, FETCH), *answers)
    assert _bearers(table)[-1] == ("Bearer t2" if renewed else "Bearer t1")


def test_a_token_counts_from_when_it_was_asked_for_not_from_when_it_came() -> None:
    table = Table()
    talk = session.token(table.account)
    effect = next(talk)
    while isinstance(effect, RunBlocking):
        effect = talk.send(effect.operation())
    table.now += 25.0
    effect = talk.send(token_answer("t1"))
    assert isinstance(effect, RunBlocking)
    effect.operation()
    assert table.store.peek() == token("t1")


def test_somebody_may_have_finished_between_look_and_claim() -> None:
    table = Table()
    talk = session.token(table.account)
    assert isinstance(read := next(talk), RunBlocking)
    assert isinstance(claim := talk.send(read.operation()), RunBlocking)
    table.store.set(token("theirs"))
    assert isinstance(read_again := talk.send(claim.operation()), RunBlocking)
    assert talk.send(read_again.operation()) == MaskSecret("theirs")
    assert table.notes == ["read", "keep theirs", "claim", "read", "release"]


def test_while_somebody_else_fetches_we_pause_and_look_again() -> None:
    table = Table()
    theirs = table.store.try_lock()
    assert theirs is not None
    table.notes.clear()

    def finish() -> None:
        if table.notes.count("pause") == 3:
            table.store.set(token("theirs", -3 * LOCK_POLL_SECONDS))
            theirs.release()

    table.between = finish
    table.play(session.call(table.account, FETCH), NONE)
    waiting = ["read", "no claim", "pause"]
    assert table.notes == [*waiting * 3, "keep theirs", "release", "read", "conceal theirs", "ask"]


def test_a_fetcher_that_gives_up_leaves_the_claim_to_the_next() -> None:
    table = Table()
    theirs = table.store.try_lock()
    assert theirs is not None
    table.notes.clear()
    table.between = theirs.release
    table.play(session.call(table.account, FETCH), token_answer("ours"), NONE)
    assert table.notes[:4] == ["read", "no claim", "pause", "release"]
    assert table.notes[4:] == [*COLD, "keep ours", "release", "conceal ours", "ask"]


def test_a_claim_that_is_never_freed_is_not_waited_for_any_longer_than_patience_lasts() -> None:
    table = Table()
    theirs = table.store.try_lock()
    table.notes.clear()
    table.play(session.call(table.account, FETCH), token_answer("ours"), NONE)
    assert table.now - NOW == pytest.approx(MAX_LOCK_WAIT_SECONDS, abs=2 * LOCK_POLL_SECONDS)
    assert table.notes[-7:] == ["claim", "read", "ask token", "keep ours", "release", "conceal ours", "ask"]
    # The claim is still theirs.
    assert theirs is not None
    assert not table.store.is_free


def test_who_loses_patience_first_fetches_for_those_who_lose_it_with_him() -> None:
    table = Table()
    held = [table.store.try_lock()]
    table.between = lambda: held.append(table.store.try_lock(1)) if len(held) == 1 else None
    table.play(session.call(table.account, FETCH), token_answer("ours"), NONE)
    # The second holder is waited for as long as the first one was.
    assert None not in held
    assert table.now - NOW == pytest.approx(2 * MAX_LOCK_WAIT_SECONDS, abs=2 * LOCK_POLL_SECONDS)


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
def test_a_refused_token_is_dropped_and_replaced_once(status: int, document: Json) -> None:
    table = Table()
    table.store.set(token("old"))
    table.notes.clear()
    refusal = _refusal(status, document)
    assert table.play(session.call(table.account, FETCH), refusal, token_answer("new"), NONE) == ()
    assert table.notes == [
        *("conceal old", "ask", "drop old"),
        *(*COLD, "keep new", "release", "conceal new", "ask"),
    ]
    assert _bearers(table) == ["Bearer old", None, "Bearer new"]


@pytest.mark.parametrize(("status", "document"), REFUSALS)
def test_a_second_refusal_is_the_answer(status: int, document: Json) -> None:
    table = Table()
    table.store.set(token("old"))
    first, second = _refusal(status, document), _refusal(status, document)
    with pytest.raises(FacekiError) as caught:
        table.play(session.call(table.account, FETCH), first, token_answer("new"), second)
    assert caught.value is second
    assert isinstance(second, errors.AuthenticationError)
    assert len(table.requests) == 3
    # The new token may well be right, and the URL wrong: it stays, and is not asked for again.
    assert table.store.peek() == token("new")
    assert table.store.is_free


def test_a_refused_token_that_others_have_replaced_costs_no_token_request() -> None:
    table = Table()
    table.store.set(token("old"))
    talk = session.call(table.account, FETCH)
    assert next(talk) == MaskSecret("old")
    assert isinstance(talk.send(None), SendRequest)
    table.store.set(token("theirs"))
    assert isinstance(drop := talk.throw(_refusal(401, None)), RunBlocking)
    assert talk.send(drop.operation()) == MaskSecret("theirs")
    asked = talk.send(None)
    assert isinstance(asked, SendRequest)
    assert dict(asked.request.headers)["authorization"] == "Bearer theirs"
    talk.close()


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
def test_any_other_error_costs_no_token(error: FacekiError) -> None:
    table = Table()
    table.store.set(token("t1"))
    with pytest.raises(FacekiError) as caught:
        table.play(session.call(table.account, FETCH), error)
    assert caught.value is error
    assert table.store.peek() == token("t1")


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
def test_a_failed_fetch_gives_the_claim_back(answer: Payload | FacekiError, kind: type[FacekiError]) -> None:
    table = Table()
    with pytest.raises(kind) as caught:
        table.play(session.call(table.account, FETCH), answer)
    assert type(caught.value) is kind
    assert table.notes == [*COLD, "release"]
    assert table.store.is_free
    # What the token is for has not been sent.
    assert not caught.value.is_ambiguous
    if isinstance(answer, ResponseError):
        assert caught.value.__suppress_context__


def test_a_renewal_that_fails_is_the_answer_and_asks_nothing_again() -> None:
    table = Table()
    table.store.set(token("old"))
    with pytest.raises(errors.AuthenticationError, match="does not accept the client id"):
        table.play(session.call(table.account, FETCH), _refusal(401, None), _refusal(401, None))
    assert len(table.requests) == 2
    assert table.store.peek() is None
    assert table.store.is_free


@pytest.mark.parametrize("steps", range(1, 8))
def test_a_conversation_that_is_closed_midway_gives_the_claim_back(steps: int) -> None:
    table = Table()
    talk = session.call(table.account, FETCH)
    effect = next(talk)
    for _ in range(steps):
        match effect:
            case RunBlocking(operation):
                effect = talk.send(operation())
            case SendRequest(request):
                effect = talk.send(NONE if request.authenticated else token_answer("t1"))
            case _:
                effect = talk.send(None)
        if isinstance(effect, SendRequest) and effect.request.authenticated:
            break
    talk.close()
    assert table.notes.count("release") == table.notes.count("claim") == (steps > 1)
    assert table.store.is_free


def test_each_token_is_concealed_once() -> None:
    table = Table()
    for _ in range(3):
        answers = [NONE] if table.requests else [token_answer("t1"), NONE]
        table.play(session.call(table.account, FETCH), *answers)
    table.store.invalidate(token("t1"))
    table.play(session.call(table.account, FETCH), token_answer("t2"), NONE)
    table.play(session.call(table.account, FETCH), NONE)
    assert [note for note in table.notes if note.startswith("conceal")] == ["conceal t1", "conceal t2"]
    for before, after in (("conceal t1", "ask"), ("conceal t2", "ask")):
        assert table.notes[table.notes.index(before) + 1] == after


def test_by_link_no_token_is_asked_for_or_sent() -> None:
    table = Table()
    rules = table.play(
        session.call(table.account, GetWorkflowRules(link="l-1")),
        Payload({"documents": ["Passport"]}, {"documents": ["Passport"]}),
    )
    assert rules.documents == ("Passport",)
    assert table.notes == ["ask"]
    assert _bearers(table) == [None]


def test_nor_is_one_renewed_when_such_a_question_is_refused() -> None:
    table = Table()
    table.store.set(token("t1"))
    with pytest.raises(errors.AuthenticationError):
        table.play(session.call(table.account, GetWorkflowRules(link="l-1")), _refusal(401, None))
    assert table.store.peek() == token("t1")


NOT_FOUND = [
    pytest.param(lambda: _refusal(404, {"status": False, "code": 404}), id="404"),
    pytest.param(lambda: _refusal(200, {"status": False, "code": 8013}), id="code 8013"),
]


@pytest.mark.parametrize("refusal", NOT_FOUND)
def test_not_found_is_a_result_where_the_endpoint_says_so(refusal: object) -> None:
    assert callable(refusal)
    table = Table()
    table.store.set(token("t1"))
    assert table.play(session.call(table.account, FETCH), refusal()) == ()


@pytest.mark.parametrize("refusal", NOT_FOUND)
@pytest.mark.parametrize(
    "endpoint", [GenerateKycLink(workflow_id="w"), RawCall("GET", "/x"), GetWorkflowRules(workflow_id="w")]
)
def test_and_an_error_elsewhere(refusal: object, endpoint: GenerateKycLink) -> None:
    assert callable(refusal)
    table = Table()
    table.store.set(token("t1"))
    with pytest.raises(errors.NotFoundError):
        table.play(session.call(table.account, endpoint), refusal())


def test_an_unknown_token_route_is_not_mistaken_for_no_records() -> None:
    table = Table()
    with pytest.raises(errors.ConfigurationError, match="does not know the token request"):
        table.play(session.call(table.account, FETCH), _refusal(404, None))


def test_fetching_a_token_on_purpose_passes_the_store_by() -> None:
    table = Table()
    table.store.set(token("t1"))
    table.notes.clear()
    assert table.play(session.fetch_token(table.account), token_answer("t2")) == token("t2")
    assert table.notes == ["ask token"]
    assert table.store.peek() == token("t1")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        pytest.param("r-1", "not str", id="text"),
        pytest.param(None, "not NoneType", id="nothing"),
        pytest.param(FetchRecords, r"FetchRecords\(…\), not FetchRecords", id="a class"),
        pytest.param({"request_id": "r-1"}, "not dict", id="arguments"),
    ],
)
def test_what_is_no_call_is_refused_before_any_effect(asked: object, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        next(session.call(Table().account, asked))  # type: ignore[arg-type]
