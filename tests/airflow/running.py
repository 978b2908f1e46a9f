# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run DAGs in the tests' own process, and read from Airflow's database what came of it."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "example_dags"
DAGS = Path(__file__).parent / "dags"

AIRFLOW_VERSION = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
AIRFLOW_3 = AIRFLOW_VERSION >= (3, 0)
#: Whether a task can remember something over its pokes and tries.
HAS_STATE_STORE = AIRFLOW_VERSION >= (3, 3)
#: Whether an asset event can have a key, and a DAG a run for each.
HAS_PARTITIONS = AIRFLOW_VERSION >= (3, 2)


def bundles(*folders: Path) -> dict[str, str]:
    """The environment in which Airflow takes DAGs from these folders; one that lies elsewhere cannot be tested."""
    made = [
        {
            "name": _bundle(folder),
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(folder), "refresh_interval": 30},
        }
        for folder in folders
    ]
    return {"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(made)} if AIRFLOW_3 else {}


@dataclass(frozen=True)
class Run:
    """What Airflow's database says about one DAG run."""

    database: Path
    dag_id: str
    run_id: str

    @property
    def state(self) -> str:
        return str(self._rows("SELECT state FROM dag_run WHERE dag_id = ? AND run_id = ?")[0][0])

    @property
    def states(self) -> Mapping[str, str]:
        """State by task id; a mapped one has its map index behind it, as in `fetch[2]`."""
        rows = self._rows(
            "SELECT task_id, map_index, state FROM task_instance WHERE dag_id = ? AND run_id = ?"
        )
        return {_named(task_id, index): state for task_id, index, state in rows}

    def rendered(self, task: str) -> Mapping[str, Any]:
        """The template fields of a task instance as Airflow keeps them for the user interface."""
        rows = self._rows(
            "SELECT task_id, map_index, rendered_fields FROM rendered_task_instance_fields"
            " WHERE dag_id = ? AND run_id = ?"
        )
        found = {_named(task_id, index): fields for task_id, index, fields in rows}
        fields: Mapping[str, Any] = json.loads(found[task])
        return fields

    def xcom(self, task: str, key: str = "return_value") -> Any:
        """One XCom as it lies in the database; KeyError if there is none."""
        rows = self._rows(
            "SELECT task_id, map_index, key, value FROM xcom WHERE dag_id = ? AND run_id = ? ORDER BY timestamp"
        )
        found = {(_named(task_id, index), name): value for task_id, index, name, value in rows}
        return json.loads(found[task, key])

    def _rows(self, query: str) -> list[Any]:
        with reading(self.database) as database:
            return list(database.execute(query, (self.dag_id, self.run_id)))


@contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    """Airflow's database, to be read beside Airflow."""
    opened = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        yield opened
    finally:
        opened.close()


def load(folder: Path, dag_id: str) -> Any:
    """The DAG `dag_id`, parsed as Airflow parses it. A file that cannot be parsed fails here, with its reason."""
    if AIRFLOW_VERSION >= (3, 2):
        from airflow.dag_processing.dagbag import BundleDagBag

        bag: Any = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name=_bundle(folder))
    else:
        from airflow.models.dagbag import DagBag

        bag = DagBag(dag_folder=os.fspath(folder), include_examples=False)
    assert bag.import_errors == {}
    return bag.dags[dag_id]


def run(database: Path, folder: Path, dag_id: str, **conf: object) -> Run:
    """Run a DAG by `dag.test()`: real task instances, one after the other, in this process."""
    done = load(folder, dag_id).test(run_conf=conf or None)
    return Run(database, dag_id, done.run_id)


def _bundle(folder: Path) -> str:
    return f"tested_{folder.name}"  # "example_dags" is reserved by Airflow


def _named(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"
