# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Count the token requests that many calls, hooks, threads and processes cause, also after the token is revoked.

The server counts the requests. Each number is measured in newly forked processes that have made no call before,
because Airflow forks a new process for each task too. Failed calls are also counted, because a revoked token must not
make a call fail.
"""

from __future__ import annotations

import itertools
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import requests
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_faceki import api
from benchmarks import clients, peers
from benchmarks.frame import Row, Target, counted
from benchmarks.loopback import Loopback, loopback

#: Time in seconds that the test server waits before each answer. It is so long that several callers need a token before
#: the first token arrives.
LATENCY = 0.02
SCRIPT, KEPT = "requests, a token each", "requests, token kept"
HTTP = "http provider, a token each"

_TIMEOUT_SECONDS = 120.0

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario of the benchmark: the number of processes, threads and calls.

    :param name: The name of the scenario in the table.
    :param threads: Number of threads of each process.
    :param calls: Number of calls of each thread.
    :param processes: Number of processes.
    :param new_hooks: Whether our provider uses a new hook for each call.
    :param revoked: Whether the token is revoked when half of the calls have begun.
    :param tokens: Target for the number of token requests: the largest allowed number.
    """

    name: str
    threads: int = 1
    calls: int = 1
    processes: int = 1
    new_hooks: bool = True
    revoked: bool = False
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a scenario: the number of token requests and the number of failed calls."""

    tokens: int
    failed: int


SCENARIOS = (
    Scenario("100 calls, one hook", calls=100, new_hooks=False),
    Scenario("100 calls, a new hook each", calls=100),
    Scenario("50 threads starting cold", threads=50),
    Scenario("20 processes starting cold", processes=20),
    Scenario("100 calls by 10 threads, revoked half way", threads=10, calls=10, revoked=True, tokens=2),
)


def measure(directory: Path) -> list[Row]:
    """Count the token requests of all scenarios, and return the rows of the result table."""
    with loopback(directory, LATENCY) as server:
        return [row for scenario in SCENARIOS for row in _rows(server, scenario)]


def _rows(server: Loopback, scenario: Scenario) -> list[Row]:
    # Our provider stores the token in a file only if a scenario has several processes, because these must share the
    # token. In all other scenarios, our provider stores the token in memory. Otherwise a scenario would find the token
    # of an earlier scenario in the file.
    clients.connect(server, shared_file=scenario.processes > 1)
    ours = _count(server, scenario, _ours_new if scenario.new_hooks else _ours_one)
    theirs = {name: _count(server, scenario, make) for name, make in _candidates(server).items()}
    enough, none = Target("ours", "≤", scenario.tokens), Target("ours", "≤", 0)
    tokens, failed = f"token requests, {scenario.name}", f"failed calls, {scenario.name}"
    rows = [
        counted(tokens, name, found.tokens, ours.tokens, "", None if number else enough)
        for number, (name, found) in enumerate(theirs.items())
    ]
    if scenario.revoked or ours.failed:
        rows.append(counted(failed, KEPT, theirs[KEPT].failed, ours.failed, "", none))
    return rows


def _candidates(server: Loopback) -> dict[str, Callable[[], Call]]:
    theirs: dict[str, Callable[[], Call]] = {
        SCRIPT: lambda: clients.script_task(server.plain),
        KEPT: lambda: _kept(server.plain),
    }
    if peers.available():
        theirs[HTTP] = lambda: clients.http_provider_task
    return theirs


def _ours_one() -> Call:
    hook = clients.hook()
    return lambda: clients.fetch_with(hook)


def _ours_new() -> Call:
    return clients.fetch_with_new_hook


def _kept(base_url: str) -> Call:
    """Return a function that makes one call to the server each time it is called.

    The function requests a token only if it has none yet, and uses this token in all later calls. Several providers of
    Airflow work in this way.
    """
    kept: list[str] = []

    def call() -> None:
        session = requests.Session()
        if not kept:
            kept.append(clients.fetch_token(session, base_url=base_url))
        clients.bare_fetch(session, base_url, kept[0])

    return call


def _count(server: Loopback, scenario: Scenario, make: Callable[[], Call]) -> Found:
    server.reset()
    fork = multiprocessing.get_context("fork")
    start, failures = fork.Barrier(scenario.processes), fork.SimpleQueue()
    processes = [
        fork.Process(target=_process, args=(server, scenario, make, start, failures), daemon=True)
        for _ in range(scenario.processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_TIMEOUT_SECONDS)
        assert process.exitcode == 0, f"{scenario.name}: a process ended with {process.exitcode}"
    return Found(server.counters()["tokens"], sum(failures.get() for _ in processes))


def _process(
    server: Loopback,
    scenario: Scenario,
    make: Callable[[], Call],
    start: Barrier,
    failures: SimpleQueue[int],
) -> None:
    call, begun, together = make(), itertools.count(1), threading.Barrier(scenario.threads)
    half = scenario.threads * scenario.calls // 2 if scenario.revoked else 0

    def thread(_number: int) -> int:
        failed = 0
        together.wait(_TIMEOUT_SECONDS)
        for _ in range(scenario.calls):
            if next(begun) == half:
                server.revoke()
            failed += _fails(call)
        return failed

    start.wait(_TIMEOUT_SECONDS)
    with ThreadPoolExecutor(scenario.threads) as pool:
        failures.put(sum(pool.map(thread, range(scenario.threads))))


def _fails(call: Call) -> bool:
    try:
        call()
    except (requests.RequestException, AirflowException, api.FacekiError):
        return True
    return False
