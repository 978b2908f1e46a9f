# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Dialects: ways in which FACEKI's API possibly differs from its documentation.

A dialect is a set of functions and values. Most of the functions change the documented answer of a route. If a fault
(an injected error) replaces the answer of a route, the dialect does not change the answer of the fault.

`docs/sandbox.md` lists all dialects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode

from airflow_provider_faceki.sandbox.messages import Response, gateway_page, html, json_response

DOCUMENTED: Final = "documented"
TOKEN_FORMS: Final = (
    "generate_token",
    "generate_token_headers",
    "access_token_body",
    "access_token_headers",
    "access_token_query",
    "access_token_get_headers",
)

#: A function that receives the JSON document of an answer and returns the changed document.
Change = Callable[[Any], object]


@dataclass(frozen=True)
class Dialect:
    """A dialect: one possible form of FACEKI's API that differs from the documentation.

    The functions in `answers`, `failures` and `responses` change the answers of the routes, and the answer to a missing
    token. They do not change these answers:

    - The answer `dead_token`.
    - The answer of a fault (an injected error), if the fault replaces the answer of the route.
    - The answer to a request whose body is too large or is not a valid form.
    - The answers that belong to the sandbox and not to FACEKI: after a reset of the sandbox, and after its own errors.

    :param summary: a description of the differences in a few words.
    :param answers: maps a route name to the function that changes the route's successful JSON answers.
    :param failures: a function that changes the JSON answers that report a failure. The function receives and returns
        the document and the HTTP status.
    :param responses: maps a route name to a function that changes the complete response, including headers and status.
        The name `*` matches every route that has no function of its own.
    :param paths: maps a route name to the paths that replace the documented path. A name in braces is a variable part
        of the path, and its value is used as the query parameter with this name.
    :param pdf_method: the HTTP method of the PDF report call.
    :param filters: maps the documented name of a filter to the name that the dialect accepts instead.
    :param token_forms: the forms of the token request that the dialect accepts. The forms differ in the path and in the
        place of the credentials, for example JSON body or headers. A form is accepted only if the setting
        `token_forms` contains it too.
    :param token_header: the name, in lower case, of the header that carries the token.
    :param token_scheme: the authentication scheme before the token, in lower case. If empty, the header contains only
        the token.
    :param dead_token: the answer to a request whose token is missing, unknown, expired or revoked. If None, the
        documented answer is returned.
    :param wrong_credentials: the answer to a wrong client id or client secret. If None, the answer has HTTP status 401.
        This status is an assumption, because FACEKI does not document the answer.
    :param webhook: a function that changes the body of a webhook.
    :param webhook_as_form: whether a webhook is sent URL-encoded as a form instead of as JSON.
    :param needs_workflow: whether a request that creates a link must contain a workflow id.
    :param connection: the fields that must be set in the Connection's extra, so that the provider works with this
        dialect.
    """

    summary: str
    answers: Mapping[str, Change] = field(default_factory=dict)
    failures: Callable[[Any, int], tuple[object, int]] | None = None
    responses: Mapping[str, Callable[[Response], Response]] = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pdf_method: str = "GET"
    filters: Mapping[str, str] = field(default_factory=dict)
    token_forms: tuple[str, ...] = TOKEN_FORMS
    token_header: str = "authorization"
    token_scheme: str = "bearer"
    dead_token: Response | None = None
    wrong_credentials: Response | None = None
    webhook: Change | None = None
    webhook_as_form: bool = False
    needs_workflow: bool = True
    connection: Mapping[str, object] = field(default_factory=dict)

    def change(self, route: str, response: Response) -> Response:
        """Apply the changes of this dialect to the response of a route, and return the changed response."""
        if response.content_type == "application/json":
            response = self._change_json(route, response)
        change = self.responses.get(route) or self.responses.get("*")
        return change(response) if change else response

    def _change_json(self, route: str, response: Response) -> Response:
        if self.failures is None and route not in self.answers:
            return response
        document = json.loads(response.body)
        if response is self.wrong_credentials or _is_failure(document, response.status):
            if self.failures is None:
                return response
            document, status = self.failures(document, response.status)
            return replace(response, status=status, body=json_response(document).body)
        if change := self.answers.get(route):
            return replace(response, body=json_response(change(document)).body)
        return response

    def webhook_request(self, body: object) -> tuple[bytes, str]:
        """Return the serialized body of a webhook and its content type."""
        changed: Any = self.webhook(body) if self.webhook else body
        if self.webhook_as_form:
            fields = {
                name: value if isinstance(value, str) else json.dumps(value)
                for name, value in changed.items()
            }
            return urlencode(fields).encode(), "application/x-www-form-urlencoded"
        return json.dumps(changed).encode(), "application/json"


def _is_failure(document: Any, status: int) -> bool:
    if status >= 400 or not isinstance(document, dict):
        return status >= 400
    return document.get("status") is False or document.get("responseCode", 0) != 0


def _result(change: Change) -> Change:
    """Return a function that changes the member `result` of an answer of FACEKI's v3 API.

    :param change: the function that receives the old value of `result` and returns the new value.
    """
    return lambda document: {**document, "result": change(document["result"])}


def _each_record(change: Change) -> Change:
    return _result(lambda records: [change(record) for record in records])


def _renamed(value: Any, **names: str) -> dict[str, object]:
    return {names.get(name, name): each for name, each in value.items()}


def _loose_types(record: Any) -> dict[str, object]:
    """Return a copy of a record in which some fields have other types than in the documentation.

    Error codes are objects, `createdAt` is a number, `updatedAt` has no zone, and the flags of the summary are texts.
    """
    return {
        **record,
        "errorCodes": [{"errorCode": code} for code in record["errorCodes"]],
        "createdAt": 1_700_000_000_000,
        "updatedAt": record["updatedAt"].removesuffix("Z"),
        "verification_summary": {
            name: str(value).lower() for name, value in record["verification_summary"].items()
        },
    }


def _hidden_failure(document: Any, status: int) -> tuple[object, int]:
    return {"success": False, "message": str(document.get("message") or "failed")}, 200


def _bare_failure(document: Any, status: int) -> tuple[object, int]:
    return {"message": str(document.get("message") or "failed")}, 200


def _error_list(document: Any, status: int) -> tuple[object, int]:
    message = str(document.get("message") or f"code {document.get('responseCode')}")
    return {"errors": [{"message": message}]}, status if status >= 400 else 400


def _newline_first(response: Response) -> Response:
    is_pdf = response.content_type == "application/pdf"
    return replace(response, body=b"\r\n" + response.body) if is_pdf else response


def _web_page(response: Response) -> Response:
    return html(200, "<!doctype html><html><head><title>Welcome</title></head><body>Welcome</body></html>")


def _moved(response: Response) -> Response:
    return gateway_page(301, "Moved Permanently", {"Location": "https://elsewhere.example/"})


def _with_nan(response: Response) -> Response:
    return replace(response, body=response.body.replace(b'"__v":0', b'"__v":NaN'))


def _not_gzip(response: Response) -> Response:
    return replace(response, headers={**response.headers, "Content-Encoding": "gzip"})


def _empty(response: Response) -> Response:
    return Response(204, b"")


def _latin_1(response: Response) -> Response:
    body = json.dumps(json.loads(response.body), ensure_ascii=False).replace('"OK"', '"Vérifié"')
    return replace(response, body=body.encode("latin-1", "replace"))


_VERIFY: Final = ("verify", "verify_by_link")
_RULES: Final = ("rules", "rules_by_link")

DIALECTS: Final[dict[str, Dialect]] = {
    DOCUMENTED: Dialect("as documented"),
    # Variants of FACEKI's API that return the records at a different place in the JSON.
    "records-nested": Dialect(
        'records as `result: {"records": […]}`', {"records": _result(lambda found: {"records": found})}
    ),
    "records-doubled": Dialect(
        'records as `result: {"result": […]}`', {"records": _result(lambda found: {"result": found})}
    ),
    "records-in-data": Dialect(
        "records in `data` beside `result: null`",
        {"records": lambda document: {**document, "data": document["result"], "result": None}},
    ),
    "records-in-items": Dialect(
        'records as `{"data": {"items": […]}}`',
        {"records": lambda document: {"data": {"items": document["result"]}}},
    ),
    "records-bare": Dialect(
        "records as a list without an envelope", {"records": lambda document: document["result"]}
    ),
    "record-object": Dialect(
        "a single record as an object and not in a list",
        {"records": _result(lambda found: found[0] if len(found) == 1 else found)},
    ),
    "records-null": Dialect("records as `result: null`", {"records": _result(lambda found: None)}),
    "no-records-null": Dialect(
        "`result: null` where there is no record",
        {"records": _result(lambda found: found or None)},
        connection={"null_result": "no_record"},
    ),
    "records-text": Dialect("records as a text", {"records": _result(lambda found: "OK")}),
    # Variants of FACEKI's API with other names or types of fields.
    "decision-in-status": Dialect(
        "the decision under the key `status`",
        {
            "records": _each_record(lambda record: _renamed(record, decision="status")),
            **dict.fromkeys(_VERIFY, _result(lambda verdict: _renamed(verdict, decision="status"))),
        },
    ),
    "loose-types": Dialect(
        "error codes as objects, times as numbers or without a zone, flags as texts",
        {"records": _each_record(_loose_types)},
    ),
    # Variants of FACEKI's API with another answer to a verification by the v3 API.
    "verdict-list": Dialect(
        "a verdict as a list with one element", dict.fromkeys(_VERIFY, _result(lambda verdict: [verdict]))
    ),
    "verdict-nested": Dialect(
        'a verdict as `result: {"result": {…}}`',
        dict.fromkeys(_VERIFY, _result(lambda verdict: {"result": verdict})),
    ),
    "verdict-null": Dialect(
        "a verdict as `result: null`", dict.fromkeys(_VERIFY, _result(lambda verdict: None))
    ),
    "verdict-text": Dialect(
        "a verdict as a text", dict.fromkeys(_VERIFY, _result(lambda verdict: verdict["decision"]))
    ),
    "verdict-false": Dialect(
        "a verdict beside `code: 200` and `status: false`",
        dict.fromkeys(_VERIFY, lambda document: {**document, "status": False}),
    ),
    # Variants of FACEKI's API with another answer to the calls that return the rules of a workflow: the required
    # documents and the other settings.
    "rules-nested": Dialect(
        'rules as `{"rules": {…}}`, documents as objects',
        dict.fromkeys(
            _RULES,
            _result(
                lambda rules: {
                    "rules": {**rules, "documents": [{"name": each} for each in rules["documents"]]}
                }
            ),
        ),
    ),
    "rules-without-documents": Dialect(
        "rules with `documents: null`",
        dict.fromkeys(_RULES, _result(lambda rules: {**rules, "documents": None})),
    ),
    # Variants of FACEKI's API in which the requests for tokens, the use of tokens, or the answers to invalid tokens or
    # credentials are different.
    "token-camel-case": Dialect(
        "token as `accessToken` with `Bearer ` before it, lifetime as `expiresIn`",
        {
            "token": lambda document: {
                **document,
                "data": {
                    "accessToken": f"Bearer {document['data']['access_token']}",
                    "expiresIn": document["data"]["expires_in"],
                },
            }
        },
    ),
    "token-bare": Dialect(
        'token as `{"token": …}` without an envelope',
        {"token": lambda document: {"token": document["data"]["access_token"]}},
    ),
    "token-raw-header": Dialect(
        "the token alone in `Authorization`", token_scheme="", connection={"auth_scheme": "none"}
    ),
    "token-own-header": Dialect(
        "the token in `x-access-token`",
        token_header="x-access-token",
        token_scheme="",
        connection={"auth_header": "x-access-token", "auth_scheme": "none"},
    ),
    "dead-token-403": Dialect(
        "HTTP 403 for a dead token", dead_token=json_response({"message": "Forbidden"}, 403)
    ),
    "dead-token-500": Dialect(
        "HTTP 500 `jwt expired` for a dead token", dead_token=json_response({"message": "jwt expired"}, 500)
    ),
    "dead-token-200": Dialect(
        "HTTP 200 without a code for a dead token",
        dead_token=json_response({"status": False, "message": "Unauthorized"}),
    ),
    "credentials-field": Dialect(
        'HTTP 200 `{"clientSecret": ""}` for wrong credentials',
        wrong_credentials=json_response({"clientSecret": ""}),
    ),
    "credentials-oauth": Dialect(
        'HTTP 200 `{"error": "invalid_client"}` for wrong credentials',
        wrong_credentials=json_response({"error": "invalid_client"}),
    ),
    "credentials-500": Dialect(
        "HTTP 500 for wrong credentials",
        wrong_credentials=json_response({"message": "Internal server error"}, 500),
    ),
    **{
        f"token-form-{form.replace('_', '-')}": Dialect(
            f"only the token form `{form}`",
            token_forms=(form,),
            connection={} if form == "generate_token" else {"auth_flow": form},
        )
        for form in TOKEN_FORMS
    },
    # Variants of FACEKI's API with another request or another answer for the creation of a link.
    "link-short": Dialect(
        'a link as `{"link", "url"}`',
        {"link": lambda document: {"link": document["data"], "url": document["url"]}},
    ),
    "link-id": Dialect('a link as `{"linkId"}`', {"link": lambda document: {"linkId": document["data"]}}),
    "link-url": Dialect(
        "a link whose `data` is the whole URL",
        {"link": lambda document: {"responseCode": 0, "data": document["url"]}},
    ),
    "link-other-host": Dialect(
        "a hosted page on another host, without `kycverify` in its path",
        {"link": lambda document: {**document, "url": f"https://pages.example/{document['data']}"}},
    ),
    "v2-account": Dialect("links are created without `workflowId`, as in V2 accounts", needs_workflow=False),
    # Variants of FACEKI's API with other paths, hosts, or names of search filters.
    "records-elsewhere": Dialect(
        "records at another path; HTTP 404 with a web page at the documented path",
        paths={"records": ("/api/v3/records",)},
        connection={"records_path": "/api/v3/records"},
    ),
    "path-ids": Dialect(
        "ids in the path, as in `/api/v3/kyc_verification/requestId/{requestId}`",
        paths={
            "records": tuple(
                f"/api/v3/kyc_verification/{name}/{{{name}}}"
                for name in ("requestId", "link", "face_id", "record_identifier")
            )
        },
        connection={
            "request_id_filter": "/api/v3/kyc_verification/requestId/{requestId}",
            "link_filter": "/api/v3/kyc_verification/link/{link}",
            "face_id_filter": "/api/v3/kyc_verification/face_id/{face_id}",
            "record_identifier_filter": "/api/v3/kyc_verification/record_identifier/{record_identifier}",
        },
    ),
    "other-filters": Dialect(
        "filters named `request_id`, `linkId`, `faceId`, `recordIdentifier`",
        filters={
            "requestId": "request_id",
            "link": "linkId",
            "face_id": "faceId",
            "record_identifier": "recordIdentifier",
        },
        connection={
            "request_id_filter": "request_id",
            "link_filter": "linkId",
            "face_id_filter": "faceId",
            "record_identifier_filter": "recordIdentifier",
        },
    ),
    "web-page": Dialect("a web page with HTTP 200 in place of every answer", responses={"*": _web_page}),
    "moved": Dialect("HTTP 301 to another host in place of every answer", responses={"*": _moved}),
    # Variants of FACEKI's API with another JSON in an error answer, or with an answer without usable content.
    "failures-hidden": Dialect(
        'failures as HTTP 200 `{"success": false, "message": …}`', failures=_hidden_failure
    ),
    "failures-bare": Dialect('failures as HTTP 200 `{"message": …}`', failures=_bare_failure),
    "failures-listed": Dialect('failures as `{"errors": [{"message": …}]}`', failures=_error_list),
    "records-empty": Dialect(
        "HTTP 204 as the answer to a request for records", responses={"records": _empty}
    ),
    "records-nan": Dialect("`NaN` in records", responses={"records": _with_nan}),
    "records-not-gzip": Dialect(
        "records with the header `Content-Encoding: gzip` that are not compressed",
        responses={"records": _not_gzip},
    ),
    "records-latin-1": Dialect("records in Latin-1", responses={"records": _latin_1}),
    # Variants of FACEKI's API with another method or another answer of the call that fetches the PDF report.
    "pdf-by-post": Dialect(
        "the report is fetched by POST instead of GET",
        pdf_method="POST",
        connection={"pdf_report_method": "POST"},
    ),
    "pdf-after-logo": Dialect(
        "the URL of a logo, then the URL of the report (needs the setting `pdf_form` with the value `json-url`)",
        {"pdf": _result(lambda report: {"logo": "https://logo.example/faceki.png", **report})},
    ),
    "pdf-after-newline": Dialect("a line break before `%PDF`", responses={"pdf": _newline_first}),
    # Variants of FACEKI's API with another body of the webhook.
    "webhook-nested": Dialect('a webhook as `{"data": {…}}`', webhook=lambda body: {"data": body}),
    "webhook-renamed": Dialect(
        "a webhook with `request_id` and `decision`",
        webhook=lambda body: _renamed(body, requestId="request_id", status="decision"),
    ),
    "webhook-list": Dialect("a webhook as a list with one element", webhook=lambda body: [body]),
    "webhook-form": Dialect("a webhook as a form", webhook_as_form=True),
}


@lru_cache
def dialect_of(names: str) -> Dialect:
    """Return the dialect (a simulated difference from FACEKI's documentation) with this name.

    For several names, return one dialect with the changes of all of them. If two dialects change the same thing, for
    example the answer of the same route, only the change of the last dialect is used. A dialect that replaces every
    answer also replaces the answers of the dialects before it.

    :param names: one name, or several names separated by commas.
    """
    plain = DIALECTS[DOCUMENTED]
    first, *more = [DIALECTS[name.strip()] for name in names.split(",")]
    for each in more:
        changed = {name: value for name, value in vars(each).items() if value != getattr(plain, name)}
        for name in ("answers", "responses", "paths", "filters", "connection"):
            earlier, later = getattr(first, name), getattr(each, name)
            changed[name] = later if "*" in later else {**earlier, **later}
        first = replace(first, **changed)
    return first
