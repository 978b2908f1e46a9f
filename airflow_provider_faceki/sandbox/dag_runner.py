# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Runs DAGs in tests, in a throw-away Airflow home with a database of its own. Works with Airflow 2.11 and 3.

The only module of the sandbox that imports Airflow, and only when a DAG is run.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

MIGRATION_TIMEOUT_SECONDS = 300
_BUNDLE = "faceki_tests"


class DagError(Exception):
    """There is no DAG to run; the text says why."""


@dataclass(frozen=True)
class DagResult:
    """What became of a run, read from Airflow's SQLite database."""

    database: Path
    dag_id: str
    run_id: str

    @property
    def state(self) -> str:
        """`success` or `failed`, once the run has ended."""
        return str(self._rows("SELECT state FROM dag_run")[0][0])

    @property
    def states(self) -> Mapping[str, str]:
        """State by task id; a mapped task instance has its map index behind it, as in `fetch[2]`."""
        rows = self._rows("SELECT task_id, map_index, state FROM task_instance")
        return {_instance(task_id, map_index): state for task_id, map_index, state in rows}

    def xcom(self, task: str, key: str = "return_value") -> Any:
        """Return an XCom as Airflow stored it.

        :param task: a task id, with a map index as in `states` where the task is mapped.
        :raises KeyError: there is no such XCom.
        """
        rows = self._rows("SELECT task_id, map_index, key, value FROM xcom", "timestamp")
        found = {(_instance(task_id, index), name): value for task_id, index, name, value in rows}
        if (task, key) not in found:
            raise KeyError(f"no XCom {key!r} of task {task!r}; there are {sorted(found)}")
        return _decoded(found[task, key])

    def rendered(self, task: str) -> Mapping[str, Any]:
        """Return the template fields of a task instance, as Airflow keeps them for its user interface."""
        rows = self._rows("SELECT task_id, map_index, rendered_fields FROM rendered_task_instance_fields")
        found = {_instance(task_id, map_index): fields for task_id, map_index, fields in rows}
        fields: Mapping[str, Any] = _decoded(found[task])
        return fields

    def _rows(self, query: str, order: str = "1") -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as database:
            matching = f"{query} WHERE dag_id = ? AND run_id = ? ORDER BY {order}"
            return list(database.execute(matching, (self.dag_id, self.run_id)))


def _decoded(value: object) -> Any:
    # SQLite returns a number of a JSON column as a number.
    return json.loads(value) if isinstance(value, str | bytes) else value


def _instance(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


class AirflowHome:
    """A home of Airflow for tests.

    :param folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.database = folder / "airflow.db"
        self._folder = folder
        dags = folder / "dags"
        dags.mkdir()
        bundle = {
            "name": _BUNDLE,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(dags), "refresh_interval": 3600},
        }
        self._environment = {
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        }

    def migrate(self) -> None:
        """Make the database. In a process of its own, since a migration rearranges logging."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env={**os.environ, **self._environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MIGRATION_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise DagError(f"airflow db migrate failed with exit code {done.returncode}:\n{done.stdout}")

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let this process work in it, whether or not Airflow has been imported already."""
        if "AIRFLOW_HOME" in os.environ:
            # Its import reads the configuration of the home, which other tests of this process may need. Without a
            # home of their own it would make one in the user's folder, so it is imported below.
            import_module("airflow.settings")
        before = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        from airflow import configuration, settings

        configuration.AIRFLOW_HOME = str(self._folder)
        _reconnect(settings)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            configuration.AIRFLOW_HOME = configuration.get_airflow_home()
            _reconnect(settings)

    def run(
        self,
        source: object,
        dag_id: str | None = None,
        conf: Mapping[str, object] | None = None,
    ) -> DagResult:
        """Run a DAG to its end, each task instance in this process.

        :param source: a DAG, a function decorated with `@dag`, a module, or the path of a file.
        :param dag_id: which DAG of a module or file; needed where it has several.
        :param conf: the configuration of the run.
        :raises DagError: the file cannot be imported, or has no such DAG.
        """
        dag = _dag(source, dag_id)
        _serialize(dag)
        run = dag.test(run_conf=dict(conf) if conf else None)
        return DagResult(self.database, dag.dag_id, run.run_id)


def _reconnect(settings: Any) -> None:
    settings.dispose_orm()
    settings.configure_vars()
    settings.configure_orm()


def _dag(source: object, dag_id: str | None) -> Any:
    if isinstance(source, ModuleType):
        source = source.__file__
    if isinstance(source, str | os.PathLike):
        return _dag_of_file(Path(source).absolute(), dag_id)
    if isinstance(source, Callable) and not hasattr(source, "test"):  # type: ignore[arg-type]  # an ABC
        source = source()  # type: ignore[operator]  # it is callable
    if not hasattr(source, "test"):
        raise DagError(
            f"found {type(source).__name__}, allowed is a DAG, a @dag function, a module or a path"
        )
    return source


def _dag_of_file(path: Path, dag_id: str | None) -> Any:
    if not path.is_file():
        raise DagError(f"there is no file {path}")
    # Files of a DAG folder may import each other.
    sys.path.insert(0, str(path.parent))
    try:
        bag = _dag_bag(path)
    finally:
        sys.path.remove(str(path.parent))
    if bag.import_errors:
        raise DagError("\n".join([f"{path} cannot be imported:", *bag.import_errors.values()]))
    if dag_id is None and len(bag.dags) == 1:
        (dag_id,) = bag.dags
    if dag_id not in bag.dags:
        raise DagError(f"found dag_id {dag_id!r}, allowed in {path} is one of {sorted(bag.dags)}")
    return bag.dags[dag_id]


def _dag_bag(path: Path | None) -> Any:
    """Return the DAGs of a file; without a file an empty bag."""
    return _dagbag_module().DagBag(dag_folder=os.fspath(path or os.devnull))


def _dagbag_module() -> Any:
    try:
        return import_module("airflow.dag_processing.dagbag")
    except ModuleNotFoundError:  # Airflow before 3.2
        return import_module("airflow.models.dagbag")


def _serialize(dag: Any) -> None:
    """Write a DAG into the database, where Airflow 3 looks for it before a run."""
    try:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
    except ImportError:  # Airflow 2
        return
    DagBundlesManager().sync_bundles_to_db()
    bag = _dag_bag(None)
    bag.bag_dag(dag)
    module = _dagbag_module()
    if hasattr(module, "sync_bag_to_db"):
        module.sync_bag_to_db(bag, _BUNDLE, None)
    else:  # Airflow 3.0
        bag.sync_to_db(_BUNDLE, None)
