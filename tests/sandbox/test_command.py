# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the command `faceki-sandbox`: its start, its output, its refusal of exposure, and its end."""

from __future__ import annotations

import json
import os
import queue
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_faceki.sandbox import ControlClient, SandboxProcess
from airflow_provider_faceki.sandbox.__main__ import main
from tests.processes import listens
from tests.waiting import wait_until

pytestmark = pytest.mark.process

EVERYWHERE = "0.0.0.0"  # noqa: S104 - most tests check that the sandbox refuses it
COMMAND = [sys.executable, "-m", "airflow_provider_faceki.sandbox"]


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command, wait until it is ready, and yield the process and its URL."""
    ready = folder / "url"
    command = [*COMMAND, "--port-file", str(ready), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 300
            while not ready.exists():
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process, ready.read_text().strip()
        finally:
            process.kill()


def get(url: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=60)


def test_what_it_prints_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    with started(tmp_path, "--client-id", "it's me") as (process, url):
        get(f"{url}/kycverify/a-secret-link?also=secret")
        process.send_signal(signal.SIGINT)
        said, logged = process.communicate(timeout=120)
    first, export = said.splitlines()
    assert url in first
    assert f"{url}/kycverify/<link>" in first
    name, _, value = shlex.split(export)[1].partition("=")
    assert name == "AIRFLOW_CONN_FACEKI_DEFAULT"
    connection = json.loads(value)
    assert (connection["conn_type"], connection["host"], connection["login"]) == ("faceki", url, "it's me")
    assert logged.startswith("GET hosted_page 404 ")
    assert "secret" not in logged
    assert process.returncode == 0


def test_webhooks_to_an_airflow_carry_the_token_of_the_printed_connection(tmp_path: Path) -> None:
    paths: queue.Queue[str] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            paths.put(self.path)
            self.send_response(200)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        airflow = f"http://127.0.0.1:{receiver.server_port}/"
        with started(tmp_path, "--airflow-url", airflow) as (process, url):
            webhook = {"request_id": str(uuid.uuid4()), "status": "ACCEPTED"}
            ControlClient(url).post("fake-webhook", **webhook)
            path = paths.get(timeout=120)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=120)[0]
        receiver.shutdown()
    export = shlex.split(said.splitlines()[1])[1]
    token = json.loads(export.partition("=")[2])["extra"]["webhook_token"]
    assert path == f"/faceki/webhook/faceki_default/{token}"
    assert len(token) >= 32


def test_it_ends_cleanly_with_requests_under_way(tmp_path: Path) -> None:
    with started(tmp_path, "--quiet", "--latency", "600") as (process, url):
        port = int(url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
            line.sendall(b"GET /kycverify/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until(lambda: ControlClient(url).get("counters")["in_flight"] == 1)  # type: ignore[index]
            process.send_signal(signal.SIGTERM)
            # The command ends in time, although the request would need 600 s.
            said, logged = process.communicate(timeout=120)
    assert (process.returncode, said, logged) == (0, "", "")
    assert not (tmp_path / "url").exists()


@pytest.mark.parametrize("place", ["no-such-folder/url", "folder"])
def test_an_unwritable_port_file_is_reported(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    done = subprocess.run(
        [*COMMAND, "--port-file", str(tmp_path / place)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("faceki-sandbox: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_it_ends_with_its_parent(eventually: Callable[[Callable[[], object]], None]) -> None:
    code = (
        "from airflow_provider_faceki.sandbox import SandboxProcess\n"
        "print(SandboxProcess().start().url, flush=True)\n"
        "input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    url = parent.stdout.readline().strip()
    assert get(f"{url}/_sandbox/state").status_code == 200
    parent.kill()
    parent.communicate(timeout=120)

    eventually(lambda: not listens(int(url.rsplit(":", 1)[1])))


def test_a_process_of_its_own() -> None:
    with SandboxProcess("--token-lifetime", "7", "--auto-answer", "0", client_id="me") as sandbox:
        settings = sandbox.control.get("settings")
        assert isinstance(settings, dict)
        assert (settings["token_lifetime"], settings["auto_answer"]) == (7, 0)
        connection: Any = sandbox.connection(timeout=5)
        assert (connection["host"], connection["login"]) == (sandbox.url, "me")
        assert connection["extra"]["timeout"] == 5
        pid = sandbox.pid
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_cannot_start_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="did not start"):
        SandboxProcess("--latency", "-1").start()
    assert "sandbox setting latency: found -1.0" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(["--host", EVERYWHERE], "needs both --expose and --allow-remote-access", id="no option"),
        pytest.param(["--host", EVERYWHERE, "--expose"], "needs both", id="one option"),
        pytest.param(["--host", "192.0.2.1", "--allow-remote-access"], "needs both", id="the other option"),
        pytest.param(["--tls-cert", "x"], "must be given together", id="half of TLS"),
        pytest.param(
            ["--tls-cert", "/nowhere", "--tls-key", "/nowhere"], "No such file", id="no certificate"
        ),
        pytest.param(["--token-lifetime", "nan"], "finite number", id="no lifetime"),
        pytest.param(["--client-id", ""], "client_id", id="no client"),
        pytest.param(["--port", "70000"], "--port", id="no port"),
        pytest.param(["--port-file", "/nowhere/url"], "No such file", id="no folder"),
        pytest.param(["--port-file", "/dev/null/url"], "Not a directory", id="a file as the folder"),
    ],
)
def test_it_refuses_to_start(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_both_options_expose_it(tmp_path: Path) -> None:
    with started(tmp_path, "--host", EVERYWHERE, "--expose", "--allow-remote-access") as (_, url):
        assert get(url.replace(EVERYWHERE, "127.0.0.1") + "/_sandbox/state").status_code == 200
