# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Causes and contexts of the provider's errors. A traceback shows them, so they must contain no secret."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from airflow_provider_faceki.api import errors
from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.service import AuthFlow, Service
from tests.api.conftest import CallMode, RecordedSleeps, with_timeout
from tests.api.fake_server import (
    RECORDS_PATH,
    FakeServer,
    Reply,
    close_connection_silently,
    issue_token,
    reply_bytes,
    reply_json,
    reply_raw,
    resets,
)

FETCH = FetchRecords(link="canary-link")
CANARIES = ("canary-secret", "canary-link", "canary-body", "token-1")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    if error is not None:
        yield error
        yield from _chain(error.__cause__)
        yield from _chain(error.__context__)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(close_connection_silently, id="end"),
        pytest.param(resets, id="reset"),
        pytest.param(lambda handler: handler.connection.recv(1), id="silence"),
        pytest.param(reply_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), id="half"),
        pytest.param(reply_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n{}"), id="two lengths"),
        pytest.param(reply_bytes(b'{"name": "canary-body'), id="half of the JSON"),
        pytest.param(reply_json({}, 401), id="refused"),
        pytest.param(reply_json({}, 500), id="trouble"),
        pytest.param(reply_json({}, 307, ("Location", "/elsewhere")), id="a redirect"),
        pytest.param(reply_json("canary-body"), id="no token"),
    ],
)
@pytest.mark.parametrize("path", ["/auth/api/access-token", RECORDS_PATH])
def test_no_cause_or_context_of_an_error_holds_a_secret(
    call: CallMode, server: FakeServer, client: FacekiClient, sleeps: RecordedSleeps, path: str, answer: Reply
) -> None:
    server.on("/auth/api/access-token", issue_token())
    server.on(path, answer)
    _check(call, with_timeout(_with_canary_secret(client), 0.5))


@pytest.mark.parametrize(
    "base_url",
    [
        pytest.param("http://127.0.0.1:1", id="nobody there"),
        pytest.param("https://127.0.0.1:1", id="nobody there, TLS"),
        pytest.param("http://127.0.0.1:99999", id="no such port"),
        pytest.param("http://nowhere.invalid", id="unknown host"),
    ],
)
@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1"])
def test_no_cause_or_context_of_a_connect_error_holds_a_secret(
    call: CallMode, client: FacekiClient, sleeps: RecordedSleeps, base_url: str, proxy: str | None
) -> None:
    through = tuple((scheme, proxy) for scheme in ("http", "https") if proxy)
    away = replace(client, transport=replace(client.transport, proxies=through))
    _check(call, replace(_with_canary_secret(away), service=Service(base_url=base_url)))


def _with_canary_secret(client: FacekiClient) -> FacekiClient:
    return replace(client, client_secret="canary-secret", auth_flow=AuthFlow.ACCESS_TOKEN_QUERY)


def _check(call: CallMode, client: FacekiClient) -> None:
    with pytest.raises(errors.FacekiError) as caught:
        call(client, FETCH)
    # The attributes are checked too, because a JSONDecodeError contains the whole document in an attribute.
    told = [f"{type(link).__name__}: {link!r} {link} {vars(link)}" for link in _chain(caught.value)]
    assert [line for line in told if any(canary in line for canary in CANARIES)] == []
