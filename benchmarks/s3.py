# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run the S3 server of the package moto on loopback, in a separate process, and count the requests to the server.

The command ``python -m benchmarks.s3`` prints the port and serves until its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import requests

from benchmarks.server_process import server_process

CONN_ID = "benchmark_s3"
BUCKET = "benchmark"
#: Text that is added to the kind of a request, if the request is for a file or a folder in the journal of a batch.
JOURNAL = " in _journal"
_COUNTERS_PATH = "/-/counters"
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class S3:
    """A running S3 server with one bucket.

    :param url: The base URL of the server.
    """

    url: str

    def client(self) -> Any:
        """Return a boto3 client for this server."""
        import boto3

        keys = {"aws_access_key_id": "benchmark", "aws_secret_access_key": "benchmark"}
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)

    def counters(self) -> Counter[str]:
        """Return the number of requests since the last call of this method, by kind (PUT, GET, HEAD, LIST and others).

        Requests for files of a journal are counted separately. Their kind ends with :data:`JOURNAL`.
        """
        with requests.Session() as session:
            session.trust_env = False
            found = session.post(self.url + _COUNTERS_PATH, timeout=_TIMEOUT_SECONDS).json()
        return Counter(found)


@contextmanager
def s3() -> Iterator[S3]:
    """Run the S3 server during the ``with`` block. Set an environment variable with an Airflow Connection to it."""
    with server_process("s3", log_requests=False) as port:
        found = S3(f"http://127.0.0.1:{int(port)}")
        extra = {
            "endpoint_url": found.url,
            "region_name": "us-east-1",
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        }
        conn = {"conn_type": "aws", "login": "benchmark", "password": "benchmark", "extra": extra}
        os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = json.dumps(conn)
        found.client().create_bucket(Bucket=BUCKET)
        yield found


def _kind(environ: dict[str, Any]) -> str:
    method, query = str(environ["REQUEST_METHOD"]), str(environ.get("QUERY_STRING", ""))
    kind = "LIST" if method == "GET" and "list-type" in query else method
    # In a LIST request, the name of the folder is in the query. In all other requests, the name is in the path.
    # Therefore both are searched.
    return kind + JOURNAL if "/_journal/" in unquote(f"{environ['PATH_INFO']}?{query}") else kind


def _counting(app: Callable[..., Any]) -> Callable[..., Any]:
    """Return a WSGI application that counts the requests and forwards them to ``app``."""
    counted, lock = Counter[str](), threading.Lock()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        with lock:
            if environ["PATH_INFO"] == _COUNTERS_PATH:
                body = json.dumps(counted).encode()
                counted.clear()
                start_response("200 OK", [("Content-Type", "application/json")])
                return [body]
            counted[_kind(environ)] += 1
        return app(environ, start_response)

    return answer


def main() -> None:
    """Start the server, print its port, and serve until the standard input ends."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    app = _counting(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
