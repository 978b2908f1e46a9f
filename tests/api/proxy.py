# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A proxy on loopback, which forwards requests, opens tunnels, and records both."""

from __future__ import annotations

import contextlib
import http.client
import selectors
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class _Handler(BaseHTTPRequestHandler):
    # With HTTP/1.0 the proxy would close each connection after one response, so clients could not reuse connections.
    protocol_version = "HTTP/1.1"
    server: RecordingProxy

    def forward(self) -> None:
        self.server.note(f"{self.command} {self.path}", self.headers.get("Proxy-Authorization"))
        target = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        onward = http.client.HTTPConnection(_resolve(target.hostname or ""), target.port, timeout=60)
        onward.request(self.command, f"{target.path}?{target.query}", body, dict(self.headers.items()))
        try:
            answer = onward.getresponse()
        except (ConnectionError, http.client.BadStatusLine):
            self.lose()
            return
        length = answer.length
        try:
            content = answer.read()
        except http.client.IncompleteRead as cut_off:
            content = cut_off.partial
            self.close_connection = True
        self.wfile.write(
            b"HTTP/1.1 %d .\r\nContent-Length: %d\r\n\r\n" % (answer.status, length or 0) + content
        )
        onward.close()

    do_GET = do_POST = forward

    def lose(self) -> None:
        """Close or reset the connection to the client. The client then loses the rest of the server's response."""
        if self.server.resets:
            reset(self.connection)
        self.close_connection = True

    def do_CONNECT(self) -> None:
        self.server.note(f"CONNECT {self.path}", self.headers.get("Proxy-Authorization"))
        if self.server.refuses:
            self.send_error(407)
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((_resolve(host), int(port)), 5) as onward:
            self.wfile.write(b"HTTP/1.1 200 .\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                _relay(self.connection, onward)
        self.lose()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has this name
        """Write nothing to stderr."""


def _resolve(host: str) -> str:
    # Tests use names under .test, which only this proxy resolves. They cannot use a loopback address for this purpose:
    # clients never send a request for loopback to a proxy that an environment variable defines.
    return "127.0.0.1" if host.endswith(".test") else host


def _relay(one: socket.socket, other: socket.socket) -> None:
    # `select.select` would fail in a process with more than 1024 open files.
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while ready := selector.select(5):
            for key, _ in ready:
                source, target = (one, other) if key.data is other else (other, one)
                data = source.recv(65536)
                if not data:
                    return
                target.sendall(data)


def reset(connection: socket.socket) -> None:
    """Reset a connection with TCP RST, as a crashing server does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class RecordingProxy(ThreadingHTTPServer):
    """A proxy that records its requests.

    :param refuses: Whether the proxy refuses a tunnel without a login.
    :param resets: Whether the proxy resets the client's connection when the upstream connection ends. By default it
        closes the connection.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, *, refuses: bool = False, resets: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refuses = refuses
        self.resets = resets
        self.received: list[str] = []
        self.logins: list[str | None] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        """Host and port of the proxy."""
        return f"127.0.0.1:{self.server_port}"

    def note(self, line: str, login: str | None) -> None:
        """Record a request and its login."""
        self.received.append(line)
        self.logins.append(login)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors, because many tests make the client close its connection."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(120)
