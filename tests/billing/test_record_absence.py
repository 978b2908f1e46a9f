# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Which responses mean that FACEKI has no record; a wrong interpretation would cause a second bill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.api.protocol.messages import Json
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.api.fake_server import NOTHING_FOUND, RECORDS_PATH, FakeServer, Reply, reply_bytes, reply_json
from tests.billing.conftest import Verify

HTML = b"<html><body>Cannot GET /api/v3/kyc_verification</body></html>"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server that returns the responses that a test defines."""
    with FakeServer() as server:
        yield server


@pytest.fixture
def client(server: FakeServer) -> api.FacekiClient:
    return api.FacekiClient(
        "client",
        server.url,  # used as a unique secret, so that no two tests share a token
        service=api.Service(base_url=server.url),
        retry=api.RetryPolicy(max_attempts=1),
    )


def found(*records: Json) -> Reply:
    return reply_json({"status": True, "code": 200, "message": "OK", "result": list(records)})


def record(identifier: Json, decision: str = "ACCEPTED", request_id: str = "r-1", **more: Json) -> Json:
    return {"record_identifier": identifier, "requestId": request_id, "decision": decision, **more}


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(reply_json(NOTHING_FOUND), id="an empty list"),
        pytest.param(
            reply_json({"status": False, "code": 8013, "message": "DATA_NOT_FOUND"}), id="code 8013"
        ),
        pytest.param(reply_json({"status": False, "code": 8013}, 404), id="code 8013 with HTTP 404"),
        pytest.param(
            reply_json({"status": False, "code": 404, "message": "Not Found"}, 404), id="HTTP and code 404"
        ),
        pytest.param(
            reply_json({"status": False, "code": 404, "message": "Not Found"}), id="code 404 with HTTP 200"
        ),
        pytest.param(reply_json({"responseCode": 404, "data": {}}, 404), id="the old envelope"),
    ],
)
def test_documented_empty_responses_mean_no_verification(
    server: FakeServer, client: api.FacekiClient, reply: Reply
) -> None:
    server.on(RECORDS_PATH, reply)
    assert client.call(api.FindKycVerification(record_identifier="mine")) is None


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        pytest.param(reply_bytes(HTML, 404), "records_path, link_filter.*HTTP 404", id="a web server's 404"),
        pytest.param(reply_bytes(b"", 404), "records_path, link_filter.*HTTP 404", id="an empty 404"),
        pytest.param(reply_json({"message": "Not Found"}, 404), "HTTP 404", id="a gateway's 404"),
        pytest.param(
            reply_json({"statusCode": 404, "message": "Not Found"}, 404), "HTTP 404", id="a framework's 404"
        ),
        pytest.param(found(record("another")), "other verifications", id="somebody else's record"),
        pytest.param(
            found(record(None), record("undefined")),
            "other verifications",
            id="records without an identifier",
        ),
        pytest.param(found("mine"), "has an unknown format", id="no record at all"),
        pytest.param(
            reply_json({"status": True, "code": 200, "result": None}),
            "set null_result",
            id="a result of null",
        ),
        pytest.param(reply_bytes(HTML), "not JSON", id="a page with HTTP 200"),
        pytest.param(reply_bytes(b""), "has an unknown format|contains", id="nothing"),
    ],
)
def test_undocumented_empty_responses_are_errors(
    server: FakeServer, client: api.FacekiClient, reply: Reply, told: str
) -> None:
    server.on(RECORDS_PATH, reply)
    with pytest.raises(api.UnexpectedResponseError, match=told):
        client.call(api.FindKycVerification(record_identifier="mine"))


def test_a_404_with_code_1_is_an_authentication_error(server: FakeServer, client: api.FacekiClient) -> None:
    server.on(
        RECORDS_PATH, reply_json({"status": False, "code": 1, "message": "UNAUTHORIZED/INVALID URL"}, 404)
    )
    with pytest.raises(api.AuthenticationError):
        client.call(api.FindKycVerification(record_identifier="mine"))


def test_records_with_another_identifier_are_ignored(server: FakeServer, client: api.FacekiClient) -> None:
    server.on(RECORDS_PATH, found(record("mine", "DECLINED"), record("another", request_id="r-2")))
    made = client.call(api.FindKycVerification(record_identifier="mine"))
    assert made is not None
    assert made.decision is api.Decision.DECLINED


def test_by_request_id_the_request_id_counts(server: FakeServer, client: api.FacekiClient) -> None:
    server.on(RECORDS_PATH, found(record("another")))
    assert client.call(api.FindKycVerification(request_id="r-1")) is not None
    with pytest.raises(api.UnexpectedResponseError, match="other verifications"):
        client.call(api.FindKycVerification(request_id="r-2"))


def test_known_and_old_records_are_ignored(server: FakeServer, client: api.FacekiClient) -> None:
    old = record("mine", "DECLINED", "old", createdAt="2026-01-01T00:00:00.000Z")
    new = record("mine", "ACCEPTED", "new", createdAt="2026-01-02T00:00:00.000Z")
    server.on(RECORDS_PATH, found(old, new))
    look = api.FindKycVerification

    def request_id(endpoint: api.FindKycVerification) -> str | None:
        made = client.call(endpoint)
        return made.record.request_id if made else None

    assert request_id(look(record_identifier="mine")) == "new"
    assert request_id(look(record_identifier="mine", known_request_ids=frozenset({"new"}))) == "old"
    assert request_id(look(record_identifier="mine", known_request_ids=frozenset({"new", "old"}))) is None
    assert request_id(look(record_identifier="mine", not_before=1767312001.0)) is None


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param({}, id="none"),
        pytest.param({"record_identifier": "a", "request_id": "b"}, id="both"),
        pytest.param({"record_identifier": " "}, id="empty"),
    ],
)
def test_exactly_one_id(ids: dict[str, str]) -> None:
    with pytest.raises(api.ValidationError):
        api.FindKycVerification(**ids)  # type: ignore[arg-type]


def test_reprs_show_no_id() -> None:
    assert "mine" not in repr(api.FindKycVerification(record_identifier="mine"))


@pytest.mark.parametrize("not_found", ["empty", "8013", "404", "bare-404"])
def test_without_an_existing_record_a_verification_is_sent(
    verify: Verify, sandbox: FacekiSandbox, not_found: str
) -> None:
    sandbox.settings.not_found = not_found
    assert verify("accepted-1").go()["decision"] == "ACCEPTED"
    assert sandbox.ledger == {"accepted-1": 1}
