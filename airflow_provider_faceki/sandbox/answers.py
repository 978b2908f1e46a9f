# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How does FACEKI wrap what it says? Three envelopes live side by side.

E1 `{"responseCode", "data"}` (token, link, V2), E2 `{"status", "code", "message", "appVersion", "result"}` (V3),
E3 `{"status", "message", "statusCode", "data"}` (input of the token call).
https://docs.faceki.com/api-integration/verification-apis/authentication and …/fetch-records
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum

from airflow_provider_faceki.sandbox.codes import name_of
from airflow_provider_faceki.sandbox.messages import Answer

APP_VERSION = "v3.0.0"


class Envelope(Enum):
    E1 = "e1"
    E2 = "e2"


class _Absent(Enum):
    ABSENT = "absent"


ABSENT = _Absent.ABSENT


def as_json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps(document, separators=(",", ":")).encode()
    return Answer(status, body, headers=dict(headers or {}))


def e1(data: object, status: int = 200, **beside: object) -> Answer:
    return as_json({"responseCode": 0, "data": data, **beside}, status)


def e1_error(code: int, status: int = 200) -> Answer:
    return as_json({"responseCode": code, "data": {}}, status)


def e2(result: object, status: int = 200) -> Answer:
    document = {"status": True, "code": 200, "message": "OK", "appVersion": APP_VERSION, "result": result}
    return as_json(document, status)


def e2_error(code: int, status: int = 200, result: object = ABSENT) -> Answer:
    """`result` may be missing, null or an object: SDKs meet all three."""
    document = {"status": False, "code": code, "message": name_of(code), "appVersion": APP_VERSION}
    if result is not ABSENT:
        document["result"] = result
    return as_json(document, status)


def e3(message: str) -> Answer:
    return as_json({"status": False, "message": message, "statusCode": 422, "data": {}}, 422)


def error(envelope: Envelope, code: int, status: int = 200) -> Answer:
    return e1_error(code, status) if envelope is Envelope.E1 else e2_error(code, status)


def refusal(status: int) -> Answer:
    """A bearer that is missing, unknown, expired or revoked; also, with 404, a URL that does not exist."""
    return as_json({"status": False, "code": 1, "message": name_of(1)}, status)


def html(status: int, text: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, text.encode("utf-8", "replace"), "text/html; charset=utf-8", dict(headers or {}))


def gateway_page(status: int, title: str, headers: Mapping[str, str] | None = None) -> Answer:
    """The page a reverse proxy in front of a service shows when it, and not the service, answers."""
    heading = f"{status} {title}"
    page = (
        f"<html>\r\n<head><title>{heading}</title></head>\r\n<body>\r\n"
        f"<center><h1>{heading}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return html(status, page, headers)
