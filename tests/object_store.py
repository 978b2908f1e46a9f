# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The fixture ``object_store``: an S3 server on loopback, and a proxy before it that simulates failures."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property  # noqa: TID251 - no test forks while it is computed
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

CONN_ID = "s3_store"
FAULTY_CONN_ID = "s3_faulty"
BUCKET = "kyc"

# This script replaces moto's own command, which does not report the free port that it uses.
#
# A request can demand that the object does not exist yet. moto handles such a request in two steps: it checks, and then
# writes. Two requests at the same time could both pass the check and create the object, which S3 never allows.
# Therefore the script handles one write request after the other.
#
# The server ends itself when the pipe to its standard input is closed. Thus it also ends if the test process is killed
# and cannot stop it. At the latest, it ends after three hours.
_SERVER = """
import signal, sys, threading, time
signal.alarm(3 * 3600)
from moto.s3.models import S3Backend
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
lock, put_object, write = threading.Lock(), S3Response.put_object, S3Backend.put_object
def put_one_object(self):
    with lock:
        return put_object(self)
def write_late(self, *args, **kwargs):
    time.sleep(float(sys.argv[1]))
    return write(self, *args, **kwargs)
S3Response.put_object, S3Backend.put_object = put_one_object, write_late
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Fault:
    """Failure that the proxy simulates for a request.

    :param status: HTTP status of the response. 0 closes the connection without a response.
    :param code: S3 error code in the response body.
    :param cut_after: Number of bytes of the real response body after which the connection is closed.
    """

    status: int = 0
    code: str = ""
    cut_after: int | None = None


@dataclass
class ObjectStore:
    """S3 server with one bucket. Airflow accesses it as Connection ``s3_store``, or through the proxy as ``s3_faulty``.

    :param port: Port of the server.
    :param proxy_port: Port of the proxy.
    """

    port: int
    proxy_port: int
    #: Function that selects the fault for a method and a path. By default the proxy forwards each request.
    choose_fault: Callable[[str, str], Fault | None] = field(default=lambda method, path: None)
    #: Method and path of each request that the proxy received.
    requests: list[tuple[str, str]] = field(default_factory=list)

    @cached_property
    def client(self) -> Any:
        """The boto3 client of the server."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def uri(self, key: str, *, faulty: bool = False) -> str:
        """Return the URI of an object, including the Connection."""
        return f"s3://{FAULTY_CONN_ID if faulty else CONN_ID}@{BUCKET}/{key}"

    def put(self, key: str, content: bytes) -> str:
        """Write an object and return its URI."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)
        return self.uri(key)

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def keys(self, prefix: str = "") -> list[str]:
        """Return the names of all objects with a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))

    def clear(self) -> None:
        """Delete all objects, recorded requests and faults."""
        self.choose_fault = lambda method, path: None
        self.requests.clear()
        for key in self.keys():
            self.client.delete_object(Bucket=BUCKET, Key=key)


@contextmanager
def s3_server(write_delay_seconds: float = 0.0) -> Iterator[int]:
    """Run an S3 server in a process of its own, and return its port.

    :param write_delay_seconds: Seconds between the check and the write of a request that writes an object.
    """
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(write_delay_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert server.stdout is not None
        yield int(server.stdout.readline())
    finally:
        server.terminate()
        server.wait(120)
        for pipe in (server.stdin, server.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="session")
def _object_store_server() -> Iterator[ObjectStore]:
    with s3_server() as port:
        proxy = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
        proxy.daemon_threads = True
        store = ObjectStore(port, proxy.server_address[1])
        proxy.store = store  # type: ignore[attr-defined]
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        store.client.create_bucket(Bucket=BUCKET)
        yield store
        proxy.shutdown()
        proxy.server_close()


@pytest.fixture
def object_store(_object_store_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Return the S3 server without objects and faults, and define its two Connections."""
    for name, value in _connections(_object_store_server).items():
        monkeypatch.setenv(name, value)
    _object_store_server.clear()
    yield _object_store_server
    _object_store_server.clear()


def _connections(store: ObjectStore) -> dict[str, str]:
    return {
        f"AIRFLOW_CONN_{CONN_ID.upper()}": _connection(store.port),
        f"AIRFLOW_CONN_{FAULTY_CONN_ID.upper()}": _connection(store.proxy_port),
    }


def _connection(port: int) -> str:
    extra = {
        "endpoint_url": f"http://127.0.0.1:{port}",
        "region_name": "us-east-1",
        # The library's own retries are off, so that each fault reaches the code under test.
        "config_kwargs": {"retries": {"max_attempts": 0}, "s3": {"addressing_style": "path"}},
    }
    return json.dumps({"conn_type": "aws", "login": "test", "password": "test", "extra": extra})


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        store: ObjectStore = self.server.store  # type: ignore[attr-defined]
        store.requests.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = store.choose_fault(self.command, self.path)
        if fault is not None and fault.cut_after is None:
            self._refuse(fault)
            return
        connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            self._relay(answer, answer.read(), fault.cut_after if fault else None)
        finally:
            connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _refuse(self, fault: Fault) -> None:
        if not fault.status:
            self.close_connection = True
            return
        body = b""
        if self.command != "HEAD":
            body = f"<Error><Code>{fault.code}</Code><Message>canary-of-the-store</Message></Error>".encode()
        self.send_response(fault.status)
        self.send_header("content-type", "application/xml")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _relay(self, answer: http.client.HTTPResponse, content: bytes, cut_after: int | None) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "transfer-encoding", "date", "server"}:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content if cut_after is None else content[:cut_after])
        if cut_after is not None and cut_after < len(content):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


def environment(store: ObjectStore) -> dict[str, str]:
    """Return the environment variables that define the Connections in another process."""
    existing = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW_CONN_")}
    return _connections(store) | existing
