# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Time until Airflow's API server with a SQLite database has stored and answered a webhook.

The time is compared with the time of a bare FastAPI route that commits one SQLite insert
(``benchmarks/receiving.py``). This route also runs in a separate process.
"""

from __future__ import annotations

import json
import secrets
import signal
import statistics
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import requests

from benchmarks.frame import Row, Target, counted, measure_rounds
from benchmarks.server_process import server_process
from tests.airflow.running import bundles
from tests.airflow.whole_airflow import WholeAirflow

#: Folder with DAGs that webhooks start. No scheduler runs, because only the receiver of the webhooks is measured.
DAGS = Path(__file__).resolve().parents[1] / "tests" / "webhook" / "listening"
OURS, FLOOR = "ours", "FastAPI and one insert"
ROUNDS = 200
AT_ONCE = 200
#: Time limit for the answer to a webhook, in milliseconds.
LIMIT = 100.0


def measure(directory: Path) -> list[Row]:
    """Measure the answer times of webhooks, and return the rows of the result table."""
    with (
        _floor(directory / "floor.db") as floor,
        _ours(directory / "airflow") as ours,
        requests.Session() as line,
    ):
        line.trust_env = False
        candidates = {OURS: lambda: _send(line, ours), FLOOR: lambda: _send(line, floor)}
        rounds = measure_rounds(candidates, rounds=ROUNDS, calls=1)
        seconds = _at_once(ours)
    target = Target("ours", "≤", LIMIT)
    slow = {name: 1e3 * statistics.quantiles(took, n=20)[18] for name, took in rounds.by_name.items()}
    return [
        rounds.row("webhook stored on SQLite, median", OURS, FLOOR, target=target),
        counted("webhook stored on SQLite, p95", FLOOR, slow[FLOOR], slow[OURS], "ms", target),
        counted(f"{AT_ONCE} webhooks at once, the last answered", "", None, seconds, "s", None),
    ]


def _send(line: requests.Session, url: str) -> None:
    answer = line.post(url, json=_webhook(), timeout=60)
    assert (answer.status_code, answer.json()) == (200, {"status": "stored"}), answer.text


def _webhook() -> dict[str, object]:
    return {
        "requestId": str(uuid.uuid4()),
        "fullName": "BELINDA BENCHMARK",
        "status": "ACCEPTED",
        "kycData": {},
    }


def _at_once(url: str) -> float:
    def send() -> None:
        with requests.Session() as line:
            line.trust_env = False
            _send(line, url)

    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for sent in [pool.submit(send) for _ in range(AT_ONCE)]:
            sent.result()
    return time.perf_counter() - began


@contextmanager
def _ours(home: Path) -> Iterator[str]:
    token = secrets.token_urlsafe(32)
    connection = {"conn_type": "faceki", "login": "i", "password": "p", "extra": {"webhook_token": token}}
    airflow = WholeAirflow(
        home,
        {
            **bundles(DAGS),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__FACEKI__WEBHOOK_ENABLED": "True",
            "AIRFLOW_CONN_FACEKI_DEFAULT": json.dumps(connection),
        },
    )
    airflow.printed.mkdir(parents=True)
    airflow.tell(["db", "migrate"], ["dags", "reserialize"])
    url = airflow.environment["AIRFLOW__API__BASE_URL"]
    airflow.start("api-server")
    try:
        airflow.wait("the API server to answer", lambda: _answers(f"{url}/api/v2/version"))
        yield f"{url}/faceki/webhook/faceki_default/{token}"
    finally:
        airflow.end("api-server", signal.SIGTERM)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


@contextmanager
def _floor(database: Path) -> Iterator[str]:
    with server_process("receiving", str(database)) as port:
        yield f"http://127.0.0.1:{int(port)}/"
