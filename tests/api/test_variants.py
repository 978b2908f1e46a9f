# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Possible variants of FACEKI's answers.

Each variant either gives the right result, or raises an error with a description of the answer and the setting to
change.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.errors import FacekiError, ResponseError
from airflow_provider_faceki.api.protocol import session
from airflow_provider_faceki.api.protocol.envelope import read_payload
from airflow_provider_faceki.api.protocol.messages import HttpResponse, Json
from airflow_provider_faceki.api.protocol.session import (
    CountToken,
    Endpoint,
    MaskSecret,
    RunBlocking,
    SendRequest,
    Sleep,
)
from airflow_provider_faceki.api.service import FACEKI, Service
from tests.api.fake_driver import FakeDriver, token
from tests.api.test_secrets_in_frames import PERSON, leaks

IDENTIFIER = "case-7"
REQUEST_ID = "3f6f2a52-7f0e-4c35-9d3b-0a8f4f1c2d71"
OTHER_ID = "b8f1c7de-52c4-4b7a-8f39-6d1e0c9a7742"
IMAGE = api.Image.of_bytes("selfie", b"\xff\xd8\xff" + b"x" * 20)
RECORD: dict[str, Any] = {"requestId": REQUEST_ID, "record_identifier": IDENTIFIER, "decision": "ACCEPTED"}
OK: dict[str, Any] = {"status": True, "code": 200}
FETCH = api.FetchRecords(record_identifier=IDENTIFIER)
FIND = api.FindKycVerification(record_identifier=IDENTIFIER)
VERIFY = api.PerformKycVerification(
    workflow_id="w",
    selfie=IMAGE,
    documents=[api.Document(IMAGE)],
    record_identifier=IDENTIFIER,
    lookup_timeout=0.0,
)
TOKEN = HttpResponse(
    200, {}, b'{"responseCode":0,"data":{"access_token":"token-new-0123456789","expires_in":3600}}'
)


def answer(document: Json, status: int = 200) -> HttpResponse:
    """Return an HTTP response with this document."""
    return HttpResponse(status, {}, json.dumps(document).encode())


class Played:
    """A call with prepared answers. They are used in order, and the last answer repeats."""

    def __init__(self, *answers: HttpResponse, old_token: bool = True, service: Service = FACEKI) -> None:
        self.driver = FakeDriver(service=service)
        if old_token:
            self.driver.store.set(token("token-old", 100.0))
        self.answers = list(answers)
        self.sent: list[str] = []
        self.requests: list[Any] = []

    def call(self, endpoint: Endpoint[Any]) -> Any:
        """Perform the call and return its result."""
        steps = session.call(self.driver.session, endpoint)
        effect = next(steps)
        while True:
            try:
                match effect:
                    case SendRequest(request):
                        effect = self._send(steps, request)
                    case RunBlocking(operation):
                        self.driver.now += 0.001
                        effect = steps.send(operation())
                    case Sleep(seconds):
                        self.driver.now += seconds
                        effect = steps.send(None)
                    case MaskSecret() | CountToken():
                        effect = steps.send(None)
            except StopIteration as end:
                return end.value

    def _send(self, steps: Any, request: Any) -> Any:
        # The clock advances, so that a token fetched now is newer than the start of the call.
        self.driver.now += 1.0
        is_token = "/auth/" in request.url
        self.sent.append("token" if is_token else request.method)
        self.requests.append(request)
        response = TOKEN if is_token else self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        try:
            payload = read_payload(response)
        except ResponseError as error:
            failure = error
        else:
            return steps.send(payload)
        return steps.throw(failure)


WRAPPINGS = [
    pytest.param({**OK, "result": [RECORD]}, id="as documented"),
    pytest.param({"responseCode": 0, "data": [RECORD]}, id="legacy"),
    pytest.param([RECORD], id="bare list"),
    pytest.param(RECORD, id="bare record"),
    pytest.param({**OK, "result": RECORD}, id="lone record"),
    pytest.param({**OK, "result": {"records": [RECORD], "total": 1}}, id="records in result"),
    pytest.param({**OK, "result": {"data": {"items": [RECORD]}}}, id="items in data in result"),
    pytest.param({**OK, "result": [[RECORD]]}, id="list in a list"),
    pytest.param({**OK, "result": [{"record": RECORD}]}, id="each in an object"),
    pytest.param({**OK, "result": {"result": [RECORD]}}, id="twice nested"),
    pytest.param({**OK, "result": {"kycs": [RECORD]}}, id="under an unknown key"),
    pytest.param({**OK, "result": {REQUEST_ID: RECORD}}, id="by id"),
    pytest.param({**OK, "result": None, "data": [RECORD]}, id="data beside a null result"),
    pytest.param({**OK, "result": None, "records": [RECORD]}, id="records beside a null result"),
    pytest.param({**OK, "result": json.dumps([RECORD])}, id="JSON as text"),
    pytest.param({**OK, "requestId": "trace-1", "result": [RECORD]}, id="an id of the envelope's own"),
    pytest.param({"Status": True, "Code": "200", "Result": [RECORD]}, id="capitals"),
    pytest.param({"status": False, "code": 200, "result": [RECORD]}, id="a contradicting status"),
]


@pytest.mark.parametrize("endpoint", [FETCH, FIND, VERIFY], ids=["fetch", "find", "verify"])
@pytest.mark.parametrize("document", WRAPPINGS)
def test_a_record_is_found_in_any_wrapping(document: Json, endpoint: Endpoint[Any]) -> None:
    played = Played(answer(document))
    found = played.call(endpoint)
    record = found[0] if isinstance(found, tuple) else found.record
    assert (record.request_id, record.decision, record.record_identifier) == (
        REQUEST_ID,
        "ACCEPTED",
        IDENTIFIER,
    )
    assert len(played.sent) == 1


def _without(*names: str, **others: Json) -> dict[str, Json]:
    return {**{name: value for name, value in RECORD.items() if name not in names}, **others}


SPELLINGS = [
    pytest.param(_without("requestId", request_id=REQUEST_ID), id="request_id"),
    pytest.param(_without("requestId", RequestID=REQUEST_ID), id="RequestID"),
    pytest.param(_without("record_identifier", recordIdentifier=IDENTIFIER), id="recordIdentifier"),
    pytest.param(_without("record_identifier", applicationId=IDENTIFIER), id="applicationId"),
    pytest.param(_without("decision", status="ACCEPTED"), id="status"),
    pytest.param(_without("decision", status="accepted"), id="status in small letters"),
    pytest.param(_without("decision", decision=None, kycStatus="ACCEPTED"), id="kycStatus"),
    pytest.param(_without("decision", Decision="ACCEPTED"), id="Decision"),
    pytest.param(_without("decision", decision=["ACCEPTED"]), id="decision in a list"),
    pytest.param(_without("decision", decision={"value": "ACCEPTED"}), id="decision in an object"),
    pytest.param(_without("decision", summary={"decision": "ACCEPTED"}), id="decision in an inner object"),
]


@pytest.mark.parametrize("endpoint", [FETCH, FIND, VERIFY], ids=["fetch", "find", "verify"])
@pytest.mark.parametrize("record", SPELLINGS)
def test_fields_are_found_in_any_spelling(record: Json, endpoint: Endpoint[Any]) -> None:
    found = Played(answer({**OK, "result": [record]})).call(endpoint)
    read = found[0] if isinstance(found, tuple) else found.record
    assert (read.request_id, read.decision, read.record_identifier) == (REQUEST_ID, "ACCEPTED", IDENTIFIER)


def test_a_decision_beside_a_lone_record() -> None:
    document: Json = {**OK, "decision": "ACCEPTED", "result": _without("decision")}
    assert Played(answer(document)).call(VERIFY).decision == "ACCEPTED"
    assert Played(answer(document)).call(FETCH)[0].decision == "ACCEPTED"


NOT_UNDERSTOOD = [
    pytest.param({"success": False}, "without a code", id="success false"),
    pytest.param({"success": "false", "data": []}, "without a code", id="success false as text"),
    pytest.param({"errors": [{"message": f"{PERSON} is unknown"}]}, "without a code", id="errors"),
    pytest.param({"errors": {"selfie": ["missing"]}}, "without a code", id="errors by field"),
    pytest.param({"error": f"{PERSON} is unknown", "data": None}, "without a code", id="error"),
    pytest.param({"status": "error", "message": "no"}, "without a code", id="status error"),
    pytest.param({"status": 400, "message": "no"}, "malformed request", id="status 400"),
    pytest.param({"status": {"success": False}}, "without a code", id="status as an object"),
    pytest.param({"code": "WORKFLOW_RULES_MISSING"}, "no rules", id="a code by its name"),
    pytest.param({"code": 5001.0, "result": None}, "no rules", id="a code as a float"),
    pytest.param({"message": "Unauthorized"}, "token is not accepted", id="message Unauthorized"),
    pytest.param({"message": f"hello {PERSON}"}, "the keys message", id="message"),
    pytest.param({**OK, "result": {"name": PERSON}}, "in it the keys name", id="no known key"),
    pytest.param({**OK, "result": {PERSON + " Invented": 1}}, "in it 1 keys", id="a key that is a value"),
    pytest.param({**OK, "result": {OTHER_ID: 1}}, "in it 1 keys", id="a key that is an id"),
    pytest.param({**OK, "result": f"text about {PERSON}"}, "the keys code, result, status", id="text"),
    pytest.param({**OK, "result": 7}, "has an unknown format", id="number"),
    pytest.param({**OK, "result": [RECORD, PERSON]}, "has an unknown format", id="a record and a text"),
    pytest.param({**OK, "result": [_without("decision", status=PERSON)]}, "has no decision", id="status"),
    pytest.param({**OK, "result": [_without("decision", decision=5)]}, "has no decision", id="a number"),
]


@pytest.mark.parametrize("endpoint", [FETCH, FIND], ids=["fetch", "find"])
@pytest.mark.parametrize(("document", "told"), NOT_UNDERSTOOD)
def test_an_unknown_response_is_an_error_without_leaks(
    document: Json, told: str, endpoint: Endpoint[Any]
) -> None:
    with pytest.raises(ResponseError, match=told) as caught:
        Played(answer(document)).call(endpoint)
    assert leaks(caught.value) == []


@pytest.mark.parametrize(("document", "told"), NOT_UNDERSTOOD)
def test_a_charged_call_with_an_unknown_response_is_looked_up(document: Json, told: str) -> None:
    played = Played(answer(document), answer({**OK, "result": [RECORD]}))
    if told in ("no rules", "malformed request"):
        with pytest.raises(FacekiError):
            played.call(VERIFY)
        assert played.sent == ["POST"]
    else:
        assert played.call(VERIFY).decision == "ACCEPTED"
        assert played.sent == ["POST", "GET"]


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({**OK, "result": []}, id="empty list"),
        pytest.param({**OK, "result": {"records": [], "total": 0}}, id="empty list of records"),
        pytest.param({"responseCode": 0, "data": []}, id="legacy"),
        pytest.param({**OK, "result": None, "data": []}, id="empty list beside a null result"),
        pytest.param({**OK, "result": "[]"}, id="empty list as text"),
        pytest.param([], id="bare list"),
        pytest.param({"status": False, "code": 8013}, id="code"),
        pytest.param({"status": False, "code": "DATA_NOT_FOUND"}, id="name of the code"),
    ],
)
def test_documented_empty_responses_mean_no_record(document: Json) -> None:
    assert Played(answer(document)).call(FETCH) == ()
    assert Played(answer(document)).call(FIND) is None


NULLS = [
    pytest.param({**OK, "result": None}, id="v3"),
    pytest.param({"responseCode": 0, "data": None}, id="legacy"),
    pytest.param(OK, id="no result"),
    pytest.param({**OK, "result": {}}, id="empty object"),
    pytest.param({**OK, "result": [{}]}, id="list of an empty object"),
    pytest.param({**OK, "result": {"records": None}}, id="null records"),
    pytest.param({"data": {"records": {}}}, id="empty object of records"),
    pytest.param(None, id="bare null"),
]
MATCH = api.FaceMatch(IMAGE)


@pytest.mark.parametrize("document", NULLS)
@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        pytest.param(FETCH, errors.UnexpectedResponseError, id="fetch"),
        pytest.param(FIND, errors.UnexpectedResponseError, id="find"),
        pytest.param(MATCH, errors.OutcomeUnknownError, id="face match"),
    ],
)
def test_a_null_result_is_an_error_that_names_the_setting(
    document: Json, endpoint: Endpoint[Any], kind: type[FacekiError]
) -> None:
    with pytest.raises(kind, match=r"it contains .* set null_result to no_record"):
        Played(answer(document)).call(endpoint)


@pytest.mark.parametrize("document", NULLS)
def test_a_null_result_of_a_charged_call_is_looked_up(document: Json) -> None:
    for service in (Service(), Service(null_result="no_record")):
        played = Played(answer(document), answer({**OK, "result": [RECORD]}), service=service)
        assert played.call(VERIFY).decision == "ACCEPTED"
        assert played.sent == ["POST", "GET"]


@pytest.mark.parametrize("document", NULLS)
@pytest.mark.parametrize(
    ("endpoint", "nothing"), [(FETCH, ()), (FIND, None), (MATCH, ())], ids=["fetch", "find", "face match"]
)
def test_null_means_no_record_if_the_connection_says_so(
    document: Json, endpoint: Endpoint[Any], nothing: object
) -> None:
    service = Service(null_result="no_record")
    assert Played(answer(document), service=service).call(endpoint) == nothing
    with pytest.raises(errors.UnexpectedResponseError, match="HTTP 204 without a body"):
        Played(HttpResponse(204), service=service).call(FETCH)


@pytest.mark.parametrize("endpoint", [FETCH, FIND], ids=["fetch", "find"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>not here</html>", id="page"),
        pytest.param(b"", id="empty"),
        pytest.param(b'{"message":"Cannot GET /x","error":"Not Found","statusCode":404}', id="web framework"),
        pytest.param(b'{"message":"Not Found"}', id="gateway"),
    ],
)
def test_a_404_without_a_code_names_the_records_path_setting(body: bytes, endpoint: Endpoint[Any]) -> None:
    with pytest.raises(errors.UnexpectedResponseError, match="records_path"):
        Played(HttpResponse(404, {}, body)).call(endpoint)


@pytest.mark.parametrize(
    ("response", "told"),
    [
        pytest.param(HttpResponse(204), "HTTP 204 without a body", id="204"),
        pytest.param(HttpResponse(200, {}, '{"a":"é"}'.encode("latin-1")), "another encoding", id="latin-1"),
        pytest.param(HttpResponse(200, {}, b'{"a":NaN}'), "NaN or Infinity", id="NaN"),
        pytest.param(
            HttpResponse(200, {}, b"\x1f\x8b\x08"), "compressed data", id="gzip that is not declared"
        ),
        pytest.param(HttpResponse(200, {}, b'{"a":'), "cut off or broken", id="half"),
        pytest.param(HttpResponse(200, {}, b"<html>"), "an HTML page; check the API base URL", id="page"),
        pytest.param(HttpResponse(200, {}, b"hello"), "plain text; check the API base URL", id="text"),
        pytest.param(HttpResponse(301, {"location": "/x"}), "check the API base URL", id="redirect"),
    ],
)
def test_an_unreadable_response_is_described_in_the_error(response: HttpResponse, told: str) -> None:
    with pytest.raises(errors.UnexpectedResponseError, match=told):
        Played(response).call(FETCH)


OTHERS = [
    pytest.param({**RECORD, "record_identifier": "somebody-else", "requestId": "r-9"}, id="named"),
    pytest.param(
        {"requestId": "r-9", "applicationId": "somebody-else", "decision": "ACCEPTED"}, id="applicationId"
    ),
    pytest.param({"requestId": OTHER_ID, "decision": "ACCEPTED"}, id="a request that is known already"),
]


@pytest.mark.parametrize("record", OTHERS)
def test_the_response_of_another_verification_is_not_returned(record: Json) -> None:
    own: Json = {**RECORD, "decision": "DECLINED"}
    call = api.PerformKycVerification(
        workflow_id="w",
        selfie=IMAGE,
        documents=[api.Document(IMAGE)],
        record_identifier=IDENTIFIER,
        lookup_timeout=0.0,
        known_request_ids=frozenset({OTHER_ID}),
    )
    played = Played(answer({**OK, "result": record}), answer({**OK, "result": [own]}))
    made = played.call(call)
    assert (made.decision, made.record.request_id) == ("DECLINED", REQUEST_ID)
    assert played.sent == ["POST", "GET"]


def test_the_failure_of_another_verification_is_no_result() -> None:
    refusal: Json = {
        "status": False,
        "code": 5004,
        "result": {**RECORD, "record_identifier": "somebody-else"},
    }
    played = Played(answer(refusal), answer({**OK, "result": [RECORD]}))
    assert played.call(VERIFY).decision == "ACCEPTED"


DEAD_TOKENS = [
    pytest.param(answer({"status": False, "code": 1}), True, id="code 1"),
    pytest.param(HttpResponse(401), True, id="401"),
    pytest.param(HttpResponse(403), True, id="403"),
    pytest.param(answer({"message": "Forbidden"}, 403), True, id="403 of a gateway"),
    pytest.param(answer({"message": "jwt expired"}, 400), True, id="400 jwt expired"),
    pytest.param(
        answer({"status": False, "code": 400, "message": "jwt expired"}), False, id="code 400 jwt expired"
    ),
    pytest.param(answer({"message": "jwt expired"}, 500), False, id="500 jwt expired"),
    pytest.param(answer({"error": "Token is expired"}), False, id="error with 200"),
    pytest.param(answer({"status": False}), False, id="status false"),
    pytest.param(
        answer({"status": False, "message": "Unauthorized"}), False, id="status false, Unauthorized"
    ),
]


@pytest.mark.parametrize(("refusal", "proves"), DEAD_TOKENS)
def test_an_invalid_token_is_renewed_once(refusal: HttpResponse, proves: bool) -> None:
    played = Played(refusal, answer({**OK, "result": [RECORD]}))
    assert len(played.call(FETCH)) == 1
    assert played.sent == ["GET", "token", "GET"]
    again = Played(refusal)
    with pytest.raises(FacekiError):
        again.call(FETCH)
    assert again.sent == ["GET", "token", "GET"]
    # Later calls do not replace the new token again.
    with pytest.raises(FacekiError):
        again.call(FETCH)
    assert again.sent == ["GET", "token", "GET", "GET"]


@pytest.mark.parametrize(("refusal", "proves"), DEAD_TOKENS)
def test_a_charged_call_is_sent_again_only_if_it_was_not_processed(
    refusal: HttpResponse, proves: bool
) -> None:
    played = Played(refusal, answer({**OK, "result": [RECORD]}))
    assert played.call(VERIFY).decision == "ACCEPTED"
    assert played.sent == (["POST", "token", "POST"] if proves else ["POST", "GET"])


@pytest.mark.parametrize(("refusal", "proves"), DEAD_TOKENS)
def test_a_token_that_was_just_fetched_is_not_replaced(refusal: HttpResponse, proves: bool) -> None:
    played = Played(refusal, old_token=False)
    with pytest.raises(FacekiError):
        played.call(FETCH)
    assert played.sent.count("token") == 1


def test_a_refused_new_token_is_replaced_after_a_while() -> None:
    played = Played(HttpResponse(401))
    with pytest.raises(errors.AuthenticationError, match="auth_header and auth_scheme"):
        played.call(FETCH)
    played.driver.now += session.MIN_RENEWAL_SECONDS
    with pytest.raises(errors.AuthenticationError):
        played.call(FETCH)
    assert played.sent.count("token") == 2


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({**OK, "result": {"documents": ["Passport"]}}, id="as seen"),
        pytest.param({**OK, "result": {"rules": {"documents": ["Passport"]}}}, id="in rules"),
        pytest.param({**OK, "result": [{"documents": ["Passport"]}]}, id="in a list"),
        pytest.param({"responseCode": 0, "data": {"allowedKycDocuments": ["Passport"]}}, id="V2"),
        pytest.param({**OK, "result": {"documents": [{"name": "Passport"}]}}, id="objects"),
    ],
)
def test_rules(document: Json) -> None:
    assert Played(answer(document)).call(api.GetWorkflowRules(workflow_id="w")).documents == ("Passport",)


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param({"documents": None}, id="null"),
        pytest.param({"documents": 3}, id="number"),
        pytest.param({"documents": {}}, id="empty object"),
        pytest.param({"documents": ""}, id="empty text"),
        pytest.param({"documents": " , "}, id="text without a name"),
        pytest.param({"documents": [{"count": 1}]}, id="objects without a name"),
        pytest.param({"store_data": True}, id="absent"),
    ],
)
def test_rules_that_do_not_say_which_documents(rules: Json) -> None:
    with pytest.raises(errors.UnexpectedResponseError, match="documents|store_data"):
        Played(answer({**OK, "result": rules})).call(api.GetWorkflowRules(workflow_id="w"))


UUID = "973f1bb2-c4a6-424c-ae61-d220202b0611"


def _body(document: Json) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            _body({"requestId": UUID, "status": "ACCEPTED", "fullName": PERSON}), id="as documented"
        ),
        pytest.param(_body({"data": {"requestId": UUID, "status": "ACCEPTED"}}), id="in data"),
        pytest.param(
            _body({"status": True, "result": {"requestId": UUID, "decision": "ACCEPTED"}}), id="in result"
        ),
        pytest.param(_body({"request_id": UUID, "decision": "ACCEPTED"}), id="other names"),
        pytest.param(
            _body({"requestId": UUID, "kycData": {"decision": "ACCEPTED"}}), id="decision in kycData"
        ),
        pytest.param(
            _body({"status": "success", "requestId": UUID, "decision": "ACCEPTED"}), id="a status of its own"
        ),
        pytest.param(_body([{"requestId": UUID, "status": "ACCEPTED"}]), id="list of one"),
        pytest.param(f"requestId={UUID}&status=ACCEPTED&fullName=A+B".encode(), id="form"),
        pytest.param(
            f"payload=%7B%22requestId%22%3A%22{UUID}%22%2C%22status%22%3A%22ACCEPTED%22%7D".encode(),
            id="JSON in a form",
        ),
    ],
)
def test_webhooks(body: bytes) -> None:
    assert api.parse_webhook(body) == api.WebhookNotification(UUID, "ACCEPTED")


def test_a_webhook_with_the_names_of_the_connection() -> None:
    service = Service(webhook_request_id_field="verification", webhook_status_field="verdict")
    body = _body({"verification": UUID, "verdict": "DECLINED"})
    assert api.parse_webhook(body, service) == api.WebhookNotification(UUID, "DECLINED")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param(
            _body({"verification": UUID, "verdict": PERSON}),
            "the keys verdict, verification",
            id="other keys",
        ),
        pytest.param(
            _body({"requestId": PERSON, "status": "ACCEPTED"}), "requestId is not a UUID", id="no UUID"
        ),
        pytest.param(
            _body({"requestId": UUID, "status": f"{PERSON} passed"}), "status is not a word", id="no word"
        ),
        pytest.param(_body([1, 2]), "neither a JSON object nor a form", id="list of two"),
        pytest.param(PERSON.encode(), "neither a JSON object nor a form", id="text"),
    ],
)
def test_an_invalid_webhook_error_names_its_keys_without_values(body: bytes, told: str) -> None:
    with pytest.raises(api.InvalidWebhookError, match=told) as caught:
        api.parse_webhook(body)
    del body
    assert leaks(caught.value) == []


PDF = b"%PDF-1.7 made up"
REPORT = api.FetchPdfReport(REQUEST_ID)


def _reports(service: Service, *answers: HttpResponse) -> tuple[Played, Callable[[], bytes]]:
    played = Played(*answers)
    object.__setattr__(played.driver.session, "service", service)
    return played, lambda: played.call(REPORT).file.read()


@pytest.mark.parametrize(
    ("answers", "sent"),
    [
        pytest.param([HttpResponse(200, {}, b"\r\n" + PDF)], 1, id="a line end before it"),
        pytest.param(
            [HttpResponse(302, {"location": "https://files.example/r"}), HttpResponse(200, {}, PDF)],
            2,
            id="redirect",
        ),
        pytest.param(
            [
                answer({"logo": "https://cdn.example/logo", "report": "https://files.example/r"}),
                HttpResponse(200, {}, b"\x89PNG"),
                HttpResponse(200, {}, PDF),
            ],
            3,
            id="a logo first",
        ),
        pytest.param(
            [
                answer({"logo": "https://cdn.example/logo", "report": "https://files.example/r.pdf?x=1"}),
                HttpResponse(200, {}, PDF),
            ],
            2,
            id="a logo first, and the report named as a PDF",
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_reports(answers: list[HttpResponse], sent: int, method: str) -> None:
    service = Service(pdf_report_path="/reports/{requestId}", pdf_report_method=method)
    played, fetch = _reports(service, *answers)
    assert fetch() == PDF
    assert played.sent == [method, *["GET"] * (sent - 1)]
    # Requests to other hosts contain no token.
    assert [dict(request.headers).get("authorization") for request in played.requests[1:]] == [None] * (
        sent - 1
    )


def test_a_redirect_to_plain_http_is_not_followed() -> None:
    service = Service(pdf_report_path="/reports/{requestId}")
    played, fetch = _reports(service, HttpResponse(302, {"location": "http://files.example/r"}))
    with pytest.raises(errors.UnexpectedResponseError, match="begin with https://"):
        fetch()
    assert played.sent == ["GET"]


def test_the_report_of_another_request_is_rejected() -> None:
    service = Service(pdf_report_path="/reports/{requestId}")
    _, fetch = _reports(service, answer({"result": {"requestId": OTHER_ID, "pdf": "JVBERi0xLjc="}}))
    with pytest.raises(errors.UnexpectedResponseError, match="report of another"):
        fetch()


def test_uploads_by_the_generic_call() -> None:
    call = api.RawCall(
        "POST",
        "/kycverify/api/kycverify/kyc-verification",
        files={"selfie_image": IMAGE, "doc_front_image": IMAGE},
        data={"applicationId": IDENTIFIER},
    )
    played = Played(HttpResponse(502))
    with pytest.raises(errors.ServiceError) as caught:
        played.call(call)
    assert played.sent == ["POST"]
    assert caught.value.needs_consent
    (request,) = played.requests
    body = b"".join(request.body.chunks())
    assert request.upload
    assert body.count(b"\xff\xd8\xff") == 2
    assert b'name="selfie_image"; filename="selfie_image.jpg"' in body
    assert IDENTIFIER.encode() in body


def test_calls_without_a_token() -> None:
    played = Played(answer({"responseCode": 0, "data": {"allowSingle": True}}), old_token=False)
    call = api.RawCall(
        "GET", "/kycverify/api/kycverify/validate-kyc-verify-link", params={"url": "l-1"}, authenticated=False
    )
    assert played.call(call) == {"allowSingle": True}
    assert played.sent == ["GET"]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"method": "GET", "files": {"a": IMAGE}}, id="GET"),
        pytest.param({"method": "POST", "files": {"a": b"x"}}, id="bytes"),
        pytest.param({"method": "POST", "files": [IMAGE]}, id="list"),
        pytest.param({"method": "POST", "files": {'a"; x="': IMAGE}}, id="a name that ends the header"),
        pytest.param({"method": "POST", "files": {"a": IMAGE}, "data": {"a\r\nb": "x"}}, id="a field's name"),
        pytest.param({"method": "POST", "files": {"a": IMAGE}, "json": {}}, id="json too"),
        pytest.param({"method": "POST", "authenticated": "no"}, id="authenticated as text"),
    ],
)
def test_uploads_that_cannot_be_sent(arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.ValidationError):
        api.RawCall(path="/x", **arguments)


def test_a_raw_call_rejects_a_contradictory_response() -> None:
    with pytest.raises(errors.UnexpectedResponseError, match="without a code"):
        Played(answer({"status": False, "result": [RECORD]})).call(api.RawCall("GET", "/x"))
