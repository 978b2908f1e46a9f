# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Import time of our operators, sensors and triggers over ``airflow.sdk``: what parsing a DAG pays.

Each import is timed in a fresh process that has imported Airflow's own base classes, and counted in CPU time:
an import does not wait, and CPU time hardly depends on other load.
``python -m benchmarks.imports MODULE...`` is one such process.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import peers
from benchmarks.frame import Row, Target, counted

OURS = {
    "operators": "airflow_provider_faceki.operators.faceki",
    "sensors": "airflow_provider_faceki.sensors.faceki",
    "triggers": "airflow_provider_faceki.triggers.faceki",
}
#: Beside each of ours: the lightest of Airflow's own, and the http and dbt-cloud providers', which call an API too.
BESIDE = {
    "operators": {
        "BashOperator": "airflow.providers.standard.operators.bash",
        "http provider": "airflow.providers.http.operators.http",
        "dbt-cloud provider": "airflow.providers.dbt.cloud.operators.dbt",
    },
    "sensors": {
        "FileSensor": "airflow.providers.standard.sensors.filesystem",
        "http provider": "airflow.providers.http.sensors.http",
        "dbt-cloud provider": "airflow.providers.dbt.cloud.sensors.dbt",
    },
    "triggers": {
        "FileTrigger": "airflow.providers.standard.triggers.file",
        "http provider": "airflow.providers.http.triggers.http",
        "dbt-cloud provider": "airflow.providers.dbt.cloud.triggers.dbt",
    },
}
#: Libraries that a DAG must not load before a task of it runs.
HEAVY = ("aiohttp", "asgiref", "cryptography", "requests", "requests_toolbelt", "tenacity", "urllib3")

#: A fresh Airflow takes seconds, so peers, which are far off, get fewer turns.
ROUNDS, PEER_ROUNDS = 5, 2


def measure(directory: Path) -> list[Row]:
    """Take the measure."""
    near = [*OURS.values(), *(next(iter(others.values())) for others in BESIDE.values())]
    far = [module for others in BESIDE.values() for module in list(others.values())[1:]]
    far = far if peers.available() else []
    # Bytecode is written, and files are read for the first time.
    _in_fresh_process(*near, *far)
    took: dict[str, list[float]] = {module: [] for others in BESIDE.values() for module in others.values()}
    took |= {module: [] for module in OURS.values()}
    brought: dict[str, list[str]] = {}
    for number in range(ROUNDS):
        for module in near + (far if number < PEER_ROUNDS else []):
            seconds, brought[module] = _in_fresh_process(module)
            took[module].append(seconds)
        near.append(near.pop(0))
    return [row for kind in OURS for row in _rows(kind, took, brought)]


def _rows(kind: str, took: dict[str, list[float]], brought: dict[str, list[str]]) -> list[Row]:
    ours = OURS[kind]
    mine = statistics.median(took[ours]) * 1e3
    rows: list[Row] = []
    for peer, module in BESIDE[kind].items():
        if took[module]:
            label = f"{peer} (loads {', '.join(brought[module])})" if brought[module] else peer
            theirs = statistics.median(took[module]) * 1e3
            target = None if rows else Target("ours", "≤", 3.0)
            rows.append(counted(f"import of {kind}, CPU", label, theirs, mine, "ms", target))
    found = brought[ours]
    none = Target("ours", "≤", 0)
    rows.append(
        counted(f"heavy libraries loaded by {kind}", "", None, len(found), "", none, ", ".join(found))
    )
    return rows


def _in_fresh_process(*modules: str) -> tuple[float, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.imports", *modules],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    seconds, heavy = json.loads(done.stdout.splitlines()[-1])
    return seconds, heavy


def _import(*modules: str) -> tuple[float, list[str]]:
    sdk = importlib.import_module("airflow.sdk")
    for name in ("BaseHook", "BaseOperator", "BaseOperatorLink", "BaseSensorOperator"):
        getattr(sdk, name)  # They are loaded when they are asked for.
    if any(".triggers." in module for module in modules):
        importlib.import_module("airflow.triggers.base")
    before = set(sys.modules)
    began = time.process_time()
    for module in modules:
        importlib.import_module(module)
    seconds = time.process_time() - began
    return seconds, [library for library in HEAVY if library in sys.modules and library not in before]


if __name__ == "__main__":
    print(json.dumps(_import(*sys.argv[1:])))
    # Whatever Airflow would tidy up on the way out is not of interest.
    sys.stdout.flush()
    os._exit(0)
