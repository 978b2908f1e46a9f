# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run a sandbox: `FacekiSandbox` in a thread of the current process, `SandboxProcess` in a separate process.

Use `SandboxProcess` in tests that fork or kill their own process.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.clock import Clock, real_monotonic, real_sleep
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW
from airflow_provider_faceki.sandbox.control import ControlClient, is_loopback
from airflow_provider_faceki.sandbox.routes import ROUTE_NAMES
from airflow_provider_faceki.sandbox.settings import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, Settings

if TYPE_CHECKING:
    from airflow_provider_faceki.sandbox.http_server import HTTPServer


START_TIMEOUT_SECONDS = 10.0
PROCESS_START_TIMEOUT_SECONDS = 20.0
PROCESS_STOP_TIMEOUT_SECONDS = 5.0
AUTO_ANSWER_INTERVAL_SECONDS = 0.1


def no_log(line: str) -> None:
    return None


class FacekiSandbox(Backend):
    """A context manager that serves a sandbox until the end of the `with` block, by default on loopback.

    :param settings: the settings. They can be changed at any time (`sandbox.settings.latency = 0.2`). If None, the
        default settings are used.
    :param host: the address on which the server listens.
    :param port: the TCP port. If 0, the system selects a free port.
    :param tls: the paths of a certificate and its private key. If None, the server uses plain HTTP.
    :param clock: the clock that measures the lifetimes of tokens and links. If None, the sandbox uses a clock that
        shows the real time.
    :param expose: whether an address that is not loopback is allowed.
    :param log: a function that receives one line for each request that is not a control call.
    :raises ValueError: if `host` is not a loopback address and `expose` is false.
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: tuple[str | PathLike[str], str | PathLike[str]] | None = None,
        clock: Clock | None = None,
        expose: bool = False,
        log: Callable[[str], None] = no_log,
    ) -> None:
        # Other machines must not reach the sandbox: its credentials are public, and its control API has no login.
        if not expose and not is_loopback(host):
            raise ValueError(
                f"host: found {host!r}, allowed is a loopback address; expose=True allows any address"
            )
        super().__init__(settings or Settings(), clock or Clock(), ROUTE_NAMES)
        self.url = ""
        self._address = (host, port)
        self._tls = None if tls is None else (fspath(tls[0]), fspath(tls[1]))
        self._expose = expose
        self._log = log
        self._server: HTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def client_id(self) -> str:
        return self.settings.client_id

    @property
    def client_secret(self) -> str:
        return self.settings.client_secret

    def connection(self, **extra: object) -> dict[str, object]:
        """Return, as a JSON object, an Airflow Connection that points to this sandbox.

        `json.dumps` of the result is a valid value of `AIRFLOW_CONN_FACEKI_DEFAULT`.

        :param extra: members to add to the Connection's extra or to replace in it.
        """
        report = {"pdf_report_path": self.settings.pdf_path}
        return connection(self.url, self.client_id, self.client_secret, self._tls, {**report, **extra})

    def start(self) -> Self:
        """Start the server and return when it accepts requests.

        :raises RuntimeError: if the sandbox is already running, or the server does not start within
            `START_TIMEOUT_SECONDS`.
        :raises OSError: if the address cannot be used, or the certificate or its key cannot be read.
        """
        if self._thread is not None:
            raise RuntimeError("this sandbox is already running")
        # The web server is imported here and not at the top of the module, so that settings, faults and records can be
        # used even if the packages of the web server are not installed.
        from airflow_provider_faceki.sandbox.http_server import http_server

        ready = threading.Event()
        self._server = http_server(
            self, exposed=self._expose, tls=self._tls, log=self._log, on_ready=ready.set
        )
        listener = _listen(*self._address)
        host = f"[{self._address[0]}]" if ":" in self._address[0] else self._address[0]
        self.url = f"{'https' if self._tls else 'http'}://{host}:{listener.getsockname()[1]}"
        self.webhooks.start()
        self._thread = threading.Thread(
            target=self._run, args=(self._server, listener), name="faceki-sandbox", daemon=True
        )
        self._thread.start()
        if not ready.wait(START_TIMEOUT_SECONDS):
            self.stop()
            raise RuntimeError(f"the sandbox did not start within {START_TIMEOUT_SECONDS:g} s")
        return self

    def stop(self) -> None:
        """Stop the server and cancel the requests that are not answered yet. A second call has no effect."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(START_TIMEOUT_SECONDS)
        self.webhooks.stop()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, server: HTTPServer, listener: socket.socket) -> None:
        from airflow_provider_faceki.sandbox.http_server import RealTimeLoop, uvicorn_log_muted

        async def serve() -> None:
            auto_answers = asyncio.create_task(self._answer_links())
            await server.serve(sockets=[listener])
            auto_answers.cancel()

        with listener, uvicorn_log_muted(), asyncio.Runner(loop_factory=RealTimeLoop) as runner:
            runner.run(serve())

    async def _answer_links(self) -> None:
        """Call `answer_due_links` every `AUTO_ANSWER_INTERVAL_SECONDS`.

        `answer_due_links` simulates that persons use the links that are as old as the setting `auto_answer`. Each
        request to a route also calls `answer_due_links`. Without this method, nothing would be simulated between two
        requests.
        """
        while True:
            await real_sleep(AUTO_ANSWER_INTERVAL_SECONDS)
            self.answer_due_links()


class SandboxProcess:
    """A context manager that runs a sandbox in a separate process.

    The sandbox process ends at the end of the `with` block. It also ends when the current process ends, even if the
    current process is killed.

    :param arguments: command-line options of `faceki-sandbox`.
    :param client_id: the client id that the sandbox accepts.
    :param client_secret: the client secret that the sandbox accepts.
    """

    def __init__(
        self,
        *arguments: str,
        client_id: str = DEFAULT_CLIENT_ID,
        client_secret: str = DEFAULT_CLIENT_SECRET,
    ) -> None:
        self.url = ""
        self.client_id = client_id
        self.client_secret = client_secret
        self._arguments = [*arguments, "--client-id", client_id, "--client-secret", client_secret]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        if self._process is not None:
            raise RuntimeError("this sandbox is already running")
        with tempfile.TemporaryDirectory(prefix="faceki-sandbox-") as folder:
            ready = Path(folder, "url")
            command = [sys.executable, "-m", "airflow_provider_faceki.sandbox", *self._arguments]
            command += ["--port-file", str(ready), "--exit-with-parent", str(os.getpid()), "--quiet"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own module
            deadline = real_monotonic() + PROCESS_START_TIMEOUT_SECONDS
            while not ready.exists():
                if self._process.poll() is not None or real_monotonic() > deadline:
                    self.stop()
                    raise RuntimeError("faceki-sandbox did not start; its error message is above")
                time.sleep(0.01)
            self.url = ready.read_text().strip()
        return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(PROCESS_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def control(self) -> ControlClient:
        """A client of the control API of this sandbox."""
        return ControlClient(self.url)

    def connection(self, **extra: object) -> dict[str, object]:
        """Return, as a JSON object, an Airflow Connection that points to this sandbox.

        :param extra: members to add to the Connection's extra or to replace in it.
        """
        return connection(self.url, self.client_id, self.client_secret, tls=None, extra=extra)


def connection(
    url: str, client_id: str, client_secret: str, tls: tuple[str, str] | None, extra: Mapping[str, object]
) -> dict[str, object]:
    """Return, as a JSON object, an Airflow Connection that points to a sandbox.

    :param url: the base URL of the sandbox.
    :param tls: the paths of the certificate and its private key. If None, the sandbox uses plain HTTP.
    :param extra: members to add to the Connection's extra or to replace in it.
    """
    # Without `addon_url`, the provider would send image checks to the real FACEKI at addon.faceki.com. Without
    # `pdf_report_path`, the provider could not fetch the PDF report. `proxies` is empty, so that the provider ignores
    # the proxy in the environment variables, because this proxy cannot reach the sandbox.
    settings: dict[str, object] = {
        "workflow_id": DEFAULT_WORKFLOW,
        "addon_url": url,
        "pdf_report_path": "/sandbox/report/{requestId}",
        "proxies": {},
    }
    if tls:
        settings["verify"] = tls[0]
    return {
        "conn_type": "faceki",
        "host": url,
        "login": client_id,
        "password": client_secret,
        "extra": {**settings, **extra},
    }


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as on_failure:
        # IPPROTO_TCP must be explicit. Otherwise asyncio does not set TCP_NODELAY, and small answers are delayed.
        tcp = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener = on_failure.enter_context(tcp)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        on_failure.pop_all()
        return listener
