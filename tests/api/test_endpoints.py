# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The exact requests of all calls, and the interpretation of their answers."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_faceki.api.endpoints.images import FaceMatch
from airflow_provider_faceki.api.endpoints.links import GenerateKycLink, KycLink
from airflow_provider_faceki.api.endpoints.raw import RawCall
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.endpoints.reports import FetchPdfReport
from airflow_provider_faceki.api.endpoints.verification import Document, PerformKycVerification
from airflow_provider_faceki.api.endpoints.workflows import GetWorkflowRules, WorkflowRules
from airflow_provider_faceki.api.errors import (
    LinkError,
    UnexpectedResponseError,
    ValidationError,
    WorkflowError,
)
from airflow_provider_faceki.api.models import VerificationRecord
from airflow_provider_faceki.api.protocol import session
from airflow_provider_faceki.api.protocol.envelope import Payload, read_payload
from airflow_provider_faceki.api.protocol.messages import HttpRequest, HttpResponse, Json
from airflow_provider_faceki.api.protocol.session import Endpoint
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.uploads import Image, Multipart
from tests.api.fake_driver import FakeDriver, token

HERE = Service(base_url="https://kyc.example.com/prefix", records_path="/records/v9")
ACCEPT = (("accept", "application/json"),)
POSTED = (("content-type", "application/json"), ("accept", "application/json"))
LINK_URL = "https://sdk.faceki.com/kycverify/api/kycverify/kyc-verify-link"
#: Text in place of secrets, links and personal data. It must not occur in any output.
CANARY = "canary-4711"


@pytest.mark.parametrize(
    ("endpoint", "request_"),
    [
        pytest.param(
            GenerateKycLink(workflow_id="wf"),
            HttpRequest("POST", LINK_URL, (), POSTED, b'{"workflowId":"wf"}'),
            id="link",
        ),
        pytest.param(
            GenerateKycLink(
                workflow_id="wf",
                record_identifier="Fall ü",
                expires_in_minutes=30,
                redirect_url="https://example.com/done?x=1",
            ),
            HttpRequest(
                "POST",
                LINK_URL,
                (),
                POSTED,
                b'{"workflowId":"wf","applicationId":"Fall \xc3\xbc","expiryTime":30,'
                b'"redirect_url":"https://example.com/done?x=1"}',
            ),
            id="link with everything",
        ),
        pytest.param(
            FetchRecords(request_id="r-1"),
            HttpRequest(
                "GET",
                "https://sdk.faceki.com/api/v3/kyc_verification",
                (("requestId", "r-1"),),
                ACCEPT,
                idempotent=True,
            ),
            id="records by request id",
        ),
        pytest.param(
            FetchRecords(link="l-1"),
            HttpRequest(
                "GET",
                "https://sdk.faceki.com/api/v3/kyc_verification",
                (("link", "l-1"),),
                ACCEPT,
                idempotent=True,
            ),
            id="records by link",
        ),
        pytest.param(
            FetchRecords(record_identifier="a b&c"),
            HttpRequest(
                "GET",
                "https://sdk.faceki.com/api/v3/kyc_verification",
                (("record_identifier", "a b&c"),),
                ACCEPT,
                idempotent=True,
            ),
            id="records by own id",
        ),
        pytest.param(
            FetchRecords(face_id="f-1"),
            HttpRequest(
                "GET",
                "https://sdk.faceki.com/api/v3/kyc_verification",
                (("face_id", "f-1"),),
                ACCEPT,
                idempotent=True,
            ),
            id="records by person",
        ),
        pytest.param(
            GetWorkflowRules(workflow_id="wf"),
            HttpRequest(
                "GET",
                "https://sdk.faceki.com/api/v3/workflows/rules",
                (("workflowId", "wf"),),
                ACCEPT,
                idempotent=True,
            ),
            id="rules",
        ),
        pytest.param(
            GetWorkflowRules(link="l-1"),
            HttpRequest(
                "GET",
                "https://sdk.faceki.com/api/v3/workflows/rulesbylink",
                (("link", "l-1"),),
                ACCEPT,
                authenticated=False,
                idempotent=True,
            ),
            id="rules by link, without a token",
        ),
    ],
)
def test_requests(endpoint: GenerateKycLink | FetchRecords | GetWorkflowRules, request_: HttpRequest) -> None:
    assert endpoint.request() == request_


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        pytest.param(
            GenerateKycLink(workflow_id="wf"), "/prefix/kycverify/api/kycverify/kyc-verify-link", id="link"
        ),
        pytest.param(FetchRecords(link="l"), "/prefix/records/v9", id="records"),
        pytest.param(GetWorkflowRules(link="l"), "/prefix/api/v3/workflows/rulesbylink", id="rules"),
    ],
)
def test_another_installation(endpoint: GenerateKycLink | FetchRecords | GetWorkflowRules, url: str) -> None:
    assert endpoint.request(HERE).url == f"https://kyc.example.com{url}"


BAD_IDS = [
    pytest.param("", "is empty", id="empty"),
    pytest.param("  ", "is empty", id="blank"),
    pytest.param(f"{CANARY}\n", "printable", id="line end"),
    pytest.param(f"{CANARY}\0", "printable", id="zero byte"),
    pytest.param(f"{CANARY}\ud800", "printable", id="half a character"),
    pytest.param(CANARY * 60, "512", id="too long"),
    pytest.param(4711, "not int", id="number"),
    pytest.param(True, "not bool", id="true"),
    pytest.param([CANARY], "not list", id="list"),
]
MAKERS: list[tuple[str, Callable[[object], object]]] = [
    ("workflow_id", lambda value: GenerateKycLink(workflow_id=value)),  # type: ignore[arg-type]
    ("record_identifier", lambda v: GenerateKycLink(workflow_id="w", record_identifier=v)),  # type: ignore[arg-type]
    ("request_id", lambda value: FetchRecords(request_id=value)),  # type: ignore[arg-type]
    ("link", lambda value: FetchRecords(link=value)),  # type: ignore[arg-type]
    ("record_identifier", lambda value: FetchRecords(record_identifier=value)),  # type: ignore[arg-type]
    ("face_id", lambda value: FetchRecords(face_id=value)),  # type: ignore[arg-type]
    ("workflow_id", lambda value: GetWorkflowRules(workflow_id=value)),  # type: ignore[arg-type]
    ("link", lambda value: GetWorkflowRules(link=value)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("value", "word"), BAD_IDS)
@pytest.mark.parametrize(("name", "make"), [pytest.param(*maker, id=maker[0]) for maker in MAKERS])
def test_an_invalid_id_is_rejected_without_showing_it(
    name: str, make: Callable[[object], object], value: object, word: str
) -> None:
    with pytest.raises(ValidationError, match=f"^{name} ") as caught:
        make(value)
    assert word in str(caught.value)
    assert CANARY not in repr(caught.value)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        pytest.param(1, True, id="one"),
        pytest.param(None, True, id="FACEKI's default"),
        pytest.param(525_600, True, id="a year"),
        pytest.param(0, True, id="zero, as FACEKI's client sends"),
        pytest.param(-1, False, id="negative"),
        pytest.param(True, False, id="true"),
        pytest.param(1.5, False, id="fraction"),
        pytest.param(30.0, False, id="float"),
        pytest.param("30", False, id="string"),
        pytest.param(10**5000, False, id="a number that no JSON takes"),
    ],
)
def test_minutes(value: object, allowed: bool) -> None:
    def make() -> HttpRequest:
        return GenerateKycLink(workflow_id="w", expires_in_minutes=value).request()  # type: ignore[arg-type]

    if allowed:
        assert (make().body == b'{"workflowId":"w"}') is (value is None)
    else:
        with pytest.raises(ValidationError, match="^expires_in_minutes must be a whole number of minutes"):
            make()


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        pytest.param("https://example.com", True, id="https"),
        pytest.param("http://localhost:8080/done?x=1#top", True, id="http"),
        pytest.param("https://müller.example/ü", True, id="not ASCII"),
        pytest.param("", False, id="empty"),
        pytest.param("example.com/done", False, id="no scheme"),
        pytest.param("//example.com", False, id="no scheme, slashes"),
        pytest.param("/done", False, id="path"),
        pytest.param("javascript:alert(1)//canary-4711", False, id="script"),
        pytest.param("https://", False, id="no host"),
        pytest.param("https:///canary-4711", False, id="path for a host"),
        pytest.param("https://[canary-4711", False, id="half an address"),
        pytest.param("https://example.com/ canary-4711", False, id="space"),
        pytest.param("https://example.com/\ncanary-4711", False, id="line end"),
        pytest.param(4711, False, id="number"),
    ],
)
def test_redirect_url(value: object, allowed: bool) -> None:
    if allowed:
        GenerateKycLink(workflow_id="w", redirect_url=value)  # type: ignore[arg-type]
        return
    with pytest.raises(
        ValidationError, match="^redirect_url must be an absolute http or https URL"
    ) as caught:
        GenerateKycLink(workflow_id="w", redirect_url=value)  # type: ignore[arg-type]
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        pytest.param({}, "found none", id="none"),
        pytest.param({"link": CANARY, "face_id": "f"}, "found link and face_id", id="two"),
        pytest.param({"request_id": "", "link": CANARY}, "found request_id and link", id="one of them empty"),
    ],
)
def test_records_need_exactly_one_filter(filters: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match="^give exactly one of request_id, link") as caught:
        FetchRecords(**filters)
    assert told in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("both", [{}, {"workflow_id": "w", "link": CANARY}], ids=["none", "both"])
def test_rules_need_exactly_one_filter(both: dict[str, str]) -> None:
    told = "^give exactly one of workflow_id and link; found (none|workflow_id and link)$"
    with pytest.raises(ValidationError, match=told):
        GetWorkflowRules(**both)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(GenerateKycLink(workflow_id="w", record_identifier=CANARY), id="link, own id"),
        pytest.param(
            GenerateKycLink(workflow_id="w", redirect_url=f"https://a.example/{CANARY}"), id="link, redirect"
        ),
        pytest.param(FetchRecords(link=CANARY), id="records"),
        pytest.param(GetWorkflowRules(link=CANARY), id="rules"),
        pytest.param(KycLink(CANARY, f"https://a.example/{CANARY}", CANARY), id="a link"),
        pytest.param(
            WorkflowRules((CANARY,), True, {"callbackURL": f"https://a.example/{CANARY}"}), id="rules found"
        ),
        pytest.param(FetchRecords(link=CANARY).request(), id="request"),
        pytest.param(FetchRecords(link="x").request().with_token(CANARY), id="token"),
    ],
)
def test_no_repr_shows_a_link_or_personal_data(value: object) -> None:
    assert CANARY not in repr(value)
    assert CANARY not in str(value)


UNREADABLE = object()


def _answered(document: Json) -> Payload:
    """Return the payload of an answer with this document."""
    return read_payload(HttpResponse(200, {}, json.dumps(document).encode()))


LINKS = GenerateKycLink(workflow_id="w", record_identifier="mine")
SHORT_URL = "https://a.example/s/x9"


@pytest.mark.parametrize(
    ("link", "url", "masks"),
    [
        pytest.param("l-123", None, ["mask l-123"], id="id"),
        # A short id is not masked. Otherwise Airflow 2.11 would also mask it inside other words.
        pytest.param("l-12", None, [], id="too short"),
        pytest.param("l-123", "https://a.example/?link=l-123", ["mask l-123"], id="URL with the id"),
        pytest.param("l-123", SHORT_URL, ["mask l-123", f"mask {SHORT_URL}"], id="URL without the id"),
    ],
)
def test_a_new_link_is_masked(link: str, url: str | None, masks: list[str]) -> None:
    driver = FakeDriver()
    driver.store.set(token("t"))
    driver.events.clear()
    answer = _answered({"data": link, "url": url})
    assert driver.run(session.call(driver.session, LINKS), answer) == KycLink(link, url, "mine")
    assert driver.events == ["mask t", "request", *masks]


@pytest.mark.parametrize(
    ("document", "link"),
    [
        pytest.param(
            {"data": "l-1", "url": "https://apps.example/l-1"},
            KycLink("l-1", "https://apps.example/l-1", "mine"),
            id="as documented",
        ),
        pytest.param({"data": " l-1 ", "url": None}, KycLink("l-1", None, "mine"), id="no URL"),
        pytest.param({"data": "l-1", "url": "javascript:x"}, KycLink("l-1", None, "mine"), id="no web URL"),
        pytest.param("l-1", KycLink("l-1", None, "mine"), id="no object"),
        pytest.param(
            {"data": "https://apps.example/kycverify/l-1"},
            KycLink("l-1", "https://apps.example/kycverify/l-1", "mine"),
            id="data is the URL",
        ),
        pytest.param(
            {"link": "https://apps.example/l-1", "url": "https://apps.example/l-1"},
            KycLink("l-1", "https://apps.example/l-1", "mine"),
            id="link and url",
        ),
        pytest.param({"data": {"link": "l-1"}}, KycLink("l-1", None, "mine"), id="object with link"),
        pytest.param({"result": {"linkId": "l-1"}}, KycLink("l-1", None, "mine"), id="object with linkId"),
        pytest.param({"data": {"link_id": "l-1"}}, KycLink("l-1", None, "mine"), id="object with link_id"),
        pytest.param(
            {"url": "https://apps.example/?link=l-1"},
            KycLink("l-1", "https://apps.example/?link=l-1", "mine"),
            id="URL alone",
        ),
        pytest.param(
            {"data": "l-1", "applicationId": "mine"}, KycLink("l-1", None, "mine"), id="with our identifier"
        ),
        pytest.param({"data": ""}, UNREADABLE, id="empty"),
        pytest.param({"data": " "}, UNREADABLE, id="blank"),
        pytest.param({"data": "None"}, UNREADABLE, id="a word for missing"),
        pytest.param({"data": "Link created for Maria"}, UNREADABLE, id="a sentence"),
        pytest.param({"data": None}, UNREADABLE, id="null"),
        pytest.param({"data": {"created": True}}, UNREADABLE, id="object without one"),
    ],
)
def test_reading_a_link(document: Json, link: object) -> None:
    if link is UNREADABLE:
        with pytest.raises(UnexpectedResponseError, match="no valid link id"):
            LINKS.read(_answered(document))
    else:
        assert LINKS.read(_answered(document)) == link


def test_a_link_for_another_record_is_not_handed_out() -> None:
    with pytest.raises(UnexpectedResponseError, match="another record identifier"):
        LINKS.read(_answered({"responseCode": 0, "data": "l-1", "applicationId": "somebody-else"}))


@pytest.mark.parametrize(
    ("result", "records"),
    [
        pytest.param([], (), id="none"),
        pytest.param({}, UNREADABLE, id="empty object"),
        pytest.param([{}], UNREADABLE, id="list of an empty object"),
        pytest.param(
            [{"requestId": "1"}, {"decision": "X"}],
            ({"requestId": "1"}, {"decision": "X"}),
            id="two, in order",
        ),
        pytest.param({"requestId": "1"}, ({"requestId": "1"},), id="one without a list"),
        pytest.param({"a": 1}, UNREADABLE, id="an object that is no record"),
        pytest.param([None], UNREADABLE, id="null in it"),
        pytest.param([{"a": 1}, "x"], UNREADABLE, id="a string in it"),
        pytest.param("x", UNREADABLE, id="string"),
        pytest.param('[{"requestId": "1"}]', ({"requestId": "1"},), id="JSON in a string"),
        pytest.param('[{"requestId": "1", "score": NaN}]', UNREADABLE, id="NaN in a string"),
        pytest.param(
            '[{"requestId": "1", "deep": ' + "[" * 200 + "]" * 200 + "}]", UNREADABLE, id="deep in a string"
        ),
        pytest.param(7, UNREADABLE, id="number"),
        pytest.param(False, UNREADABLE, id="false"),
    ],
)
def test_reading_records(result: Json, records: object) -> None:
    if records is UNREADABLE:
        with pytest.raises(UnexpectedResponseError, match="has an unknown format|does not say whether"):
            FetchRecords(link="l").read(_answered(result))
    else:
        assert isinstance(records, tuple)
        read = FetchRecords(link="l").read(_answered(result))
        assert read == tuple(VerificationRecord(document) for document in records)


def test_reading_no_records() -> None:
    with pytest.raises(UnexpectedResponseError, match="contains HTTP 204 without a body"):
        FetchRecords(link="l").read(read_payload(HttpResponse(204)))


@pytest.mark.parametrize(
    ("result", "rules"),
    [
        pytest.param(
            {"documents": ["Passport", "ID Card"], "document_optional": True, "x": 1},
            WorkflowRules(("Passport", "ID Card"), True, {}),
            id="as seen",
        ),
        pytest.param(
            {"documents": "Passport", "document_optional": "yes"},
            WorkflowRules(("Passport",), True, {}),
            id="other types",
        ),
        pytest.param(
            {"documents": [{"name": "Passport"}, {"document_type": "ID Card"}]},
            WorkflowRules(("Passport", "ID Card"), False, {}),
            id="documents as objects",
        ),
        pytest.param(
            {"documents": {"Passport": True, "ID Card": False}},
            WorkflowRules(("Passport",), False, {}),
            id="documents as flags",
        ),
        pytest.param({"documents": []}, WorkflowRules((), False, {}), id="no documents"),
        pytest.param({"documents": ["Passport", 5]}, UNREADABLE, id="a document that is a number"),
        pytest.param({"documents": None, "store_data": True}, UNREADABLE, id="documents null"),
        pytest.param({"documents": [{"count": 2}]}, UNREADABLE, id="documents without names"),
        pytest.param({"x": 1}, UNREADABLE, id="neither"),
        pytest.param({}, UNREADABLE, id="empty"),
    ],
)
def test_reading_rules(result: Json, rules: object) -> None:
    asked = GetWorkflowRules(workflow_id="w")
    if rules is UNREADABLE:
        with pytest.raises(UnexpectedResponseError, match="no workflow rules"):
            asked.read(_answered(result))
    else:
        assert isinstance(rules, WorkflowRules)
        assert isinstance(result, dict)
        assert asked.read(_answered(result)) == replace(rules, document=result)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(GetWorkflowRules(workflow_id="w"), WorkflowError, id="by id"),
        pytest.param(GetWorkflowRules(link="l"), LinkError, id="by link"),
    ],
)
@pytest.mark.parametrize("beside", [{"result": None}, {}], ids=["null", "absent"])
def test_a_workflow_without_rules_is_unknown(
    asked: GetWorkflowRules, expected: type[Exception], beside: dict[str, Json]
) -> None:
    answered: dict[str, Json] = {"status": True, "code": 200, "message": "OK", **beside}
    with pytest.raises(expected, match="FACEKI has no"):
        asked.read(_answered(answered))


@pytest.mark.parametrize(
    ("rules", "stores"),
    [
        pytest.param({"store_data": True}, True, id="kept"),
        pytest.param({"store_data": False}, False, id="not stored"),
        pytest.param({"documents": []}, True, id="not said"),
        pytest.param({"store_data": None}, True, id="null"),
        pytest.param({"store_data": "maybe"}, True, id="text"),
        pytest.param({"store_data": "false"}, False, id="not kept, as text"),
    ],
)
def test_whether_records_are_kept(rules: dict[str, Json], stores: bool) -> None:
    answer = _answered({"result": {"documents": [], **rules}})
    assert GetWorkflowRules(workflow_id="w").read(answer).stores_records is stores


@pytest.mark.parametrize(
    ("changes", "filters", "path", "query"),
    [
        pytest.param({}, {"link": "l/1"}, "/api/v3/kyc_verification", (("link", "l/1"),), id="default"),
        pytest.param(
            {"link_filter": "linkId"},
            {"link": "l-1"},
            "/api/v3/kyc_verification",
            (("linkId", "l-1"),),
            id="another name",
        ),
        pytest.param(
            {"face_id_filter": "/faces/{face_id}/records"},
            {"face_id": "f/1"},
            "/faces/f%2F1/records",
            (),
            id="own path",
        ),
        pytest.param(
            {"link_filter": "/kycverify/link?linkId={link}&all=1"},
            {"link": "a&b"},
            "/kycverify/link",
            (("linkId", "a&b"), ("all", "1")),
            id="own path with a query",
        ),
    ],
)
def test_the_address_of_records(
    changes: dict[str, str], filters: dict[str, str], path: str, query: tuple[tuple[str, str], ...]
) -> None:
    request = FetchRecords(**filters).request(Service(**changes))
    assert (request.url, request.query) == (f"https://sdk.faceki.com{path}", query)


@pytest.mark.parametrize("folder", [".", "..", "..."])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda folder: FetchRecords(face_id=folder).request(
                Service(face_id_filter="/faces/{face_id}/records")
            ),
            id="records",
        ),
        pytest.param(FetchPdfReport, id="report"),
    ],
)
def test_an_id_in_a_path_is_not_a_folder(make: Callable[[str], object], folder: str) -> None:
    with pytest.raises(ValidationError, match="consist only of dots"):
        make(folder)
    assert FetchRecords(request_id=folder).request().query == (("requestId", folder),)


@pytest.mark.parametrize(
    ("header", "scheme", "sent"),
    [
        pytest.param("authorization", "Bearer", ("authorization", "Bearer t0ken"), id="default"),
        pytest.param("X-Access-Token", "", ("x-access-token", "t0ken"), id="alone in another header"),
        pytest.param("authorization", "Token", ("authorization", "Token t0ken"), id="another scheme"),
    ],
)
def test_how_the_token_is_sent(header: str, scheme: str, sent: tuple[str, str]) -> None:
    assert FetchRecords(link="l-1").request().with_token("t0ken", header, scheme).headers[-1] == sent


IMAGE = Image.of_bytes("selfie", b"\xff\xd8\xff" + b"x" * 20)


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param(FetchRecords(link="l-1"), id="records"),
        pytest.param(LINKS, id="link"),
        pytest.param(GetWorkflowRules(workflow_id="w"), id="rules"),
        pytest.param(RawCall("POST", "/x", files={"a": IMAGE}), id="raw"),
        pytest.param(FaceMatch(IMAGE), id="face match"),
        pytest.param(
            PerformKycVerification(
                workflow_id="w", selfie=IMAGE, documents=[Document(IMAGE)], record_identifier="mine"
            ),
            id="verification",
        ),
    ],
)
def test_a_used_endpoint_can_be_copied_and_pickled(endpoint: Endpoint[object]) -> None:
    before = endpoint.request()
    for other in (copy.copy(endpoint), copy.deepcopy(endpoint), pickle.loads(pickle.dumps(endpoint))):  # noqa: S301
        request = other.request()
        assert type(other) is type(endpoint)
        assert (request.method, request.url, request.query) == (before.method, before.url, before.query)
        if isinstance(request.body, Multipart):
            assert b"xxx" in b"".join(request.body.chunks())
