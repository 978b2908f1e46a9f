# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Bursts of webhooks to several API servers with one PostgreSQL or SQLite database. One server is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
import sqlalchemy

from demo.processes import free_port
from tests.airflow.running import AIRFLOW_3
from tests.thorough import THOROUGH
from tests.waiting import wait_until
from tests.webhook.conftest import LISTENING
from tests.webhook.postgres import postgres
from tests.webhook.served import TOKEN, connections, webhook_body

pytestmark = [
    pytest.mark.long,
    pytest.mark.process,
    pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 receives no webhooks"),
]

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 200
#: Two idle cores answer all webhooks within 2 s. A busy machine possibly answers some of them with 503. These are sent
#: again, at most this many times.
MAX_ROUNDS = 5


# Both commands run in one process, because importing Airflow takes longer than the commands themselves.
PREPARE = """
import sys
from airflow.__main__ import main
for command in (["db", "migrate"], ["dags", "reserialize"]):
    sys.argv = ["airflow", *command]
    main()
"""


SKIPPED_IN_MAKE_TEST = pytest.mark.skipif(
    not THOROUGH, reason="only in make test-version and make test-thorough: the same on SQLite"
)


@pytest.fixture(
    scope="module", params=["postgresql", pytest.param("sqlite", marks=SKIPPED_IN_MAKE_TEST, id="sqlite")]
)
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Return the environment of an Airflow whose database contains the DAGs of `listening/`."""
    work = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        yield _prepared(work, f"sqlite:///{work / 'airflow.db'}")
    else:
        with postgres() as url:
            yield _prepared(work, url)


def _prepared(work: Path, url: str) -> dict[str, str]:
    conns = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections().items()}
    environment = {
        **os.environ,
        **conns,
        "AIRFLOW_HOME": str(work),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__CORE__DAGS_FOLDER": str(LISTENING),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", PREPARE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


@contextmanager
def _servers(environment: dict[str, str], count: int) -> Iterator[list[tuple[int, subprocess.Popen[bytes]]]]:
    ports = [free_port() for _ in range(count)]
    command = [sys.executable, "-m", "tests.webhook.receiving"]
    servers = [
        (port, subprocess.Popen([*command, str(port)], env=environment, cwd=ROOT, stderr=subprocess.DEVNULL))
        for port in ports
    ]
    try:
        for port, process in servers:
            _wait_until_alive(port, process)
        # After this request, each server has cached the Connection and opened the database. A busy server answers 503
        # until it has read which Connections the DAGs use.
        for port in ports:
            wait_until(lambda port=port: _first_status(port) == 200)  # type: ignore[misc]
        yield servers
    finally:
        for _, process in servers:
            process.kill()
        for _, process in servers:
            process.wait(120)


def _first_status(port: int) -> int:
    (status,) = asyncio.run(_send([(port, webhook_body())]))
    assert status in {200, 503}
    return status


def _wait_until_alive(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        try:
            urlopen(f"http://127.0.0.1:{port}/alive", timeout=300).close()
        except OSError:
            time.sleep(0.2)
        else:
            return


async def _post(port: int, body: dict[str, object]) -> int:
    """Return the HTTP status, or 0 if the connection failed. Raw sockets save CPU time, which the servers need."""
    data = json.dumps(body).encode()
    head = f"POST /faceki/webhook/faceki_default/{TOKEN} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answer = await reader.read()
        writer.close()
    except OSError:
        return 0
    return int(answer.split(b" ")[1]) if answer else 0


async def _send(calls: Sequence[tuple[int, dict[str, object]]], took: list[float] | None = None) -> list[int]:
    async def timed(port: int, body: dict[str, object]) -> int:
        began = time.monotonic()
        status = await _post(port, body)
        if took is not None:
            took.append(time.monotonic() - began)
        return status

    return list(await asyncio.gather(*(timed(*call) for call in calls)))


def _stored(environment: dict[str, str]) -> list[str]:
    engine = sqlalchemy.create_engine(environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.connect() as opened:
        found = opened.execute(sqlalchemy.text("SELECT extra FROM asset_event")).scalars().all()
    engine.dispose()
    extras = [json.loads(each) if isinstance(each, str) else each for each in found]
    return [extra["request_id"] for extra in extras]


def _burst(environment: dict[str, str], ports: list[int], calls: int) -> None:
    bodies = [webhook_body() for _ in range(calls)]
    took: list[float] = []
    statuses = asyncio.run(_send([(ports[n % len(ports)], body) for n, body in enumerate(bodies)], took))
    took.sort()
    log.warning(
        "%s: %d calls to %d processes: p50 %.2f s, p95 %.2f s, all %.2f s",
        environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].partition(":")[0],
        calls,
        len(ports),
        took[calls // 2],
        took[calls * 95 // 100],
        took[-1],
    )
    left = _send_again(bodies, statuses, ports)
    assert left == []
    _assert_stored_once(environment, bodies)


def _send_again(
    bodies: list[dict[str, object]], statuses: list[int], ports: list[int]
) -> list[dict[str, object]]:
    """Send again the webhooks that were not stored, as a sender does after a 503. Return those that remain unstored."""
    assert set(statuses) <= {0, 200, 503}
    left = [body for body, status in zip(bodies, statuses, strict=True) if status != 200]
    for _ in range(MAX_ROUNDS):
        if not left:
            break
        answers = asyncio.run(_send([(ports[n % len(ports)], body) for n, body in enumerate(left)]))
        left = [body for body, status in zip(left, answers, strict=True) if status != 200]
    return left


def _assert_stored_once(environment: dict[str, str], bodies: list[dict[str, object]]) -> None:
    wanted = sorted(str(body["requestId"]) for body in bodies)
    assert sorted(each for each in _stored(environment) if each in set(wanted)) == wanted


def test_bursts_and_a_server_that_is_killed_in_the_middle(database: dict[str, str]) -> None:
    with _servers(database, 3) as running:
        ports = [port for port, _ in running]
        _burst(database, ports[:1], AT_ONCE)
        _burst(database, ports, 2 * AT_ONCE)
        bodies = [webhook_body() for _ in range(AT_ONCE)]
        statuses = asyncio.run(_burst_with_a_kill(database, bodies, ports, running[0][1]))
        acknowledged = {
            str(body["requestId"]) for body, status in zip(bodies, statuses, strict=True) if status == 200
        }
        assert acknowledged <= set(_stored(database))
        log.warning(
            "killed: %d of %d calls had no answer, and are sent again", statuses.count(0), len(bodies)
        )
        assert _send_again(bodies, statuses, ports[1:]) == []
    _assert_stored_once(database, bodies)


async def _burst_with_a_kill(
    environment: dict[str, str],
    bodies: list[dict[str, object]],
    ports: list[int],
    victim: subprocess.Popen[bytes],
) -> list[int]:
    before = len(_stored(environment))
    calls = [(ports[n % len(ports)], body) for n, body in enumerate(bodies)]
    sending = asyncio.create_task(_send(calls))
    while len(await asyncio.to_thread(_stored, environment)) < before + 20 and not sending.done():  # noqa: ASYNC110 - the database has no event
        await asyncio.sleep(0.01)
    victim.kill()
    return await sending
