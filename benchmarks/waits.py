# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""CPU time, memory and delay of one thousand waits for a decision in one process, which does the work of a triggerer.

Each wait polls once a minute. The server needs 200 ms for each answer. Each candidate (our provider and two other
programs) runs in a separate process (``benchmarks/waiting.py``) with a separate server. Our provider is also measured
with five thousand waits.

Candidates that are compared run at the same time. Each of them needs only some percent of a core. The CPU time of a
poll depends on the state of the machine. When the candidates ran one after the other, the ratio of their CPU times
therefore varied between 1.15 and 1.65 from run to run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
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
    names = [OURS, NAIVE, *([HTTP] if peers.available() else [])]
    few = _waits_together(directory / "few", dict.fromkeys(names, 1000))
    many = _waits_together(directory / "many", {OURS: 5000, NAIVE: 1000})
    rows = [row for name in names[1:] for row in _beside(name, few[name], few[OURS])]
    baseline = {"cpu": 5 * many[NAIVE]["cpu"]}
    rows.append(_row(*CPU_OF_5000, f"{NAMES[NAIVE]}, 1 000 waits, times 5", baseline, many[OURS], MAX_CPU))
    for key, measured, unit, limit in (
        ("memory", "memory a wait", "KiB", 10.0),
        ("late_p50", "late by, p50", "ms", None),
        ("late_p99", "late by, p99", "ms", 1000.0),
        ("gap_max", "loop blocked, longest", "ms", 20.0),
        ("polls", "polls a second (83 are due)", "", None),
        ("tokens", "token requests", "", 1.0),
    ):
        rows.append(_row(f"5 000 waits, {measured}", key, unit, "", None, many[OURS], _at_most(limit)))
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


def _waits_together(directory: Path, counts: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Run several candidates at the same time, and return the measured values of each.

    :param counts: The number of waits of each candidate.
    """
    with ExitStack() as stack:
        running: dict[str, tuple[subprocess.Popen[str], Loopback]] = {}
        for name, count in counts.items():
            own = directory / name
            own.mkdir(parents=True)
            server = stack.enter_context(loopback(own, LATENCY))
            clients.connect(server, tls=True)
            arguments = (name, str(count), server.tls, str(server.certificate))
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.waiting", *arguments], stdout=subprocess.PIPE, text=True
            )
            running[name] = stack.enter_context(process), server
            stack.callback(process.kill)
        return {name: _values(process, server) for name, (process, server) in running.items()}


def _values(process: subprocess.Popen[str], server: Loopback) -> dict[str, float]:
    printed, _ = process.communicate(timeout=400)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    return {**found, "tokens": float(server.counters()["tokens"])}
