# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The receiver behind uvicorn, in a thread, with Airflow's real database but without the other parts of Airflow."""

from __future__ import annotations

import json
import logging
import secrets
import socket
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from demo.processes import free_port
from tests.airflow.running import HAS_PARTITIONS
from tests.waiting import wait_until

TOKEN = f"current-{secrets.token_urlsafe(32)}"
PREVIOUS = f"previous-{secrets.token_urlsafe(32)}"
SECRET = f"hmac-{secrets.token_urlsafe(32)}"
WEAK = "weak-token-made-up"
NAME = "Marianne Exempla"


def connection(**extra: object) -> dict[str, object]:
    """Return a Connection without a real server. The receiver never calls FACEKI."""
    return {"conn_type": "faceki", "login": "client", "password": "made-up-secret", "extra": extra}


def connections() -> dict[str, dict[str, object]]:
    """Return Connections with each kind of webhook settings, and Connections without webhooks."""
    return {
        "faceki_default": connection(webhook_token=TOKEN, webhook_token_previous=PREVIOUS),
        "faceki_plain": connection(webhook_token=TOKEN),
        "faceki_mixed": connection(webhook_token=TOKEN),
        "faceki_paused": connection(webhook_token=TOKEN),
        "faceki_signed": connection(
            webhook_token=TOKEN, webhook_hmac_secret=SECRET, webhook_hmac_header="X-Signature"
        ),
        "faceki_timed": connection(
            webhook_token=TOKEN,
            webhook_hmac_secret=SECRET,
            webhook_hmac_header="X-Signature",
            webhook_hmac_timestamp_header="X-Time",
        ),
        "faceki_few": connection(
            webhook_token=TOKEN, webhook_statuses="ACCEPTED,DECLINED", webhook_max_per_day=2
        ),
        "faceki_renamed": connection(
            webhook_token=TOKEN, webhook_request_id_field="ref", webhook_status_field="outcome"
        ),
        "faceki_bare": connection(),
        "faceki_weak": connection(webhook_token=WEAK),
        "faceki_unheard": connection(webhook_token=TOKEN),
        "not_faceki": {"conn_type": "http", "extra": {"webhook_token": TOKEN}},
    }


def webhook_body(request_id: str = "", status: object = "ACCEPTED", **more: object) -> dict[str, object]:
    """Return a webhook body of FACEKI about a fictional person."""
    kyc = {"document_data": [{"full_name": NAME}]}
    return {
        "requestId": request_id or str(uuid.uuid4()),
        "fullName": NAME,
        "status": status,
        "kycData": kyc,
        **more,
    }


@dataclass
class Served:
    """A running receiver."""

    url: str
    database: Path
    access_log: list[str]

    def at(self, conn_id: str = "faceki_default", token: str = TOKEN) -> str:
        """Return the URL of a webhook."""
        return f"{self.url}/faceki/webhook/{conn_id}/{token}"

    def post(self, url: str, body: object, headers: Mapping[str, str] | None = None) -> requests.Response:
        """Send a webhook like FACEKI."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with requests.Session() as session:
            session.trust_env = False
            return session.post(url, data=data, headers=headers, timeout=300)

    def raw(self, data: bytes) -> socket.socket:
        """Open a connection, send these bytes, and return the socket."""
        host, port = self.url.removeprefix("http://").split(":")
        line = socket.create_connection((host, int(port)), timeout=300)
        line.sendall(data)
        return line

    def rows(self, query: str, *values: object) -> list[Any]:
        """Return the rows of a database query."""
        with sqlite3.connect(self.database, timeout=300) as opened:
            found = list(opened.execute(query, values))
        opened.close()
        return found

    def events(self, conn_id: str = "faceki_default") -> list[tuple[str | None, dict[str, str]]]:
        """Return the partition key and the extra of each event of a Connection's asset."""
        key = "e.partition_key" if HAS_PARTITIONS else "NULL"
        found = self.rows(
            f"SELECT {key}, e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id"  # noqa: S608 - constant
            " WHERE a.uri = ? ORDER BY e.id",
            f"faceki://{conn_id}/verifications",
        )
        return [(key, json.loads(extra)) for key, extra in found]

    def statuses(self, request_id: str, conn_id: str = "faceki_default") -> list[str]:
        """Return the stored statuses of one verification."""
        return [extra["status"] for _, extra in self.events(conn_id) if extra["request_id"] == request_id]

    def count(self) -> int:
        """Return the number of all asset events."""
        return int(self.rows("SELECT count(*) FROM asset_event")[0][0])


class _Kept(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def serving(app: Any, database: Path, prefix: str = "/faceki") -> Iterator[Served]:
    """Mount the application as Airflow does, with the access log that uvicorn writes before Airflow 3.2."""
    import uvicorn
    from fastapi import FastAPI

    parent = FastAPI()
    parent.mount(prefix, app)
    parent.add_api_route("/alive", lambda: {})
    port, lines = free_port(), list[str]()
    server = uvicorn.Server(uvicorn.Config(parent, "127.0.0.1", port, log_config=None, access_log=True))
    keeper, logger = _Kept(lines), logging.getLogger("uvicorn.access")
    before, logger.level = logger.level, logging.INFO
    logger.addHandler(keeper)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Served(f"http://127.0.0.1:{port}", database, lines)
    finally:
        server.should_exit = True
        thread.join(300)
        logger.removeHandler(keeper)
        logger.level = before
    assert not thread.is_alive()
