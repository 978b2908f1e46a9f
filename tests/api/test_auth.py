# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The forms of the token request, the lifetime of a token, and the errors of failed token requests."""

from __future__ import annotations

import itertools
import json

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.errors import FacekiError, ResponseError, UnexpectedResponseError
from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest
from airflow_provider_faceki.api.protocol.envelope import Payload, read_payload
from airflow_provider_faceki.api.protocol.messages import HttpRequest, HttpResponse, Json
from airflow_provider_faceki.api.service import AuthFlow

REQUESTED_AT = 1_700_000_000.0
TOKEN = "abc.def-0123456789"
BASE = "https://sdk.faceki.com"
PAIR = b'{"clientId":"id-\xc3\xbc","clientSecret":"s3cr\\"t&=?"}'
JSON_HEADERS = (("content-type", "application/json"), ("accept", "application/json"))


def _token_request(flow: AuthFlow = AuthFlow.GENERATE_TOKEN) -> TokenRequest:
    return TokenRequest(BASE, "id-ü", 's3cr"t&=?', flow)


@pytest.mark.parametrize(
    ("lifetime", "age", "usable"),
    [
        pytest.param(3600.0, 0.0, True, id="new"),
        pytest.param(3600.0, 3539.75, True, id="an hour, before the last minute"),
        pytest.param(3600.0, 3540.0, False, id="an hour, at the last minute"),
        pytest.param(600.0, 539.75, True, id="ten minutes, before the last minute"),
        pytest.param(600.0, 540.0, False, id="ten minutes, at the last minute"),
        pytest.param(601.0, 540.95, True, id="a little more: before the last minute, in the last tenth"),
        pytest.param(599.0, 539.0, True, id="a second less: before the last tenth"),
        pytest.param(599.0, 539.25, False, id="a second less: in the last tenth"),
        pytest.param(100.0, 89.75, True, id="short, before the last tenth"),
        pytest.param(100.0, 90.0, False, id="short, at the last tenth"),
        pytest.param(0.5, 0.0, True, id="half a second"),
        pytest.param(1e300, 1e12, True, id="for ever"),
        pytest.param(3600.0, -60.0, True, id="clock set back by a minute"),
        pytest.param(3600.0, -60.25, False, id="clock set back by more"),
        pytest.param(1e300, -86_400.0, False, id="clock set back by a day"),
    ],
)
def test_life(lifetime: float, age: float, usable: bool) -> None:
    assert AccessToken("t", REQUESTED_AT, lifetime).usable(REQUESTED_AT + age) is usable


def test_the_repr_of_a_token_hides_its_value() -> None:
    assert repr(AccessToken("t0ken", 100.0, 3600.0)) == "<AccessToken of 100 for 3600 s>"
    assert "s3cr" not in repr(_token_request())
    assert "id-" not in repr(_token_request())


ABSENT = object()


@pytest.mark.parametrize(
    ("sent", "lifetime"),
    [
        pytest.param(ABSENT, 3600.0, id="absent"),
        pytest.param(None, 3600.0, id="null"),
        pytest.param(900, 900.0, id="number"),
        pytest.param(0.5, 0.5, id="fraction"),
        pytest.param("900", 900.0, id="numeric string"),
        pytest.param(" 900 ", 900.0, id="string with spaces"),
        pytest.param(0, 0.0, id="zero"),
        pytest.param(-1, 0.0, id="negative"),
        pytest.param("-1", 0.0, id="negative string"),
        pytest.param(float("nan"), 3600.0, id="NaN"),
        pytest.param(float("inf"), 3600.0, id="infinity"),
        pytest.param("inf", 3600.0, id="infinity as a string"),
        pytest.param("soon", 3600.0, id="word"),
        pytest.param("", 3600.0, id="empty"),
        pytest.param(True, 3600.0, id="true"),
        pytest.param([900], 3600.0, id="list"),
        pytest.param({"s": 900}, 3600.0, id="object"),
        pytest.param(10**12, 1e12, id="huge"),
        pytest.param(10**400, 3600.0, id="beyond floats"),
        pytest.param("9" * 5000, 3600.0, id="beyond Python's digits"),
    ],
)
def test_lifetime(sent: Json, lifetime: float) -> None:
    data: dict[str, Json] = {"access_token": "t.0-k_e~n+/=="}
    if sent is not ABSENT:
        data["expires_in"] = sent
    token = _token_request().read(Payload(data, data), REQUESTED_AT)
    assert token == AccessToken("t.0-k_e~n+/==", REQUESTED_AT, lifetime)


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="list"),
        pytest.param("t0ken", id="string"),
        pytest.param({}, id="empty"),
        pytest.param({"access_token": ""}, id="empty token"),
        pytest.param({"access_token": None}, id="null token"),
        pytest.param({"access_token": 5}, id="number for a token"),
        pytest.param({"access_token": "to ken"}, id="space in it"),
        pytest.param({"access_token": "token\n"}, id="line end after it"),
        pytest.param({"access_token": "token\r\nx-evil: 1"}, id="another header in it"),
        pytest.param({"access_token": "tökên"}, id="not ASCII"),
        pytest.param({"access_token": "x" * 8193}, id="too long for a header"),
    ],
)
def test_a_response_without_a_usable_token_is_rejected(result: Json) -> None:
    with pytest.raises(UnexpectedResponseError, match="no usable access_token") as caught:
        _token_request(AuthFlow.ACCESS_TOKEN_BODY).read(Payload(result, result), REQUESTED_AT)
    assert "access_token_body" in str(caught.value)
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "lifetime"),
    [
        pytest.param(
            {"responseCode": 0, "data": {"access_token": TOKEN, "expires_in": 900}}, 900.0, id="documented"
        ),
        pytest.param({"data": {"accessToken": TOKEN, "expiresIn": "900"}}, 900.0, id="camel case"),
        pytest.param({"data": {"token": TOKEN}}, 3600.0, id="token"),
        pytest.param({"token": TOKEN, "expires_in": 900}, 900.0, id="without an envelope"),
        pytest.param({"data": {"access_token": f"Bearer {TOKEN}"}}, 3600.0, id="with the scheme"),
        pytest.param(
            {"data": {"access_token": f"bearer {TOKEN}"}}, 3600.0, id="with the scheme in small letters"
        ),
        pytest.param({"data": {"access_token": TOKEN}, "expires_in": 900}, 900.0, id="lifetime beside it"),
        pytest.param({"data": [{"access_token": TOKEN}]}, 3600.0, id="in a list"),
        pytest.param({"result": {"auth": {"access_token": TOKEN}}}, 3600.0, id="one level deeper"),
        pytest.param({"responseCode": 0, "data": TOKEN}, 3600.0, id="alone"),
    ],
)
def test_a_token_is_found_in_other_forms(document: Json, lifetime: float) -> None:
    answer = read_payload(HttpResponse(200, {}, json.dumps(document).encode()))
    assert _token_request().read(answer, REQUESTED_AT) == AccessToken(TOKEN, REQUESTED_AT, lifetime)


def _read_token(asks: TokenRequest, response: HttpResponse) -> AccessToken:
    try:
        return asks.read(read_payload(response), REQUESTED_AT)
    except ResponseError as error:
        raise asks.map_error(error) from None


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        pytest.param(200, b'{"clientSecret":""}', "does not accept the client id", id="keyed by field"),
        pytest.param(200, b'{"error":"invalid_client"}', "does not accept the client id", id="OAuth error"),
        pytest.param(
            500,
            b'{"message":"Invalid client credentials"}',
            "does not accept the client id",
            id="500 with words",
        ),
        pytest.param(
            200,
            b'{"status":false,"message":"no"}',
            "does not accept the client id",
            id="failure without a code",
        ),
        pytest.param(500, b'{"message":"oops"}', "this answer to wrong credentials", id="500"),
        pytest.param(301, b"", "check the API base URL", id="redirect"),
        pytest.param(200, b"<html><body>hello", "an HTML page; check the API base URL", id="page"),
        pytest.param(204, b"", "HTTP 204 without a body. Check the API base URL", id="no content"),
        pytest.param(
            200, b'{"data":{"tok":"x"}}', "and in it the keys tok. Check the API base URL", id="other keys"
        ),
        pytest.param(404, b"<html>", "check the API base URL", id="no such route"),
    ],
)
def test_a_token_request_that_fails_says_what_to_check(status: int, body: bytes, told: str) -> None:
    with pytest.raises(FacekiError) as caught:
        _read_token(_token_request(AuthFlow.ACCESS_TOKEN_BODY), HttpResponse(status, {}, body))
    assert told in str(caught.value)
    assert isinstance(caught.value, errors.AuthenticationError) is ("does not accept" in told)
    if "page" not in told and status not in {204, 301}:
        assert "access_token_body" in str(caught.value)


@pytest.mark.parametrize(
    ("flow", "request_"),
    [
        pytest.param(
            AuthFlow.GENERATE_TOKEN,
            HttpRequest("POST", f"{BASE}/auth/api/generate-token", (), JSON_HEADERS, PAIR),
            id="generate_token",
        ),
        pytest.param(
            AuthFlow.ACCESS_TOKEN_BODY,
            HttpRequest("POST", f"{BASE}/auth/api/access-token", (), JSON_HEADERS, PAIR),
            id="access_token_body",
        ),
        pytest.param(
            AuthFlow.ACCESS_TOKEN_HEADERS,
            HttpRequest(
                "POST",
                f"{BASE}/auth/api/access-token",
                (),
                (*JSON_HEADERS, ("clientid", "id-ü"), ("clientsecret", 's3cr"t&=?')),
                b"{}",
            ),
            id="access_token_headers",
        ),
        pytest.param(
            AuthFlow.GENERATE_TOKEN_HEADERS,
            HttpRequest(
                "POST",
                f"{BASE}/auth/api/generate-token",
                (),
                (*JSON_HEADERS, ("clientid", "id-ü"), ("clientsecret", 's3cr"t&=?')),
                b"{}",
            ),
            id="generate_token_headers",
        ),
        pytest.param(
            AuthFlow.ACCESS_TOKEN_GET_HEADERS,
            HttpRequest(
                "GET",
                f"{BASE}/auth/api/access-token",
                (),
                (JSON_HEADERS[1], ("clientid", "id-ü"), ("clientsecret", 's3cr"t&=?')),
            ),
            id="access_token_get_headers",
        ),
        pytest.param(
            AuthFlow.ACCESS_TOKEN_QUERY,
            HttpRequest(
                "GET",
                f"{BASE}/auth/api/access-token",
                (("clientId", "id-ü"), ("clientSecret", 's3cr"t&=?')),
                (("accept", "application/json"),),
            ),
            id="access_token_query",
        ),
    ],
)
def test_forms(flow: AuthFlow, request_: HttpRequest) -> None:
    asked = _token_request(flow).request()
    assert (asked.authenticated, asked.idempotent, asked.upload) == (False, True, False)
    assert (asked.method, asked.url, asked.query) == (request_.method, request_.url, request_.query)
    assert (asked.headers, asked.body) == (request_.headers, request_.body)
    assert "s3cr" not in repr(asked)


def test_fingerprints_are_unique_hashes_of_accounts() -> None:
    accounts = [
        TokenRequest(*parts)
        for parts in itertools.product(
            ("https://a.invalid", "https://b.invalid"),
            ("client", "client2"),
            ("secret", "2secret"),
            tuple(AuthFlow),
        )
    ]
    prints = {account.fingerprint() for account in accounts}
    assert len(prints) == len(accounts)
    assert all(len(found) == 64 and set(found) <= set("0123456789abcdef") for found in prints)
    # The same characters with another division into client id and secret must give another fingerprint.
    assert TokenRequest("u", "ab", "c").fingerprint() != TokenRequest("u", "a", "bc").fingerprint()


def _failed(status: int, body: bytes) -> ResponseError:
    with pytest.raises(ResponseError) as caught:
        read_payload(HttpResponse(status, {"retry-after": "9"}, body))
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "kind", "word"),
    [
        pytest.param(401, b"", errors.AuthenticationError, "does not accept", id="401"),
        pytest.param(403, b"", errors.AuthenticationError, "does not accept", id="403"),
        pytest.param(400, b"", errors.AuthenticationError, "does not accept", id="400"),
        pytest.param(
            200, b'{"responseCode":1}', errors.AuthenticationError, "does not accept", id="200, code 1"
        ),
        pytest.param(
            200,
            b'{"status":false,"code":1,"message":"x"}',
            errors.AuthenticationError,
            "does not accept",
            id="200, v3 code 1",
        ),
        pytest.param(
            422,
            b'{"status":false,"message":"client id is required","statusCode":422,"data":{}}',
            errors.AuthenticationError,
            "does not accept",
            id="422",
        ),
        pytest.param(
            200, b'{"responseCode":7777}', errors.AuthenticationError, "does not accept", id="unknown code"
        ),
        pytest.param(404, b"<html>", errors.ConfigurationError, "does not know", id="404"),
        pytest.param(405, b"", errors.ConfigurationError, "does not know", id="405"),
        pytest.param(
            404, b'{"status":false,"code":1}', errors.ConfigurationError, "does not know", id="404, code 1"
        ),
        pytest.param(
            200, b'{"responseCode":8013}', errors.ConfigurationError, "does not know", id="code not found"
        ),
        pytest.param(429, b"", errors.RateLimitError, "rate limit", id="429"),
        pytest.param(408, b"", errors.ServiceError, "failed", id="408"),
        pytest.param(500, b"", errors.ServiceError, "failed", id="500"),
        pytest.param(503, b"<html>", errors.ServiceError, "failed", id="503"),
        pytest.param(200, b'{"responseCode":1000}', errors.ServiceError, "failed", id="code 1000"),
        pytest.param(302, b"", errors.UnexpectedResponseError, "redirect", id="redirect"),
        pytest.param(200, b"<html>", errors.UnexpectedResponseError, "not JSON", id="page"),
        pytest.param(200, b'{"responseCode":5003}', errors.QuotaError, "wallet", id="wallet"),
    ],
)
def test_what_a_failed_token_request_means(
    status: int, body: bytes, kind: type[FacekiError], word: str
) -> None:
    met = _failed(status, body)
    told = _token_request(AuthFlow.ACCESS_TOKEN_BODY).map_error(met)
    assert type(told) is kind
    assert word in str(told)
    assert (told.code, told.http_status) == (met.code, met.http_status)
    if kind in {errors.AuthenticationError, errors.ConfigurationError}:
        assert "auth_flow='access_token_body'" in str(told)
        assert not told.is_transient
    else:
        assert told is met
