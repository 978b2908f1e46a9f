# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Import time of our operators, sensors and triggers.

Airflow imports operators and sensors whenever it parses a DAG that uses them. It imports a trigger when a task is
deferred.

Each import runs in a fresh process that has already imported ``airflow.sdk`` and Airflow's base classes. The CPU time
is measured, because an import does not wait, and because CPU time hardly depends on other load.
``python -m benchmarks.imports MODULE...`` runs one such process.
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
HTTP = "http provider"
#: Maximum import time of our modules. The time depends on the machine, so the target is a share of the import time of
#: the http provider. When the target was set, the operators of the http provider needed 156 ms, and 3 ms were allowed
#: for our operators. The share is 3/156, rounded.
MAX_SHARE = Target("ratio", "≤", 0.02)
#: The modules that are compared with ours: a light module of Airflow's standard provider, and the modules of the http
#: and dbt-cloud providers, which call a web API too.
BESIDE = {
    "operators": {
        "BashOperator": "airflow.providers.standard.operators.bash",
        HTTP: "airflow.providers.http.operators.http",
        "dbt-cloud provider": "airflow.providers.dbt.cloud.operators.dbt",
    },
    "sensors": {
        "FileSensor": "airflow.providers.standard.sensors.filesystem",
        HTTP: "airflow.providers.http.sensors.http",
        "dbt-cloud provider": "airflow.providers.dbt.cloud.sensors.dbt",
    },
    "triggers": {
        "FileTrigger": "airflow.providers.standard.triggers.file",
        HTTP: "airflow.providers.http.triggers.http",
        "dbt-cloud provider": "airflow.providers.dbt.cloud.triggers.dbt",
    },
}
#: Libraries that our modules must not import. Only a running task or trigger needs them.
HEAVY = ("aiohttp", "asgiref", "cryptography", "requests", "requests_toolbelt", "tenacity", "urllib3")

#: Two numbers of rounds. The first is for our modules and for the light modules of the standard provider. The second is
#: for the modules of the other providers. The second is smaller, because each import needs a new process, and Airflow
#: needs seconds to start there. Two rounds are enough for these modules: they are much slower than ours, so an exact
#: measurement is not necessary.
ROUNDS, PEER_ROUNDS = 5, 2


def measure(directory: Path) -> list[Row]:
    """Measure the import times, and return the rows of the result table."""
    near = [*OURS.values(), *(next(iter(others.values())) for others in BESIDE.values())]
    far = [module for others in BESIDE.values() for module in list(others.values())[1:]]
    far = far if peers.available() else []
    # The first run is not part of the result, because it writes the bytecode and reads the files from the disk.
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
            target = MAX_SHARE if peer == HTTP else None
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
        getattr(sdk, name)  # airflow.sdk imports these classes only on the first access.
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
    # The process exits without Airflow's exit handlers, because their time does not belong to the imports.
    sys.stdout.flush()
    os._exit(0)
