# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Processes share one token in a file. If the process that fetches it is killed, another process fetches one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api.certificates import Authority
from tests.api.fake_server import (
    NOTHING_FOUND,
    RECORDS_PATH,
    TOKEN_PATH,
    FakeServer,
    issue_token,
    reply_json,
    require_token,
    waits,
)

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """A process that calls FACEKI once for each command."""

    def __init__(self, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.api.worker", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        """Return the next line of the process's output."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def tell(self, command: str = "ask") -> None:
        """Send a command to the process. Each command except ``report waits`` makes the process call FACEKI."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(120)

    def end(self) -> None:
        """End the process and close its pipes."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(120)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue


@pytest.fixture
def start(
    server: FakeServer, tmp_path: Path, authority: Authority
) -> Iterator[Callable[[int], list[Worker]]]:
    """Return a function that starts processes of one account and waits until they are ready."""
    server.on(RECORDS_PATH, require_token(reply_json(NOTHING_FOUND)))
    arguments = [server.url, "client-1", f"secret-{tmp_path}", str(tmp_path / "tokens"), authority.bundle]
    started: list[Worker] = []

    def start(number: int) -> list[Worker]:
        new = [Worker(arguments) for _ in range(number)]
        started.extend(new)
        assert [worker.hear() for worker in new] == ["ready"] * number
        return new

    yield start
    for worker in started:
        worker.end()


def _ask(workers: list[Worker]) -> list[str]:
    for worker in workers:
        worker.tell()
    return [worker.hear() for worker in workers]


def test_twenty_processes_starting_cold_and_a_token_revoked_under_them(
    server: FakeServer, start: Callable[[int], list[Worker]]
) -> None:
    workers = start(20)
    assert _ask(workers) == ["found 0"] * 20
    assert server.token_requests == 1
    assert _ask(workers) == ["found 0"] * 20
    assert server.token_requests == 1
    server.live.clear()
    assert _ask(workers) == ["found 0"] * 20
    assert server.token_requests == 2
    assert {received.bearer for received in server.requests_to(RECORDS_PATH)} == {"token-1", "token-2"}


def test_a_killed_process_does_not_keep_the_token_lock(
    server: FakeServer, start: Callable[[int], list[Worker]]
) -> None:
    released, reached = threading.Event(), threading.Event()
    server.on(TOKEN_PATH, waits(released, issue_token(), reached), issue_token())
    fetcher, waiting, late = start(3)
    fetcher.tell()
    assert reached.wait(120)
    waiting.tell("report waits")
    waiting.tell()
    # The second process waits for the lock, so it sends no token request.
    assert waiting.hear() == "waits"
    assert server.token_requests == 1
    fetcher.kill()
    killed = time.monotonic()
    assert waiting.hear() == "found 0"
    assert _ask([late]) == ["found 0"]
    assert time.monotonic() - killed < 120
    assert server.token_requests == 2
    released.set()


def test_a_token_outlives_the_process_that_fetched_it(
    server: FakeServer, start: Callable[[int], list[Worker]]
) -> None:
    first, second = start(2)
    assert _ask([first]) == ["found 0"]
    first.kill()
    assert _ask([second]) == ["found 0"]
    assert server.token_requests == 1
