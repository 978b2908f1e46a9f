# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Time until webhooks are stored and answered: one after the other, and many at once, on SQLite and on PostgreSQL.

Single webhooks are sent to Airflow's API server with a SQLite database. Their time is compared with the time of a bare
FastAPI route that commits one SQLite insert (``benchmarks/receiving.py``). This route also runs in a separate process.

Bursts are sent to the API server, and to three processes that contain only the receiver. Each webhook of a burst is
sent once. If one of them is not stored, the benchmark fails.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import requests

from airflow_provider_faceki.webhook.app import CALL_LIMIT
from benchmarks.frame import Row, Target, counted, measure_rounds
from benchmarks.server_process import server_process
from demo.processes import free_port
from tests.airflow.running import bundles
from tests.airflow.whole_airflow import WholeAirflow
from tests.webhook.postgres import postgres

ROOT = Path(__file__).resolve().parents[1]
#: Folder with DAGs that webhooks start. No scheduler runs, because only the receiver of the webhooks is measured.
DAGS = ROOT / "tests" / "webhook" / "listening"
OURS, BASELINE = "ours", "FastAPI and one insert"
ROUNDS = 200
#: Time limit for the answer to a webhook, in milliseconds.
LIMIT = 100.0
#: Number of webhooks in a burst to one API server, number of these bursts, and time limit in seconds for the last
#: answer. The result is the median of the bursts.
AT_ONCE, BURSTS, BURST_LIMIT = 200, 3, 2.0
#: Number of webhooks in the burst to several processes, and number of these processes.
MANY, PROCESSES = 400, 3
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"

_TOKEN = secrets.token_urlsafe(32)
_PATH = f"/faceki/webhook/faceki_default/{_TOKEN}"
_TIMEOUT_SECONDS = 60.0


def measure(directory: Path) -> list[Row]:
    """Measure the answer times of webhooks, and return the rows of the result table."""
    airflow = _prepared(directory / "sqlite")
    with _api_server(airflow) as port:
        rows = [*_one_by_one(directory, port), _burst(SQLITE, port)]
    rows += _to_processes(SQLITE, airflow)
    try:
        with postgres() as url:
            airflow = _prepared(directory / "postgresql", AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=url)
            with _api_server(airflow) as port:
                rows.append(_burst(POSTGRESQL, port))
            rows += _to_processes(POSTGRESQL, airflow)
    except pytest.skip.Exception as missing:
        # `postgres` is a helper of the tests. If PostgreSQL is not installed, it raises the exception with which pytest
        # skips a test.
        rows[-1] = replace(rows[-1], remark=f"{POSTGRESQL} is not measured: {missing}")
    return rows


def _one_by_one(directory: Path, port: int) -> list[Row]:
    with _baseline(directory / "baseline.db") as baseline, requests.Session() as line:
        line.trust_env = False
        ours = f"http://127.0.0.1:{port}{_PATH}"
        candidates = {OURS: lambda: _send(line, ours), BASELINE: lambda: _send(line, baseline)}
        rounds = measure_rounds(candidates, rounds=ROUNDS, calls=1)
    target = Target("ours", "≤", LIMIT)
    slow = {name: 1e3 * statistics.quantiles(took, n=20)[18] for name, took in rounds.by_name.items()}
    return [
        rounds.row("webhook stored on SQLite, median", OURS, BASELINE, target=target),
        counted("webhook stored on SQLite, p95", BASELINE, slow[BASELINE], slow[OURS], "ms", target),
    ]


def _burst(database: str, port: int) -> Row:
    """Send several bursts to the API server. The result is the time of the last answer, in the median burst."""
    asyncio.run(_send_at_once([port]))
    took = []
    for _ in range(BURSTS):
        # The receiver has a rate limit. After this pause, the rate limit allows a whole burst again.
        time.sleep(AT_ONCE / CALL_LIMIT[1])
        took.append(max(asyncio.run(_send_at_once([port] * AT_ONCE))))
    return counted(
        f"{AT_ONCE} webhooks at once on {database}, the last answered",
        "",
        None,
        statistics.median(took),
        "s",
        Target("ours", "≤", BURST_LIMIT),
        f"the slowest of {BURSTS} bursts: {max(took):.2f} s",
    )


def _to_processes(database: str, airflow: WholeAirflow) -> list[Row]:
    """Send one burst to several receivers at once. Return the median and the 95th percentile of the answer times."""
    with _receivers(airflow) as ports:
        asyncio.run(_send_at_once(ports))
        took = asyncio.run(_send_at_once([ports[number % len(ports)] for number in range(MANY)]))
    what = f"{MANY} webhooks at once to {PROCESSES} processes on {database}"
    slow = statistics.quantiles(took, n=20)[18]
    return [
        counted(f"{what}, p50", "", None, statistics.median(took), "s", None),
        counted(f"{what}, p95", "", None, slow, "s", None),
    ]


def _send(line: requests.Session, url: str) -> None:
    answer = line.post(url, json=_webhook(), timeout=_TIMEOUT_SECONDS)
    assert (answer.status_code, answer.json()) == (200, {"status": "stored"}), answer.text


def _webhook() -> dict[str, object]:
    return {
        "requestId": str(uuid.uuid4()),
        "fullName": "BELINDA BENCHMARK",
        "status": "ACCEPTED",
        "kycData": {},
    }


async def _send_at_once(ports: Sequence[int]) -> list[float]:
    """Send one webhook to each port at the same time. Return the seconds until each answer."""
    began = time.perf_counter()
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        return list(await asyncio.gather(*(_send_raw(port, began) for port in ports)))


async def _send_raw(port: int, began: float) -> float:
    # Raw sockets are used, because an HTTP library would take CPU time from the receivers on the same machine.
    body = json.dumps(_webhook()).encode()
    head = f"POST {_PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body)
    answer = await reader.read()
    took = time.perf_counter() - began
    writer.close()
    status, content = answer.partition(b"\r\n")[0], answer.rpartition(b"\r\n\r\n")[2]
    assert (status.split()[1], json.loads(content)) == (b"200", {"status": "stored"}), answer
    return took


def _prepared(home: Path, **environment: str) -> WholeAirflow:
    """Return an Airflow whose database contains the DAGs that listen to webhooks."""
    connection = {"conn_type": "faceki", "login": "i", "password": "p", "extra": {"webhook_token": _TOKEN}}
    airflow = WholeAirflow(
        home,
        {
            **bundles(DAGS),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__FACEKI__WEBHOOK_ENABLED": "True",
            "AIRFLOW_CONN_FACEKI_DEFAULT": json.dumps(connection),
            **environment,
        },
    )
    airflow.printed.mkdir(parents=True)
    airflow.tell(["db", "migrate"], ["dags", "reserialize"])
    return airflow


@contextmanager
def _api_server(airflow: WholeAirflow) -> Iterator[int]:
    """Run Airflow's API server, and yield its port."""
    airflow.start("api-server")
    try:
        url = airflow.environment["AIRFLOW__API__BASE_URL"]
        airflow.wait("the API server to answer", lambda: _answers(f"{url}/api/v2/version"))
        yield airflow.ports["api-server"]
    finally:
        airflow.end("api-server", signal.SIGTERM)


@contextmanager
def _receivers(airflow: WholeAirflow) -> Iterator[list[int]]:
    """Run several processes that contain only the receiver of webhooks, and yield their ports."""
    ports = [free_port() for _ in range(PROCESSES)]
    with ExitStack() as stack:
        for port in ports:
            command = [sys.executable, "-m", "tests.webhook.receiving", str(port)]
            process = stack.enter_context(subprocess.Popen(command, env=airflow.environment, cwd=ROOT))
            stack.callback(process.kill)
        for port in ports:
            airflow.wait("a receiver to answer", partial(_answers, f"http://127.0.0.1:{port}/alive"))
        yield ports


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


@contextmanager
def _baseline(database: Path) -> Iterator[str]:
    with server_process("receiving", str(database)) as port:
        yield f"http://127.0.0.1:{int(port)}/"
