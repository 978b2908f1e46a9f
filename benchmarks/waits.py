# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""CPU time, memory and delay of one thousand waits for a decision in one process, which does the work of a triggerer.

Each wait polls once a minute. The server needs 200 ms for each answer. Each candidate (our provider and two other
programs) runs in a separate process (``benchmarks/waiting.py``), one candidate after the other. Our provider is also
measured with five thousand waits.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import clients, peers
from benchmarks.frame import Row, Target, counted
from benchmarks.loopback import Loopback, loopback

LATENCY = 0.2
OURS, NAIVE, HTTP = "ours", "naive", "http"
NAMES = {NAIVE: "requests in to_thread", HTTP: "http provider's async hook"}
#: How the CPU time is reported: the name of its row in the result table, its key in the measured values, and its unit.
CPU = ("1 000 waits, CPU of one core", "cpu", "%")
CPU_OF_5000 = ("5 000 waits, CPU of one core", "cpu", "%")
#: The CPU time depends on the machine, so the target is a ratio. For 1 000 waits, our CPU time is divided by the CPU
#: time of the program ``NAIVE``. For 5 000 waits, our CPU time is divided by five times the CPU time of ``NAIVE`` for
#: 1 000 waits. ``NAIVE`` polls without retries, and never renews its token.
MAX_CPU = Target("ratio", "≤", 1.25)

_Found = Mapping[str, float]


def measure(directory: Path) -> list[Row]:
    """Measure the CPU time, memory and delay of waits for a decision, and return the rows of the result table.

    Three programs are measured: our provider and two other programs.
    """
    with loopback(directory, LATENCY) as server:
        clients.connect(server, tls=True)
        ours = {count: _waits(server, OURS, count) for count in (1000, 5000)}
        theirs = {NAIVE: _waits(server, NAIVE, 1000)}
        if peers.available():
            theirs[HTTP] = _waits(server, HTTP, 1000)
    baseline = theirs[NAIVE]
    rows = [row for name, found in theirs.items() for row in _beside(name, found, ours[1000])]
    baseline_of_5000 = {"cpu": 5 * baseline["cpu"]}
    rows.append(
        _row(*CPU_OF_5000, f"{NAMES[NAIVE]}, 1 000 waits, times 5", baseline_of_5000, ours[5000], MAX_CPU)
    )
    for key, measured, unit, limit in (
        ("memory", "memory a wait", "KiB", 10.0),
        ("late_p50", "late by, p50", "ms", None),
        ("late_p99", "late by, p99", "ms", 1000.0),
        ("gap_max", "loop blocked, longest", "ms", 20.0),
        ("polls", "polls a second (83 are due)", "", None),
        ("tokens", "token requests", "", 1.0),
    ):
        rows.append(_row(f"5 000 waits, {measured}", key, unit, "", None, ours[5000], _at_most(limit)))
    return rows


def _beside(name: str, theirs: _Found, ours: _Found) -> list[Row]:
    peer = NAMES[name]
    return [
        _row(*CPU, peer, theirs, ours, MAX_CPU if name == NAIVE else None),
        _row("1 000 waits, memory a wait", "memory", "KiB", peer, theirs, ours, _at_most(10.0)),
        _row("1 000 waits, late by, p99", "late_p99", "ms", peer, theirs, ours, _at_most(1000.0)),
        _row("1 000 waits, loop blocked, longest", "gap_max", "ms", peer, theirs, ours, _at_most(20.0)),
        _row("the same by a collection of all loaded", "heap", "ms", peer, theirs, ours),
    ]


def _at_most(limit: float | None) -> Target | None:
    return None if limit is None else Target("ours", "≤", limit)


def _row(
    measured: str,
    key: str,
    unit: str,
    peer: str,
    theirs: _Found | None,
    ours: _Found,
    target: Target | None = None,
) -> Row:
    return counted(measured, peer, theirs[key] if theirs else None, ours[key], unit, target)


def _waits(server: Loopback, name: str, count: int) -> dict[str, float]:
    server.reset()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.waiting", name, str(count), server.tls, str(server.certificate)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=400,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "tokens": float(server.counters()["tokens"])}
