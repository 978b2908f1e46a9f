# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Responses of the receiver and the stored events, behind uvicorn and with Airflow's own database."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import unquote, urlencode

import pytest

from airflow_provider_faceki import metrics
from airflow_provider_faceki.api import WebhookNotification
from airflow_provider_faceki.webhook import app, auth, events
from tests.airflow.running import HAS_PARTITIONS
from tests.webhook.served import NAME, PREVIOUS, SECRET, TOKEN, WEAK, Served, connection, webhook_body

pytestmark = pytest.mark.long

REFUSED = {"detail": "unauthorized"}

only_partitioned = pytest.mark.skipif(not HAS_PARTITIONS, reason="Airflow has partitions from 3.2 on")


def test_events_are_stored_without_personal_data(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body = webhook_body()
    answer = served.post(served.at(), body)
    assert (answer.status_code, answer.json()) == (200, {"status": "stored"})
    key, extra = served.events()[-1]
    assert extra == {"request_id": body["requestId"], "status": "ACCEPTED"}
    assert key == (body["requestId"] if HAS_PARTITIONS else None)
    assert str(body["requestId"]) in caplog.text
    partitions = ("partitioned_asset_key_log", "asset_partition_dag_run") if HAS_PARTITIONS else ()
    for table in ("asset_event", "log", *partitions):
        assert NAME not in str(served.rows(f"SELECT * FROM {table}"))  # noqa: S608 - constant names
    assert NAME not in caplog.text


def test_no_log_has_the_token(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "wrong-" + TOKEN
    served.post(served.at(), webhook_body())
    served.post(served.at(token=wrong), webhook_body())
    served.post(served.at("faceki_weak", WEAK), webhook_body())
    served.post(served.at(token=PREVIOUS) + "/", webhook_body())
    served.post(f"{served.url}/faceki/webhooks/faceki_default/{TOKEN}", webhook_body())
    served.post(f"{served.url}/faceki/webhook/{TOKEN}/faceki_default", webhook_body())
    served.post(served.at() + "?again=1", webhook_body())
    served.post(f"{served.url}/faceki/webhook/faceki_default?token={TOKEN}", webhook_body())
    served.post(f"{served.at(token='x')}?{TOKEN}", webhook_body())
    served.post(f"{served.url}/faceki/?token={TOKEN}", webhook_body())
    requested = "\n".join(served.access_log)
    assert requested.count("POST /faceki/") == 10
    assert "?" not in requested
    assert "/faceki/webhook/***/***" in unquote(requested)
    for secret in (TOKEN, PREVIOUS, WEAK, wrong):
        assert secret not in requested
        assert secret not in _ours(caplog)


def test_answers_are_counted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    stats = SimpleNamespace(incr=lambda name, **_: counted.append(name))
    monkeypatch.setattr(metrics, "is_on", lambda: True)
    monkeypatch.setattr(metrics, "_stats", lambda: stats)
    served.post(served.at(), webhook_body())
    served.post(served.at(token="wrong-" + TOKEN), webhook_body())
    served.post(served.at(), b"no JSON")
    assert counted == [f"faceki.webhook_answers.{status}" for status in (200, 401, 422)]


def _ours(caplog: pytest.LogCaptureFixture) -> str:
    """Return all log messages, except those of the HTTP client of these tests."""
    return "\n".join(each.getMessage() for each in caplog.records if not each.name.startswith("urllib3"))


@pytest.mark.parametrize(
    ("conn_id", "token"),
    [
        pytest.param("faceki_default", "wrong-" + TOKEN, id="wrong token"),
        pytest.param("faceki_default", TOKEN[:-1], id="token cut off"),
        pytest.param("faceki_default", "x", id="short token"),
        pytest.param("faceki_default", "%C3%A9" * 40, id="token that is not ASCII"),
        pytest.param("nobody", TOKEN, id="unknown Connection"),
        pytest.param("..%2e", TOKEN, id="no Connection id"),
        pytest.param("x" * 300, TOKEN, id="Connection id of 300 characters"),
        pytest.param("faceki_bare", TOKEN, id="Connection without a token"),
        pytest.param("faceki_bare", "None", id="Connection without a token, asked for None"),
        pytest.param("faceki_weak", WEAK, id="Connection with a weak token, and that token"),
        pytest.param("not_faceki", TOKEN, id="Connection of another type"),
        pytest.param("faceki_signed", TOKEN, id="no signature"),
    ],
)
@pytest.mark.parametrize(
    "body", [pytest.param(webhook_body(), id="webhook"), pytest.param(b"not json", id="noise")]
)
def test_all_refusals_look_the_same(served: Served, conn_id: str, token: str, body: object) -> None:
    before = served.count()
    took = []
    for _ in range(2):  # first with a lookup, then from the cache
        began = time.monotonic()
        answer = served.post(served.at(conn_id, token), body)
        took.append(time.monotonic() - began)
        assert (answer.status_code, answer.json()) == (401, REFUSED)
        assert sorted(answer.headers) == ["connection", "content-length", "content-type", "date", "server"]
    # Every refusal takes at least one second. There is no upper limit, because the machine is possibly busy.
    assert min(took) >= app.REFUSAL_SECONDS - 0.01
    assert served.count() == before


def test_an_invalid_setting_is_logged_once(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    auth._logged.clear()
    for _ in range(3):
        assert auth.load_credentials("faceki_weak").denied
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert "'faceki_weak'" in told[0].getMessage()
    assert "32 or more" in told[0].getMessage()
    assert WEAK not in _ours(caplog)


def test_both_tokens_are_accepted_during_a_rotation(served: Served) -> None:
    for token in (TOKEN, PREVIOUS):
        assert served.post(served.at(token=token), webhook_body()).status_code == 200


def _digest(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("sign", "status"),
    [
        pytest.param(lambda body: _digest(body), 200, id="hex"),
        pytest.param(lambda body: "sha256=" + _digest(body), 200, id="with the name of the method"),
        pytest.param(lambda body: _digest(body).upper(), 200, id="in capitals"),
        pytest.param(lambda body: _digest(body + b" "), 401, id="of another body"),
        pytest.param(lambda body: _digest(body, TOKEN), 401, id="with another key"),
        pytest.param(lambda body: "", 401, id="empty"),
        pytest.param(lambda body: "sha256=", 401, id="only the name of the method"),
        pytest.param(lambda body: "\u00e9" * 64, 401, id="not ASCII"),
    ],
)
def test_signature(served: Served, sign: object, status: int) -> None:
    body = json.dumps(webhook_body()).encode()
    assert callable(sign)
    before = served.count()
    answer = served.post(served.at("faceki_signed"), body, {"X-Signature": sign(body).encode("latin-1")})
    assert answer.status_code == status
    assert served.count() == before + (status == 200)


@pytest.mark.parametrize(
    ("age", "signed", "status"),
    [
        pytest.param(0, "time and body", 200, id="now"),
        pytest.param(auth.MAX_SIGNATURE_AGE_SECONDS - 60, "time and body", 200, id="minutes ago"),
        pytest.param(auth.MAX_SIGNATURE_AGE_SECONDS + 1, "time and body", 401, id="replayed"),
        pytest.param(-auth.MAX_SIGNATURE_AGE_SECONDS - 60, "time and body", 401, id="from the future"),
        pytest.param(0, "body", 401, id="the time is not signed"),
        pytest.param(None, "time and body", 401, id="no time"),
    ],
)
def test_signature_with_a_time(served: Served, age: int | None, signed: str, status: int) -> None:
    body = json.dumps(webhook_body()).encode()
    timestamp = "" if age is None else str(int(time.time()) - age)
    text = timestamp.encode() + b"." + body if signed == "time and body" else body
    headers = {"X-Signature": _digest(text), "X-Time": timestamp}
    assert served.post(served.at("faceki_timed"), body, headers).status_code == status


def test_statuses_that_are_not_asked_for_are_ignored(served: Served) -> None:
    before = served.count()
    answers = [
        served.post(served.at("faceki_few"), webhook_body(status=each)) for each in ("REVIEW", "Frozen")
    ]
    assert [(each.status_code, each.json()) for each in answers] == [(200, {"status": "ignored"})] * 2
    assert served.count() == before
    assert served.post(served.at("faceki_few"), webhook_body(status="declined")).json() == {
        "status": "stored"
    }


def test_no_more_than_the_connection_allows_in_a_day(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    bodies = [webhook_body() for _ in range(4)]
    answers = [served.post(served.at("faceki_few"), each) for each in bodies]
    assert [each.status_code for each in answers] == [200, 200, 429, 429]
    assert answers[-1].headers["Retry-After"] == "3600"
    assert served.post(served.at("faceki_few"), bodies[0]).json() == {"status": "repeated"}
    assert served.post(served.at(), webhook_body()).status_code == 200
    assert caplog.text.count("'faceki_few' has had its 2 webhooks of 24 hours (webhook_max_per_day)") == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x1f\x8b\x08", id="compressed"),
        pytest.param(b"requestId=1", id="a form"),
        pytest.param(b"[" * 100_000, id="too deep"),
        pytest.param(b'{"requestId": ' + b"9" * 5000 + b"}", id="a number too long to read"),
        pytest.param([webhook_body(), webhook_body()], id="a list of two"),
        pytest.param({"data": {"result": webhook_body()}}, id="two levels deep"),
        pytest.param({"status": "ACCEPTED"}, id="no request id"),
        pytest.param(webhook_body("not-a-uuid"), id="a request id that is no UUID"),
        pytest.param(webhook_body("{973f1bb2-c4a6-424c-ae61-d220202b0611}"), id="a UUID in braces"),
        pytest.param(webhook_body("973f1bb2c4a6424cae61d220202b0611"), id="a UUID without hyphens"),
        pytest.param(webhook_body(status=None), id="no status"),
        pytest.param(webhook_body() | {f"field{number}": 0 for number in range(500)}, id="very many fields"),
        pytest.param(webhook_body(status=1), id="a number as status"),
        pytest.param(webhook_body(status=""), id="an empty status"),
        pytest.param(webhook_body(status=NAME), id="a person as status"),
        pytest.param(webhook_body(status="A" * 41), id="a long status"),
        pytest.param(webhook_body(status="OK\n"), id="a status with a line break"),
    ],
)
def test_not_a_webhook(served: Served, body: object) -> None:
    before = served.count()
    answer = served.post(served.at(), body)
    assert answer.status_code == 422
    assert NAME not in answer.text
    assert served.count() == before


def _form(body: dict[str, object]) -> bytes:
    return urlencode({name: json.dumps(v) if isinstance(v, dict) else v for name, v in body.items()}).encode()


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda body: {"data": body}, id="nested in data"),
        pytest.param(lambda body: {"code": 0, "result": body}, id="nested in result"),
        pytest.param(lambda body: [body], id="a list of one"),
        pytest.param(lambda body: {"request_id": body["requestId"], "status": "ACCEPTED"}, id="request_id"),
        pytest.param(lambda body: {"requestId": body["requestId"], "decision": "ACCEPTED"}, id="decision"),
        pytest.param(_form, id="form-encoded"),
    ],
)
def test_bodies_unlike_the_documented_one(
    served: Served, form: Callable[[dict[str, object]], object], caplog: pytest.LogCaptureFixture
) -> None:
    body = webhook_body()
    answer = served.post(served.at(), form(body))
    assert (answer.status_code, answer.json()) == (200, {"status": "stored"})
    assert served.statuses(str(body["requestId"])) == ["ACCEPTED"]
    assert NAME not in caplog.text


def test_a_connection_says_where_id_and_status_are(served: Served) -> None:
    one = str(uuid.uuid4())
    body = {"ref": one, "outcome": "DECLINED", "requestId": str(uuid.uuid4()), "status": "REVIEW"}
    assert served.post(served.at("faceki_renamed"), body).json() == {"status": "stored"}
    assert served.statuses(one, "faceki_renamed") == ["DECLINED"]


def test_what_is_not_a_webhook_is_logged_once_by_its_keys(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"identifier": "x", "outcome": NAME, "fullName": NAME}
    answers = [served.post(served.at(), body) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {422}
    (line,) = [each for each in caplog.text.splitlines() if "Not a webhook of FACEKI" in each]
    for text in (line, answers[0].text):
        assert all(key in text for key in body)
        assert NAME not in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", f"/faceki/webhook/faceki_default/{TOKEN}", 405, id="GET"),
        pytest.param("PUT", f"/faceki/webhook/faceki_default/{TOKEN}", 405, id="PUT"),
        pytest.param("POST", f"/faceki/webhook/faceki_default/{TOKEN}/", 404, id="slash at the end"),
        pytest.param("POST", "/faceki/webhook/faceki_default", 404, id="no token"),
        pytest.param("GET", "/faceki/docs", 404, id="docs"),
        pytest.param("GET", "/faceki/redoc", 404, id="redoc"),
        pytest.param("GET", "/faceki/openapi.json", 404, id="openapi"),
        pytest.param("GET", "/faceki/", 404, id="root"),
    ],
)
def test_one_route(served: Served, method: str, path: str, status: int) -> None:
    import requests

    answer = requests.request(method, served.url + path, timeout=300, allow_redirects=False)
    assert answer.status_code == status
    assert TOKEN not in answer.text + str(answer.headers)


STORED, REPEATED = events.Outcome.STORED, events.Outcome.REPEATED


@pytest.mark.parametrize(
    ("statuses", "outcomes"),
    [
        pytest.param(["REVIEW", "REVIEW"], [STORED, REPEATED], id="the same twice"),
        pytest.param(["REVIEW", "ACCEPTED"], [STORED, STORED], id="a change"),
        pytest.param(["ACCEPTED", "DECLINED", "ACCEPTED"], [STORED] * 3, id="a change that is taken back"),
        pytest.param(["REVIEW", "ACCEPTED", "REVIEW"], [STORED] * 3, id="a review again"),
        pytest.param(
            ["ACCEPTED", "DECLINED", "DECLINED", "ACCEPTED", "ACCEPTED"],
            [STORED, STORED, REPEATED, STORED, REPEATED],
            id="repeats between changes",
        ),
    ],
)
@pytest.mark.parametrize("grouped", [False, True], ids=["one by one", "in one transaction"])
def test_a_status_equal_to_the_latest_event_is_a_repeat(
    served: Served, statuses: list[str], outcomes: list[events.Outcome], grouped: bool
) -> None:
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    told = [WebhookNotification.of(one, status) for status in statuses]
    assert events.store_events("faceki_default", [WebhookNotification.of(other, "REVIEW")], 10_000) == [
        STORED
    ]
    groups = [told] if grouped else [[each] for each in told]
    found = [outcome for group in groups for outcome in events.store_events("faceki_default", group, 10_000)]
    assert found == outcomes
    kept = [status for status, outcome in zip(statuses, outcomes, strict=True) if outcome is STORED]
    assert served.statuses(one) == kept
    assert served.statuses(other) == ["REVIEW"]


@pytest.mark.parametrize(
    ("conn_type", "accepted"),
    [
        pytest.param("faceki", True, id="faceki"),
        pytest.param("generic", True, id="generic"),
        pytest.param("", True, id="empty"),
        pytest.param(None, True, id="none, as a secrets backend's JSON may have it"),
        pytest.param("http", False, id="another service's"),
    ],
)
def test_the_webhook_takes_the_connection_types_that_the_hook_takes(
    conn_type: str | None, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_faceki.api import ConfigurationError
    from airflow_provider_faceki.connection.settings import StoredConnection, settings_from_connection

    found = SimpleNamespace(**connection(webhook_token=TOKEN), host=None, port=None, schema=None)
    found.conn_type, found.extra = conn_type, json.dumps(found.extra)
    monkeypatch.setattr(auth, "_find_connection", lambda conn_id: StoredConnection.of(found))
    assert auth.load_credentials("faceki_typed").verify_token(TOKEN) is accepted
    try:
        hook_takes_it = bool(settings_from_connection("faceki_typed", StoredConnection.of(found)))
    except ConfigurationError:
        hook_takes_it = False
    assert hook_takes_it is accepted


def test_a_verification_is_the_same_however_it_is_spelled(served: Served) -> None:
    one = str(uuid.uuid4())
    said_what = [(one, "Accepted"), (one.upper(), "accepted"), (one.upper(), "Declined"), (one, "DECLINED")]
    answers = [
        served.post(served.at(), webhook_body(each, status)).json()["status"] for each, status in said_what
    ]
    assert answers == ["stored", "repeated", "stored", "repeated"]
    assert served.statuses(one) == ["ACCEPTED", "DECLINED"]


def test_an_unknown_status_is_stored_as_other(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    one, name = str(uuid.uuid4()), NAME.split()[0]
    said_what = ["REVIEW", name, name.upper()]
    answers = [served.post(served.at(), webhook_body(one, status)).json()["status"] for status in said_what]
    assert answers == ["stored", "stored", "repeated"]
    assert served.statuses(one) == ["REVIEW", "OTHER"]
    assert name not in str(served.rows("SELECT * FROM asset_event"))
    assert name.lower() not in caplog.text.lower()


@pytest.mark.parametrize(
    ("hours", "statuses"),
    [
        pytest.param(23, ["REVIEW"], id="within a day"),
        pytest.param(25, ["REVIEW", "REVIEW"], id="after a day"),
    ],
)
def test_a_repeat_is_stored_again_after_a_day(served: Served, hours: int, statuses: list[str]) -> None:
    request_id = str(uuid.uuid4())
    served.post(served.at(), webhook_body(request_id, "REVIEW"))
    served.rows(
        "UPDATE asset_event SET timestamp = datetime(timestamp, ?) WHERE extra LIKE ?",
        f"-{hours} hours",
        f"%{request_id}%",
    )
    served.post(served.at(), webhook_body(request_id, "REVIEW"))
    assert served.statuses(request_id) == statuses


def test_the_same_webhook_of_another_connection_is_stored(served: Served) -> None:
    body = webhook_body()
    assert served.post(served.at(), body).json() == {"status": "stored"}
    assert served.post(served.at("faceki_plain"), body).json() == {"status": "stored"}


def test_a_plain_schedule_gets_events_without_a_key(served: Served) -> None:
    body = webhook_body()
    assert served.post(served.at("faceki_plain"), body).status_code == 200
    assert served.events("faceki_plain")[-1] == (
        None,
        {"request_id": body["requestId"], "status": "ACCEPTED"},
    )
    assert served.rows("SELECT count(*) FROM asset_dag_run_queue WHERE target_dag_id = 'plain'") == [(1,)]
    assert served.post(served.at("faceki_plain"), body).json() == {"status": "repeated"}


@only_partitioned
def test_partitioned_before_plain(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    events._warned.clear()
    for _ in range(2):
        body = webhook_body()
        assert served.post(served.at("faceki_mixed"), body).status_code == 200
        assert served.events("faceki_mixed")[-1][0] == body["requestId"]
    assert caplog.text.count("do not start mixed_plain") == 1


@pytest.mark.parametrize("conn_id", ["faceki_unheard", "faceki_paused"])
def test_without_a_scheduled_dag_a_webhook_gets_503(
    served: Served, conn_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = served.count()
    for _ in range(2):
        answer = served.post(served.at(conn_id), webhook_body())
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert served.count() == before
    assert caplog.text.count(f"No DAG that could run is scheduled on faceki://{conn_id}/verifications") == 1


def test_two_hundred_at_once(served: Served) -> None:
    bodies = [webhook_body() for _ in range(200)]
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda body: served.post(served.at(), body), bodies))
    assert [answer.status_code for answer in answers] == [200] * 200
    wanted = {str(body["requestId"]) for body in bodies}
    stored = [(key, extra["request_id"]) for key, extra in served.events() if extra["request_id"] in wanted]
    assert sorted(each for _, each in stored) == sorted(wanted)
    if HAS_PARTITIONS:
        assert [key for key, _ in stored] == [each for _, each in stored]
        queued = served.rows(
            "SELECT partition_key FROM asset_partition_dag_run WHERE target_dag_id = 'partitioned'"
        )
        assert wanted <= {key for (key,) in queued}


def test_the_same_fifty_times_at_once(served: Served) -> None:
    body = webhook_body()
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: served.post(served.at(), body), range(50)))
    assert sorted(answer.json()["status"] for answer in answers) == ["repeated"] * 49 + ["stored"]
    assert served.statuses(str(body["requestId"])) == ["ACCEPTED"]
