# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Requests, responses, FACEKI's envelopes and routes as plain values.

The functions of the routes use these values, so they do not depend on an HTTP library.

An envelope is the JSON object around the content of an answer:

- The legacy envelope is `{"responseCode", "data"}`. The token call, the link call and the V2 API use it.
- The v3 envelope is `{"status", "code", "message", "appVersion", "result"}`.
- The validation envelope is `{"status", "message", "statusCode", "data"}`. The token call uses it for invalid input.

Sources: https://docs.faceki.com/api-integration/verification-apis/authentication and
https://docs.faceki.com/api-integration/verification-apis/fetch-records
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from airflow_provider_faceki.sandbox.backend.outcomes import name_of

if TYPE_CHECKING:
    from airflow_provider_faceki.sandbox.backend.actions import Backend

APP_VERSION = "v3.0.0"


@dataclass(frozen=True)
class Upload:
    """The size in bytes and the SHA-256 hash of an uploaded file.

    The hash is sufficient to recognise the same file again. The content is not stored, so no image can leak.
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    :param base_url: the scheme, host and port under which the client addressed the sandbox.
    :param headers: the headers, with names in lower case.
    :param query: the parameters of the query string, with their documented names. If a dialect (a simulated difference
        from FACEKI's documentation) uses other names, these names are already replaced.
    :param path: the values of the variable parts of the path.
    :param document: the parsed JSON body. If None, the body is missing or not valid JSON, or the route takes no JSON.
    :param parts: the fields of a form body.
    :param generation: the number of resets of the sandbox before the request began. If the sandbox has been reset since
        then, the request does not change the new state and takes no fault (simulated error) from the new queue.
    """

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)
    document: object = None
    parts: Mapping[str, str | Upload] = field(default_factory=dict)
    generation: int = 0

    def text(self, name: str) -> str:
        """Return the text of a form field. If the field is absent or is a file, return an empty text."""
        value = self.parts.get(name)
        return value if isinstance(value, str) else ""

    def upload(self, name: str) -> Upload | None:
        """Return an uploaded file. If the field is absent, is an empty file, or is text, return None."""
        value = self.parts.get(name)
        return value if isinstance(value, Upload) and value.size else None

    def member(self, name: str) -> object:
        """Return a member of the JSON body. If the body is not an object or lacks the member, return None."""
        return self.document.get(name) if isinstance(self.document, Mapping) else None


@dataclass(frozen=True)
class Response:
    """One HTTP response.

    A dialect (a simulated difference from FACEKI's documentation) or a fault (an injected error) possibly changes the
    response before it is sent.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Envelope(Enum):
    """The kind of envelope (JSON object around the content) in which a route reports errors."""

    LEGACY = "legacy"
    V3 = "v3"


class Body(Enum):
    NONE = "none"
    JSON = "json"
    FORM = "form"


@dataclass(frozen=True)
class Route:
    """The definition of one route of the simulated FACEKI API.

    :param name: the name of the route, which faults (injected errors) and counters use. Several routes can have the
        same name.
    :param method: the HTTP method.
    :param path: the path, with variable parts in braces. The paths come from FACEKI's documentation or from official
        SDKs. Only the path of the route `pdf_file` is invented.
    :param handler: the function that computes the answer. If it raises `Refused`, the answer is an error in `envelope`.
    :param body: the kind of the request body.
    :param bearer: whether a token is required.
    :param envelope: the envelope (JSON object around the content) of refusals and of the errors that faults inject.
    :param takes_time: whether a record identifier with the prefix `slow-` delays the answer.
    """

    name: str
    method: str
    path: str
    handler: Callable[[Backend, Request], Response]
    body: Body = Body.NONE
    bearer: bool = True
    envelope: Envelope = Envelope.V3
    takes_time: bool = False


class _Absent(Enum):
    ABSENT = "absent"


ABSENT = _Absent.ABSENT


def json_response(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(document, separators=(",", ":")).encode()
    return Response(status, body, headers=dict(headers or {}))


def legacy(data: object, status: int = 200, **beside: object) -> Response:
    return json_response({"responseCode": 0, "data": data, **beside}, status)


def legacy_error(code: int, status: int = 200) -> Response:
    return json_response({"responseCode": code, "data": {}}, status)


def v3(result: object, status: int = 200) -> Response:
    document = {"status": True, "code": 200, "message": "OK", "appVersion": APP_VERSION, "result": result}
    return json_response(document, status)


def v3_error(code: int, status: int = 200, result: object = ABSENT) -> Response:
    """Return an error in the v3 envelope.

    :param result: the value of the member `result`: an object or None. If `ABSENT`, the answer has no such member. All
        three cases occur in the code of official SDKs.
    """
    document = {"status": False, "code": code, "message": name_of(code), "appVersion": APP_VERSION}
    if result is not ABSENT:
        document["result"] = result
    return json_response(document, status)


def validation(message: str) -> Response:
    return json_response({"status": False, "message": message, "statusCode": 422, "data": {}}, 422)


def error(envelope: Envelope, code: int, status: int = 200) -> Response:
    return legacy_error(code, status) if envelope is Envelope.LEGACY else v3_error(code, status)


def unauthorized(status: int) -> Response:
    """Return the error with the code 1, which is FACEKI's code for an invalid token and for an unknown URL.

    :param status: the HTTP status:

        - 404 for an unknown URL, and for a token request in a form that the settings do not accept.
        - The value of the setting `refusal_status` for a missing or invalid token.
    """
    return json_response({"status": False, "code": 1, "message": name_of(1)}, status)


def html(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, text.encode("utf-8", "replace"), "text/html; charset=utf-8", dict(headers or {}))


def gateway_page(status: int, title: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the HTML page of an error or a redirect, as a reverse proxy sends it instead of the service's answer."""
    heading = f"{status} {title}"
    page = (
        f"<html>\r\n<head><title>{heading}</title></head>\r\n<body>\r\n"
        f"<center><h1>{heading}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return html(status, page, headers)
