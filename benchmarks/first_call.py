# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Time of the first call in a new task process over TLS.

It is compared with the library ``requests`` alone and with Airflow's http provider.

The token is already in the token store. Each measurement runs in a process of its own (``first_call_process``). CPU
time and wall time are measured from the start of the process to the answer. The time of Airflow's own imports is
subtracted, because every task process makes these imports before it runs the task's code.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import clients, peers
from benchmarks.first_call_process import FLOOR, HTTP, OURS
from benchmarks.frame import Rounds, Row, Target
from benchmarks.loopback import Loopback, loopback

ROUNDS = 12


def measure(directory: Path) -> list[Row]:
    """Measure CPU time and wall time of the first call, and return the rows of the result table."""
    with loopback(directory) as server:
        clients.connect(server, tls=True, shared_file=True)
        token = clients.fetch_token(base_url=server.plain)
        candidates = [FLOOR, OURS, *([HTTP] if peers.available() else [])]
        for name in candidates:
            # The first run is not part of the result, because it writes the bytecode and, for our hook, the token file.
            _first_call(name, server, token)
        server_tokens = server.counters()
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
        for _ in range(ROUNDS):
            for name in candidates:
                took[name].append(_first_call(name, server, token))
            candidates.append(candidates.pop(0))
        assert server.counters()["tokens"] == server_tokens["tokens"], (
            "a token was fetched in a measured call"
        )
    cpu = Rounds({name: [one for one, _ in taken] for name, taken in took.items()})
    wall = Rounds({name: [one for _, one in taken] for name, taken in took.items()})
    rows = [
        cpu.row("first call of a task, CPU", OURS, FLOOR, target=Target("ratio", "≤", 1.15)),
        wall.row("first call of a task", OURS, FLOOR),
    ]
    if HTTP in took:
        rows.insert(1, cpu.row("first call of a task, CPU", OURS, HTTP))
        rows.append(wall.row("first call of a task", OURS, HTTP))
    return rows


def _first_call(name: str, server: Loopback, token: str) -> tuple[float, float]:
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
    cpu, wall = json.loads(done.stdout.splitlines()[-1])
    return cpu, wall
