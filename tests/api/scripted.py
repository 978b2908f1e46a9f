# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""What does FACEKI answer next? A real HTTP server on loopback that says what it is told to, and remembers."""

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

from airflow_provider_faceki.api.protocol.http import Json

TOKEN_PATH = "/auth/api/generate-token"
RECORDS_PATH = "/api/v3/kyc_verification"
LINK_PATH = "/kycverify/api/kycverify/kyc-verify-link"

NOTHING_FOUND: Json = {"status": True, "code": 200, "message": "OK", "appVersion": "v3.0.0", "result": []}
REFUSED: Json = {"status": False, "code": 1, "message": "UNAUTHORIZED/INVALID URL"}


@dataclass(frozen=True)
class Heard:
    """One request, as it arrived."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def bearer(self) -> str | None:
        """The token it came with."""
        found = self.header("authorization") or ""
        return found.removeprefix("Bearer ") if found.startswith("Bearer ") else None


class Talk(BaseHTTPRequestHandler):
    """One connection; a reply does with it what it likes."""

    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def setup(self) -> None:
        super().setup()
        self.number = next(self.server.connections)

    def serve(self) -> None:
        self.server.before_body(self)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        heard = Heard(self.command, self.path, tuple(self.headers.items()), body, self.number)
        self.heard = heard
        self.server.reply_to(heard)(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def answer(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Say one whole HTTP answer."""
        head = [f"HTTP/1.1 {status} .", *(f"{name}: {value}" for name, value in headers)]
        if not any(name.lower() in {"content-length", "transfer-encoding"} for name, _ in headers):
            head.append(f"Content-Length: {len(body)}")
        self.say("\r\n".join([*head, "", ""]).encode("latin-1") + body)

    def say(self, data: bytes) -> None:
        """Say some bytes."""
        self.wfile.write(data)
        self.wfile.flush()

    def hang_up(self) -> None:
        """Close the connection after this request."""
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Say nothing on stderr."""


Reply: TypeAlias = Callable[[Talk], None]


class ScriptedServer(ThreadingHTTPServer):
    """Answers each path by its script, the last reply of which repeats. It knows the token route by itself:
    each request there gives ``token-1``, ``token-2``, and so on.
    """

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Talk)
        self.scheme = "https" if tls else "http"
        if tls:
            # The handshake is made by the connection's thread, so that a silent client holds nobody up.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.connections = itertools.count(1)
        self.heard: list[Heard] = []
        self.live: set[str] = set()
        self.trouble: list[str] = []
        self.before_body: Reply = lambda talk: None
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._scripts: dict[str, list[Reply]] = defaultdict(lambda: [says({"unscripted": True}, 599)])
        self.on(TOKEN_PATH, gives_token())
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def on(self, path: str, *replies: Reply) -> None:
        """Say what is answered at ``path``, one reply after the other."""
        self._scripts[path] = list(replies)

    def reply_to(self, heard: Heard) -> Reply:
        """Remember a request and return what is to be answered."""
        with self._lock:
            self.heard.append(heard)
            script = self._scripts[heard.path]
            return script.pop(0) if len(script) > 1 else script[0]

    def new_token(self) -> str:
        """Return the next token; it is good until it is taken out of ``live``."""
        with self._lock:
            token = f"token-{next(self._numbers)}"
            self.live.add(token)
            return token

    def asked(self, path: str) -> list[Heard]:
        """Return what was asked at ``path``."""
        with self._lock:
            return [heard for heard in self.heard if heard.path == path]

    @property
    def token_requests(self) -> int:
        """How often a token was asked for."""
        return len(self.asked(TOKEN_PATH))

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of many a script."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(5)


def says(document: Json, status: int = 200, *headers: tuple[str, str]) -> Reply:
    """Payload JSON."""
    return says_bytes(json.dumps(document).encode(), status, *headers)


def says_bytes(body: bytes, status: int = 200, *headers: tuple[str, str]) -> Reply:
    """Payload a body as it is."""
    return lambda talk: talk.answer(status, body, headers)


def says_raw(data: bytes) -> Reply:
    """Say these very bytes and close the connection."""

    def reply(talk: Talk) -> None:
        talk.say(data)
        talk.hang_up()

    return reply


def gives_token(lifetime: Json = 3600, status: int = 200) -> Reply:
    """Payload a new token."""

    def reply(talk: Talk) -> None:
        document: Json = {
            "responseCode": 0,
            "data": {"access_token": talk.server.new_token(), "expires_in": lifetime, "token_type": "Bearer"},
        }
        says(document, status)(talk)

    return reply


def guarded(reply: Reply, refusal: Reply | None = None) -> Reply:
    """Payload ``reply`` to those who bring a live token."""
    refuse = refusal or says(REFUSED, 401)
    return lambda talk: (reply if talk.heard.bearer in talk.server.live else refuse)(talk)


def hangs_up(talk: Talk) -> None:
    """Close the connection without a word."""
    talk.hang_up()


def resets(talk: Talk) -> None:
    """Break the connection off, as a crashing server does."""
    talk.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    talk.connection.close()
    talk.hang_up()


def drips(piece: bytes, pause: float, until: threading.Event, opening: bytes) -> Reply:
    """Say ``opening``, then ``piece`` again and again, for longer than anybody should wait."""

    def reply(talk: Talk) -> None:
        talk.say(opening)
        for _ in range(int(6 / pause)):
            if until.wait(pause):
                break
            talk.say(piece)
        talk.hang_up()

    return reply


def waits(released: threading.Event, then: Reply, reached: threading.Event | None = None) -> Reply:
    """Payload only when told to."""

    def reply(talk: Talk) -> None:
        if reached is not None:
            reached.set()
        released.wait(30)
        then(talk)

    return reply
