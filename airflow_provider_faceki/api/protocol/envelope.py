# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Interpretation of FACEKI's answers as a success or as an error.

An envelope is the outer JSON object of an answer. FACEKI has four kinds of envelopes:

* The legacy envelope ``{"responseCode": 0, "data": …}`` is usual for token requests, new links and the V2 API.
* The v3 envelope ``{"status": true, "code": 200, "result": …}`` is usual for all routes under ``/api/v3``.
* The validation envelope ``{"status": false, "statusCode": 422, …}`` is usual for token requests with invalid input.
* The error list ``{"errors": [{"message": …}]}`` is not documented, but FACEKI's iOS SDK can read it.

This module accepts each kind on any route and with any HTTP status.

FACEKI's SDKs read error codes from answers with HTTP 200, so HTTP 200 alone does not mean success. If a JSON answer has
none of these envelopes and no field ``result`` or ``data``, the whole document is the result. For example, the answers
of the image check have this form.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import BinaryIO

from airflow_provider_faceki.api.codes import CODE_BY_NAME, CODES, DATA_NOT_FOUND, REFUSED, SUCCESS_CODES
from airflow_provider_faceki.api.errors import (
    CHECK_ADVICE,
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    ServiceError,
    UnexpectedResponseError,
)
from airflow_provider_faceki.api.models import VerificationRecord, is_record
from airflow_provider_faceki.api.protocol.fields import as_flag, describe, field, find_objects, plain
from airflow_provider_faceki.api.protocol.messages import HttpResponse, Json
from airflow_provider_faceki.api.secrets import SecretText
from airflow_provider_faceki.api.values import as_code, as_code_name, as_faceki_id, as_identifier, parse_json

#: Maximum value of ``Retry-After`` in seconds. A larger value of this header is reduced to this maximum.
MAX_RETRY_AFTER_SECONDS = 86_400.0

_CODE_FIELDS = ("responsecode", "code", "statuscode", "errorcode", "resultcode")
_SUCCESS_FIELDS = ("success", "issuccess", "ok", "succeeded")
_ERROR_FIELDS = ("error", "errors", "exception", "fault")
# These fields contain texts that describe a failure.
_WORD_FIELDS = (
    *("message", "messages", "msg", *_ERROR_FIELDS),
    *("errormessage", "errordescription", "detail", "reason"),
)
# These fields contain codes, statuses, messages or technical details. Any other field with a value, such as a field
# with records, counts as content of the answer. If an answer has content, a field such as `error` or `message` alone
# does not make the answer a failure.
_ENVELOPE_FIELDS = frozenset(
    {
        *_CODE_FIELDS,
        *_SUCCESS_FIELDS,
        *_ERROR_FIELDS,
        *("status", "message", "messages", "msg", "appversion", "version", "timestamp", "path", "method"),
        *("errormessage", "errordescription", "erroruri", "detail", "details", "title", "type", "name"),
        *("reason", "hint", "instance", "trace", "requestid", "traceid", "correlationid", "metadata", "meta"),
    }
)
# Fields of the outer object (envelope) of FACEKI's answers. If an envelope has neither the field `result` nor the field
# `data`, the result consists of all fields of the envelope except the fields in this set.
_WRAPPING_FIELDS = frozenset({*_CODE_FIELDS, *_SUCCESS_FIELDS, "status", "message", "appversion"})

# Words with which services refuse a token or credentials. They help to decide whether an answer is a failure, which
# class the error has, and whether a new token is fetched. The text that contains these words is not copied into the
# error message.
_TOKEN_WORDS = re.compile(
    r"\bjwt\b|unauthori[sz]ed|not authori[sz]ed|unauthenticated|forbidden|access denied|session expired"
    r"|\btoken\b.{0,30}\b(?:expired|invalid|missing|required|revoked|malformed|inactive|not valid|not active)\b"
    r"|\b(?:expired|invalid|missing|malformed|revoked|bad|no)\b.{0,30}\btoken\b|invalid signature|invalid_token",
    re.IGNORECASE,
)
_CREDENTIAL_WORDS = re.compile(
    r"invalid_client|unauthorized_client|invalid_grant|credential|NotAuthorizedException"
    r"|\b(?:invalid|wrong|unknown|incorrect|bad)\b.{0,20}\b(?:client|secret|username|user name|password)\b"
    r"|\b(?:client|secret)\b.{0,30}\b(?:invalid|wrong|unknown|incorrect|not found|not valid|does not exist)\b",
    re.IGNORECASE,
)
# These codes in FACEKI's answers report a failure, but not its cause. Therefore the texts of the answer are also
# searched for words that show the cause.
_GENERAL_CODES = frozenset({400, 403, 422, 500, 1000})


@dataclass(frozen=True, slots=True, repr=False)
class Payload:
    """The content of an answer, without the outer JSON object (envelope). Its ``repr`` hides the content.

    :param result: Value of the field ``result`` or ``data``. If the answer has neither field, the result is the whole
        document. If this document is an envelope, the result does not contain its fields for the code, status and
        message.
    :param document: The whole JSON document. It is needed for values that are outside ``result`` and ``data``, such as
        the URL of a link.
    :param file: The PDF, positioned at its first byte, if the answer is a PDF.
    :param status: HTTP status.
    :param is_empty: Whether the answer had no body, or only white space.
    :param null_is_no_record: Meaning of a successful answer whose content is ``null``, for calls that read records.
        ``True``: FACEKI has no record, as with an empty list. ``False``: the meaning is unknown, and an error is
        raised. The value comes from the setting ``null_result``.
    :param failure: Failure without a code that the answer reports, although the answer contains records, each with a
        decision. Calls that read records ignore this failure and use the records. All other calls raise the failure.
        Any other failure is raised by :func:`read_payload`. If the answer reports no failure, the value is ``None``.
    """

    result: Json
    document: Json
    file: BinaryIO | None = None
    status: int = 200
    is_empty: bool = False
    null_is_no_record: bool = False
    failure: ResponseError | None = None

    @property
    def found(self) -> str:
        """Description of the answer for an error message. It contains the names of JSON keys, but no values."""
        return f"HTTP {self.status} without a body" if self.is_empty else describe(self.document)

    def unexpected(self, problem: str, advice: str = "") -> UnexpectedResponseError:
        """Return the error for an answer with unexpected content. The message names the JSON keys of the answer."""
        text = f"{problem}; it contains {self.found}" + (f". {advice}" if advice else "")
        return UnexpectedResponseError(text, http_status=self.status)


def read_payload(response: HttpResponse) -> Payload:
    """Return the content of an HTTP response from FACEKI.

    :raises ResponseError: if the response is a failure. The HTTP status, FACEKI's code and the words of the answer
        decide the class of the error.
    """
    # Error trackers report the local variables of the function that raises an error. The `repr` of each local variable
    # of this function hides the content of the answer. Therefore the error is raised in this function, not in `_read`.
    found = _read(response)
    if isinstance(found, ResponseError):
        raise found
    return found


def _read(response: HttpResponse) -> Payload | ResponseError:
    if response.file is not None:
        return Payload(None, None, response.file, response.status)
    is_good = response.status < 300
    if is_good and response.body[:1024].lstrip().startswith(b"%PDF"):
        return Payload(None, None, io.BytesIO(response.body.lstrip()), response.status)
    try:
        document = parse_json(response.body) if response.body.strip() else None
    except ValueError:
        if is_good:
            return _not_json(response)
        return _error(response, None, {})
    if not isinstance(document, dict):
        is_empty = not response.body.strip()
        payload = Payload(document, document, status=response.status, is_empty=is_empty)
        return payload if is_good else _error(response, None, {})
    by_name = {plain(key): value for key, value in document.items()}
    code = _failure_code(by_name)
    if is_good and code is None and not _states_failure(by_name):
        return Payload(_result(document), document, status=response.status)
    failure = _error(response, code, document)
    # The envelope of the answer reports a failure without a code, but the answer contains a decision. A received
    # decision must not be lost. Therefore this function returns the decision together with the failure.
    if code is None and _may_be_success(response.status) and _holds_decision(document):
        return Payload(_result(document), document, status=response.status, failure=failure)
    return failure


def is_token_refusal(error: ResponseError) -> bool:
    """Return whether FACEKI refused the access token. A refusal has HTTP status 401, code 401 or code 1."""
    return error.http_status == 401 or error.code in {REFUSED, 401}


def _not_json(response: HttpResponse) -> UnexpectedResponseError:
    body = response.body
    start = body[:512].lstrip().lower()
    try:
        body.decode()
        is_text = True
    except UnicodeDecodeError:
        is_text = False
    if start.startswith((b"<!doctype html", b"<html")):
        found = "an HTML page; check the API base URL"
    elif start.startswith(b"<"):
        found = "XML or HTML; check the API base URL"
    elif start.startswith(b"\x1f\x8b"):
        found = "compressed data that is not declared as such"
    elif not is_text:
        found = "text in another encoding than UTF-8, or binary data"
    elif re.search(rb"\b(?:NaN|-?Infinity)\b", body):
        found = "text with NaN or Infinity, which JSON does not have"
    elif start.startswith((b"{", b"[")):
        found = "JSON that is cut off or broken, or nested too deeply"
    else:
        found = "plain text; check the API base URL"
    return UnexpectedResponseError(
        f"FACEKI's answer is not JSON but {found} ({len(body)} bytes)", http_status=response.status
    )


def _result(document: Mapping[str, Json]) -> Json:
    by_name = {plain(key): value for key, value in document.items()}
    results = [by_name[name] for name in ("result", "data") if name in by_name]
    if results:
        return next((result for result in results if result is not None), None)
    if not _is_enveloped(document):
        return dict(document)
    # This document is an envelope without the fields `result` and `data`. The envelope's own fields, such as `code`,
    # are not part of the result. All other fields are the result.
    rest = {name: value for name, value in document.items() if plain(name) not in _WRAPPING_FIELDS}
    return rest or None


def _is_enveloped(document: Mapping[str, Json]) -> bool:
    """Return whether a JSON object is one of FACEKI's envelopes.

    The object ``{"statusCode": 404, "message": …}`` does not count as an envelope, because web frameworks also send
    such objects.
    """
    by_name = {plain(key): value for key, value in document.items()}
    states = isinstance(by_name.get("status"), bool) or any(name in by_name for name in _SUCCESS_FIELDS)
    return "responsecode" in by_name or (states and ("code" in by_name or "statuscode" in by_name))


def _failure_code(by_name: Mapping[str, Json]) -> int | None:
    """Return the first code that reports a failure, or ``None`` if the answer contains no such code.

    The code is possibly in a nested object, such as ``data.error`` in the V2 API.
    """
    return next((code for code in _codes(by_name) if code not in SUCCESS_CODES), None)


def _codes(by_name: Mapping[str, Json]) -> Iterator[int]:
    yield from _own_codes(by_name)
    status = by_name.get("status")
    if not isinstance(status, bool) and isinstance(status, int) and status >= 100:
        yield status
    holders = [by_name[name] for name in (*_ERROR_FIELDS, "status", "meta") if name in by_name]
    for content in (by_name.get("data"), by_name.get("result")):
        if isinstance(content, dict):
            holders += [value for name in _ERROR_FIELDS if (value := field(content, name)) is not None]
    for holder in holders:
        for item in holder if isinstance(holder, list) else (holder,):
            if isinstance(item, dict):
                yield from _own_codes({plain(key): value for key, value in item.items()})


def _own_codes(by_name: Mapping[str, Json]) -> Iterator[int]:
    for name in _CODE_FIELDS:
        value = by_name.get(name)
        code = as_code(value)
        if code is None and isinstance(value, str):
            code = CODE_BY_NAME.get(value.strip().upper())
        if code is not None:
            yield code


def _states_failure(by_name: Mapping[str, Json]) -> bool:
    has_code = any(name in by_name for name in _CODE_FIELDS)
    if any(as_flag(by_name.get(name)) is False for name in _SUCCESS_FIELDS):
        return True
    if _is_false(by_name.get("status"), or_zero=has_code):
        return True
    if any(
        value not in (None, "", 0, [], {}) for name, value in by_name.items() if name not in _ENVELOPE_FIELDS
    ):
        return False
    has_error = any(by_name.get(name) not in (None, "", False, [], {}) for name in _ERROR_FIELDS)
    return has_error or bool(_TOKEN_WORDS.search(_words(by_name)))


def _is_false(status: Json, *, or_zero: bool) -> bool:
    if isinstance(status, dict):
        return any(as_flag(field(status, name)) is False for name in _SUCCESS_FIELDS)
    if isinstance(status, str):
        return status.strip().lower() in {"false", "fail", "failed", "failure", "error", "nok"}
    return status is False or (or_zero and type(status) is int and status == 0)


def _words(by_name: Mapping[str, Json]) -> str:
    """Return the texts with which an answer describes a failure."""
    said: list[str] = []
    for name in _WORD_FIELDS:
        value = by_name.get(name)
        for item in value if isinstance(value, list) else (value,):
            inner = field(item, "message", "msg", "description", "error") if isinstance(item, dict) else item
            said.append(inner[:500] if isinstance(inner, str) else "")
    return " ".join(filter(None, said))[:2000]


def _may_be_success(status: int) -> bool:
    return status < 300 or (400 <= status < 500 and status not in {401, 403, 404, 408, 413, 429})


def _holds_decision(document: Mapping[str, Json]) -> bool:
    records = find_objects(dict(document), is_record) or []
    return bool(records) and all(VerificationRecord(record).decision is not None for record in records)


def _error(response: HttpResponse, code: int | None, document: Mapping[str, Json]) -> ResponseError:
    by_name = {plain(key): value for key, value in document.items()}
    words = _words(by_name) if code is None or code in _GENERAL_CODES else ""
    kind, message = _kind(response.status, code, words)
    has_said = code is not None or _states_failure(by_name)
    error = kind(
        message,
        code=code,
        code_name=_name(code, document),
        http_status=response.status,
        request_id=_own_text(document, as_faceki_id, "requestId"),
        retry_after=_retry_after(response),
        is_ambiguous=_is_ambiguous(kind, response.status, code, words),
    )
    error.is_stated = code == DATA_NOT_FOUND or _is_enveloped(document)
    if not isinstance(error, NotFoundError):
        error.is_stated = error.is_stated or (has_said and bool(document))
    error.record_identifier = _own_text(document, as_identifier, "record_identifier")
    error.may_refuse_token = _may_refuse_token(response.status, code, words, kind)
    location = response.headers.get("location")
    if 300 <= response.status < 400 and location:
        error.location = SecretText(location)
    return error


def _is_ambiguous(kind: type[ResponseError], status: int, code: int | None, words: str) -> bool | None:
    """Return whether FACEKI has possibly acted on a failed request, or ``None`` for the default of the error class."""
    # In two cases it is unknown whether FACEKI acted on the request. In the first case, the code in the JSON is
    # undocumented. In the second case, the code is 404 although the HTTP status reports success. In both cases, the
    # result is true, so a charged call is not sent again.
    if kind is ResponseError or (code == 404 and status < 300):
        return True
    # In the following case, the text of the answer or the code 403 says that FACEKI refused the credentials or the
    # token, but the HTTP status does not, and neither does the code for a refused token. This does not prove a refusal,
    # so it is unknown whether FACEKI acted on the request.
    if (
        kind is AuthenticationError
        and words
        and (status < 300 or status >= 500)
        and code not in {REFUSED, 401}
    ):
        return True
    return None


def _may_refuse_token(status: int, code: int | None, words: str, kind: type[ResponseError]) -> bool:
    if status in {404, 413, 429} or (status >= 500 and not _TOKEN_WORDS.search(words)):
        return False
    if status == 403 and code is None:
        return True
    if code is None and status < 300 and kind is UnexpectedResponseError:
        return True
    return bool(_TOKEN_WORDS.search(words))


def _kind(status: int, code: int | None, words: str) -> tuple[type[ResponseError], str]:
    if status == 429 or code == 429:
        return RateLimitError, "FACEKI refuses the request because of its rate limit"
    if status == 401 or code == 401:
        return AuthenticationError, f"FACEKI refuses the credentials or the token; {CHECK_ADVICE}"
    if words and status not in {404, 413}:
        if _CREDENTIAL_WORDS.search(words):
            return AuthenticationError, "FACEKI says that the credentials are not accepted"
        if _TOKEN_WORDS.search(words):
            return AuthenticationError, "FACEKI says that the token is not accepted"
    known = CODES.get(code) if code is not None else None
    if known:
        return known.error, f"FACEKI says: {known.meaning}"
    if status == 403 or code == 403:
        return AuthenticationError, "FACEKI does not allow this call with these credentials"
    if status == 404 or (code == 404 and status < 500):
        return NotFoundError, "FACEKI has no such record or no such URL"
    if status == 413:
        return InvalidRequestError, "the images are too large for FACEKI"
    if status == 408 or status >= 500:
        return ServiceError, "FACEKI, or a proxy in front of it, failed"
    if status >= 400:
        return InvalidRequestError, "FACEKI refuses the request"
    if status >= 300:
        return UnexpectedResponseError, (
            "FACEKI answers with a redirect, which is never followed; check the API base URL"
        )
    if code is not None:
        return ResponseError, "FACEKI answers with an undocumented code"
    return UnexpectedResponseError, "FACEKI reports a failure without a code"


def _name(code: int | None, document: Mapping[str, Json]) -> str | None:
    known = CODES.get(code) if code is not None else None
    return known.name if known else as_code_name(field(document, "message"))


def _own_text(document: Mapping[str, Json], read: Callable[[object], str | None], name: str) -> str | None:
    result = _result(document)
    return read(field(result, name)) if isinstance(result, dict) else None


def _retry_after(response: HttpResponse) -> float | None:
    """Return the value of the header ``Retry-After`` in seconds, or ``None`` if there is no valid value.

    If ``Retry-After`` contains a date, the answer's header ``Date`` is used as the current time.
    """
    text = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text):
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        until, now = (parsedate_to_datetime(date) for date in (text, response.headers.get("date", "")))
        seconds = (until - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
