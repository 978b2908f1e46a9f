# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Time of the first call in a new task process over TLS.

Our hook is compared with the library ``requests`` alone and with Airflow's http provider.

The token is already in the token store. Each measurement runs in a process of its own (``first_call_process``). CPU
time and wall time are measured from the start of the process to the answer. The time of Airflow's own imports is
subtracted, because every task process makes these imports before it runs the task's code. The CPU time is also measured
for each step of the call.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import clients, peers
from benchmarks.first_call_process import BASELINE, CONNECTION, HTTP, IMPORTS, OURS, REQUEST, START, TOKEN
from benchmarks.frame import Rounds, Row, Target, counted
from benchmarks.loopback import Loopback, loopback

ROUNDS = 12
STAGES = (START, IMPORTS, CONNECTION, TOKEN, REQUEST)

#: The output of ``first_call_process``.
_Found = dict[str, Any]


def measure(directory: Path) -> list[Row]:
    """Measure CPU time and wall time of the first call, and return the rows of the result table."""
    with loopback(directory) as server:
        clients.connect(server, tls=True, shared_file=True)
        token = clients.fetch_token(base_url=server.plain)
        candidates = [BASELINE, OURS, *([HTTP] if peers.available() else [])]
        for name in candidates:
            # The first run is not part of the result, because it writes the bytecode and, for our hook, the token file.
            _first_call(name, server, token)
        server_tokens = server.counters()
        took: dict[str, list[_Found]] = {name: [] for name in candidates}
        for _ in range(ROUNDS):
            for name in candidates:
                took[name].append(_first_call(name, server, token))
            candidates.append(candidates.pop(0))
        assert server.counters()["tokens"] == server_tokens["tokens"], (
            "a token was fetched in a measured call"
        )
    cpu = Rounds({name: [found["cpu"] for found in taken] for name, taken in took.items()})
    wall = Rounds({name: [found["wall"] for found in taken] for name, taken in took.items()})
    rows = [
        cpu.row("first call of a task, CPU", OURS, BASELINE, target=Target("ratio", "≤", 1.15)),
        wall.row("first call of a task", OURS, BASELINE),
    ]
    if HTTP in took:
        rows.insert(1, cpu.row("first call of a task, CPU", OURS, HTTP))
        rows.append(wall.row("first call of a task", OURS, HTTP))
    return [*rows, *map(partial(_stage, took[OURS], took[BASELINE]), STAGES)]


def _stage(ours: Sequence[_Found], baseline: Sequence[_Found], name: str) -> Row:
    """Return the row with the CPU time of one step of the call.

    The library ``requests`` alone uses neither a Connection nor a token file. Therefore the rows of these two steps
    contain only our CPU time.
    """
    mine, theirs = (_median(found, name) for found in (ours, baseline))
    return counted(f"of it: {name}, CPU", BASELINE if theirs else "", theirs, mine or 0.0, "ms", None)


def _median(found: Sequence[_Found], name: str) -> float | None:
    seconds = [one["stages"][name] for one in found if name in one["stages"]]
    return 1e3 * statistics.median(seconds) if seconds else None


def _first_call(name: str, server: Loopback, token: str) -> _Found:
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "benchmarks.first_call_process",
                name,
                server.tls,
                str(server.certificate),
                token,
            ),
            str(time.monotonic()),
        ],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    found: _Found = json.loads(done.stdout.splitlines()[-1])
    return found
