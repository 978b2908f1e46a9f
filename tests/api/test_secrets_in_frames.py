# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests that no local variable in a traceback shows a secret, a token, personal data or an image.

Error trackers, such as Sentry, report local variables.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.images import FaceMatch
from airflow_provider_faceki.api.endpoints.links import GenerateKycLink
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.protocol.auth import TokenRequest
from airflow_provider_faceki.api.protocol.messages import Json
from airflow_provider_faceki.api.service import AuthFlow, Service
from airflow_provider_faceki.api.transport.retry import RetryPolicy
from airflow_provider_faceki.api.uploads import Image
from tests.api.certificates import Authority
from tests.api.conftest import CallMode, RecordedSleeps, call_async, call_sync, with_timeout
from tests.api.fake_server import (
    LINK_PATH,
    RECORDS_PATH,
    TOKEN_PATH,
    FakeServer,
    Handler,
    Reply,
    close_connection_silently,
    reply_bytes,
    reply_json,
    reply_raw,
    resets,
)

SECRET = "canary-secret"
PERSON = "Canary-Person"
IMAGE = b"canary-image"
CANARIES = (SECRET, "token-1", "token-2", PERSON, IMAGE.decode())
FETCH = FetchRecords(record_identifier="r-1")
RECORD: Json = {"requestId": "r-1", "firstName": PERSON}


@pytest.fixture
def secret_client(client: FacekiClient) -> FacekiClient:
    """A client with a canary text as its client secret."""
    return replace(client, client_secret=SECRET, retry=RetryPolicy(max_attempts=2))


def leaks(error: BaseException) -> list[str]:
    """Return the frames of the provider and of libraries whose local variables contain a canary text."""
    found: list[str] = []
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        link = pending.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        found += [f"text of {type(link).__name__}" for canary in CANARIES if canary in f"{link} {link!r}"]
        trace = link.__traceback__
        while trace is not None:
            found += _leaks_of_frame(trace.tb_frame)
            trace = trace.tb_next
        pending += [link.__cause__, link.__context__]
    return found


def _leaks_of_frame(frame: FrameType) -> list[str]:
    code = frame.f_code
    if "/tests/" in code.co_filename:
        return []
    return [
        f"{name} in {code.co_filename}:{code.co_name}"
        for name, value in frame.f_locals.items()
        for text in _texts(value, 3)
        for canary in CANARIES
        if canary in text
    ]


def _texts(value: object, depth: int) -> Iterator[str]:
    """Yield the texts that a traceback reporter shows for ``value``: its ``repr`` and those of its items."""
    yield repr(value)
    if depth and isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key, depth - 1)
            yield from _texts(item, depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _texts(item, depth - 1)


def test_the_search_finds_what_is_there() -> None:
    namespace: dict[str, object] = {}
    exec(  # noqa: S102 - creates a frame that is not in a test file
        compile("def fail(body):\n    raise ValueError('x') from KeyError('y')", "/elsewhere.py", "exec"),
        namespace,
    )
    fail = namespace["fail"]
    assert callable(fail)
    with pytest.raises(ValueError, match="x") as caught:
        fail({"deep": [f"x{SECRET}x"]})
    assert leaks(caught.value)


@pytest.mark.parametrize("flow", list(AuthFlow))
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(reply_json({"message": SECRET}, 401), id="credentials refused"),
        pytest.param(reply_json({}, 404), id="no such route"),
        pytest.param(reply_json({}, 500), id="server error"),
        pytest.param(reply_json({"responseCode": 0, "data": {"access_token": f"{SECRET} "}}), id="odd token"),
        pytest.param(reply_bytes(SECRET.encode()), id="no JSON"),
        pytest.param(close_connection_silently, id="lost"),
        pytest.param(resets, id="reset"),
        pytest.param(reply_bytes(b"", 302, ("Location", f"/{SECRET}")), id="redirect"),
        pytest.param(reply_raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\n\r\n"), id="two codings"),
    ],
)
def test_token_requests(
    call: CallMode,
    server: FakeServer,
    secret_client: FacekiClient,
    sleeps: RecordedSleeps,
    flow: AuthFlow,
    reply: Reply,
) -> None:
    server.on(TOKEN_PATH, reply)
    server.on("/auth/api/access-token", reply)
    with pytest.raises(errors.FacekiError) as caught:
        call(replace(secret_client, auth_flow=flow), FETCH)
    assert leaks(caught.value) == []


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(reply_json({"message": PERSON, "result": RECORD}, 401), id="token refused twice"),
        pytest.param(reply_json({"status": False, "code": 9999, "result": RECORD}), id="failed inside"),
        pytest.param(reply_json({"result": [RECORD]}, 422), id="request refused"),
        pytest.param(reply_json({"result": [RECORD]}, 500), id="server error"),
        pytest.param(reply_json({"status": True, "code": 200, "result": [PERSON]}), id="no record"),
        pytest.param(reply_bytes(f'{{"name": "{PERSON}"'.encode()), id="half a document"),
        pytest.param(
            reply_raw(f"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{PERSON}".encode()), id="half a body"
        ),
        pytest.param(
            reply_bytes(PERSON.encode() + b" " * 33 * 1024 * 1024, 200, ("X-Name", PERSON)), id="too large"
        ),
        pytest.param(reply_bytes(b"x", 302, ("Location", f"/{PERSON}")), id="redirect"),
        pytest.param(close_connection_silently, id="lost"),
    ],
)
def test_calls_with_a_token(
    call: CallMode, server: FakeServer, secret_client: FacekiClient, sleeps: RecordedSleeps, reply: Reply
) -> None:
    server.on(RECORDS_PATH, reply)
    server.on(LINK_PATH, reply)
    for endpoint in (FETCH, GenerateKycLink(workflow_id="w")):
        with pytest.raises(errors.FacekiError) as caught:
            call(secret_client, endpoint)
        assert leaks(caught.value) == []


@pytest.mark.parametrize("case", ["refused", "lost", "slow"])
def test_uploads(call: CallMode, server: FakeServer, secret_client: FacekiClient, case: str) -> None:
    match = FaceMatch(Image.of_bytes("selfie", b"\xff\xd8\xff" + IMAGE * 1_000_000, 99_000_000))
    path = match.request(Service(server.url)).url.removeprefix(server.url)
    over = threading.Event()
    server.before_body = lambda handler: over.wait(5) if case == "slow" and handler.path == path else None  # type: ignore[assignment]  # the returned value is not used
    server.on(path, close_connection_silently if case == "lost" else reply_json({"name": PERSON}, 422))
    rules = replace(secret_client.transport, upload_timeout=1.0)
    with pytest.raises(errors.FacekiError) as caught:
        call(replace(secret_client, transport=rules, retry=RetryPolicy(max_attempts=1)), match)
    over.set()
    assert leaks(caught.value) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"service": Service("http://127.0.0.1:1")}, id="nobody listens"),
        pytest.param({"service": Service("https://nowhere.invalid")}, id="unknown host"),
        pytest.param({"service": Service("ftp://127.0.0.1")}, id="no HTTP"),
        pytest.param(
            {"client_secret": f"{SECRET}\n", "auth_flow": AuthFlow.ACCESS_TOKEN_HEADERS},
            id="a header that is none",
        ),
    ],
)
def test_requests_that_cannot_be_sent(
    call: CallMode, secret_client: FacekiClient, sleeps: RecordedSleeps, change: dict[str, str]
) -> None:
    with pytest.raises(errors.FacekiError) as caught:
        call(replace(secret_client, **change), FETCH)  # type: ignore[arg-type]  # the values are test parameters
    assert leaks(caught.value) == []


def test_a_server_that_is_not_trusted(
    call: CallMode, secret_client: FacekiClient, authority: Authority, tmp_path: Path
) -> None:
    with FakeServer(authority.server_context()) as server:
        rules = replace(secret_client.transport, verify=Authority.make(tmp_path / "other").bundle)
        with pytest.raises(errors.TlsError) as caught:
            call(replace(secret_client, service=Service(server.url), transport=rules), FETCH)
    assert leaks(caught.value) == []


class _TaskTimeout(BaseException):
    """Exception that a signal handler raises, as in Airflow after the ``execution_timeout`` of a task."""


@pytest.mark.parametrize("path", [TOKEN_PATH, RECORDS_PATH], ids=["token", "call"])
@pytest.mark.parametrize("waits_for", ["answer", "next attempt"])
def test_a_task_that_is_timed_out_while_it_waits(
    server: FakeServer, secret_client: FacekiClient, path: str, waits_for: str
) -> None:
    over = threading.Event()

    def alarm(_number: int, _frame: FrameType | None) -> None:
        raise _TaskTimeout

    def late(handler: Handler) -> None:
        over.wait(5)

    reply = late if waits_for == "answer" else reply_bytes(b"", 503, ("Retry-After", "5"))
    server.on(path, reply)
    before = signal.signal(signal.SIGALRM, alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(_TaskTimeout) as caught:
            call_sync(secret_client, FETCH)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        over.set()
    assert leaks(caught.value) == []


@pytest.mark.parametrize("flow", list(AuthFlow))
def test_objects_that_carry_a_secret_hide_it_from_inspection(flow: AuthFlow) -> None:
    """Check that each value hides the secret itself, because reporters also show the single items of an object."""
    token = TokenRequest("https://faceki.example", "client", SECRET, flow)
    request = token.request().with_token("token-1")
    carried = [token.client_secret, request.body, *request.headers, *request.query]
    assert [text for text in _texts(carried, 5) for canary in CANARIES if canary in text] == []


def test_a_call_that_is_cancelled(server: FakeServer, secret_client: FacekiClient) -> None:
    over = threading.Event()

    def late(handler: Handler) -> None:
        over.wait(5)

    server.on(RECORDS_PATH, late)

    async def cancelled() -> None:
        await asyncio.wait_for(with_timeout(secret_client, 2.0).as_async().call(FETCH), 0.3)

    with pytest.raises(TimeoutError) as caught:
        asyncio.run(cancelled())
    over.set()
    assert leaks(caught.value) == []


def test_a_client_copies_as_itself_and_refuses_to_be_pickled(
    server: FakeServer, secret_client: FacekiClient
) -> None:
    server.on(RECORDS_PATH, reply_json({"status": True, "code": 200, "result": []}))
    for one in (secret_client, secret_client.as_async()):
        assert copy.copy(one) is copy.deepcopy(one) is one
        with pytest.raises(TypeError, match="contains a client secret and cannot be pickled") as caught:
            pickle.dumps(one)
        assert SECRET not in str(caught.value)
    used = copy.deepcopy({"client": secret_client})["client"]
    assert call_sync(used, FETCH) == call_async(copy.deepcopy(used), FETCH) == ()
    assert copy.deepcopy(used) is secret_client
