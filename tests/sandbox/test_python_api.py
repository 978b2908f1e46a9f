# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of `FacekiSandbox`: its start and stop, TLS, its clock, its settings, and the modules that it imports."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_provider_faceki.sandbox import FacekiSandbox, Settings
from airflow_provider_faceki.sandbox.backend.clock import Clock
from airflow_provider_faceki.sandbox.control import ControlClient
from tests.sandbox.conftest import Caller

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Create a self-signed certificate for localhost, and return the paths of the certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(private)
    return paths


def test_the_sandbox_serves_tls(certificate: tuple[Path, Path]) -> None:
    with FacekiSandbox(host="localhost", tls=certificate) as sandbox:
        assert sandbox.url.startswith("https://localhost:")
        assert sandbox.connection()["extra"]["verify"] == str(certificate[0])  # type: ignore[index]  # A dict.
        context = ssl.create_default_context(cafile=str(certificate[0]))
        link = sandbox.create_link()
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        assert opener.open(f"{sandbox.url}/kycverify/{link}", timeout=300).status == 200
        assert ControlClient(sandbox.url, str(certificate[0])).post("revoke-tokens") == {"revoked": 0}
        sandbox.add_fault("reset")
        with pytest.raises(OSError, match=r"reset|EOF|closed"):
            opener.open(f"{sandbox.url}/kycverify/{link}", timeout=300)


def test_it_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    with FacekiSandbox() as sandbox:
        sandbox.settings.webhook_url = "http://127.0.0.1:9/"
        sandbox.decide(sandbox.create_link(), "ACCEPTED")
    assert set(threading.enumerate()) - before == set()


def test_sandboxes_are_independent() -> None:
    with FacekiSandbox() as one, FacekiSandbox(settings=Settings(client_id="other")) as other:
        assert one.url != other.url
        one.add_record("order-1")
        token = Caller(one).log_in().session.headers["Authorization"]
        stranger = Caller(other)
        stranger.session.headers["Authorization"] = token
        assert stranger.records(record_identifier="order-1").status_code == 401


def test_it_sleeps_while_a_test_has_replaced_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[float] = []
    sleep, sleep_async = time.sleep, asyncio.sleep
    # Threads of earlier tests possibly still sleep. Only the threads that this sandbox starts are checked.
    others = set(threading.enumerate())

    def fake_sleep(seconds: float) -> None:
        if threading.current_thread() in others:
            sleep(seconds)
        else:
            called.append(seconds)

    async def fake_sleep_async(seconds: float) -> None:
        if threading.current_thread() in others:
            await sleep_async(seconds)
        else:
            called.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", fake_sleep_async)
    monkeypatch.setattr(time, "sleep", fake_sleep)
    with FacekiSandbox() as sandbox:
        sandbox.settings.latency = 0.05
        sandbox.add_fault("drip", route="records", delay=0.1)
        assert Caller(sandbox).log_in().records(record_identifier="order-1").status_code == 200
        sleep(0.3)  # Longer than a few ticks of uvicorn's main loop.
        assert called == []


def test_it_starts_once_and_stops_twice() -> None:
    sandbox = FacekiSandbox()
    sandbox.stop()
    with sandbox:
        with pytest.raises(RuntimeError, match="already running"):
            sandbox.start()
        first = sandbox.url
    sandbox.stop()
    with sandbox:
        assert sandbox.url != first


def test_a_taken_port_is_an_error_at_once() -> None:
    with FacekiSandbox() as sandbox:
        port = int(sandbox.url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="in use"):
            FacekiSandbox(port=port).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])  # noqa: S104 - to be refused
def test_only_loopback_unless_exposed(host: str) -> None:
    with pytest.raises(ValueError, match="allowed is a loopback address"):
        FacekiSandbox(host=host)


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux is all of 127.0.0.0/8 there unasked")
def test_any_loopback_address_will_do() -> None:
    with FacekiSandbox(host="127.0.0.2") as sandbox:
        assert "127.0.0.2" in sandbox.url
        assert Caller(sandbox).log_in().records(record_identifier="order-1").status_code == 200
        assert ControlClient(sandbox.url).post("revoke-tokens") == {"revoked": 1}


def test_the_sandbox_clock_can_be_stopped(call: Caller) -> None:
    with FacekiSandbox(clock=Clock(start=1_700_000_000)) as sandbox:
        assert sandbox.add_record()["createdAt"] == "2023-11-14T22:13:20.000Z"
        sandbox.clock.advance(1.5)
        assert sandbox.add_record()["createdAt"] == "2023-11-14T22:13:21.500Z"


def test_reset_goes_back_to_what_it_was_started_with() -> None:
    with FacekiSandbox(settings=Settings(credit=7)) as sandbox:
        sandbox.settings.update({"credit": 1, "person": {"first_name": "Canary"}})
        sandbox.add_fault("hang")
        sandbox.reset()
        assert (sandbox.settings.credit, sandbox.settings.person) == (7, {})
        assert Caller(sandbox).log_in().verify("order-1").status_code == 200


def test_what_the_connection_says(sandbox: FacekiSandbox) -> None:
    connection = json.loads(json.dumps(sandbox.connection(token_store="memory")))
    assert connection["conn_type"] == "faceki"
    assert connection["host"] == sandbox.url
    assert (connection["login"], connection["password"]) == (sandbox.client_id, sandbox.client_secret)
    assert connection["extra"] == {
        "workflow_id": "5a4db0c5-0000-4000-8000-000000000001",
        "addon_url": sandbox.url,
        "pdf_report_path": "/sandbox/report/{requestId}",
        "proxies": {},
        "token_store": "memory",
    }


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(
            "import airflow_provider_faceki.sandbox as s; s.FacekiSandbox, s.Settings, s.Fault", id="names"
        ),
        pytest.param("import airflow_provider_faceki.sandbox.pytest_plugin", id="plugin"),
        pytest.param("import airflow_provider_faceki.sandbox.__main__", id="command"),
    ],
)
def test_importing_it_imports_no_server(code: str) -> None:
    heavy = "starlette", "uvicorn", "python_multipart", "airflow.models", "requests"
    asked = f"{code}; import sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, timeout=600, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_large_upload_takes_no_memory(sandbox: FacekiSandbox, call: Caller) -> None:
    import tracemalloc

    size, step = 40_000_000, b"x" * 65_536

    def body() -> Any:
        yield b"--b\r\nContent-Disposition: form-data; name=selfie; filename=a\r\n\r\n"
        for _ in range(size // len(step)):
            yield step
        yield b"\r\n--b--\r\n"

    tracemalloc.start()
    try:
        answer = call.verify(
            files=None, data=body(), headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.json()["code"] == 5002, "no workflow in that form"
    assert peak < 8_000_000


def test_other_servers_keep_their_log(sandbox: FacekiSandbox, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("uvicorn.error")
    before = (logger.level, list(logger.filters))
    with caplog.at_level(logging.INFO), FacekiSandbox() as other:
        logger.error("of another server")
        other.add_fault("reset_after_body")
        with pytest.raises(requests.ConnectionError):
            Caller(other)("GET", "/kycverify/x")
    assert (logger.level, len(logger.filters)) == (before[0], len(before[1]))
    assert [record.getMessage() for record in caplog.records] == ["of another server"]
