# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the tokens: the six forms of the token call, the refusals, and the lifetime of a token."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.settings import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET
from tests.sandbox.conftest import RECORDS, Caller

PAIR = {"clientId": DEFAULT_CLIENT_ID, "clientSecret": DEFAULT_CLIENT_SECRET}
REFUSAL = {"status": False, "code": 1, "message": "UNAUTHORIZED/INVALID URL"}

FORMS = [
    pytest.param("generate_token", "POST", "/auth/api/generate-token", "json", id="generate-token, body"),
    pytest.param("access_token_body", "POST", "/auth/api/access-token", "json", id="access-token, body"),
    pytest.param(
        "access_token_headers", "POST", "/auth/api/access-token", "headers", id="access-token, headers"
    ),
    pytest.param("access_token_query", "GET", "/auth/api/access-token", "params", id="access-token, query"),
    pytest.param(
        "generate_token_headers", "POST", "/auth/api/generate-token", "headers", id="generate-token, headers"
    ),
    pytest.param(
        "access_token_get_headers",
        "GET",
        "/auth/api/access-token",
        "headers",
        id="access-token, GET, headers",
    ),
]


@pytest.mark.parametrize(("form", "method", "path", "place"), FORMS)
def test_each_form_gives_a_token(
    sandbox: FacekiSandbox, anonymous: Caller, form: str, method: str, path: str, place: str
) -> None:
    first, second = (anonymous(method, path, **{place: PAIR}).json() for _ in range(2))
    assert first["responseCode"] == 0
    assert first["data"]["expires_in"] == 3600
    assert first["data"]["token_type"] == "Bearer"
    assert first["data"]["access_token"] != second["data"]["access_token"]
    assert sandbox.counters.tokens_by_form == {form: 2}
    assert sandbox.counters.tokens_issued == 2


@pytest.mark.parametrize(("form", "method", "path", "place"), FORMS)
def test_a_form_that_is_off_is_an_unknown_route(
    sandbox: FacekiSandbox, anonymous: Caller, form: str, method: str, path: str, place: str
) -> None:
    sandbox.settings.token_forms = tuple(each for each in sandbox.settings.token_forms if each != form)
    answer = anonymous(method, path, **{place: PAIR})
    assert (answer.status_code, answer.json()) == (404, REFUSAL)
    assert sandbox.counters.tokens_issued == 0


@pytest.mark.parametrize(("form", "method", "path", "place"), FORMS)
@pytest.mark.parametrize(
    ("given", "status", "body"),
    [
        pytest.param({"clientSecret": 422}, 401, {"responseCode": 1, "data": {}}, id="wrong secret"),
        pytest.param({"clientId": "somebody"}, 401, {"responseCode": 1, "data": {}}, id="wrong id"),
        pytest.param(
            {"clientId": None},
            422,
            {"status": False, "message": "client id is required", "statusCode": 422, "data": {}},
            id="no id",
        ),
        pytest.param(
            {"clientSecret": None},
            422,
            {"status": False, "message": "", "statusCode": 422, "data": {}},
            id="no secret",
        ),
    ],
)
def test_wrong_credentials_are_refused(
    anonymous: Caller,
    form: str,
    method: str,
    path: str,
    place: str,
    given: dict[str, Any],
    status: int,
    body: dict[str, Any],
) -> None:
    given = {name: str(value) for name, value in {**PAIR, **given}.items() if value is not None}
    answer = anonymous(method, path, **{place: given})
    assert (answer.status_code, answer.json()) == (status, body)


def test_the_second_response_form_for_a_missing_secret(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    sandbox.settings.missing_secret = "field"
    answer = anonymous("POST", "/auth/api/generate-token", json={"clientId": sandbox.client_id})
    assert (answer.status_code, answer.json()) == (422, {"clientSecret": ""})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b'"x"', b'{"clientId": 1}', b"\xff"])
def test_a_body_that_is_no_object_names_no_client(anonymous: Caller, body: bytes) -> None:
    assert anonymous("POST", "/auth/api/generate-token", data=body).status_code == 422


def test_lifetime_can_be_left_out_and_status_be_201(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    sandbox.settings.update({"send_expires_in": False, "token_status": 201, "token_lifetime": 7})
    answer = anonymous("POST", "/auth/api/generate-token", json=PAIR)
    assert answer.status_code == 201
    assert set(answer.json()["data"]) == {"access_token", "token_type"}


@pytest.mark.parametrize("status", [401, 200])
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Bearer made-up", "Basic eDp5", "made-up"]
)
def test_an_invalid_token_is_refused(
    sandbox: FacekiSandbox, anonymous: Caller, status: int, authorization: str | None
) -> None:
    sandbox.settings.refusal_status = status
    answer = anonymous("GET", RECORDS, headers={"Authorization": authorization}, params={"link": "x"})
    assert (answer.status_code, answer.json()) == (status, REFUSAL)
    assert sandbox.counters.refused == 1


def test_a_token_ends_when_its_time_is_over(sandbox: FacekiSandbox, anonymous: Caller) -> None:
    sandbox.settings.token_lifetime = 600
    call = anonymous.log_in()
    sandbox.clock.advance(599)
    assert call.records(requestId="x").json()["code"] == 200
    sandbox.clock.advance(2)
    assert call.records(requestId="x").status_code == 401
    assert sandbox.revoke_tokens() == 0, "an expired token is not revoked"


def test_a_token_ends_when_it_is_revoked(sandbox: FacekiSandbox, call: Caller) -> None:
    assert sandbox.revoke_tokens() == 1
    assert call.records(requestId="x").status_code == 401
    call.log_in()
    assert call.records(requestId="x").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/api/v3/nothing"),
        ("DELETE", RECORDS),
        ("PUT", "/auth/api/access-token"),
        ("POST", "/x"),
    ],
)
def test_an_unknown_route_answers_with_code_1(call: Caller, method: str, path: str) -> None:
    answer = call(method, path)
    assert (answer.status_code, answer.json()) == (404, REFUSAL)
