# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Decisions of the receiver, with fakes of the secrets backend and the store, in virtual time and without a server.

Each request is an ASGI call. ``test_answers.py`` and ``test_unauthorized_callers.py`` send requests to a server that
uses Airflow's database.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from airflow_provider_faceki.api import WebhookNotification
from airflow_provider_faceki.webhook import app, auth, events
from airflow_provider_faceki.webhook.auth import DENY_ALL, Credentials
from airflow_provider_faceki.webhook.events import Outcome
from tests.virtual_time import VirtualTime, block, elapsed, run
from tests.webhook.served import PREVIOUS, SECRET, TOKEN, WEAK, connection, webhook_body

pytest.importorskip("starlette", reason="the receiver needs starlette")

WRONG = "wrong-" + TOKEN
UNAUTHORIZED = {"detail": "unauthorized"}
OK = Credentials((hashlib.sha256(TOKEN.encode()).digest(),), max_per_day=9)
SIGNED = replace(OK, hmac_secret=SECRET.encode(), hmac_header="X-Signature")


class Blocked(NamedTuple):
    """Seconds for which other code blocks the event loop. Data that arrives in this time is read only afterwards."""

    seconds: float


#: Part of a body: bytes, a pause in seconds, a blocked event loop, or None if the sender disconnects.
Piece = bytes | float | Blocked | None


class Answer(NamedTuple):
    """Response to a webhook request, and the virtual seconds until it was sent."""

    status: int
    document: Any
    headers: Mapping[str, str]
    seconds: float


class Backend:
    """Fake of the secrets backends: Connections by id."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.error: Exception | None = None
        self.lookups: list[str] = []
        self.connections = {"known": OK, "signed": SIGNED}

    def __call__(self, conn_id: str) -> Credentials:
        self.lookups.append(conn_id)
        if self.error is not None:
            raise self.error
        return self.connections.get(conn_id, DENY_ALL)


class Store:
    """Fake of Airflow's database: it stores every event, unless a test sets another outcome or an error."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.outcome = Outcome.STORED
        self.error: Exception | None = None
        self.stored: list[tuple[str, str]] = []
        self.limits: list[int] = []

    def __call__(
        self, conn_id: str, notifications: Sequence[WebhookNotification], max_per_day: int
    ) -> list[Outcome]:
        self.limits.append(max_per_day)
        if self.error is not None:
            raise self.error
        self.stored += [(conn_id, each.status) for each in notifications]
        return [self.outcome] * len(notifications)


class Webhooks:
    """A receiver with fakes. The DAGs use the assets of the Connections in ``referenced``."""

    def __init__(self) -> None:
        self.backend, self.store = Backend(), Store()
        self.referenced = {"known", "signed"}
        self.referenced_error: Exception | None = None
        self.pieces_read = 0
        self._receiver: app.Receiver | None = None

    def _read_referenced(self) -> set[str]:
        if self.referenced_error is not None:
            raise self.referenced_error
        return self.referenced

    async def post(
        self,
        conn_id: str = "known",
        token: str = TOKEN,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        pieces: Sequence[Piece] | None = None,
    ) -> Answer:
        """Send a webhook. The default body is a valid webhook in one piece."""
        from starlette.requests import Request
        from starlette.types import Message, Receive, Scope, Send

        if self._receiver is None:
            self._receiver = app.Receiver(self.backend, self.store, self._read_referenced)
        receiver, sent = self._receiver, list[Message]()
        content = body if isinstance(body, bytes) else json.dumps(body or webhook_body()).encode()
        coming = iter([content] if pieces is None else pieces)

        async def receive() -> Message:
            for piece in coming:
                if piece is None:
                    return {"type": "http.disconnect"}
                if isinstance(piece, bytes):
                    self.pieces_read += 1
                    return {"type": "http.request", "body": piece, "more_body": True}
                if isinstance(piece, Blocked):
                    block(piece.seconds)
                    # A real event loop needs two turns here: it reads the socket in the first, and wakes the reader in
                    # the second.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    continue
                await asyncio.sleep(piece)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            response = await receiver.receive(Request(scope, receive))
            await response(scope, receive, send)

        scope = {
            "type": "http",
            "method": "POST",
            "path": f"/faceki/webhook/{conn_id}/{token}",
            "root_path": "/faceki",
            "headers": [(name.lower().encode(), text.encode()) for name, text in (headers or {}).items()],
        }
        began = elapsed()
        await app.RedactPathMiddleware(endpoint)(scope, receive, send)
        head, *parts = sent
        return Answer(
            head["status"],
            json.loads(b"".join(part["body"] for part in parts)),
            {name.decode(): text.decode() for name, text in head["headers"]},
            round(elapsed() - began, 6),
        )

    def answers(self, *requests: Mapping[str, Any]) -> list[Answer]:
        """Send webhooks one after the other."""

        async def send() -> list[Answer]:
            return [await self.post(**each) for each in requests]

        return run(send())

    def answer(self, **request: Any) -> Answer:
        """Send one webhook."""
        return self.answers(request)[0]


@pytest.fixture
def webhooks(virtual_receiver: None) -> Webhooks:
    """Return a receiver whose clocks and threads are virtual."""
    return Webhooks()


@pytest.mark.parametrize(
    ("outcome", "status", "document", "retry_after"),
    [
        pytest.param(Outcome.STORED, 200, {"status": "stored"}, None, id="stored"),
        pytest.param(Outcome.REPEATED, 200, {"status": "repeated"}, None, id="repeated"),
        pytest.param(Outcome.NO_SCHEDULED_DAG, 503, {"detail": "not stored"}, "30", id="no DAG"),
        pytest.param(Outcome.OVER_LIMIT, 429, {"detail": "too many webhooks"}, "3600", id="over the limit"),
    ],
)
def test_answer_to_each_outcome_of_the_store(
    webhooks: Webhooks, outcome: Outcome, status: int, document: object, retry_after: str | None
) -> None:
    webhooks.store.outcome = outcome
    answer = webhooks.answer(body=webhook_body(status="declined"))
    assert (answer.status, answer.document) == (status, document)
    assert answer.headers.get("retry-after") == retry_after
    assert answer.seconds == 0
    assert webhooks.store.stored == [("known", "DECLINED")]
    assert webhooks.store.limits == [OK.max_per_day]


@pytest.mark.parametrize(
    ("error", "seconds", "after"),
    [
        pytest.param(OSError("secret address"), 2.0, 2.0, id="fails"),
        pytest.param(None, events.STORE_TIMEOUT_SECONDS + 1, events.STORE_TIMEOUT_SECONDS, id="too slow"),
    ],
)
def test_a_store_that_does_not_store(
    webhooks: Webhooks,
    error: Exception | None,
    seconds: float,
    after: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    webhooks.store.error, webhooks.store.seconds = error, seconds
    answer = webhooks.answer()
    assert (answer.status, answer.document) == (503, {"detail": "not stored"})
    assert (answer.headers["retry-after"], answer.seconds) == ("30", after)
    assert "A webhook could not be stored" in caplog.text
    assert "secret address" not in caplog.text


def test_statuses_that_the_connection_does_not_select_are_ignored(webhooks: Webhooks) -> None:
    webhooks.backend.connections["known"] = replace(OK, statuses=("ACCEPTED",))
    answers = webhooks.answers(
        {"body": webhook_body(status="REVIEW")}, {"body": webhook_body(status="Accepted")}
    )
    assert [each.document for each in answers] == [{"status": "ignored"}, {"status": "stored"}]
    assert webhooks.store.stored == [("known", "ACCEPTED")]


def test_a_group_has_the_limit_of_its_last_webhook(webhooks: Webhooks) -> None:
    """The limit is a setting of the Connection, and has possibly changed since the group's first webhook arrived."""
    webhooks.store.seconds = 1.0

    async def send() -> list[Outcome]:
        writer = events.EventWriter(webhooks.store)
        notification = WebhookNotification("9d0f", "ACCEPTED")
        writes = []
        for limit in (5, 6, 7):
            writes.append(asyncio.create_task(writer.write("known", notification, limit)))
            await asyncio.sleep(0.1)
        return await asyncio.gather(*writes)

    assert run(send()) == [Outcome.STORED] * 3
    assert webhooks.store.limits == [5, 7]


@pytest.mark.parametrize(
    ("conn_id", "token", "lookups"),
    [
        pytest.param("known", WRONG, ["known"], id="wrong token"),
        pytest.param("known", "", ["known"], id="empty token"),
        pytest.param("known", "\ud800", ["known"], id="token that is not Unicode"),
        pytest.param("unknown", TOKEN, ["unknown"], id="unknown Connection"),
        pytest.param("..", TOKEN, [], id="no Connection id"),
        pytest.param("signed", TOKEN, ["signed"], id="no signature"),
    ],
)
def test_refusals_look_and_take_the_same(
    webhooks: Webhooks, conn_id: str, token: str, lookups: list[str]
) -> None:
    request = {"conn_id": conn_id, "token": token}
    for answer in webhooks.answers(request, request):  # first with a lookup, then from the cache
        assert (answer.status, answer.document) == (401, UNAUTHORIZED)
        assert answer.seconds == app.REFUSAL_SECONDS
        assert sorted(answer.headers) == ["connection", "content-length", "content-type"]
    assert webhooks.backend.lookups == lookups
    assert webhooks.store.stored == []


@pytest.mark.parametrize(
    ("lookup_seconds", "refusal_seconds"),
    [
        pytest.param(0.3, 1.0, id="fast lookups"),
        pytest.param(0.81, 2.0, id="almost as slow as a refusal"),
        pytest.param(2.3, 3.0, id="slower than a refusal"),
    ],
)
def test_the_response_time_of_a_refusal_hides_existing_connections(
    webhooks: Webhooks, lookup_seconds: float, refusal_seconds: float
) -> None:
    webhooks.backend.seconds = lookup_seconds
    webhooks.backend.connections["known_too"] = OK
    webhooks.referenced.add("known_too")
    right, *wrong = webhooks.answers(
        {},
        {"token": WRONG},  # cached
        {"conn_id": "known_too", "token": WRONG},
        {"conn_id": "unknown", "token": WRONG},
        {"conn_id": "unknown", "token": WRONG},  # cached
    )
    assert (right.status, right.seconds) == (200, lookup_seconds)
    assert [(each.status, each.seconds) for each in wrong] == [(401, refusal_seconds)] * 4


def test_an_hour_after_a_slow_lookup_refusals_are_fast_again(webhooks: Webhooks) -> None:
    async def send() -> None:
        webhooks.backend.seconds = 5.0
        await webhooks.post()
        webhooks.backend.seconds = 0.0
        for pause, seconds in ((0.0, 7.0), (auth.SLOWEST_TTL_SECONDS, 1.0)):
            await asyncio.sleep(pause)
            assert (await webhooks.post(token=WRONG)).seconds == seconds

    run(send())


def test_a_slow_lookup_of_an_unexpected_connection_goes_on_after_its_refusal(webhooks: Webhooks) -> None:
    webhooks.backend.connections["late"], webhooks.backend.seconds = OK, 3.0

    async def send() -> None:
        first = await webhooks.post("late")
        assert (first.status, first.seconds) == (401, 1.0)
        await asyncio.sleep(3.0)
        second = await webhooks.post("late")
        assert (second.status, second.seconds) == (200, 0.0)

    run(send())
    assert webhooks.backend.lookups == ["late"]


@pytest.mark.parametrize(
    ("conn_id", "seconds"),
    [
        pytest.param("known", 0.0, id="expected"),
        pytest.param("unknown", app.REFUSAL_SECONDS, id="unexpected"),
    ],
)
def test_a_failed_lookup_is_not_a_refusal(
    webhooks: Webhooks, conn_id: str, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    webhooks.backend.error = OSError("secret address")
    answer = webhooks.answer(conn_id=conn_id)
    assert (answer.status, answer.headers["retry-after"], answer.seconds) == (503, "30", seconds)
    assert "Connections cannot be looked up (OSError)" in caplog.text
    assert "secret address" not in caplog.text


def test_a_lookup_has_a_time_limit(webhooks: Webhooks) -> None:
    webhooks.backend.seconds = auth.LOOKUP_TIMEOUT_SECONDS + 1
    answer = webhooks.answer()
    assert (answer.status, answer.seconds) == (503, auth.LOOKUP_TIMEOUT_SECONDS)


@pytest.mark.parametrize("slow", ["backend", "store"])
def test_a_blocked_event_loop_uses_up_no_time_limit(webhooks: Webhooks, slow: str) -> None:
    getattr(webhooks, slow).seconds = 2.0

    async def send() -> Answer:
        asyncio.get_running_loop().call_later(1.0, block, 90.0)
        return await webhooks.post()

    answer = run(send())
    assert (answer.status, answer.seconds) == (200, 91.0)


def test_wrong_tokens_have_a_rate_limit_and_right_ones_pass(
    webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "REFUSAL_LIMIT", (2.0, 0.5))

    async def send() -> None:
        answers = await asyncio.gather(*(webhooks.post(token=WRONG) for _ in range(3)), webhooks.post())
        assert [each.status for each in answers] == [401, 401, 429, 200]
        assert answers[2].document == {"detail": "too many webhooks"}
        assert answers[2].headers["retry-after"] == "2"
        assert answers[2].seconds == app.REFUSAL_SECONDS
        await asyncio.sleep(2.0)
        assert (await webhooks.post(token=WRONG)).status == 401

    run(send())


def test_a_slow_lookup_is_no_refusal_while_the_expected_connections_are_unknown(webhooks: Webhooks) -> None:
    """The response is 503 and not 401, because FACEKI possibly sends a webhook again only after 503."""
    webhooks.referenced_error, webhooks.backend.seconds = TimeoutError(), 3.0

    async def send() -> None:
        first = await webhooks.post()
        assert (first.status, first.headers["retry-after"], first.seconds) == (503, "30", 1.0)
        await asyncio.sleep(3.0)
        assert (await webhooks.post()).status == 200
        assert (await webhooks.post(token=WRONG)).status == 401

    run(send())
    assert webhooks.backend.lookups == ["known"]


def test_an_unexpected_connection_is_not_looked_up_above_the_limit(
    webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "REFUSAL_LIMIT", (1.0, 0.0001))
    answers = webhooks.answers({"conn_id": "unknown"}, {"conn_id": "another"}, {})
    assert [each.status for each in answers] == [401, 429, 200]
    assert webhooks.backend.lookups == ["unknown", "known"]


def test_the_right_token_of_an_unexpected_connection_is_not_counted_as_a_refusal(
    webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "REFUSAL_LIMIT", (1.0, 0.0001))
    webhooks.referenced = set()

    async def send() -> None:
        assert (await webhooks.post()).status == 200
        assert (await webhooks.post(token=WRONG)).status == 401
        await asyncio.sleep(auth.CACHE_TTL_SECONDS)
        # After its first right token, a Connection counts as expected. So its lookup does not use up the limit of
        # refusals.
        assert (await webhooks.post()).status == 200
        assert (await webhooks.post(token=WRONG)).status == 429

    run(send())
    assert webhooks.backend.lookups == ["known", "known"]


def _signature(body: bytes, key: str = SECRET) -> dict[str, str]:
    return {"X-Signature": hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}


def test_right_calls_have_a_rate_limit_that_wrong_signatures_do_not_use_up(
    webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CALL_LIMIT", (2.0, 0.1))
    body = json.dumps(webhook_body()).encode()

    async def send() -> list[Answer]:
        keys = [TOKEN, TOKEN, TOKEN, SECRET, SECRET, SECRET]
        return await asyncio.gather(
            *(webhooks.post("signed", body=body, headers=_signature(body, key)) for key in keys)
        )

    answers = run(send())
    assert [each.status for each in answers] == [401, 401, 401, 200, 200, 429]
    assert answers[-1].headers["retry-after"] == "10"


@pytest.mark.parametrize(
    ("age", "prefix", "status"),
    [
        pytest.param(0, "{time}.", 200, id="now"),
        pytest.param(auth.MAX_SIGNATURE_AGE_SECONDS, "{time}.", 200, id="as old as allowed"),
        pytest.param(auth.MAX_SIGNATURE_AGE_SECONDS + 1, "{time}.", 401, id="too old"),
        pytest.param(-auth.MAX_SIGNATURE_AGE_SECONDS, "{time}.", 200, id="as early as allowed"),
        pytest.param(-auth.MAX_SIGNATURE_AGE_SECONDS - 1, "{time}.", 401, id="too early"),
        pytest.param(0, "", 401, id="the time is not signed"),
        pytest.param(None, "{time}.", 401, id="no time"),
    ],
)
def test_the_time_of_a_signature(webhooks: Webhooks, age: int | None, prefix: str, status: int) -> None:
    webhooks.backend.connections["signed"] = replace(SIGNED, hmac_timestamp_header="X-Time")
    body = json.dumps(webhook_body()).encode()

    async def send() -> Answer:
        timestamp = "" if age is None else str(int(VirtualTime.time()) - age)
        headers = _signature(prefix.format(time=timestamp).encode() + body) | {"X-Time": timestamp}
        return await webhooks.post("signed", body=body, headers=headers)

    assert run(send()).status == status


def _padded(size: int) -> bytes:
    bare = len(json.dumps(webhook_body(kycData="")))
    return json.dumps(webhook_body(kycData="x" * (size - bare))).encode()


@pytest.mark.parametrize(
    ("pieces", "status", "seconds"),
    [
        pytest.param([_padded(app.MAX_BODY_BYTES)], 200, 0.0, id="as large as allowed"),
        pytest.param([_padded(app.MAX_BODY_BYTES + 1)], 413, 0.0, id="one byte more"),
        pytest.param([bytes(app.MAX_BODY_BYTES), b"x"], 413, 0.0, id="too large in two pieces"),
        pytest.param([b"{", 4.0, json.dumps(webhook_body()).encode()[1:]], 200, 4.0, id="slow"),
        pytest.param([b"{", Blocked(9.0), json.dumps(webhook_body()).encode()[1:]], 200, 9.0, id="blocked"),
        pytest.param([b"{", Blocked(9.0), 6.0, b"}"], 408, 13.0, id="blocked and too slow"),
        pytest.param([b"{", 6.0, b"}"], 408, 5.0, id="too slow"),
        pytest.param([b"{", 1.0] * 10, 408, 5.0, id="endless"),
        pytest.param([bytes(app.MAX_BODY_BYTES + 1), 6.0, b"x"], 413, 5.0, id="too large and too slow"),
        pytest.param([b"{", None], 408, 0.0, id="disconnected"),
        pytest.param([b"not JSON"], 422, 0.0, id="not a webhook"),
    ],
)
def test_a_large_or_slow_body_is_refused(
    webhooks: Webhooks, pieces: list[Piece], status: int, seconds: float
) -> None:
    answer = webhooks.answer(pieces=pieces)
    assert (answer.status, answer.seconds) == (status, seconds)
    assert len(webhooks.store.stored) == (status == 200)
    # After a refusal of the body, the rest of the body stays in the TCP connection, so the server must close it.
    assert answer.headers.get("connection") == ("close" if status in {408, 413} else None)


def test_a_body_without_end_is_not_read_to_the_end(webhooks: Webhooks) -> None:
    piece = bytes(app.MAX_BODY_BYTES)
    assert webhooks.answer(pieces=[piece] * 100).status == 413
    assert webhooks.pieces_read == app.MAX_DISCARDED_BYTES // app.MAX_BODY_BYTES + 1


def test_the_same_problem_is_logged_once_a_minute(
    webhooks: Webhooks, caplog: pytest.LogCaptureFixture
) -> None:
    async def send() -> None:
        for pause in (0.0, 1.0, app.LOG_INTERVAL_SECONDS):
            await asyncio.sleep(pause)
            await webhooks.post(body=b"not JSON")
            await webhooks.post(token=WRONG)

    with caplog.at_level(logging.WARNING):
        run(send())
    warnings = [each.getMessage() for each in caplog.records if each.name == app.__name__]
    assert len(warnings) == 2 * 2
    assert len(set(warnings)) == 2


@pytest.mark.parametrize(
    ("found", "denied"),
    [
        pytest.param(None, "there is no such Connection", id="no Connection"),
        pytest.param({"conn_type": "http"}, "there is no such Connection", id="another type"),
        pytest.param(connection(), "'one' has no webhook token", id="no token"),
        pytest.param(
            connection(webhook_token=WEAK), "settings of Connection 'one' cannot be used", id="weak"
        ),
        pytest.param(connection(webhook_token=TOKEN, webhook_token_previous=PREVIOUS), "", id="two tokens"),
    ],
)
def test_credentials_of_a_connection(
    found: dict[str, object] | None, denied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_faceki.connection.settings import StoredConnection

    def find(conn_id: str) -> StoredConnection | None:
        if found is None:
            return None
        stored = {**dict.fromkeys(("login", "password", "host", "port", "schema")), **found}
        return StoredConnection.of(SimpleNamespace(**stored | {"extra": json.dumps(found.get("extra", {}))}))

    monkeypatch.setattr(auth, "_find_connection", find)
    monkeypatch.setattr(auth, "_logged", set())
    credentials = auth.load_credentials("one")
    assert denied in credentials.denied
    accepted = [each for each in (TOKEN, PREVIOUS, WEAK, "") if credentials.verify_token(each)]
    assert accepted == ([] if denied else [TOKEN, PREVIOUS])
