# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Run a complete Airflow for a demonstration: define its settings, start it, and call its REST API."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from demo.processes import Processes, free_port, own_environment

ROOT = Path(__file__).resolve().parent.parent
SQLITE_TIMEOUT = Path(__file__).with_name("sqlite_timeout.py")
#: The time limit for the start of Airflow. The start takes about 20 s on an idle machine with two cores, and several
#: minutes on a busy machine.
READY_TIMEOUT_SECONDS = 400.0
#: If nothing was printed for this time in seconds, `wait_for` prints a line with the condition that it waits for.
PROGRESS_SECONDS = 10.0
API_TRIES = 5
COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


class AirflowRefused(RuntimeError):
    """Error: Airflow's REST API returned an HTTP error status.

    :param status: the HTTP status.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def fresh_directory(name: str) -> Path:
    """Create the empty directory `.work/<name>` and return its path. An existing directory is deleted first."""
    directory = ROOT / ".work" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def create_database(path: Path) -> None:
    """Create an empty SQLite database with a write-ahead log.

    With the log, a process that reads does not block a process that writes. Without the log, a reading process blocks a
    writing process. On a busy machine, Airflow's processes then get errors because the database is locked. SQLite
    stores this setting in the database file. Therefore all later connections use the log too.
    """
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")


@dataclass
class Airflow:
    """The command `airflow standalone`, which runs a scheduler, a triggerer, a DAG processor and an API server.

    :param home: the Airflow home directory.
    :param port: the TCP port of the API server.
    """

    home: Path
    port: int = field(default_factory=free_port)
    _token: str | None = field(default=None, init=False, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return the environment variables for the Airflow processes."""
        return own_environment() | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # No login is required, because the API server listens on loopback only.
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            # The default ports are possibly in use by another Airflow on this machine.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            # `parallelism` is the number of workers. With its default of 32, the start of all workers would take longer
            # than the run of the examples.
            "AIRFLOW__CORE__PARALLELISM": "4",
            # Airflow disables the connection test by default, because with this test a user can make the server connect
            # to any host. The demonstration is local, so the test is acceptable here.
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            # On a busy machine, the first response of the API server to a task can take longer than Airflow's default
            # timeout. Therefore the timeout is 120 seconds.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
            "NO_COLOR": "1",
        }

    def start(self, processes: Processes, extra: Mapping[str, str]) -> Path:
        config = self.home / "config"
        config.mkdir(parents=True, exist_ok=True)
        create_database(self.home / "airflow.db")
        shutil.copy(SQLITE_TIMEOUT, config)
        database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS": f"{SQLITE_TIMEOUT.stem}.connect_args"}
        command = [str(Path(sys.executable).parent / "airflow"), "standalone"]
        return processes.start("airflow", command, self.environment() | database | dict(extra))

    def wait_until_ready(self, processes: Processes, dag_ids: Iterable[str]) -> None:
        """Wait until all components of Airflow are healthy and Airflow has parsed the DAGs ``dag_ids``."""
        wait_for("Airflow to be ready", self._is_healthy, READY_TIMEOUT_SECONDS, processes)
        wanted = set(dag_ids)

        def read() -> bool:
            return wanted <= {dag["dag_id"] for dag in self.call("GET", "dags?limit=100")["dags"]}

        wait_for("the example DAGs to be read", read, READY_TIMEOUT_SECONDS, processes)

    def _is_healthy(self) -> bool:
        try:
            health = _request("GET", f"{self.url}/api/v2/monitor/health")
        except (OSError, AirflowRefused):
            return False
        return all(health[name]["status"] == "healthy" for name in COMPONENTS)

    def call(self, method: str, path: str, document: object = None, *, repeat_post: bool = False) -> Any:
        """Call Airflow's public REST API and return the JSON of the response.

        On a busy machine, Airflow's database is possibly locked for a moment. Therefore a failed call is repeated, up
        to `API_TRIES` tries in total. Two kinds of calls are not repeated: a call that Airflow refused with a status
        below 500, and a POST, because a POST that fails has possibly had an effect already.

        :param repeat_post: repeat a POST too, because a second effect does no harm.
        """
        if self._token is None:
            self._token = self._new_token()
        tries = API_TRIES if repeat_post or method != "POST" else 1
        for _ in range(tries - 1):
            try:
                return _request(method, f"{self.url}/api/v2/{path}", document, self._token)
            except AirflowRefused as refused:
                if refused.status < 500:
                    raise
            except OSError:
                pass
            time.sleep(1)
        return _request(method, f"{self.url}/api/v2/{path}", document, self._token)

    def _new_token(self) -> str:
        # Because all users are admins here, Airflow issues a token without a login. The token is valid for a day.
        token: str = _request("GET", f"{self.url}/auth/token")["access_token"]
        return token

    def unpause(self, dag_id: str) -> None:
        self.call("PATCH", f"dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, params: Mapping[str, object], run_id: str | None = None) -> str:
        """Start a DAG run and return its run id.

        On a busy machine, the call to Airflow's REST API possibly fails. Then this method repeats it. All calls contain
        the same run id, so Airflow never starts a second run.

        :param run_id: an id that no other run of the DAG has. If None, it is generated.
        """
        run_id = run_id or f"manual__{uuid.uuid4()}"
        document = {"dag_run_id": run_id, "logical_date": None, "conf": dict(params)}
        try:
            self.call("POST", f"dags/{dag_id}/dagRuns", document, repeat_post=True)
        except AirflowRefused as refused:
            # 409 means that an earlier call has started the run, although its response was an error.
            if refused.status != 409:
                raise
        return run_id

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", f"dags/{dag_id}/dagRuns")["dag_runs"]
        return found

    def tasks(self, dag_id: str, run_id: str = "~") -> list[dict[str, Any]]:
        """Return the task instances of one run of a DAG, except the skipped task instances.

        :param run_id: the id of the run. `~` means all runs of the DAG.
        """
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances?limit=1000"
        found = self.call("GET", path)["task_instances"]
        return [each for each in found if each["state"] != "skipped"]

    def all_tasks(self) -> list[dict[str, Any]]:
        """Return the task instances of all runs of all DAGs."""
        found: list[dict[str, Any]] = self.call("GET", "dags/~/dagRuns/~/taskInstances?limit=1000")[
            "task_instances"
        ]
        return found

    def error_of(self, task: Mapping[str, Any]) -> str:
        """Return the text of the last error of a task instance.

        The error is read from the logs of the tries. If these logs contain no error, the first error about the task
        instance in Airflow's own log is used. If no log contains an error, the text contains the paths of the logs.
        """
        log = self.home.joinpath("logs", f"dag_id={task['dag_id']}", f"run_id={task['dag_run_id']}")
        log /= f"task_id={task['task_id']}"
        if task["map_index"] >= 0:
            log /= f"map_index={task['map_index']}"
        tries = sorted(log.glob("attempt=*.log"), reverse=True)
        errors = [error for path in tries for error in _errors_in(path)]
        errors += self._scheduler_errors(task)
        return errors[0] if errors else f"no error line names it; its logs: {log}, Airflow's: {self._printed}"

    @property
    def _printed(self) -> Path:
        return self.home.parent / "airflow.log"

    def _scheduler_errors(self, task: Mapping[str, Any]) -> list[str]:
        lines = self._printed.read_text(errors="replace").splitlines() if self._printed.exists() else []
        names = (task["dag_id"], task["dag_run_id"], task["task_id"], "error")
        return [f"scheduler: {line.strip()[:400]}" for line in lines if all(name in line for name in names)]

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.call("GET", path + "?deserialize=true")["value"]


def _errors_in(log: Path) -> list[str]:
    """Return the error lines of a task's log, newest first."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        details = [f"{each['exc_type']}: {each['exc_value']}" for each in entry.get("error_detail") or ()]
        if details or entry.get("level") in ("error", "critical"):
            found.append(f"{' / '.join([entry.get('event', ''), *details])} ({log})")
    return found[::-1]


def wait_for(what: str, done: Callable[[], bool], seconds: float, processes: Processes) -> None:
    """Wait until a condition is true.

    :param what: a description of the condition, for messages.
    :param done: a function that returns whether the condition is true.
    :param seconds: the maximal waiting time in seconds.
    :raises ProcessFailed: if one of the processes ends during the wait.
    :raises TimeoutError: if the condition is not true in time.
    """
    began = time.monotonic()
    say_nothing_until = began + PROGRESS_SECONDS
    while not done():
        processes.check()
        now = time.monotonic()
        if now > began + seconds:
            raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}{processes.last_errors()}")
        if now > max(say_nothing_until, _said_at + PROGRESS_SECONDS):
            say(f"        waiting for {what}, {now - began:.0f} s so far")
        time.sleep(0.5)


_said_at = 0.0


def say(line: str) -> None:
    """Print a line and flush the output."""
    global _said_at
    _said_at = time.monotonic()
    print(line, flush=True)


def _request(method: str, url: str, document: object = None, token: str | None = None) -> Any:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 - always http://127.0.0.1
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=300) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read(500).decode(errors="replace")
        raise AirflowRefused(error.code, f"{method} {url}: HTTP {error.code}: {text}") from None
