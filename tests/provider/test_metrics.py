# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A StatsD server receives the metrics. Disabled metrics cost nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_faceki import api, metrics
from airflow_provider_faceki.hooks.faceki import FacekiHook
from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.api.fake_server import NOTHING_FOUND, RECORDS_PATH, TOKEN_PATH, FakeServer, reply_json
from tests.batch.harness import BatchHarness
from tests.billing.image_files import write

pytestmark = pytest.mark.process

#: Actions of a task and of the triggerer. They run in a separate process, because Airflow reads its configuration only
#: once.
SCRIPT = """
import asyncio, sys, time
try:
    from airflow.sdk.observability import stats
    from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
except ImportError:
    pass  # before Airflow 3.2 the statistics configure themselves
else:
    if hasattr(stats, "initialize"):
        stats.initialize(factory=get_stats_factory(), export_legacy_names=True)
    else:  # Airflow 3.2
        stats.Stats.initialize(factory=get_stats_factory(stats.Stats))
from airflow_provider_faceki import api
from airflow_provider_faceki.operators.verification import FacekiKycVerificationOperator
from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from airflow_provider_faceki.triggers import shared_poller
from airflow_provider_faceki.triggers.faceki import FacekiKycDecisionTrigger
from tests.airflow.fakes import context

from airflow_provider_faceki.operators.batch import FacekiBatchVerificationOperator

selfie, front, manifest, output = sys.argv[1:]
FacekiBatchVerificationOperator(
    task_id="b", manifest=manifest, output_path=output, allowed_image_prefixes=["/"], lookup_timeout=1
).execute(context())
FacekiKycVerificationOperator(
    task_id="v", record_identifier="accepted-1", selfie=selfie, documents=[{"front": front, "back": front}]
).execute(context())
FacekiKycDecisionSensor(task_id="s", record_identifier="accepted-1").poke(context())

async def wait():
    shared_poller.FAILURE_THRESHOLD = 1
    for name, conn_id in (("accepted-1", "faceki_default"), ("nobody", "faceki_default"), ("x", "faceki_down")):
        trigger = FacekiKycDecisionTrigger(
            faceki_conn_id=conn_id, deadline=time.time(), record_identifier=name, max_wait=None
        )
        async for _ in trigger.run():
            pass

asyncio.run(wait())
"""


@pytest.fixture
def statsd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.5)
        yield server


def received(server: socket.socket) -> list[str]:
    """Return every received line about FACEKI."""
    lines: list[str] = []
    while True:
        try:
            lines += server.recv(65_535).decode().splitlines()
        except TimeoutError:
            return [line.removeprefix("airflow.") for line in lines if ".faceki." in f".{line}"]


def test_what_a_statsd_server_receives(
    faceki_sandbox: FacekiSandbox, statsd: socket.socket, tmp_path: Path
) -> None:
    faceki_sandbox.add_fault("status", status=503, route="records")
    environment = {
        **os.environ,
        "AIRFLOW_CONN_FACEKI_DEFAULT": json.dumps(
            faceki_sandbox.connection(token_store="memory", max_wait=0.1)
        ),
        "AIRFLOW_CONN_FACEKI_DOWN": json.dumps(
            {**faceki_sandbox.connection(token_store="memory", max_wait=0.1), "host": "http://127.0.0.1:1"}
        ),
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.getsockname()[1]),
    }
    images = [write(tmp_path, "s.jpg"), write(tmp_path, "f.jpg")]
    harness = BatchHarness(tmp_path)
    rows = [harness.line(name) for name in ("declined-1", "review-1", "decision-ANNA-1")]
    manifest = harness.manifest([*rows, harness.line("row-without-selfie", selfie=None)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *images, manifest, harness.out.as_uri()],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = received(statsd)
    for line, count in {
        "faceki.requests.AccessToken.2xx:1|c": 1,
        "faceki.tokens_fetched:1|c": 1,
        "faceki.requests.FindKycVerification.5xx:1|c": 1,
        "faceki.retries.FindKycVerification:1|c": 1,
        "faceki.requests.FindKycVerification.2xx:1|c": 5,
        "faceki.requests.PerformKycVerification.2xx:1|c": 4,
        "faceki.charged_calls.PerformKycVerification:1|c": 4,
        "faceki.batch_rows.succeeded:1|c": 3,
        "faceki.batch_rows.failed:1|c": 1,
        "faceki.decisions.DECLINED:1|c": 1,
        "faceki.decisions.REVIEW:1|c": 1,
        "faceki.decisions.ACCEPTED:1|c": 2,
        "faceki.decisions.OTHER:1|c": 1,
        "faceki.decisions.ANNA:1|c": 0,
        "faceki.waits_open:1|g": 3,
        "faceki.waits_open:0|g": 3,
        "faceki.circuit_open.faceki_down:1|g": 1,
    }.items():
        assert lines.count(line) == count, (line, lines)


@pytest.mark.parametrize(
    ("count", "sent"),
    [
        pytest.param(
            lambda: metrics.RequestMetrics().sent("FetchRecords", 503),
            ("faceki.requests.FetchRecords.5xx", {"endpoint": "FetchRecords", "status": "5xx"}),
            id="a request",
        ),
        pytest.param(
            lambda: metrics.RequestMetrics().sent("FetchRecords", None),
            ("faceki.requests.FetchRecords.none", {"endpoint": "FetchRecords", "status": "none"}),
            id="a request without a response",
        ),
        pytest.param(
            lambda: metrics.report_circuit("faceki.eu:1", is_open=True),
            ("faceki.circuit_open.faceki_eu_1", {"connection": "faceki_eu_1"}),
            id="a Connection id with other characters",
        ),
        pytest.param(lambda: metrics.count_open_wait(0), ("faceki.waits_open", None), id="no further part"),
    ],
)
def test_each_part_of_a_name_is_a_tag(
    count: Callable[[], None], sent: tuple[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[str, object]] = []

    def note(name: str, *_: int, tags: object) -> None:
        found.append((name, tags))

    monkeypatch.setattr(metrics, "is_on", lambda: True)
    monkeypatch.setattr(metrics, "_stats", lambda: SimpleNamespace(incr=note, gauge=note))
    count()
    assert found == [sent]


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        pytest.param({"responseCode": 0, "data": {"access_token": "t0ken"}}, 1, id="a token"),
        pytest.param({"clientSecret": ""}, 0, id="a refusal of the credentials"),
        pytest.param({"responseCode": 0, "data": {}}, 0, id="no token"),
        pytest.param({"responseCode": 5003}, 0, id="an error code"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True], ids=["call", "acall"])
def test_a_token_counts_when_it_is_there(
    answer: dict[str, Any], count: int, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    monkeypatch.setattr(metrics, "is_on", lambda: True)
    monkeypatch.setattr(metrics, "_emit", lambda kind, name, tags, *_: found.append(name))
    with FakeServer() as server:
        server.on(TOKEN_PATH, reply_json(answer))
        server.on(RECORDS_PATH, reply_json(NOTHING_FOUND))
        client = api.FacekiClient(
            client_id="client",
            client_secret=f"secret-{uuid.uuid4()}",
            service=api.Service(base_url=server.url),
            retry=api.RetryPolicy(max_attempts=1),
            observer=metrics.RequestMetrics(),
        )
        fetch = api.FetchRecords(request_id="r-1")
        with suppress(api.FacekiError):
            if is_async:
                asyncio.run(client.as_async().call(fetch))
            else:
                client.call(fetch)
    assert found.count("tokens_fetched") == count
    assert found.count("requests") == 1 + count


def test_without_metrics_there_is_no_observer(
    faceki_sandbox: FacekiSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not metrics.is_on()
    assert FacekiHook().get_conn().observer is None
    # If metrics are disabled, the code does not even search for the statistics module.
    monkeypatch.setattr(metrics, "_stats", None)
    metrics.count_decision("ACCEPTED")
    metrics.count_open_wait(0)


def test_a_failing_metrics_backend_does_not_fail_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def incr(self, *_: object, **__: object) -> None:
            raise RuntimeError("no backend")

    monkeypatch.setattr(metrics, "is_on", lambda: True)
    monkeypatch.setattr(metrics, "_stats", Broken)
    metrics.RequestMetrics().sent("FetchRecords", 200)
    metrics.RequestMetrics().retried("")
