# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The rate limiter: the pauses between requests, with the synchronous and the asynchronous client."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_faceki.api.client import FacekiClient
from airflow_provider_faceki.api.endpoints.records import FetchRecords
from airflow_provider_faceki.api.transport.http_transport import RateLimiter
from tests.api.conftest import CallMode, RecordedSleeps
from tests.api.fake_server import NOTHING_FOUND, RECORDS_PATH, FakeServer, reply_json


@pytest.mark.parametrize(
    ("per_second", "moments", "waits"),
    [
        pytest.param(None, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], id="no limit"),
        pytest.param(4.0, [0.0, 0.0, 0.0], [0.0, 0.25, 0.5], id="all at once"),
        pytest.param(4.0, [0.0, 0.1, 0.2], [0.0, 0.15, 0.3], id="a little too fast"),
        pytest.param(4.0, [0.0, 1.0, 2.0], [0.0, 0.0, 0.0], id="slow enough"),
        pytest.param(4.0, [5.0, 9.0, 9.0], [0.0, 0.0, 0.25], id="what is not used is not saved up"),
        pytest.param(0.5, [0.0, 0.0], [0.0, 2.0], id="less than one"),
    ],
)
def test_moments(per_second: float | None, moments: list[float], waits: list[float]) -> None:
    limiter = RateLimiter(per_second)
    assert [limiter.reserve(now) for now in moments] == pytest.approx(waits)


def test_both_drivers_apply_the_rate_limit(
    call: CallMode, server: FakeServer, client: FacekiClient, sleeps: RecordedSleeps
) -> None:
    server.on(RECORDS_PATH, reply_json(NOTHING_FOUND))
    slow = replace(client, transport=replace(client.transport, max_requests_per_second=0.001))
    call(slow, FetchRecords(link="l"))
    # The token request is sent at once, and the records request 1000 seconds later.
    assert [round(seconds, -2) for seconds in sleeps.seconds] == [1000.0]
