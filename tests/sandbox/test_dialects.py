# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the dialects: each dialect causes the difference that it describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any
from urllib.parse import quote

import pytest
import requests

from airflow_provider_faceki.connection.schema import ConnectionSettings
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW
from airflow_provider_faceki.sandbox.dialects import DIALECTS, DOCUMENTED, TOKEN_FORMS, dialect_of
from tests.sandbox.conftest import RECORDS, Caller
from tests.sandbox.test_webhooks import Receiver, receiver  # noqa: F401 - the import makes the fixture available

LINKS = "/kycverify/api/kycverify/kyc-verify-link"
RULES = "/api/v3/workflows/rules"
Look = Callable[[FacekiSandbox, Caller, Caller], object]


def _records(sandbox: FacekiSandbox, call: Caller) -> requests.Response:
    sandbox.add_record("order-1")
    return call.records(record_identifier="order-1")


def _documented(sandbox: FacekiSandbox) -> dict[str, object]:
    (record,) = sandbox.store.find(record_identifier="order-1")
    return record.document


def records(unwrap: Callable[[Any], object]) -> Look:
    """Return a check that `unwrap` extracts the only record from the answer of the records call."""

    def look(sandbox: FacekiSandbox, call: Caller, anonymous: Caller) -> object:
        return unwrap(_records(sandbox, call).json()) == _documented(sandbox)

    return look


def records_are(result: object) -> Look:
    return lambda sandbox, call, anonymous: _records(sandbox, call).json()["result"] == result


def record(check: Callable[[Any], object]) -> Look:
    return lambda sandbox, call, anonymous: check(_records(sandbox, call).json()["result"][0])


def verdict(check: Callable[[Any], object]) -> Look:
    return lambda sandbox, call, anonymous: check(call.verify("order-1").json())


def rules(check: Callable[[Any], object]) -> Look:
    return lambda sandbox, call, anonymous: check(
        call("GET", RULES, params={"workflowId": DEFAULT_WORKFLOW}).json()["result"]
    )


def link(check: Callable[[Any], object], **document: object) -> Look:
    body = document or {"workflowId": DEFAULT_WORKFLOW}
    return lambda sandbox, call, anonymous: check(call("POST", LINKS, json=body).json())


def _ask_token(caller: Caller, secret: str, form: str = "generate_token") -> requests.Response:
    pair = {"clientId": "sandbox-client", "clientSecret": secret}
    path = "/auth/api/" + ("generate-token" if form.startswith("generate") else "access-token")
    if form == "access_token_query":
        return caller("GET", path, params=pair)
    if form == "access_token_get_headers":
        return caller("GET", path, headers=pair)
    if form.endswith("_headers"):
        return caller("POST", path, headers=pair, json={})
    return caller("POST", path, json=pair)


def token(check: Callable[[Any], object]) -> Look:
    return lambda sandbox, call, anonymous: check(_ask_token(anonymous, sandbox.client_secret).json())


def wrong_secret(status: int, document: object) -> Look:
    def look(sandbox: FacekiSandbox, call: Caller, anonymous: Caller) -> object:
        answer = _ask_token(anonymous, "wrong")
        return (answer.status_code, answer.json()) == (status, document)

    return look


def dead_token(status: int, document: object) -> Look:
    def look(sandbox: FacekiSandbox, call: Caller, anonymous: Caller) -> object:
        sandbox.revoke_tokens()
        answer = call.records(link="x")
        return (answer.status_code, answer.json()) == (status, document)

    return look


def only_form(form: str) -> Look:
    def look(sandbox: FacekiSandbox, call: Caller, anonymous: Caller) -> object:
        statuses = {
            each: _ask_token(anonymous, sandbox.client_secret, each).status_code for each in TOKEN_FORMS
        }
        return [each for each, status in statuses.items() if status == 200] == [form]

    return look


def carried_in(header: str, prefix: str) -> Look:
    def look(sandbox: FacekiSandbox, call: Caller, anonymous: Caller) -> object:
        value = str(call.session.headers["Authorization"]).removeprefix("Bearer ")
        own = anonymous(
            "GET", RULES, params={"workflowId": DEFAULT_WORKFLOW}, headers={header: prefix + value}
        )
        documented = anonymous(
            "GET",
            RULES,
            params={"workflowId": DEFAULT_WORKFLOW},
            headers={"Authorization": f"Bearer {value}"},
        )
        return (own.status_code, documented.status_code) == (200, 401)

    return look


def found_at(path: str, **query: str) -> Look:
    def look(sandbox: FacekiSandbox, call: Caller, anonymous: Caller) -> object:
        documented = _records(sandbox, call)
        (other,) = call("GET", path, params=query).json()["result"]
        return other == _documented(sandbox) and documented.status_code in (404, 422)

    return look


def not_gzip(sandbox: FacekiSandbox, call: Caller, anonymous: Caller) -> object:
    call.session.stream = True
    answer = _records(sandbox, call)
    return (
        answer.headers.get("Content-Encoding") == "gzip" and answer.raw.read(1, decode_content=False) == b"{"
    )


def pdf(check: Callable[[requests.Response], object], method: str = "GET", form: str = "bytes") -> Look:
    def look(sandbox: FacekiSandbox, call: Caller, anonymous: Caller) -> object:
        sandbox.settings.pdf_form = form
        return check(call(method, f"/sandbox/report/{sandbox.add_record()['requestId']}"))

    return look


def webhook(check: Callable[[Any], object]) -> Look:
    def look(sandbox: FacekiSandbox, call: Caller, anonymous: Caller) -> object:
        body, content_type = sandbox.dialect.webhook_request({"requestId": "3f2b", "status": "ACCEPTED"})
        return check((body.decode(), content_type))

    return look


ROWS: dict[str, Look] = {
    DOCUMENTED: records(lambda document: document["result"][0]),
    "records-nested": records(lambda document: document["result"]["records"][0]),
    "records-doubled": records(lambda document: document["result"]["result"][0]),
    "records-in-data": records(lambda document: document["result"] is None and document["data"][0]),
    "records-in-items": records(lambda document: document["data"]["items"][0]),
    "records-bare": records(lambda document: document[0]),
    "record-object": records(lambda document: document["result"]),
    "records-null": records_are(None),
    "no-records-null": lambda sandbox, call, anonymous: (
        call.records(record_identifier="nobody").json()["result"] is None
    ),
    "records-text": records_are("OK"),
    "decision-in-status": record(lambda each: each["status"] == "ACCEPTED" and "decision" not in each),
    "loose-types": record(
        lambda each: (
            isinstance(each["createdAt"], int)
            and not each["updatedAt"].endswith("Z")
            and each["verification_summary"]["face_verified"] == "true"
        )
    ),
    "verdict-list": verdict(lambda document: document["result"][0]["decision"] == "ACCEPTED"),
    "verdict-nested": verdict(lambda document: document["result"]["result"]["decision"] == "ACCEPTED"),
    "verdict-null": verdict(lambda document: document["result"] is None),
    "verdict-text": verdict(lambda document: document["result"] == "ACCEPTED"),
    "verdict-false": verdict(lambda document: (document["code"], document["status"]) == (200, False)),
    "rules-nested": rules(lambda result: result["rules"]["documents"] == [{"name": "ID Card"}]),
    "rules-without-documents": rules(lambda result: result["documents"] is None),
    "token-camel-case": token(lambda document: document["data"]["accessToken"].startswith("Bearer sbx-")),
    "token-bare": token(lambda document: list(document) == ["token"]),
    "token-raw-header": carried_in("Authorization", ""),
    "token-own-header": carried_in("x-access-token", ""),
    "dead-token-403": dead_token(403, {"message": "Forbidden"}),
    "dead-token-500": dead_token(500, {"message": "jwt expired"}),
    "dead-token-200": dead_token(200, {"status": False, "message": "Unauthorized"}),
    "credentials-field": wrong_secret(200, {"clientSecret": ""}),
    "credentials-oauth": wrong_secret(200, {"error": "invalid_client"}),
    "credentials-500": wrong_secret(500, {"message": "Internal server error"}),
    **{f"token-form-{form.replace('_', '-')}": only_form(form) for form in TOKEN_FORMS},
    "link-short": link(lambda document: sorted(document) == ["link", "url"]),
    "link-id": link(lambda document: list(document) == ["linkId"]),
    "link-url": link(lambda document: document["data"].startswith("http://127.0.0.1")),
    "link-other-host": link(lambda document: document["url"] == f"https://pages.example/{document['data']}"),
    "v2-account": link(lambda document: document["responseCode"] == 0, applicationId="order-1"),
    "records-elsewhere": found_at("/api/v3/records", record_identifier="order-1"),
    "path-ids": found_at(f"{RECORDS}/record_identifier/order-1"),
    "other-filters": found_at(RECORDS, recordIdentifier="order-1"),
    "web-page": lambda sandbox, call, anonymous: "Welcome" in _records(sandbox, call).text,
    "moved": lambda sandbox, call, anonymous: (
        call("GET", RULES, allow_redirects=False).headers["Location"] == "https://elsewhere.example/"
    ),
    "failures-bare": wrong_secret(200, {"message": "failed"}),
    "failures-hidden": wrong_secret(200, {"success": False, "message": "failed"}),
    "failures-listed": wrong_secret(401, {"errors": [{"message": "code 1"}]}),
    "records-empty": lambda sandbox, call, anonymous: _records(sandbox, call).status_code == 204,
    "records-nan": lambda sandbox, call, anonymous: b'"__v":NaN' in _records(sandbox, call).content,
    "records-not-gzip": not_gzip,
    "records-latin-1": lambda sandbox, call, anonymous: (
        "Vérifié".encode("latin-1") in _records(sandbox, call).content
    ),
    "pdf-by-post": pdf(lambda answer: answer.content.startswith(b"%PDF"), "POST"),
    "pdf-after-logo": pdf(lambda answer: list(answer.json()["result"]) == ["logo", "url"], form="json-url"),
    "pdf-after-newline": pdf(lambda answer: answer.content.startswith(b"\r\n%PDF")),
    "webhook-nested": webhook(lambda sent: sent[0].startswith('{"data": {"requestId"')),
    "webhook-renamed": webhook(lambda sent: sent[0] == '{"request_id": "3f2b", "decision": "ACCEPTED"}'),
    "webhook-list": webhook(lambda sent: sent[0].startswith('[{"requestId"')),
    "webhook-form": webhook(
        lambda sent: sent == ("requestId=3f2b&status=ACCEPTED", "application/x-www-form-urlencoded")
    ),
}


@pytest.fixture
def stranger(sandbox: FacekiSandbox) -> Iterator[Caller]:
    """Provide a second client, which sends no token."""
    caller = Caller(sandbox)
    with caller.session:
        yield caller


def test_each_dialect_has_a_row() -> None:
    assert set(ROWS) == set(DIALECTS)


@pytest.mark.parametrize("name", ROWS)
def test_each_dialect_changes_its_documented_part(
    sandbox: FacekiSandbox, call: Caller, stranger: Caller, name: str
) -> None:
    sandbox.settings.dialect = name
    assert ROWS[name](sandbox, call, stranger)


@pytest.mark.parametrize("name", [name for name in ROWS if name != DOCUMENTED])
def test_without_the_dialect_the_response_differs(
    sandbox: FacekiSandbox, call: Caller, stranger: Caller, name: str
) -> None:
    try:
        shown = ROWS[name](sandbox, call, stranger)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError):
        shown = False
    assert not shown


def test_connections_have_the_settings_that_dialects_need() -> None:
    needed = {setting for dialect in DIALECTS.values() for setting in dialect.connection}
    assert needed - {field.name for field in fields(ConnectionSettings)} == set()


def test_dialects_can_be_combined(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.settings.dialect = "records-nested, link-id,decision-in-status"
    sandbox.add_record("order-1")
    answer = call.records(record_identifier="order-1").json()["result"]
    assert answer[0]["status"] == "ACCEPTED", "the last one counts"
    assert call.verify("order-2").json()["result"]["status"] == "ACCEPTED"
    assert list(call("POST", LINKS, json={"workflowId": DEFAULT_WORKFLOW}).json()) == ["linkId"]
    assert dialect_of("v2-account,webhook-form").webhook_as_form
    assert not dialect_of("v2-account,webhook-form").needs_workflow


def test_filters_are_renamed_at_another_path_too(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.settings.dialect = "records-elsewhere,other-filters"
    sandbox.add_record("order-1")
    answer = call("GET", "/api/v3/records", params={"recordIdentifier": "order-1"}).json()["result"]
    assert [record["record_identifier"] for record in answer] == ["order-1"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        pytest.param("records-empty,web-page", 200, id="all after one"),
        pytest.param("web-page,records-empty", 204, id="one after all"),
    ],
)
def test_the_last_dialect_changes_the_answer(
    sandbox: FacekiSandbox, call: Caller, name: str, status: int
) -> None:
    sandbox.settings.dialect = name
    assert call.records(record_identifier="order-1").status_code == status


@pytest.mark.parametrize("token_dialect", ["token-bare", "token-camel-case"])
@pytest.mark.parametrize("wrong", ["credentials-field", "credentials-oauth"])
def test_a_token_dialect_does_not_change_an_answer_without_a_token(
    sandbox: FacekiSandbox, anonymous: Caller, token_dialect: str, wrong: str
) -> None:
    sandbox.settings.dialect = f"{token_dialect},{wrong}"
    answer = _ask_token(anonymous, "wrong")
    assert (answer.status_code, "access_token" in answer.text) == (200, False)
    assert answer.json() in ({"clientSecret": ""}, {"error": "invalid_client"})


@pytest.mark.parametrize("identifier", ["a?b", "a#b", "a/b", "a%2Fb", "a b", "é", "{link}"])
def test_an_id_in_the_path_can_have_any_character(
    sandbox: FacekiSandbox, call: Caller, identifier: str
) -> None:
    sandbox.settings.dialect = "path-ids"
    record = sandbox.add_record(identifier)
    answer = call("GET", f"{RECORDS}/record_identifier/{quote(identifier, safe='')}")
    assert answer.json()["result"] == [record]


def test_the_path_of_the_report_can_have_any_character(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.settings.pdf_path = "/a report (é)/{requestId}.pdf"
    path = f"/a report (é)/{sandbox.add_record()['requestId']}.pdf"
    assert call("GET", path).content.startswith(b"%PDF")


@pytest.mark.parametrize("value", ["klingon", "", "records-nested,", None, 7])
def test_an_unknown_dialect_is_refused(sandbox: FacekiSandbox, value: object) -> None:
    with pytest.raises(
        ValueError, match="sandbox setting dialect: found .*, allowed is one, .* records-nested"
    ):
        sandbox.settings.dialect = value  # type: ignore[assignment]  # The test needs a wrong value.


def test_a_webhook_goes_out_in_the_dialect(
    sandbox: FacekiSandbox,
    receiver: Receiver,  # noqa: F811 - pytest fixture
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    sandbox.settings.update({"dialect": "webhook-nested", "webhook_url": receiver.url})
    sandbox.decide(sandbox.create_link("order-1"), "ACCEPTED")
    eventually(lambda: receiver.bodies)
    assert receiver.bodies[0]["data"]["status"] == "ACCEPTED"


def test_a_report_can_be_redirected(sandbox: FacekiSandbox, call: Caller) -> None:
    sandbox.settings.pdf_form = "redirect"
    path = f"/sandbox/report/{sandbox.add_record()['requestId']}"
    answer = call("GET", path, allow_redirects=False)
    assert (answer.status_code, answer.content) == (302, b"")
    assert call("GET", path).content.startswith(b"%PDF")
