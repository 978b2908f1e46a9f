# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Property tests: each answer to each call becomes either a result or a ``FacekiError``."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.images import AnalyzeFace, CheckImage, FaceMatch
from airflow_provider_faceki.api.endpoints.links import GenerateKycLink, KycLink
from airflow_provider_faceki.api.endpoints.raw import RawCall
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.endpoints.reports import FetchPdfReport
from airflow_provider_faceki.api.endpoints.verification import (
    Document,
    FindKycVerification,
    KycVerification,
    PerformKycVerification,
)
from airflow_provider_faceki.api.endpoints.workflows import GetWorkflowRules
from airflow_provider_faceki.api.errors import FacekiError, ResponseError
from airflow_provider_faceki.api.models import VerificationRecord
from airflow_provider_faceki.api.protocol import session
from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest
from airflow_provider_faceki.api.protocol.envelope import read_payload
from airflow_provider_faceki.api.protocol.messages import HttpResponse, Json
from airflow_provider_faceki.api.protocol.session import Endpoint, RunBlocking, SendRequest, Steps
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.api.tokens.file import FileTokenStore
from airflow_provider_faceki.api.tokens.sealing import TokenSeal
from airflow_provider_faceki.api.transport.retry import RetryPolicy
from airflow_provider_faceki.api.uploads import Image
from tests.api.conftest import RecordedWarnings
from tests.api.fake_driver import FakeDriver, token
from tests.api.fake_server import RECORDS_PATH, FakeServer, reply_raw
from tests.api.sample_files import NAMES, sample

IMAGE = Image.of_bytes("selfie", b"\xff\xd8\xff" + b"x" * 20)
ENDPOINTS: list[Endpoint[object]] = [
    GenerateKycLink(workflow_id="w", record_identifier="case-1"),
    FetchRecords(record_identifier="case-1"),
    GetWorkflowRules(workflow_id="w"),
    GetWorkflowRules(link="l-1"),
    RawCall("GET", "/anything"),
    RawCall("HEAD", "/anything"),
    PerformKycVerification(
        workflow_id="w", selfie=IMAGE, documents=[Document(IMAGE)], record_identifier="case-1"
    ),
    FindKycVerification(request_id="3f6f2a52-7f0e-4c35-9d3b-0a8f4f1c2d71"),
    FaceMatch(IMAGE),
    AnalyzeFace(IMAGE),
    CheckImage(IMAGE),
    FetchPdfReport("r-1"),
]
HERE = Service(base_url="https://kyc.example/prefix", pdf_report_path="/reports/{requestId}")

# The keys and values of FACEKI make it probable that a random document passes the first checks.
_KEYS = st.sampled_from(
    (
        *("status", "code", "responseCode", "statusCode", "message", "result", "data", "error", "url"),
        *("requestId", "decision", "errorCodes", "verification_summary", "createdAt"),
        *("access_token", "expires_in", "documents"),
    )
)
_WORDS = st.sampled_from(
    (
        *(
            "ACCEPTED",
            "REVIEW",
            " ",
            "\u3000",
            "\x1f",
            "",
            "0",
            "200",
            "5003",
            "1e999",
            "2026-03-02T09:15:30.123Z",
            "\ud800",
        ),
        *("https://[", "https://a.example/x", "JVBERi0=", "undefined", "A_B"),
    )
)
_CODES = st.sampled_from([0, 1, 200, 201, 401, 404, 429, 500, 5003, 5008, 8013, 8014, 9999])
_SCALARS = st.none() | st.booleans() | _CODES | _WORDS | st.integers() | st.floats() | st.text(max_size=20)
DOCUMENTS: st.SearchStrategy[Json] = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_KEYS | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)


@st.composite
def mutated_samples(draw: st.DrawFn) -> Json:
    """Draw a sample of FACEKI's answers in which some values are replaced or removed."""
    document = sample(draw(st.sampled_from(NAMES)))
    for _ in range(draw(st.integers(1, 3))):
        _mutate(draw, document)
    return document


def _mutate(draw: st.DrawFn, document: Json) -> None:
    if isinstance(document, list) and document:
        _mutate(draw, document[draw(st.integers(0, len(document) - 1))])
    elif isinstance(document, dict) and document:
        key = draw(st.sampled_from(sorted(document)))
        if isinstance(document[key], dict | list) and draw(st.booleans()):
            _mutate(draw, document[key])
        elif draw(st.booleans()):
            document[key] = draw(DOCUMENTS)
        else:
            del document[key]


def _encoded(document: Json) -> bytes:
    return json.dumps(document).encode()


BODIES = st.one_of(
    st.binary(max_size=200),
    DOCUMENTS.map(_encoded),
    mutated_samples().map(_encoded),
    mutated_samples()
    .map(_encoded)
    .flatmap(lambda body: st.integers(0, len(body)).map(lambda end: body[:end])),
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "date", "content-type", "location"]),
    st.text(st.characters(max_codepoint=255), max_size=30)
    | st.sampled_from(
        ["5", "Wed, 04 Nov 2026 10:00:20 GMT", "Wed, 04 Nov 2026 10:00:20 -0000", "1 Jan , 10", "https://[b"]
    ),
    max_size=3,
)
RESPONSES = st.builds(
    HttpResponse, st.sampled_from([200, 201, 204, 302, 400, 401, 404, 422, 429, 500, 503]), HEADERS, BODIES
) | st.builds(HttpResponse, st.integers(200, 599), HEADERS, BODIES)


def _perform(handler: Steps[object], answers: Mapping[bool, HttpResponse]) -> object:
    """Run the steps of a call. All token requests get one answer, and all other requests get another answer."""
    effect = next(handler)
    try:
        for _ in range(500):
            match effect:
                case SendRequest(request):
                    try:
                        answer = read_payload(answers["/auth/api/" in request.url])
                    except ResponseError as error:
                        effect = handler.throw(error)
                    else:
                        effect = handler.send(answer)
                case RunBlocking(operation):
                    effect = handler.send(operation())
                case _:
                    effect = handler.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it asks for ever")


def _check_result(result: object) -> None:
    """Call the properties and methods of a result that the Airflow layers call."""
    for record in result if isinstance(result, tuple) else (result,):
        if isinstance(record, VerificationRecord | KycVerification):
            summary = record.summary()
            assert json.loads(json.dumps(summary)) == summary
    if isinstance(result, KycLink):
        assert result.link.strip()
    assert repr(result)


def _check_error(error: FacekiError) -> None:
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - the test itself made the pickle
    assert (str(back), back.code, back.retry_after) == (str(error), error.code, error.retry_after)
    assert error.retry_after is None or 0 <= error.retry_after <= 86_400


TOKEN = HttpResponse(200, {}, b'{"responseCode":0,"data":{"access_token":"t","expires_in":3600}}')


@given(st.sampled_from(ENDPOINTS), RESPONSES)
def test_any_response_to_any_endpoint(endpoint: Endpoint[object], response: HttpResponse) -> None:
    driver = FakeDriver()
    auth_session = replace(driver.session, service=HERE)
    driver.store.set(token("t0"))
    try:
        _check_result(_perform(session.call(auth_session, endpoint), {False: response, True: TOKEN}))
    except FacekiError as error:
        _check_error(error)


@given(RESPONSES)
def test_any_response_to_the_token_request(response: HttpResponse) -> None:
    driver = FakeDriver()
    try:
        found = _perform(session.token(driver.session), {True: response})
    except FacekiError as error:
        _check_error(error)
    else:
        assert isinstance(found, AccessToken)
        assert re.fullmatch(r"[\x21-\x7e]+", found.value)
        assert 0 < found.lifetime < float("inf")
    assert driver.store.is_free


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 OK\r\n", b"HTTP/1.1 401 OK\r\n"]),
    st.lists(
        st.sampled_from(
            (
                *(
                    b"Content-Length: 5",
                    b"Content-Length: -1",
                    b"Content-Length: x",
                    b"Transfer-Encoding: chunked",
                ),
                *(
                    b"Content-Encoding: gzip",
                    b"Content-Encoding: br",
                    b"Location: http://[",
                    b"Retry-After: x",
                ),
                *(b"Connection: close", b"Set-Cookie: \xff=;", b": x", b"\xff", b" folded"),
            )
        ),
        max_size=3,
    ),
    BODIES,
)
def test_any_bytes_on_the_wire(
    server: FakeServer, client: FacekiClient, first: bytes, headers: list[bytes], body: bytes
) -> None:
    lines = b"".join(header + b"\r\n" for header in headers)
    server.on(RECORDS_PATH, reply_raw(first + (lines + b"\r\n" if first else b"") + body))
    try:
        _check_result(replace(client, retry=RetryPolicy(max_attempts=1)).call(FetchRecords(link="l-1")))
    except FacekiError as error:
        _check_error(error)


@given(DOCUMENTS)
def test_any_document_as_a_record(document: Json) -> None:
    fields = document if isinstance(document, dict) else {"requestId": document, "decision": document}
    _check_result((VerificationRecord(fields),))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_in_the_token_file(tmp_path: Path, content: bytes) -> None:
    warned = RecordedWarnings([])
    store = FileTokenStore(
        tmp_path / "tokens", TokenSeal(TokenRequest("https://kyc.example", "c", "s")), warned
    )
    store.set(token("t1"))
    (path,) = (tmp_path / "tokens").iterdir()
    path.write_bytes(content)
    assert (
        FileTokenStore(
            tmp_path / "tokens", TokenSeal(TokenRequest("https://kyc.example", "c", "s")), warned
        ).read()
        is None
    )
    assert warned.messages == []


def test_the_list_above_has_every_endpoint() -> None:
    from airflow_provider_faceki import api

    asking = {name for name in api.__all__ if hasattr(getattr(api, name), "request")}
    assert asking == {type(endpoint).__name__ for endpoint in ENDPOINTS}
