# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Is this answer a success? FACEKI's three envelopes, taken on any route and with any HTTP status.

* legacy, ``{"responseCode": 0, "data": …}``: token, links, the V2 API
* v3, ``{"status": true, "code": 200, "result": …}``: everything under ``/api/v3``
* validation, ``{"status": false, "statusCode": 422, …}``: the token routes

FACEKI's SDKs look for error codes in answers with HTTP 200, so the HTTP status alone never means success.
A JSON answer in none of these envelopes is its own result (the image check answers so).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import BinaryIO

from airflow_provider_faceki.api.codes import CODES, DATA_NOT_FOUND, REFUSED, SUCCESS_CODES
from airflow_provider_faceki.api.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    ServiceError,
    UnexpectedResponseError,
)
from airflow_provider_faceki.api.protocol.http import HttpResponse, Json
from airflow_provider_faceki.api.values import as_code, as_code_name

_CODE_FIELDS = ("responseCode", "code", "statusCode")
_RESULT_FIELDS = ("result", "data")
_WRAPPING = frozenset({*_CODE_FIELDS, "status", "message", "appVersion"})
_REQUEST_ID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_LONGEST_RETRY_AFTER = 86_400.0


@dataclass(frozen=True, slots=True, repr=False)
class Payload:
    """A success, unwrapped.

    :param result: What the envelope held (``result`` or ``data``), or the whole document if it had none.
    :param document: The whole document; links have their URL beside ``data``.
    :param file: What was downloaded in place of a document, at its first byte.
    """

    result: Json
    document: Json
    file: BinaryIO | None = None


def read_payload(response: HttpResponse) -> Payload:
    """Unwrap ``response``.

    :raises ResponseError: the one of the tree that its status and code call for.
    """
    if response.file is not None:
        return Payload(None, None, response.file)
    document = _parse(response)
    if not isinstance(document, dict):
        if response.status >= 300:
            raise _error(response, None, {})
        return Payload(document, document)
    failure = _failure_code(document)
    if response.status >= 300 or failure is not None or document.get("status") is False:
        raise _error(response, failure, document)
    return Payload(_result(document), document)


def is_token_refusal(error: ResponseError) -> bool:
    """Whether FACEKI turned down the bearer token: a 401, or code 1 in any envelope and with any status."""
    return error.http_status == 401 or error.code in {REFUSED, 401}


def _parse(response: HttpResponse) -> Json:
    if not response.body.strip():
        return None
    try:
        document: Json = json.loads(response.body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        if response.status >= 300:
            return None
    else:
        return document
    # Not where it is handled, for it would become this one's context, and it carries the whole body.
    raise UnexpectedResponseError(
        f"FACEKI's answer is not JSON ({len(response.body)} bytes)", http_status=response.status
    )


def _refuse(constant: str) -> Json:
    # Python reads NaN and Infinity, which are no JSON, and which no storage or database takes back.
    raise ValueError(constant)


def _result(document: Mapping[str, Json]) -> Json:
    for field in _RESULT_FIELDS:
        if field in document:
            return document[field]
    if not _is_enveloped(document):
        return dict(document)
    # An envelope may come without a result; it must not be taken for one.
    return {name: value for name, value in document.items() if name not in _WRAPPING} or None


def _is_enveloped(document: Mapping[str, Json]) -> bool:
    """Whether this is one of FACEKI's envelopes. A web framework's `{"statusCode": 404, "message": …}` is none."""
    return "responseCode" in document or (
        isinstance(document.get("status"), bool) and ("code" in document or "statusCode" in document)
    )


def _failure_code(document: Mapping[str, Json]) -> int | None:
    """Return the first code that does not mean success; V2 may nest it in ``data.error``."""
    for field in _CODE_FIELDS:
        code = as_code(document.get(field))
        if code is not None and code not in SUCCESS_CODES:
            return code
    data = document.get("data")
    error = data.get("error") if isinstance(data, dict) else None
    code = as_code(error.get("code")) if isinstance(error, dict) else None
    return None if code in SUCCESS_CODES else code


def _error(response: HttpResponse, code: int | None, document: Mapping[str, Json]) -> ResponseError:
    kind, message = _kind(response.status, code)
    error = kind(
        message,
        code=code,
        code_name=_name(code, document),
        http_status=response.status,
        request_id=_request_id(document),
        retry_after=_retry_after(response),
        # A code that nobody explains does not say that nothing was done.
        is_ambiguous=True if kind is ResponseError or (code == 404 and response.status < 300) else None,
    )
    if isinstance(error, NotFoundError):
        error.in_own_words = code == DATA_NOT_FOUND or _is_enveloped(document)
    return error


def _kind(status: int, code: int | None) -> tuple[type[ResponseError], str]:
    if status == 429 or code == 429:
        return RateLimitError, "FACEKI asks for fewer requests"
    if status == 401 or code == 401:
        return AuthenticationError, "FACEKI refuses the credentials or the token"
    known = CODES.get(code) if code is not None else None
    if known:
        return known.error, f"FACEKI says: {known.meaning}"
    if status == 403:
        return AuthenticationError, "FACEKI forbids this to these credentials"
    if status == 404 or (code == 404 and status < 500):
        return NotFoundError, "FACEKI has no such record, or nothing at this address"
    if status == 413:
        return InvalidRequestError, "the images are too large for FACEKI"
    if status == 408 or status >= 500:
        return ServiceError, "FACEKI, or something in front of it, failed"
    if status >= 400:
        return InvalidRequestError, "FACEKI refuses the request"
    if status >= 300:
        return UnexpectedResponseError, "FACEKI answers with a redirect, which is never followed"
    if code is not None:
        return ResponseError, "FACEKI answers with a code that no source explains"
    return UnexpectedResponseError, "FACEKI reports a failure without a code"


def _name(code: int | None, document: Mapping[str, Json]) -> str | None:
    known = CODES.get(code) if code is not None else None
    if known:
        return known.name
    return as_code_name(document.get("message"))


def _request_id(document: Mapping[str, Json]) -> str | None:
    result = _result(document)
    found = result.get("requestId") if isinstance(result, dict) else None
    return found if isinstance(found, str) and _REQUEST_ID.fullmatch(found) else None


def _retry_after(response: HttpResponse) -> float | None:
    """Read ``Retry-After``: seconds, or a date, which is held against the answer's own ``Date``."""
    text = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", text):
        return min(float(text), _LONGEST_RETRY_AFTER)
    try:
        until, now = (parsedate_to_datetime(date) for date in (text, response.headers.get("date", "")))
        seconds = (until - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)
