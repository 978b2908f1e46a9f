# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""`FacekiSandbox`: a sandbox that is served over HTTP by a thread of this process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from os import PathLike, fspath
from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.clock import Clock, real_sleep
from airflow_provider_faceki.sandbox.backend.workflows import DEFAULT_WORKFLOW
from airflow_provider_faceki.sandbox.control import is_loopback
from airflow_provider_faceki.sandbox.routes.table import ROUTE_NAMES
from airflow_provider_faceki.sandbox.settings import Settings

if TYPE_CHECKING:
    from airflow_provider_faceki.sandbox.http_server import HTTPServer

START_TIMEOUT_SECONDS = 10.0
AUTO_ANSWER_INTERVAL_SECONDS = 0.1


class ExposureError(ValueError):
    """An address that is not loopback: the sandbox has invented credentials and a control API without any."""


def _no_log(line: str) -> None:
    return None


class FacekiSandbox(Backend):
    """A FACEKI on loopback, from `with` to the end of the block.

    :param settings: how it behaves; may be changed at any time (`sandbox.settings.latency = 0.2`).
    :param host: a loopback address.
    :param port: 0 takes a free one.
    :param tls: the paths of a certificate and its key.
    :param clock: measures token and link lifetimes.
    :param expose: allows another address than loopback.
    :param log: takes one line for each request.
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
        log: Callable[[str], None] = _no_log,
    ) -> None:
        if not expose and not is_loopback(host):
            raise ExposureError(
                f"host: found {host!r}, allowed is a loopback address, unless exposed on purpose"
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
        """Return an Airflow Connection to it; `json.dumps` of it fits into `AIRFLOW_CONN_FACEKI_DEFAULT`."""
        report = {"pdf_report_path": self.settings.pdf_path}
        return connection(self.url, self.client_id, self.client_secret, self._tls, {**report, **extra})

    def start(self) -> Self:
        """Start serving. Returns when requests are answered.

        :raises RuntimeError: it is already running, or does not start in time.
        """
        if self._thread is not None:
            raise RuntimeError("this sandbox is already running")
        # Here and not above, so that settings, faults and records need no web server.
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
        """Stop serving, also requests that are not answered yet. May be called twice."""
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
        """Let links answer themselves when they are due, also while no request comes in."""
        while True:
            await real_sleep(AUTO_ANSWER_INTERVAL_SECONDS)
            self.answer_due_links()


def connection(
    url: str, client_id: str, client_secret: str, tls: tuple[str, str] | None, extra: Mapping[str, object]
) -> dict[str, object]:
    """Return an Airflow Connection to a sandbox. `extra` adds to, or replaces, what is in its extra."""
    # Without addon_url and pdf_report_path, the image check would go to FACEKI's own add-on host, and the report
    # nowhere. No proxies: proxy variables of the environment must not lead requests away from this machine.
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
        # asyncio sends small answers at once (TCP_NODELAY) only where the socket says that it is TCP.
        tcp = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener = on_failure.enter_context(tcp)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        on_failure.pop_all()
        return listener
