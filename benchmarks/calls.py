# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Time of one authenticated GET, compared with a bare shared ``requests.Session`` and with Airflow's http provider.

A new hook fetches its Connection from Airflow, which takes about half as long as the GET itself. Therefore a new hook
is compared with the bare session twice: once alone, and once with a fetch of the Connection before each GET.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import requests

from benchmarks import clients, peers
from benchmarks.frame import Row, Target, measure_rounds
from benchmarks.loopback import Loopback, loopback

BASELINE = "requests.Session"
WITH_CONNECTION = "requests.Session and get_connection"
HTTP = "http provider"
OURS, NEW_HOOK = "ours", "ours, a new hook"
NEW_HTTP = "http provider, a new hook"

ROUNDS, CALLS = 60, 8


def measure(directory: Path) -> list[Row]:
    """Measure one GET with each client, over plain HTTP and over TLS. Return the rows of the result table."""
    with loopback(directory) as server:
        return [row for tls in (False, True) for row in _measure(server, tls=tls)]


def _measure(server: Loopback, *, tls: bool) -> list[Row]:
    clients.connect(server, tls=tls)
    candidates = _candidates(server, tls=tls)
    wall = measure_rounds(candidates, rounds=ROUNDS, calls=CALLS)
    cpu = measure_rounds(
        {name: candidates[name] for name in (BASELINE, WITH_CONNECTION, OURS, NEW_HOOK)},
        rounds=ROUNDS,
        calls=CALLS,
        clock=time.thread_time,
    )
    kind = "TLS" if tls else "plain"
    one, new = f"GET, one hook, {kind}", f"GET, a new hook each, {kind}"
    rows = [
        wall.row(one, OURS, BASELINE, target=Target("ratio", "≤", 1.1)),
        cpu.row(f"{one}, CPU", OURS, BASELINE),
    ]
    if HTTP in candidates:
        rows.insert(1, wall.row(one, OURS, HTTP))
    rows += [
        wall.row(new, NEW_HOOK, WITH_CONNECTION, target=Target("ratio", "≤", 1.15)),
        wall.row(new, NEW_HOOK, BASELINE, target=Target("ratio", "≤", 1.4) if tls else None),
    ]
    if NEW_HTTP in candidates:
        rows.append(wall.row(new, NEW_HOOK, NEW_HTTP))
    return [*rows, *(cpu.row(f"{new}, CPU", NEW_HOOK, baseline) for baseline in (WITH_CONNECTION, BASELINE))]


def _candidates(server: Loopback, *, tls: bool) -> dict[str, Callable[[], object]]:
    base_url = server.tls if tls else server.plain
    session = requests.Session()
    session.verify = str(server.certificate)
    token = clients.fetch_token(session, base_url=base_url)
    hook = clients.hook()
    candidates: dict[str, Callable[[], object]] = {
        BASELINE: lambda: clients.bare_fetch(session, base_url, token),
        WITH_CONNECTION: lambda: clients.bare_fetch_with_connection(session, base_url, token),
        OURS: lambda: clients.fetch_with(hook),
        NEW_HOOK: clients.fetch_with_new_hook,
    }
    if peers.available():
        theirs = clients.http_provider()
        candidates[HTTP] = lambda: clients.http_provider_fetch(token, theirs)
        candidates[NEW_HTTP] = lambda: clients.http_provider_fetch(token)
    return candidates
