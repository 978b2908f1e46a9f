# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run DAGs in the test process, and read the results from Airflow's database."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from airflow_provider_faceki.sandbox.dag_runner import DagResult

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "example_dags"
DAGS = Path(__file__).parent / "dags"

AIRFLOW_VERSION = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
AIRFLOW_3 = AIRFLOW_VERSION >= (3, 0)
#: Whether Airflow has a task state store: a task instance can store values that outlive its pokes and tries.
HAS_STATE_STORE = AIRFLOW_VERSION >= (3, 3)
#: Whether an asset event can have a partition key, and a DAG can have a run for each key.
HAS_PARTITIONS = AIRFLOW_VERSION >= (3, 2)
#: Whether a task can set the partition key of its asset event.
TASKS_SET_PARTITIONS = AIRFLOW_VERSION >= (3, 3)

if AIRFLOW_VERSION >= (3, 4):
    # Airflow 3.4 reads the DAG bundles once in a process and keeps them in a cache. Each test module here has its own
    # bundles, so the cache is switched off.
    manager: Any = import_module("airflow.dag_processing.bundles.manager")
    manager._load_bundle_config_snapshot = manager._load_bundle_config_snapshot.__wrapped__


def bundles(*folders: Path) -> dict[str, str]:
    """Return the environment variables that make Airflow load DAGs from these folders.

    A DAG outside these folders cannot be run in a test.
    """
    made = [
        {
            "name": _bundle(folder),
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(folder), "refresh_interval": 6000},
        }
        for folder in folders
    ]
    return {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(made)} if AIRFLOW_3 else {}


@contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    """Open Airflow's database read-only, while Airflow is running."""
    opened = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=300)
    try:
        yield opened
    finally:
        opened.close()


def load(folder: Path, dag_id: str) -> Any:
    """Return the DAG `dag_id`, parsed as Airflow parses it.

    :raises AssertionError: If a file of the folder has import errors.
    """
    if AIRFLOW_VERSION >= (3, 2):
        from airflow.dag_processing.dagbag import BundleDagBag

        bag: Any = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name=_bundle(folder))
    else:
        from airflow.models.dagbag import DagBag

        bag = DagBag(dag_folder=os.fspath(folder), include_examples=False)
    assert bag.import_errors == {}
    return bag.dags[dag_id]


def run(database: Path, folder: Path, dag_id: str, **conf: object) -> DagResult:
    """Run a DAG with `dag.test()`: real task instances, one after the other, in this process."""
    done = load(folder, dag_id).test(run_conf=conf or None)
    return DagResult(database, dag_id, done.run_id)


def _bundle(folder: Path) -> str:
    # The prefix is necessary because Airflow reserves the name "example_dags".
    return f"tested_{folder.parent.name}_{folder.name}"
