# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Airflow on several hosts: CeleryExecutor, PostgreSQL, Redis, S3, two of each worker, triggerer and API server.

Each process simulates a host: it has its own host name and its own AIRFLOW_HOME. Each API server also has its own port.
Airflow 2.11 has no API servers and no DAG processor: its scheduler parses the DAGs.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from airflow_provider_faceki.sandbox.dag_runner import DagResult
from demo.airflow_stack import Airflow
from demo.processes import free_port
from tests.airflow.running import AIRFLOW_3
from tests.airflow.whole_airflow import PARSE_ONCE, WholeAirflow
from tests.distributed.host import WORKERS

DEFAULT_QUEUE = "default"
#: Tasks that a worker runs at the same time.
WORKER_CONCURRENCY = 4
TRIGGERERS = ("triggerer-1", "triggerer-2")
API_SERVERS: Sequence[str] = ("api-server-1", "api-server-2") if AIRFLOW_3 else ()
#: Seconds without a heartbeat after which Airflow runs a task again on another host.
HEARTBEAT_TIMEOUT_SECONDS = 15
#: Names of three options of Airflow. They are different in Airflow 2 and Airflow 3.
HEARTBEAT, HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_CHECK = (
    (
        "TASK_INSTANCE_HEARTBEAT_SEC",
        "TASK_INSTANCE_HEARTBEAT_TIMEOUT",
        "TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL",
    )
    if AIRFLOW_3
    else ("LOCAL_TASK_JOB_HEARTBEAT_SEC", "SCHEDULER_ZOMBIE_TASK_THRESHOLD", "ZOMBIE_DETECTION_INTERVAL")
)
ENDED = {"success", "failed"}


@dataclass(frozen=True)
class PostgresResult(DagResult):
    """The result of a DAG run, which is read from PostgreSQL.

    :param url: URL of the database for psycopg2.
    """

    url: str

    def _rows(self, columns: str, table: str, order: str = "1") -> list[Any]:
        query = f"SELECT {columns} FROM {table} WHERE dag_id = %s AND run_id = %s ORDER BY {order}"  # noqa: S608 - constants
        return rows(self.url, query, self.dag_id, self.run_id)


def rows(url: str, query: str, *values: object) -> list[Any]:
    """Return the rows of a query. JSON columns are returned as text, and binary columns as bytes, as SQLite does."""
    import psycopg2
    from psycopg2.extras import register_default_json, register_default_jsonb

    with closing(psycopg2.connect(url)) as opened:
        for register in (register_default_json, register_default_jsonb):
            register(opened, loads=lambda text: text)
        opened.set_session(readonly=True, autocommit=True)
        with opened.cursor() as cursor:
            cursor.execute(query, values)
            return [tuple(map(_as_bytes, row)) for row in cursor.fetchall()]


def _as_bytes(cell: object) -> object:
    return bytes(cell) if isinstance(cell, memoryview) else cell


class Cluster(WholeAirflow):
    """Airflow's services as separate hosts.

    :param home: Folder of all hosts.
    :param database_url: SQLAlchemy URL of an empty PostgreSQL database.
    :param broker_url: URL of an empty Redis server.
    :param log_folder: URI of the folder for remote logs. Its Connection is ``s3_store``.
    :param environment: Environment variables of all hosts.
    """

    # The services are killed, because a graceful end takes longer than some of the tests, and no test reads anything
    # from the services afterwards.
    last_signal = signal.SIGKILL
    services = (*API_SERVERS, *(["dag-processor"] if AIRFLOW_3 else []), "scheduler", *TRIGGERERS, *WORKERS)

    def __init__(
        self,
        home: Path,
        database_url: str,
        broker_url: str,
        log_folder: str,
        environment: Mapping[str, str],
    ) -> None:
        settings = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
            **PARSE_ONCE,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__PARALLELISM": "16",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "tests.distributed.host.name",
            # Without these two settings, Airflow would create different secrets in each AIRFLOW_HOME.
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__API__SECRET_KEY": "made-up-for-the-tests",
            "AIRFLOW__CELERY__BROKER_URL": f"{broker_url}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"{broker_url}/1",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(WORKER_CONCURRENCY),
            "AIRFLOW__OPERATORS__DEFAULT_QUEUE": DEFAULT_QUEUE,
            "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
            f"AIRFLOW__SCHEDULER__{HEARTBEAT}": "1",
            f"AIRFLOW__SCHEDULER__{HEARTBEAT_TIMEOUT}": str(HEARTBEAT_TIMEOUT_SECONDS),
            f"AIRFLOW__SCHEDULER__{HEARTBEAT_TIMEOUT_CHECK}": "2",
            # On a busy machine, the first response of an API server can take longer than the default of 5 s.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": log_folder,
            "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "s3_store",
        }
        super().__init__(home, {**settings, **environment})
        self.url = database_url.replace("+psycopg2", "")
        self.ports = {server: free_port() for server in API_SERVERS}
        self.environment |= self._served_by(1)

    def arguments(self, service: str) -> Sequence[str]:
        """Return the arguments of the command `airflow` that starts a host's service."""
        if service in WORKERS:
            # Each worker also has a queue of its own, so that a test can choose the worker.
            queues = f"{DEFAULT_QUEUE},{service}"
            return ["celery", "worker", "--celery-hostname", service, "--queues", queues, "--skip-serve-logs"]
        if service in TRIGGERERS:
            # The capacity is smaller than the number of waits. Otherwise one triggerer could take all of them.
            return ["triggerer", "--skip-serve-logs", "--capacity", "10"]
        return [service.removesuffix("-1").removesuffix("-2")]

    def environment_of(self, service: str) -> Mapping[str, str]:
        """Return the environment variables of a host. Hosts with the number 2 use the second API server."""
        home = self.home / service
        home.mkdir(exist_ok=True)
        own = {"CLUSTER_HOST": service, "AIRFLOW_HOME": str(home)}
        return {**self.environment, **own, **self._served_by(2 if service.endswith("-2") else 1)}

    def _served_by(self, number: int) -> dict[str, str]:
        if not API_SERVERS:
            return {}
        server = API_SERVERS[number - 1]
        url = self.url_of(server)
        return {
            "AIRFLOW__API__PORT": str(self.ports[server]),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        }

    def url_of(self, server: str) -> str:
        """Return the base URL of an API server."""
        return f"http://127.0.0.1:{self.ports[server]}"

    def rows(self, query: str, *values: object) -> list[Any]:
        """Return the rows of a database query."""
        return rows(self.url, query, *values)

    def tables(self) -> Iterator[tuple[str, bytes]]:
        """Yield the table name and content of every row in every table."""
        for (table,) in self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            for row in self.rows(f'SELECT * FROM "{table}"'):  # noqa: S608 - a name from the database
                cells = (cell if isinstance(cell, bytes) else str(cell).encode() for cell in row)
                yield table, b"\n".join(cells)

    def run(self, dag_id: str, run_id: str) -> DagResult:
        return PostgresResult(self.database, dag_id, run_id, self.url)

    def runs(self, dag_id: str) -> list[DagResult]:
        found = self.rows("SELECT run_id FROM dag_run WHERE dag_id = %s", dag_id)
        return [self.run(dag_id, run_id) for (run_id,) in found]

    def begin(self, dag_id: str, conf: Mapping[str, object]) -> DagResult:
        """Start a DAG run."""
        return self.begin_all((dag_id, conf))[0]

    def begin_all(self, *begun: tuple[str, Mapping[str, object]]) -> list[DagResult]:
        """Start a DAG run for each DAG id and conf."""
        if AIRFLOW_3:
            # The command line is not used here, because its process would first import Airflow, which takes longer.
            rest = Airflow(self.home, self.ports[API_SERVERS[0]])
            return [self.run(dag_id, rest.trigger(dag_id, conf)) for dag_id, conf in begun]
        named = [(dag_id, uuid.uuid4().hex, conf) for dag_id, conf in begun]
        self.tell(*(self.trigger(*each) for each in named))
        return [self.run(dag_id, run_id) for dag_id, run_id, _ in named]

    def knows(self, *dag_ids: str) -> bool:
        """Return whether these DAGs have been parsed."""
        return set(dag_ids) <= {dag_id for (dag_id,) in self.rows("SELECT dag_id FROM serialized_dag")}

    def running(self, dag_id: str, run_id: str, task_id: str) -> tuple[str, int] | None:
        """Return the host and the process id of a task if, according to Airflow, the task is running."""
        found = self.rows(
            "SELECT hostname, pid FROM task_instance"
            " WHERE dag_id = %s AND run_id = %s AND task_id = %s AND state = 'running' AND pid IS NOT NULL",
            dag_id,
            run_id,
            task_id,
        )
        return (str(found[0][0]), int(found[0][1])) if found else None

    def suspend(self, service: str) -> list[psutil.Process]:
        """Suspend all processes of a host, and return them."""
        # Parents are suspended before their children, so that no parent starts a process or notices a suspended child.
        found = self.processes(service)
        for process in found:
            os.kill(process.pid, signal.SIGSTOP)
        return found
