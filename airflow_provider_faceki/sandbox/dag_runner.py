# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run DAGs in tests, in a temporary Airflow home with its own database.

The module supports Airflow 2.11 and 3. It is the only module of the sandbox that imports Airflow. It imports Airflow
only when a method of `AirflowHome` is called.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

MIGRATION_TIMEOUT_SECONDS = 300
_BUNDLE = "faceki_tests"

#: Maps the name of a table of Airflow's database to a query. From Airflow 3.4 on, these tables have another form, so
#: `DagResult` reads the query instead of the table. The query gives the columns their names from before Airflow 3.4.
_TABLES_FROM_3_4 = {
    "task_instance": "SELECT *, region_index AS map_index FROM task_instance WHERE working_set",
    "xcom": (
        "SELECT dag_id, run_id, task_id, region_index AS map_index, key, value, timestamp"
        " FROM xcom_v2 JOIN task_instance ON task_instance.id = task_instance_id WHERE working_set"
    ),
}


class DagError(Exception):
    """A DAG cannot be loaded, or Airflow's database cannot be created. The message contains the reason."""


@dataclass(frozen=True)
class DagResult:
    """The result of a DAG run, which is read from Airflow's SQLite database.

    :param database: the path of the SQLite file.
    :param dag_id: the id of the DAG.
    :param run_id: the id of the DAG run.
    """

    database: Path
    dag_id: str
    run_id: str

    @property
    def state(self) -> str:
        """The state of the DAG run. After the end of the run, the state is `success` or `failed`."""
        return str(self._rows("state", "dag_run")[0][0])

    @property
    def states(self) -> Mapping[str, str]:
        """The state of each task instance, by task id.

        The key of a mapped task instance is the task id and the map index, for example `fetch[2]`.
        """
        rows = self._rows("task_id, map_index, state", "task_instance")
        return {_instance(task_id, map_index): state for task_id, map_index, state in rows}

    @property
    def tries(self) -> Mapping[str, int]:
        """The number of the last try of each task instance. The keys are as in `states`. The first try has number 1."""
        rows = self._rows("task_id, map_index, try_number", "task_instance")
        return {_instance(task_id, map_index): number for task_id, map_index, number in rows}

    def xcom(self, task: str, key: str = "return_value") -> Any:
        """Return the JSON value that Airflow stored for an XCom.

        :param task: the task id. If the task is mapped, the map index follows, for example `fetch[2]`.
        :param key: the key of the XCom.
        :raises KeyError: if the XCom does not exist.
        """
        rows = self._rows("task_id, map_index, key, value", "xcom", "timestamp")
        found = {(_instance(task_id, index), name): value for task_id, index, name, value in rows}
        if (task, key) not in found:
            raise KeyError(f"no XCom {key!r} of task {task!r}; there are {sorted(found)}")
        value = found[task, key]
        # SQLite returns most values of a JSON column as JSON text, but returns a number as a Python number. Therefore
        # only a text is parsed.
        return json.loads(value) if isinstance(value, str | bytes) else value

    def _rows(self, columns: str, table: str, order: str = "1") -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as database:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'xcom_v2'").fetchone():
                table = f"({_TABLES_FROM_3_4[table]})" if table in _TABLES_FROM_3_4 else table
            query = f"SELECT {columns} FROM {table} WHERE dag_id = ? AND run_id = ? ORDER BY {order}"  # noqa: S608 - constants
            return list(database.execute(query, (self.dag_id, self.run_id)))


def _instance(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


class AirflowHome:
    """An Airflow home directory for tests.

    :param folder: an existing empty folder.
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
        """Create the database of this Airflow home.

        The command `airflow db migrate` creates the tables. The command runs in a separate process, because it changes
        the logging configuration of its process.

        :raises DagError: if the command fails.
        """
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
        """Make the current process use this Airflow home until the end of the `with` block.

        This also works if the process has already imported Airflow with another home.
        """
        if "AIRFLOW_HOME" in os.environ:
            # Airflow reads the configuration in the folder AIRFLOW_HOME only once, when Airflow is imported. The right
            # time for the import depends on AIRFLOW_HOME:
            #
            # - AIRFLOW_HOME is set: Airflow is imported here, before AIRFLOW_HOME is changed. Other tests of this
            #   process possibly need the configuration in the present folder.
            # - AIRFLOW_HOME is not set: Airflow is imported after AIRFLOW_HOME is changed. An import before the change
            #   would create the folder `airflow` in the user's home directory.
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
        """Run a DAG until its end. All task instances run in the current process.

        :param source: a DAG, a function with the decorator `@dag`, a module, or the path of a file.
        :param dag_id: the id of the DAG in the module or file. It is required only if there are several DAGs.
        :param conf: the `conf` of the DAG run.
        :raises DagError: if `source` is of another kind, or if the file does not exist, cannot be imported or does not
            contain the DAG.
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
    if callable(source) and not hasattr(source, "test"):
        source = source()
    if not hasattr(source, "test"):
        raise DagError(
            f"found {type(source).__name__}, allowed is a DAG, a @dag function, a module or a path"
        )
    return source


def _dag_of_file(path: Path, dag_id: str | None) -> Any:
    if not path.is_file():
        raise DagError(f"there is no file {path}")
    # The folder of the file is added to `sys.path`, so that the file can import other files of this folder.
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
    """Return a DagBag with the DAGs of a file. If `path` is None, return an empty DagBag."""
    return _dagbag_module().DagBag(dag_folder=os.fspath(path or os.devnull))


def _dagbag_module() -> Any:
    try:
        return import_module("airflow.dag_processing.dagbag")
    except ModuleNotFoundError:  # Airflow before 3.2 has the class in another module.
        return import_module("airflow.models.dagbag")


def _serialize(dag: Any) -> None:
    """Write the serialized DAG into the database, where Airflow 3 reads it before a run. On Airflow 2, do nothing."""
    try:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
    except ImportError:  # Airflow 2 has no DAG bundles.
        return
    DagBundlesManager().sync_bundles_to_db()
    bag = _dag_bag(None)
    bag.bag_dag(dag)
    module = _dagbag_module()
    if hasattr(module, "sync_bag_to_db"):
        module.sync_bag_to_db(bag, _BUNDLE, None)
    else:  # Airflow 3.0 has the method `sync_to_db` instead of the function.
        bag.sync_to_db(_BUNDLE, None)
