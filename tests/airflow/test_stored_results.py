# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""All results that a task passes to Airflow's database can be stored by SQLite, PostgreSQL and MySQL."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_faceki.operators.faceki import FacekiApiOperator, FacekiFetchRecordsOperator
from airflow_provider_faceki.operators.images import FacekiAnalyzeFaceOperator, FacekiFaceMatchOperator
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from airflow_provider_faceki.triggers.faceki import DecisionEvent
from tests.airflow.fakes import StateStore, TaskInstance, context
from tests.api.fake_server import FakeServer, reply_bytes, reply_json
from tests.billing.image_files import write

TOKEN = {"responseCode": 0, "data": {"access_token": "made-up", "expires_in": 3600}}
#: Texts from FACEKI that cannot be ids: a database refuses them, they are too long, they forge a log line, or they are
#: a name.
ODD = ["a\0b1", "a\ud83d1", "9" * 200, "1\nINFO forged", "Anna Example 1"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    with FakeServer() as running:
        running.on("/auth/api/generate-token", reply_json(TOKEN))
        connection = {
            "conn_type": "faceki",
            "host": running.url,
            "login": running.url,
            "password": "made-up-secret",
            "extra": {"token_store": "memory", "max_attempts": 1, "workflow_id": "w1"},
        }
        monkeypatch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(connection))
        yield running


def is_storable(value: object) -> bool:
    """Return whether every database that Airflow supports can store this value as JSON."""
    if isinstance(value, str):
        return not re.search("[\0\ud800-\udfff]", value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(is_storable, value)) and all(map(is_storable, value.values()))
    return value is None or (isinstance(value, list) and all(map(is_storable, value)))


@pytest.mark.parametrize(
    ("result", "stored"),
    [
        pytest.param(r'{"name": "J\ud83d"}', {"name": "J\ufffd"}, id="half a surrogate pair"),
        pytest.param(r'{"name": "J\u0000"}', {"name": "J\ufffd"}, id="U+0000"),
        pytest.param(r'{"J\u0000": 1}', {"J\ufffd": 1}, id="U+0000 in a name"),
        pytest.param('{"n": 18446744073709551616}', {"n": "18446744073709551616"}, id="beyond 64 bits"),
        pytest.param('{"n": 9007199254740993}', {"n": 9007199254740993}, id="64 bits"),
        pytest.param(r'"\ud83d\ude00"', "\U0001f600", id="a whole pair"),
    ],
)
def test_any_call(server: FakeServer, result: str, stored: object) -> None:
    body = f'{{"status": true, "code": 200, "result": {result}}}'
    server.on("/v2/paid", reply_bytes(body.encode()))
    found = FacekiApiOperator(task_id="call", method="POST", path="/v2/paid", json={}).execute(context())
    assert found == stored
    assert is_storable(found)


def _record(text: str) -> dict[str, object]:
    return {"requestId": text, "record_identifier": "customer-1", "decision": "ACCEPTED", "link": text}


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda _: FacekiFetchRecordsOperator(task_id="fetch", record_identifier="customer-1"), id="fetch"
        ),
        pytest.param(
            lambda _: FacekiKycDecisionSensor(task_id="wait", record_identifier="customer-1"), id="sensor"
        ),
        pytest.param(
            lambda folder: FacekiKycVerificationOperator(
                task_id="verify",
                record_identifier="customer-1",
                selfie=write(folder, "s.jpg"),
                documents=[write(folder, "d.jpg")],
            ),
            id="verification that is found",
        ),
        pytest.param(
            lambda folder: FacekiFaceMatchOperator(task_id="search", selfie=write(folder, "s.jpg")),
            id="face match",
        ),
    ],
)
def test_summaries(server: FakeServer, tmp_path: Any, make: Any, text: str) -> None:
    found = json.dumps({"status": True, "code": 200, "result": [_record(text)]})
    for path in ("/api/v3/kyc_verification", "/api/v3/kyc_verification/search-by-face"):
        server.on(path, reply_bytes(found.encode()))
    store = StateStore()
    store_context = context(task_state_store=store, ti=TaskInstance())
    assert is_storable(make(tmp_path).execute(store_context))
    assert is_storable(dict(store))


def test_face_analysis(server: FakeServer, tmp_path: Any) -> None:
    body = b'{"status": true, "code": 200, "result": {"gender": "\\u0000", "min_age": 1e999}}'
    server.on("/api/v3/kyc_verification/analyzeFace", reply_bytes(body))
    operator = FacekiAnalyzeFaceOperator(task_id="analyze", selfie=write(tmp_path, "s.jpg"))
    assert is_storable(operator.execute(context()))


@pytest.mark.parametrize("text", ODD)
def test_a_trigger_s_event_holds_nothing_that_is_no_id(text: str) -> None:
    from airflow_provider_faceki import api

    record = api.VerificationRecord({"requestId": text, "decision": text})
    assert DecisionEvent("decided", record.request_id)._asdict() == {"status": "decided", "request_id": None}
    assert DecisionEvent.from_payload({"status": "decided", "request_id": text}).request_id is None


def test_without_xcom_the_size_limit_does_not_apply(server: FakeServer) -> None:
    server.on("/v2/do", reply_json({"status": True, "code": 200, "result": {"list": "x" * 100_000}}))
    given: dict[str, Any] = {"task_id": "call", "method": "POST", "path": "/v2/do", "json": {}}
    FacekiApiOperator(**given, do_xcom_push=False).execute(context())
    with pytest.raises(AirflowFailException, match="max_xcom_bytes=49152"):
        FacekiApiOperator(**given).execute(context())


def test_multiple_outputs_need_an_object(server: FakeServer) -> None:
    server.on("/v2/do", reply_json({"status": True, "code": 200, "result": [1]}))
    operator = FacekiApiOperator(task_id="call", method="POST", path="/v2/do", json={}, multiple_outputs=True)
    with pytest.raises(AirflowFailException, match="multiple_outputs"):
        operator.execute(context())
