# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Text, exception chain, pickle and log of each error contain no canary, in the worker and in the triggerer."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_faceki import api
from airflow_provider_faceki.connection.settings import StoredConnection, settings_from_connection
from airflow_provider_faceki.failures import translate_errors
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.operators.faceki import FacekiFetchRecordsOperator
from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from tests.airflow.canaries import CLIENT_ID, PERSON, SECRET, logs_clean_of
from tests.airflow.conftest import Connect
from tests.airflow.planting import IN_QUERY
from tests.airflow.running import AIRFLOW_VERSION

FAULTS = [
    pytest.param({"kind": "status", "status": status}, id=f"HTTP {status}")
    for status in (401, 403, 404, 422, 429, 503)
] + [
    pytest.param({"kind": "code", "code": 1}, id="code 1"),
    pytest.param({"kind": "code", "code": 5003}, id="code 5003"),
    pytest.param(
        {"kind": "redirect", "location": f"/?clientSecret={SECRET}"}, id="a redirect that shows the secret"
    ),
    pytest.param({"kind": "truncated"}, id="half an answer"),
    pytest.param({"kind": "cut_off"}, id="cut off"),
    pytest.param({"kind": "content_type"}, id="odd content type"),
    pytest.param({"kind": "reset_after_body"}, id="reset"),
    pytest.param({"kind": "hang", "delay": 0.1}, id="no answer"),
]


@pytest.fixture
def canary(faceki_sandbox: FacekiSandbox, caplog: pytest.LogCaptureFixture) -> Iterator[FacekiSandbox]:
    """A sandbox whose secret and person are canaries, while every logger logs at level DEBUG."""
    faceki_sandbox.settings.update({"client_id": CLIENT_ID, "client_secret": SECRET, "person": PERSON})
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "urllib3.connectionpool"):
        yield faceki_sandbox


def said(error: BaseException) -> bytes:
    """Return everything that can be printed of an error, including its whole exception chain."""
    parts = []
    seen: BaseException | None = error
    while seen is not None:
        parts += [str(seen), repr(seen), repr(seen.args), repr(vars(seen))]
        if isinstance(seen, api.FacekiError):
            parts.append(repr(pickle.dumps(seen)))
        seen = seen.__cause__ or seen.__context__
    return "\n".join([*parts, *traceback.format_exception(error)]).encode()


def clean(link: str, *texts: bytes) -> list[tuple[str, str]]:
    return [hit for text in texts for hit in logs_clean_of([link]).lines_in(text)]


def _fail(hook: FacekiHook, endpoint: Any, mode: str) -> BaseException | None:
    try:
        with translate_errors():
            if mode == "worker":
                hook.call(endpoint)
            else:
                asyncio.run(hook.acall(endpoint))
    except Exception as error:  # noqa: BLE001 - every exception is searched, whatever its type
        return error
    return None


@pytest.mark.parametrize("mode", ["worker", "triggerer"])
@pytest.mark.parametrize("form", ["generate_token", "access_token_query"])
@pytest.mark.parametrize("route", ["token", "records"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults(
    canary: FacekiSandbox,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    fault: dict[str, Any],
    route: str,
    form: str,
    mode: str,
) -> None:
    connect(canary, auth_flow=form, token_store="memory")
    link = canary.create_link("customer-1")
    canary.decide(link, "ACCEPTED")
    # An earlier test has possibly cached a token. With that token, no token request would be sent, so a fault of the
    # token request could not occur. The new client id prevents the use of that token.
    canary.settings.client_id = f"{CLIENT_ID}-{len(caplog.records)}-{link}"
    connect(canary, auth_flow=form, token_store="memory")
    canary.add_fault(**fault, route=route, count=None)
    error = _fail(FacekiHook(), api.FetchRecords(link=link), mode)
    assert canary.counters.faults_fired > 0
    if fault["kind"] != "content_type":
        assert error is not None
        assert "faceki_default" in str(error)
    logged = "\n".join(record.getMessage() for record in caplog.records).encode()
    assert clean(link, said(error) if error else b"", logged, caplog.text.encode()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"timeout": SECRET}, id="as the timeout"),
        pytest.param({"verify": SECRET}, id="as the CA bundle"),
        pytest.param({"auth_flow": SECRET}, id="as the form"),
        pytest.param({SECRET: "x"}, id="as a key"),
        pytest.param({"fields": {"host": f"https://{CLIENT_ID}:{SECRET}@sdk.example"}}, id="in the address"),
        pytest.param({"fields": {"host": f"https://sdk.example/?clientSecret={SECRET}"}}, id="in the query"),
        pytest.param(
            {"fields": {"extra": json.dumps(SECRET)}},
            id="instead of the extra",
            marks=pytest.mark.skipif(
                AIRFLOW_VERSION in ((3, 0), (3, 1)),
                reason="Airflow says of such a Connection that there is none",
            ),
        ),
        pytest.param({"fields": {"password": f"{SECRET}\n"}}, id="with an end of line"),
        pytest.param({"proxies": f"http://me:{SECRET}@proxy.example"}, id="as a proxy"),
        pytest.param({**IN_QUERY, "fields": {"host": "http://127.0.0.1:1"}}, id="in the query, nobody there"),
    ],
)
def test_a_secret_in_the_wrong_place(
    canary: FacekiSandbox, connect: Connect, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any]
) -> None:
    connect(canary, **wrong)
    link = canary.create_link()
    shown = [
        said(error)
        for mode in ("worker", "triggerer")
        if (error := _fail(FacekiHook(), api.FetchRecords(link=link), mode))
    ]
    told = FacekiHook().test_connection()[1].encode()
    assert clean(link, *shown, told, caplog.text.encode()) == []


def test_wrong_secret(canary: FacekiSandbox, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    canary.settings.client_secret = "another-one-altogether"
    connect(canary, fields={"password": SECRET})
    error = _fail(FacekiHook(), api.FetchRecords(link="a"), "worker")
    assert error is not None
    assert "AuthenticationError" in str(error)
    assert (
        clean("none-such-link", said(error), FacekiHook().test_connection()[1].encode(), caplog.text.encode())
        == []
    )


def test_reprs(canary: FacekiSandbox, connect: Connect) -> None:
    connect(canary)
    link = canary.create_link("customer-1")
    canary.decide(link, "ACCEPTED")
    hook = FacekiHook()
    settings = settings_from_connection(
        "faceki_default", StoredConnection.of(hook.get_connection("faceki_default"))
    )
    asked = api.FetchRecords(link=link)
    (record,) = hook.call(asked)
    made = hook.call(api.GenerateKycLink(workflow_id=hook.workflow(None)))
    sensor = FacekiKycDecisionSensor(task_id="wait", link=link)
    operator = FacekiFetchRecordsOperator(task_id="fetch", link=link)
    client = hook.get_conn()
    shown = [
        hook,
        client,
        client.as_async(),
        asked,
        record,
        made,
        sensor,
        operator,
        api.GetWorkflowRules(link=link),
    ]
    text = "\n".join(f"{each!r} {each}" for each in shown).encode()
    assert clean(link, text) == []
    assert clean(made.link, text) == []
    # The client id is part of a Connection's settings and is shown in their repr. The secret is not shown.
    assert SECRET not in repr(settings)


def _webhook(request_id: str | None) -> dict[str, object]:
    """Return a webhook body that contains a person's name in place of a decision."""
    return {
        "requestId": request_id,
        "status": PERSON["last_name"],
        "fullName": PERSON["last_name"],
        "kycData": PERSON,
    }


def test_reprs_of_images_and_results_hold_no_personal_data(canary: FacekiSandbox, connect: Connect) -> None:
    connect(canary)
    hook = FacekiHook()
    person = " ".join(PERSON.values())
    image = api.Image.of_bytes("selfie", b"\xff\xd8\xff\xe0" + person.encode())
    document = api.Document(image, image)
    asked = api.PerformKycVerification(
        workflow_id=hook.workflow(None), selfie=image, documents=[document], record_identifier="customer-1"
    )
    made = hook.call(asked)
    found = hook.call(api.FindKycVerification(record_identifier="customer-1"))
    assert found is not None
    assert PERSON["last_name"] in str(found.record.document)
    analysis = hook.call(api.AnalyzeFace(image))
    report = hook.call(api.FetchPdfReport(str(made.record.request_id)))
    with report.file:
        asks = [asked, api.FaceMatch(image), api.AnalyzeFace(image), api.CheckImage(image)]
        hint = api.parse_webhook(json.dumps(_webhook(made.record.request_id)).encode())
        shown = [image, document, *asks, made, found, analysis, report, hint]
        text = "\n".join(f"{each!r} {each}" for each in shown).encode()
    assert clean("none-such-link", text) == []
    assert analysis.gender
    assert analysis.gender.encode() not in text
