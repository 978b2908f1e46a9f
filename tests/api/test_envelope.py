# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Successes and failures in each envelope, and the error class of each failure."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.codes import CODES, code_name
from airflow_provider_faceki.api.errors import ResponseError
from airflow_provider_faceki.api.protocol.envelope import (
    Payload,
    is_token_refusal,
    read_payload,
)
from airflow_provider_faceki.api.protocol.messages import HttpResponse, Json

#: Error class of each published code. This second copy was written from FACEKI's tables, not from the code.
EXPECTED: dict[type[ResponseError], set[int]] = {
    errors.AuthenticationError: {1},
    errors.InvalidRequestError: {400, 422, 5002, 5006, 8001},
    errors.ServiceError: {500, 1000, 8003, 8016},
    errors.WorkflowError: {5001, 7001},
    errors.QuotaError: {5003, 8017},
    errors.LinkError: {5009, 8014, 8015},
    errors.NotFoundError: {8013},
    errors.VerificationError: {
        *(5004, 5005, 5007, 5008, 5010, 5011, 5012),
        *(8002, 8004, 8005, 8006, 8007, 8008, 8009, 8010, 8011, 8012, 8018, 8019),
    },
}
BY_CODE = {code: kind for kind, codes in EXPECTED.items() for code in codes}


def _wrapped(code: Json) -> dict[str, Json]:
    """Return a failure with this code in each known envelope of FACEKI."""
    return {
        "legacy": {"responseCode": code, "data": None},
        "legacy, with a success flag": {"responseCode": code, "status": True},
        "v3": {"status": False, "code": code, "message": "no", "appVersion": "v3.0.0", "result": None},
        "v3, claiming success": {"status": True, "code": code, "result": {"decision": "ACCEPTED"}},
        "validation": {"status": False, "message": "", "statusCode": code, "data": {}},
        "V2, nested": {"responseCode": 0, "data": {"error": {"message": "no", "code": code}}},
    }


def _answer(document: Json, status: int = 200, headers: dict[str, str] | None = None) -> Payload:
    return read_payload(HttpResponse(status, headers or {}, json.dumps(document).encode()))


def _error(document: Json, status: int = 200, headers: dict[str, str] | None = None) -> ResponseError:
    with pytest.raises(ResponseError) as caught:
        _answer(document, status, headers)
    return caught.value


def test_each_published_code_is_in_the_table_above() -> None:
    assert set(BY_CODE) == set(CODES)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_a_code_means_the_same_in_every_envelope_and_with_every_status(code: int) -> None:
    wrapped = [*_wrapped(code).items(), *_wrapped(str(code)).items()]
    for status, (envelope, document) in itertools.product((200, 201, 400, 403, 404, 422, 500, 503), wrapped):
        error = _error(document, status)
        assert type(error) is BY_CODE[code], (envelope, status)
        assert (error.code, error.code_name, error.http_status) == (code, code_name(code), status)
        assert is_token_refusal(error) is (code == 1)


@pytest.mark.parametrize("code", [1, 500, 5003, 5004, 8013])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(401, errors.AuthenticationError, id="401 is about the token, whatever is said"),
        pytest.param(429, errors.RateLimitError, id="429 is about how often, whatever is said"),
    ],
)
def test_status_401_and_429_override_the_code(code: int, status: int, kind: type[ResponseError]) -> None:
    for document in _wrapped(code).values():
        error = _error(document, status)
        assert (type(error), error.code) == (kind, code)
        assert is_token_refusal(error) is (status == 401 or code == 1)


@pytest.mark.parametrize("code", [2, 5013, 9999, -1, 999_999_999])
def test_an_unknown_code_is_kept_in_the_error(code: int) -> None:
    for document in _wrapped(code).values():
        error = _error(document)
        assert (type(error), error.code, error.code_name) == (ResponseError, code, None)
        # After an unknown code, FACEKI has possibly executed the call.
        assert error.is_ambiguous
        assert not error.is_transient


@pytest.mark.parametrize("code", [401, 429])
def test_codes_that_are_statuses(code: int) -> None:
    kind = {401: errors.AuthenticationError, 429: errors.RateLimitError}[code]
    for document in _wrapped(code).values():
        assert type(_error(document)) is kind
        assert is_token_refusal(_error(document)) is (code == 401)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(300, errors.UnexpectedResponseError, id="300"),
        pytest.param(302, errors.UnexpectedResponseError, id="302"),
        pytest.param(304, errors.UnexpectedResponseError, id="304"),
        pytest.param(400, errors.InvalidRequestError, id="400"),
        pytest.param(401, errors.AuthenticationError, id="401"),
        pytest.param(403, errors.AuthenticationError, id="403"),
        pytest.param(404, errors.NotFoundError, id="404"),
        pytest.param(405, errors.InvalidRequestError, id="405"),
        pytest.param(408, errors.ServiceError, id="408"),
        pytest.param(413, errors.InvalidRequestError, id="413"),
        pytest.param(422, errors.InvalidRequestError, id="422"),
        pytest.param(429, errors.RateLimitError, id="429"),
        pytest.param(500, errors.ServiceError, id="500"),
        pytest.param(502, errors.ServiceError, id="502"),
        pytest.param(504, errors.ServiceError, id="504"),
        pytest.param(599, errors.ServiceError, id="599"),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html><h1>413</h1>", id="page"),
        pytest.param(b'{"oops":true}', id="unknown object"),
        pytest.param(b'["oops"]', id="list"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b'{"status":true,"code":200,"result":[]}', id="success, says the body"),
        pytest.param(b'{"responseCode":0,"data":{}}', id="success, says the older body"),
    ],
)
def test_without_a_code_the_status_decides_the_error_class(
    status: int, kind: type[ResponseError], body: bytes
) -> None:
    with pytest.raises(ResponseError) as caught:
        read_payload(HttpResponse(status, {}, body))
    assert (type(caught.value), caught.value.code, caught.value.http_status) == (kind, None, status)


@pytest.mark.parametrize(
    ("document", "result"),
    [
        pytest.param({"responseCode": 0, "data": "x"}, "x", id="legacy"),
        pytest.param({"responseCode": "0", "data": "x"}, "x", id="legacy, code as a string"),
        pytest.param({"responseCode": 0, "data": None}, None, id="legacy, null"),
        pytest.param({"responseCode": 0}, None, id="legacy, nothing"),
        pytest.param({"responseCode": 0, "rules": [1]}, {"rules": [1]}, id="legacy, under another name"),
        pytest.param(
            {"status": True, "code": 200, "requestId": "r-1", "x": 1},
            {"requestId": "r-1", "x": 1},
            id="v3, without a result",
        ),
        pytest.param({"status": True, "code": 200, "result": []}, [], id="v3"),
        pytest.param({"status": True, "code": 201, "result": {"a": 1}}, {"a": 1}, id="v3, created"),
        pytest.param({"status": True, "code": 200, "message": "OK"}, None, id="v3, nothing"),
        pytest.param({"status": True, "code": 200, "result": None}, None, id="v3, null"),
        pytest.param(
            {"status": True, "code": 200, "result": None, "data": 5}, 5, id="data beside a null result"
        ),
        pytest.param({"responseCode": 0, "data": {"error": None}}, {"error": None}, id="V2, no error"),
        pytest.param(
            {"responseCode": 0, "data": {"error": {"code": 0}}}, {"error": {"code": 0}}, id="V2, error 0"
        ),
        pytest.param({"quality": "120.5"}, {"quality": "120.5"}, id="bare object"),
        pytest.param({"status": "ACTIVE", "x": 1}, {"status": "ACTIVE", "x": 1}, id="bare, a status word"),
        pytest.param({"code": "BHR"}, {"code": "BHR"}, id="bare, a code that is no number"),
        pytest.param({"message": "hello"}, {"message": "hello"}, id="bare message"),
        pytest.param({}, {}, id="empty object"),
        pytest.param([1, 2], [1, 2], id="bare list"),
        pytest.param("x", "x", id="bare string"),
        pytest.param(None, None, id="bare null"),
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_success_is_unwrapped(document: Json, result: Json, status: int) -> None:
    answer = _answer(document, status)
    assert answer.result == result
    assert answer.document == document
    assert "120.5" not in repr(answer)


@pytest.mark.parametrize("body", [pytest.param(b"", id="empty"), pytest.param(b" \r\n", id="white space")])
def test_an_empty_success(body: bytes) -> None:
    assert read_payload(HttpResponse(204, {}, body)).result is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"status":true,"code":200,"result":[{"req', id="cut off"),
        pytest.param(b"<html>sign in</html>", id="page"),
        pytest.param(b"\xff\xfe\xfd", id="no text"),
        pytest.param(b"[" * 100_000, id="too deep"),
        pytest.param(b'{"result":' + b"[" * 200 + b"]" * 200 + b"}", id="deeper than answers are"),
        pytest.param(b'{"quality":NaN}', id="NaN"),
        pytest.param(b'{"quality":-Infinity}', id="infinity"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="a number beyond Python's digits"),
    ],
)
def test_a_success_that_is_not_json(body: bytes) -> None:
    with pytest.raises(errors.UnexpectedResponseError, match="not JSON") as caught:
        read_payload(HttpResponse(200, {}, body))
    assert caught.value.http_status == 200
    assert "sign in" not in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"status": False}, id="nothing but false"),
        pytest.param({"status": False, "code": 200, "result": []}, id="false with the code of success"),
        pytest.param({"status": False, "code": None, "message": "no"}, id="null for a code"),
        pytest.param({"status": False, "code": True}, id="true for a code"),
    ],
)
def test_a_failure_without_a_code(document: Json) -> None:
    error = _error(document)
    assert (type(error), error.code) == (errors.UnexpectedResponseError, None)


@pytest.mark.parametrize(
    ("message", "name"),
    [
        pytest.param("SELFIE_TOO_DARK", "SELFIE_TOO_DARK", id="the name of a code"),
        pytest.param("Maria Invented did not pass", None, id="a sentence with a person in it"),
        pytest.param("MARIA", None, id="one word"),
        pytest.param("A_" * 40 + "A", None, id="too long"),
        pytest.param(None, None, id="null"),
        pytest.param(7, None, id="number"),
    ],
)
def test_only_a_code_name_is_kept_of_an_error_message(message: Json, name: str | None) -> None:
    error = _error({"status": False, "code": 5999, "message": message})
    assert error.code_name == name
    assert "Maria" not in str(error)
    assert "Maria" not in repr(error.__dict__)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        pytest.param("0b0b0b0b-1111-4222-8333-444444444444", True, id="UUID"),
        pytest.param("0B0B0B0B-1111-4222-8333-44444444444F", True, id="UUID in capitals"),
        pytest.param("Maria Invented", False, id="a person"),
        pytest.param("0b0b0b0b-1111-4222-8333-444444444444\n", False, id="with a line end"),
        pytest.param(12, False, id="number"),
    ],
)
@pytest.mark.parametrize("place", ["result", "data"])
def test_the_error_holds_the_request_id(sent: Json, kept: bool, place: str) -> None:
    error = _error({"status": False, "code": 5008, place: {"requestId": sent}})
    assert error.request_id == (sent if kept else None)


DATE = {"date": "Wed, 04 Nov 2026 10:00:00 GMT"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="absent"),
        pytest.param({"retry-after": "7"}, 7.0, id="seconds"),
        pytest.param({"retry-after": " 7 "}, 7.0, id="seconds with spaces"),
        pytest.param({"retry-after": "0.25"}, 0.25, id="fraction"),
        pytest.param({"retry-after": "0"}, 0.0, id="zero"),
        pytest.param({"retry-after": "999999999"}, 86_400.0, id="years"),
        pytest.param({"retry-after": "9999999999"}, 86_400.0, id="ten digits"),
        pytest.param({"retry-after": "9" * 5000}, 86_400.0, id="more digits than a float or an int can hold"),
        pytest.param({"retry-after": "1.12345678"}, 1.12345678, id="eight decimals"),
        pytest.param({"retry-after": "-5"}, None, id="negative"),
        pytest.param({"retry-after": "1e9"}, None, id="exponent"),
        pytest.param({"retry-after": "nan"}, None, id="NaN"),
        pytest.param({"retry-after": "\u0667"}, None, id="other digits"),
        pytest.param({"retry-after": "soon"}, None, id="word"),
        pytest.param({"retry-after": ""}, None, id="empty"),
        pytest.param({**DATE, "retry-after": "Wed, 04 Nov 2026 10:00:20 GMT"}, 20.0, id="date"),
        pytest.param({**DATE, "retry-after": "Wed, 04 Nov 2026 11:00:20 +0100"}, 20.0, id="other zone"),
        pytest.param({**DATE, "retry-after": "Wed, 04 Nov 2026 09:59:00 GMT"}, 0.0, id="date gone by"),
        pytest.param({**DATE, "retry-after": "Wed, 04 Nov 2099 10:00:00 GMT"}, 86_400.0, id="far date"),
        pytest.param({"retry-after": "Wed, 04 Nov 2026 10:00:20 GMT"}, None, id="date without a Date"),
        pytest.param(
            {**DATE, "retry-after": "Wed, 04 Nov 2026 10:00:20 -0000"}, None, id="date without a zone"
        ),
        pytest.param({**DATE, "retry-after": "Wed, 99 Nov 2026 10:00:20 GMT"}, None, id="no such day"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(headers: dict[str, str], seconds: float | None, status: int) -> None:
    assert _error({}, status, headers).retry_after == seconds


def test_names_of_codes_look_like_names_of_codes() -> None:
    assert all(re.fullmatch(r"[A-Z]+(_[A-Z]+)*", code.name) for code in CODES.values())
    assert code_name(8013) == "DATA_NOT_FOUND"
    assert code_name(5013) is None
