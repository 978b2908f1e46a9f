# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How does a sandbox start and stop? A thread of this process, a socket on loopback, ready when the call returns."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from os import PathLike, fspath
from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_provider_faceki.sandbox.clock import Clock
from airflow_provider_faceki.sandbox.connection import connection
from airflow_provider_faceki.sandbox.counters import Counts
from airflow_provider_faceki.sandbox.desk import Desk, Forged
from airflow_provider_faceki.sandbox.faults import Fault, fault_from
from airflow_provider_faceki.sandbox.loopback import is_loopback
from airflow_provider_faceki.sandbox.naps import nap
from airflow_provider_faceki.sandbox.routes import NAMES
from airflow_provider_faceki.sandbox.scenarios import ACCEPTED
from airflow_provider_faceki.sandbox.settings import Settings
from airflow_provider_faceki.sandbox.state import Bill
from airflow_provider_faceki.sandbox.webhook import WebhookSender
from airflow_provider_faceki.sandbox.workflows import DEFAULT_WORKFLOW

if TYPE_CHECKING:
    from airflow_provider_faceki.sandbox.engine import Engine

START_SECONDS = 10.0
TICK_SECONDS = 0.1


class ExposureRefused(ValueError):
    """The sandbox has invented credentials and a control API without any: it is for this machine alone."""


def _say_nothing(line: str) -> None:
    return None


class FacekiSandbox:
    """A FACEKI on loopback, from `with` to the end of the block.

    `settings` may be changed at any time (`sandbox.settings.latency = 0.2`). `tls` is the paths of a certificate
    and its key. `clock` decides over token and link lifetimes. `expose` allows another address than loopback.
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
        log: Callable[[str], None] = _say_nothing,
    ) -> None:
        if not expose and not is_loopback(host):
            raise ExposureRefused(
                f"host: found {host!r}, allowed is a loopback address, unless exposed on purpose"
            )
        self._desk = Desk(settings or Settings(), clock or Clock(), NAMES)
        self._address = (host, port)
        self._tls = None if tls is None else (fspath(tls[0]), fspath(tls[1]))
        self._expose = expose
        self._log = log
        self._url = ""
        self._engine: Engine | None = None
        self._thread: threading.Thread | None = None
        self._webhooks = WebhookSender(self._desk)

    # Life

    def start(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("this sandbox is already running")
        # Here and not above, so that settings, faults and records can be had without the extra.
        from airflow_provider_faceki.sandbox.engine import engine

        ready = threading.Event()
        self._engine = engine(
            self._desk, exposed=self._expose, tls=self._tls, log=self._log, on_ready=ready.set
        )
        listener = _listen(*self._address)
        host = f"[{self._address[0]}]" if ":" in self._address[0] else self._address[0]
        self._url = f"{'https' if self._tls else 'http'}://{host}:{listener.getsockname()[1]}"
        self._webhooks.start()
        self._thread = threading.Thread(
            target=self._run, args=(self._engine, listener), name="faceki-sandbox", daemon=True
        )
        self._thread.start()
        if not ready.wait(START_SECONDS):
            self.stop()
            raise RuntimeError(f"the sandbox did not start within {START_SECONDS:g} s")
        return self

    def stop(self) -> None:
        """Ends requests that are under way, too. May be called twice."""
        if self._engine is not None:
            self._engine.should_exit = True
        if self._thread is not None:
            self._thread.join(START_SECONDS)
        self._webhooks.stop()
        self._engine = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, engine: Engine, listener: socket.socket) -> None:
        async def serve() -> None:
            watch = asyncio.create_task(self._watch())
            await engine.serve(sockets=[listener])
            watch.cancel()

        with listener:
            asyncio.run(serve())

    async def _watch(self) -> None:
        """Let links answer themselves when they are due, also when nobody asks."""
        while True:
            await nap(TICK_SECONDS)
            with self._desk.lock:
                self._desk.state.tick()

    # What it is

    @property
    def url(self) -> str:
        return self._url

    @property
    def settings(self) -> Settings:
        return self._desk.settings

    @property
    def clock(self) -> Clock:
        return self._desk.clock

    @property
    def client_id(self) -> str:
        return self._desk.settings.client_id

    @property
    def client_secret(self) -> str:
        return self._desk.settings.client_secret

    def connection(self, **extra: object) -> dict[str, object]:
        """An Airflow Connection to this sandbox; `json.dumps` of it fits into `AIRFLOW_CONN_FACEKI_DEFAULT`."""
        report = {"pdf_report_path": self.settings.pdf_path}
        return connection(self.url, self.client_id, self.client_secret, self._tls, {**report, **extra})

    @property
    def counters(self) -> Counts:
        return self._desk.counts()

    @property
    def ledger(self) -> dict[str, int]:
        """Record identifier to number of charges."""
        with self._desk.lock:
            return self._desk.state.ledger()

    @property
    def bills(self) -> tuple[Bill, ...]:
        with self._desk.lock:
            return tuple(self._desk.state.bills)

    def polls(self, **by: str) -> tuple[float, ...]:
        """When records were asked for by `link=`, `requestId=`, `record_identifier=` or `face_id=`."""
        ((name, value),) = by.items()
        with self._desk.lock:
            return self._desk.counters.polls(f"{name}={value}")

    # What may be done to it

    def add_fault(self, kind: str | Fault, **options: object) -> None:
        """`add_fault("status", route="records", status=503, count=2)`; kinds and options: `Fault`."""
        self._desk.add_fault(kind if isinstance(kind, Fault) else fault_from({"kind": kind, **options}))

    def clear_faults(self) -> None:
        with self._desk.lock:
            self._desk.faults.clear()

    def create_link(
        self,
        record_identifier: str = "",
        *,
        workflow_id: str = DEFAULT_WORKFLOW,
        minutes: float | None = None,
        redirect_url: str = "",
    ) -> str:
        return self._desk.create_link(record_identifier, workflow_id, minutes, redirect_url)

    def end_link(self, link: str, how: str) -> None:
        """`how`: expired or used_up."""
        self._desk.end_link(link, how)

    def decide(self, key: str, decision: str) -> dict[str, object]:
        """Answer a link, or change a record (by link or request id). Returns the record."""
        return self._desk.decide(key, decision)

    def add_record(
        self,
        record_identifier: str = "",
        decision: str = ACCEPTED,
        *,
        link: str = "",
        code: int | None = None,
        selfie: bytes | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """A record from before: neither billed nor announced."""
        return self._desk.add_record(
            record_identifier, decision, link=link, code=code, selfie=selfie, fields=fields
        )

    def revoke_tokens(self) -> int:
        with self._desk.lock:
            return self._desk.state.tokens.revoke_all()

    def forge_webhook(self, request_id: str, status: str, full_name: str = "") -> None:
        self._desk.forge(Forged(request_id, status, full_name))

    def reset(self) -> None:
        """As at the start, settings included. Only the clock keeps what it has been advanced by."""
        self._desk.reset()


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
