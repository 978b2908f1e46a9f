# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the sandbox in special environments: frozen clocks, proxies, pytest options, and output that is not read."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import freezegun
import pytest
import requests
import time_machine

from airflow_provider_faceki.sandbox import FacekiSandbox
from tests.sandbox.conftest import Caller
from tests.sandbox.test_command import started

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
Freeze = Callable[[], AbstractContextManager[object]]


@pytest.fixture
def own() -> Iterator[FacekiSandbox]:
    """Provide a separate sandbox, so that a fault in the handling of the frozen clock does not affect other tests."""
    with FacekiSandbox() as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    "freeze",
    [
        pytest.param(lambda: freezegun.freeze_time("2031-01-01"), id="freezegun"),
        pytest.param(lambda: time_machine.travel(0, tick=False), id="time-machine"),
        pytest.param(lambda: time_machine.travel(4_000_000_000, tick=True), id="time-machine ticking"),
        pytest.param(nullcontext, id="real time"),
    ],
)
class TestFrozenTime:
    def test_each_wait_ends_with_a_frozen_clock(self, own: FacekiSandbox, freeze: Freeze) -> None:
        own.settings.latency = 0.05
        own.add_fault("slow", route="records", delay=0.05)
        own.add_fault("drip", route="records", delay=0.05)
        with freeze():
            call = Caller(own).log_in()
            assert call.records(record_identifier="nobody").json()["result"] == []
            assert call.records(record_identifier="nobody").json()["result"] == []
            assert call.verify("slow-0.05-accepted-1").json()["result"]["decision"] == "ACCEPTED"

    def test_links_are_answered_automatically(
        self, own: FacekiSandbox, freeze: Freeze, eventually: Callable[[Callable[[], object]], None]
    ) -> None:
        own.settings.auto_answer = 0.05
        with freeze():
            own.create_link("order-1")
            eventually(lambda: own.ledger == {"order-1": 1})
        own.create_link("order-2")
        eventually(lambda: own.ledger == {"order-1": 1, "order-2": 1})

    def test_it_stops_at_once(self, freeze: Freeze) -> None:
        with freeze():
            sandbox = FacekiSandbox().start()
            begun = time.clock_gettime(time.CLOCK_MONOTONIC)
            sandbox.stop()
            assert time.clock_gettime(time.CLOCK_MONOTONIC) - begun < 30


def test_an_unread_log_pipe_does_not_block_the_server(tmp_path: Path) -> None:
    with started(tmp_path) as (process, url), requests.Session() as session:
        session.trust_env = False
        assert process.stderr
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        for _ in range(300):  # The log lines exceed the size of the pipe.
            assert session.get(f"{url}/kycverify/x", timeout=60).status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=600) == 0


USERS_TESTS = """
import warnings
import pytest
import requests

@pytest.mark.parametrize("n", range(4))
def test_a_call(faceki_sandbox, n):
    pair = {"clientId": faceki_sandbox.client_id, "clientSecret": faceki_sandbox.client_secret}
    with requests.Session() as session:
        session.proxies, session.trust_env = faceki_sandbox.connection()["extra"]["proxies"], False
        answer = session.post(faceki_sandbox.url + "/auth/api/generate-token", json=pair, timeout=300)
    assert answer.json()["responseCode"] == 0
    faceki_sandbox.decide(faceki_sandbox.create_link("order-1"), "ACCEPTED")
    assert faceki_sandbox.ledger == {"order-1": 1}
"""


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        pytest.param(["-W", "error"], {}, id="warnings are errors"),
        pytest.param(["-p", "xdist.plugin", "-n", "2"], {}, id="xdist"),
        pytest.param([], {"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}, id="proxy"),
    ],
)
def test_users_tests_pass(tmp_path: Path, options: list[str], environment: dict[str, str]) -> None:
    (tmp_path / "test_users.py").write_text(USERS_TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command += ["-p", "airflow_provider_faceki.sandbox.pytest_plugin", *options, str(tmp_path)]
    # Only `-p` loads the plugin. Otherwise the entry point of an installed provider would load it a second time.
    variables = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr
