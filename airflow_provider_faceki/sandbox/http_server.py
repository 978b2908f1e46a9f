# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The HTTP server, which runs the ASGI application with uvicorn.

The timers of the server use a clock that tests cannot freeze. The server can also reset a client's connection, to
simulate a network fault.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_faceki.sandbox.app import Log, RequestPipeline, application
from airflow_provider_faceki.sandbox.backend.actions import Backend
from airflow_provider_faceki.sandbox.backend.clock import real_monotonic, real_sleep

# The time after which an idle connection is closed. It is longer than the usual pause between two polls, so that a
# client can reuse its connection. A load balancer in front of a real service keeps idle connections, too.
KEEP_ALIVE_SECONDS = 65
# The main loop calls uvicorn's method `on_tick` ten times per second, as uvicorn's own main loop does. At every tenth
# call, `on_tick` updates the time in the Date header of responses.
_TICK_SECONDS = 0.1
_TICKS_A_DAY = 864_000
_CANCEL_TIMEOUT_SECONDS = 1.0
# Value of the socket option SO_LINGER: the option is on, with a timeout of 0 s. If a socket with this value is closed,
# the system drops the unsent data and sends a TCP RST. The client then sees a connection reset and not a normal end.
_LINGER_ZERO = struct.pack("ii", 1, 0)


class _Protocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        super().connection_made(transport)
        # Airflow 3 switches uvicorn's access log on. The log would contain the URLs of requests. A URL can contain the
        # id of a verification link, and everyone who knows this id can use the link. Therefore the log is switched off
        # for the sandbox.
        self.access_log = False


@contextmanager
def uvicorn_log_muted() -> Iterator[None]:
    """Drop the lines that uvicorn logs in the current thread, until the end of the `with` block.

    These lines report the start and the end of the server, and each unexpected exception of the sandbox. The
    exception is not lost, because `_internal_error` in `app.py` has logged it already. Other uvicorn servers of this
    process run in other threads, so their log lines are not dropped.
    """
    thread = threading.get_ident()

    def is_of_other_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger("uvicorn.error")
    logger.addFilter(is_of_other_thread)
    try:
        yield
    finally:
        logger.removeFilter(is_of_other_thread)


class RealTimeLoop(asyncio.SelectorEventLoop):
    """An event loop with timers that continue to run while a test has frozen `time.monotonic`."""

    def time(self) -> float:
        return real_monotonic()


class HTTPServer(Server):
    """A uvicorn server that calls a function when it listens, and that stops without waiting for slow requests.

    :param on_ready: a function that is called once, when the server listens.
    """

    def __init__(self, config: Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def main_loop(self) -> None:
        """Run uvicorn's main loop with the real `asyncio.sleep`, even if a test has patched that name."""
        tick = 0
        while not await self.on_tick(tick):
            tick = (tick + 1) % _TICKS_A_DAY
            await real_sleep(_TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop the server and cancel the requests that are not answered yet.

        uvicorn's own `shutdown` would wait for these requests and log an error for each of them.
        """
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # The aborted connections are closed in the next iteration of the event loop. Therefore the shutdown waits for
        # one iteration.
        await real_sleep(0)

    def abort(self, client: tuple[str, int] | None, reset: bool) -> None:
        """Close the connection of a client. If the connection is closed already, do nothing.

        :param reset: whether the connection is closed at once with a TCP RST. If false, the data that is already
            written is sent first. Then the connection is closed normally.
        """
        connections = self.server_state.connections
        found = (each for each in connections if isinstance(each, _Protocol) and each.client == client)
        connection = next(found, None)
        if client is None or connection is None:
            return
        if not reset:
            connection.transport.close()
            return
        tcp = connection.transport.get_extra_info("socket")
        if tcp is not None:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        connection.transport.abort()


def http_server(
    backend: Backend,
    *,
    exposed: bool,
    tls: tuple[str, str] | None,
    log: Log,
    on_ready: Callable[[], None],
) -> HTTPServer:
    """Return a server that is ready to serve a listening socket.

    :param exposed: whether requests with any `Host` header are accepted. If false, only requests to a loopback host
        are accepted.
    :param tls: the paths of a certificate and its private key. If None, the server uses plain HTTP.
    :param log: a function that receives one line for each request that is not a control call.
    :param on_ready: a function that is called once, when the server listens.
    :raises OSError: if the certificate or its key cannot be read.
    """

    # The server is created after this function, because the server needs the config, the config needs the application,
    # and the application needs this function. The function uses the variable `server` only when it is called.
    def abort(client: tuple[str, int] | None, reset: bool) -> None:
        server.abort(client, reset)

    config = Config(
        application(backend, RequestPipeline(backend, abort, log), exposed),
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=0,
        backlog=2048,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
    )
    # The certificate is read now, so that an error is raised to the caller and not in the server thread.
    config.load()
    server = HTTPServer(config, on_ready)
    return server
