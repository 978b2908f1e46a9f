# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A fake FACEKI server: an HTTP server on loopback with scripted replies. It records the requests."""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self, TypeAlias
from urllib.parse import urlsplit

from airflow_provider_faceki.api.protocol.messages import Json

TOKEN_PATH = "/auth/api/generate-token"
RECORDS_PATH = "/api/v3/kyc_verification"
LINK_PATH = "/kycverify/api/kycverify/kyc-verify-link"

NOTHING_FOUND: Json = {"status": True, "code": 200, "message": "OK", "appVersion": "v3.0.0", "result": []}
REFUSED: Json = {"status": False, "code": 1, "message": "UNAUTHORIZED/INVALID URL"}


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as the server received it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        """The request target without its query."""
        return urlsplit(self.target).path

    def header(self, name: str) -> str | None:
        """Return the first value of a header, or ``None``."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def bearer(self) -> str | None:
        """The bearer token of the request, or ``None``."""
        found = self.header("authorization") or ""
        return found.removeprefix("Bearer ") if found.startswith("Bearer ") else None


class Handler(BaseHTTPRequestHandler):
    """Handler of one connection. A reply writes to the connection."""

    protocol_version = "HTTP/1.1"
    server: FakeServer

    def setup(self) -> None:
        super().setup()
        self.number = next(self.server.connections)

    def serve(self) -> None:
        self.server.before_body(self)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        received = ReceivedRequest(self.command, self.path, tuple(self.headers.items()), body, self.number)
        self.received = received
        self.server.next_reply(received)(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def answer(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send one complete HTTP response."""
        head = [f"HTTP/1.1 {status} .", *(f"{name}: {value}" for name, value in headers)]
        if not any(name.lower() in {"content-length", "transfer-encoding"} for name, _ in headers):
            head.append(f"Content-Length: {len(body)}")
        self.send_bytes("\r\n".join([*head, "", ""]).encode("latin-1") + body)

    def send_bytes(self, data: bytes) -> None:
        """Send these bytes."""
        self.wfile.write(data)
        self.wfile.flush()

    def close_after_reply(self) -> None:
        """Close the connection after this request."""
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has this name
        """Write nothing to stderr."""


Reply: TypeAlias = Callable[[Handler], None]


class FakeServer(ThreadingHTTPServer):
    """HTTP server with a list of replies for each path.

    After the end of the list, the server repeats the last reply. The token route has replies from the start: the
    requests get ``token-1``, ``token-2`` and so on.
    """

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            # The thread of each connection does the handshake, so a silent client does not block other clients.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.connections = itertools.count(1)
        self.received: list[ReceivedRequest] = []
        self.live: set[str] = set()
        self.trouble: list[str] = []
        self.before_body: Reply = lambda handler: None
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._scripts: dict[str, list[Reply]] = defaultdict(lambda: [reply_json({"unscripted": True}, 599)])
        self.on(TOKEN_PATH, issue_token())
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The base URL of the server."""
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def on(self, path: str, *replies: Reply) -> None:
        """Set the replies for ``path``, in order."""
        self._scripts[path] = list(replies)

    def next_reply(self, received: ReceivedRequest) -> Reply:
        """Record a request and return the reply for it."""
        with self._lock:
            self.received.append(received)
            script = self._scripts[received.path]
            return script.pop(0) if len(script) > 1 else script[0]

    def new_token(self) -> str:
        """Return the next token. It is valid until it is removed from ``live``."""
        with self._lock:
            token = f"token-{next(self._numbers)}"
            self.live.add(token)
            return token

    def requests_to(self, path: str) -> list[ReceivedRequest]:
        """Return the requests for ``path``."""
        with self._lock:
            return [received for received in self.received if received.path == path]

    @property
    def token_requests(self) -> int:
        """Number of token requests."""
        return len(self.requests_to(TOKEN_PATH))

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors, because many replies make the client close its connection."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(120)


def reply_json(document: Json, status: int = 200, *headers: tuple[str, str]) -> Reply:
    """Return a reply with JSON."""
    return reply_bytes(json.dumps(document).encode(), status, *headers)


def reply_bytes(body: bytes, status: int = 200, *headers: tuple[str, str]) -> Reply:
    """Return a reply with this body."""
    return lambda handler: handler.answer(status, body, headers)


def reply_raw(data: bytes) -> Reply:
    """Return a reply that sends exactly these bytes and closes the connection."""

    def reply(handler: Handler) -> None:
        handler.send_bytes(data)
        handler.close_after_reply()

    return reply


def issue_token(lifetime: Json = 3600, status: int = 200) -> Reply:
    """Return a reply with a new token."""

    def reply(handler: Handler) -> None:
        document: Json = {
            "responseCode": 0,
            "data": {
                "access_token": handler.server.new_token(),
                "expires_in": lifetime,
                "token_type": "Bearer",
            },
        }
        reply_json(document, status)(handler)

    return reply


def require_token(reply: Reply, refusal: Reply | None = None) -> Reply:
    """Return a reply that uses ``reply`` for a request with a valid token, and otherwise ``refusal``."""
    refuse = refusal or reply_json(REFUSED, 401)
    return lambda handler: (reply if handler.received.bearer in handler.server.live else refuse)(handler)


def close_connection_silently(handler: Handler) -> None:
    """Close the connection without a reply."""
    handler.close_after_reply()


def resets(handler: Handler) -> None:
    """Reset the connection with TCP RST, as a crashing server does."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_after_reply()


def reply_slowly(piece: bytes, pause: float, until: threading.Event, opening: bytes) -> Reply:
    """Return a reply that sends ``opening`` and then repeats ``piece`` until ``until`` is set or 300 s are over."""

    def reply(handler: Handler) -> None:
        handler.send_bytes(opening)
        for _ in range(int(300 / pause)):
            if until.wait(pause):
                break
            handler.send_bytes(piece)
        handler.close_after_reply()

    return reply


def waits(released: threading.Event, then: Reply, reached: threading.Event | None = None) -> Reply:
    """Return a reply that sets ``reached``, waits for ``released``, and then uses ``then``."""

    def reply(handler: Handler) -> None:
        if reached is not None:
            reached.set()
        released.wait(120)
        then(handler)

    return reply
