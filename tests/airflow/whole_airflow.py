# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A complete Airflow of separate processes: start it, control it, and end it including all child processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from airflow_provider_faceki.sandbox.dag_runner import DagResult
from demo.airflow_stack import create_database
from demo.processes import family, free_port
from tests.airflow.running import AIRFLOW_3, reading
from tests.processes import listens

#: Timeouts in seconds. On an idle machine with two cores, less than a tenth of them is sufficient.
MAX_WAIT_SECONDS = 900.0
MAX_COMMANDS_SECONDS = 1500.0
END_SECONDS = 15.0
PROCESS_END_SECONDS = 10.0
DATABASE_SECONDS = 120.0

SERVICES = (
    ("api-server", "dag-processor", "scheduler", "triggerer") if AIRFLOW_3 else ("scheduler", "triggerer")
)

#: The DAG files do not change, so Airflow parses them once. By default it parses them again every 30 s.
PARSE_ONCE = (
    {
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "6000",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "6000",
    }
    if AIRFLOW_3
    else {
        "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "6000",
        "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "6000",
    }
)

#: With SQLite, Airflow 2 by default starts a new interpreter for each task. Here it forks a process for each task. It
#: still runs one task at a time, because SQLite permits only one writer at a time.
EXECUTOR = (
    {}
    if AIRFLOW_3
    else {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "1",
        # Without this variable, Airflow 2 refuses this executor with SQLite. Airflow's own tests set this variable,
        # too.
        "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
    }
)

# Several commands run in one process, because importing Airflow takes longer than the commands themselves.
COMMANDS = """
import json, sys
from airflow.__main__ import main
for command in json.load(sys.stdin):
    sys.argv = ["airflow", *command]
    try:
        main()
    except SystemExit as end:
        # Not the arguments: a run's conf is what is searched for in all that is printed.
        print(f"[{command[:3]} ended with {end.code}]", flush=True)
"""


class WholeAirflow:
    """Airflow's services on SQLite, running inside a `with` block; their output goes to `printed/`."""

    services: Sequence[str] = SERVICES
    #: The signal that ends the services after the last test.
    last_signal = signal.SIGTERM

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        self.printed = home / "printed"
        self.database = home / "airflow.db"
        port = free_port()
        #: The port of each API server.
        self.ports = {"api-server": port} if AIRFLOW_3 else {}
        self.environment = {
            **os.environ,
            # Airflow 2 starts its tasks with the command `airflow`, which is found by PATH.
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "AIRFLOW__CORE__PARALLELISM": "3",
            **EXECUTOR,
            # On a busy machine, the first response to a task that starts can take longer than Airflow's default timeout
            # of 5 s. After five timeouts the task fails.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            **PARSE_ONCE,
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            # The triggerer sends a heartbeat each second. After 15 s without a heartbeat, the other services treat it
            # as dead.
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
            # Free ports are used because another Airflow is possibly running on this machine on the default ports.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__API_AUTH__JWT_SECRET": "made-up-for-one-run-of-these-tests-and-no-other-one-at-all-"
            * 2,
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._triggered = 0
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.printed.mkdir(parents=True)
        create_database(self.database)
        self.tell(["db", "migrate"])
        for service in self.services:
            self.start(service)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # First all services get the signal, so that they end at the same time. Then this method waits for each of them.
        ending = {service: self._signal(service, self.last_signal) for service in reversed(self._running)}
        for service, processes in ending.items():
            self._wait_and_kill(service, processes)

    def start(self, service: str) -> None:
        """Start a service in a session of its own."""
        with (self.printed / f"{service}.log").open("ab") as output:
            self._running[service] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *self.arguments(service)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment_of(service),
                start_new_session=True,
            )

    def arguments(self, service: str) -> Sequence[str]:
        """Return the arguments of the command `airflow` that starts a service."""
        return [service]

    def environment_of(self, service: str) -> Mapping[str, str]:
        """Return the environment variables of a service."""
        if service == "api-server":
            # A deadlock is possible: a request that has locked the database waits for the event loop, and the event
            # loop waits for the database. Only SQLite's default timeout of 5 s ends it, so this timeout is not changed.
            return self.environment
        # The other services end if the database is locked for longer than their timeout, so they get a longer timeout.
        database = f"sqlite:///{self.database}?timeout={DATABASE_SECONDS}"
        return {**self.environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database}

    def end(self, service: str, number: signal.Signals) -> None:
        """End a service with a signal to its process group, then kill all processes that remain."""
        self._wait_and_kill(service, self._signal(service, number))

    def processes(self, service: str) -> list[psutil.Process]:
        """Return the process of a service and its descendants. They can be found only while the service is alive."""
        # The process group is not sufficient, because tasks have sessions of their own.
        pid = self._running[service].pid
        return family(psutil.Process(pid)) if psutil.pid_exists(pid) else []

    def _signal(self, service: str, number: signal.Signals) -> list[psutil.Process]:
        process, found = self._running[service], self.processes(service)
        if number == signal.SIGKILL:
            # SIGKILL simulates that the whole host dies, so all processes of the service are killed.
            for each in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        elif process.poll() is None:
            os.killpg(process.pid, number)
        return found

    def _wait_and_kill(self, service: str, processes: list[psutil.Process]) -> None:
        process = self._running.pop(service)
        _, left = psutil.wait_procs(processes, timeout=END_SECONDS)
        for each in left:
            each.kill()
        psutil.wait_procs(left, timeout=END_SECONDS)
        process.wait(END_SECONDS)

    def test(self, *runs: tuple[str, Mapping[str, object]]) -> None:
        """Run DAGs with `airflow dags test`; a failed run is accepted."""
        self.tell(
            *(("dags", "test", dag_id, "--conf", json.dumps(conf)) for dag_id, conf in runs), well=False
        )

    def tell(self, *commands: Sequence[str], well: bool = True) -> None:
        """Run commands of `airflow`. If `well` is true, all of them must succeed."""
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS],
            input=json.dumps(commands),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            timeout=MAX_COMMANDS_SECONDS,
            check=False,
        )
        with (self.printed / "commands.log").open("a") as output:
            output.write(done.stdout)
        ends = [
            line for line in done.stdout.splitlines() if " ended with " in line and "with None]" not in line
        ]
        assert not well or (done.returncode, ends) == (0, []), done.stdout[-5000:]

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, object]) -> tuple[str, ...]:
        """Return the command that triggers a DAG, for use with `tell`."""
        self._triggered += 1
        # Airflow 2 needs a date for each run and accepts each date only once, so each run gets the next second as its
        # date. Airflow 3 needs no date.
        date = () if AIRFLOW_3 else ("--exec-date", f"2026-02-03T00:00:{self._triggered:02}")
        return ("dags", "trigger", dag_id, "--run-id", run_id, "--conf", json.dumps(conf), *date)

    def run(self, dag_id: str, run_id: str) -> DagResult:
        return DagResult(self.database, dag_id, run_id)

    def runs(self, dag_id: str) -> list[DagResult]:
        with reading(self.database) as database:
            found = database.execute("SELECT run_id FROM dag_run WHERE dag_id = ?", (dag_id,))
            return [DagResult(self.database, dag_id, run_id) for (run_id,) in found]

    def knows(self, *dag_ids: str) -> bool:
        """Return whether these DAGs have been parsed."""
        with reading(self.database) as database:
            known = {dag_id for (dag_id,) in database.execute("SELECT dag_id FROM serialized_dag")}
        return set(dag_ids) <= known

    def wait_until_ready(self, *dag_ids: str) -> None:
        """Wait until these DAGs are parsed and the API servers answer, so that a task can start."""
        self.wait("the DAGs to be read", lambda: self.knows(*dag_ids))
        self.wait("the API servers to answer", lambda: all(map(listens, self.ports.values())))

    def wait(self, what: str, done: Callable[[], bool]) -> None:
        """Wait until `done()` is true.

        If a service ends in the meantime, or the wait takes too long, the test fails and shows the logs.
        """
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while not done():
            ended = [name for name, process in self._running.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {what}; ended: {ended}\n{self._tails()}")
            time.sleep(0.2)

    def wait_for_ended_processes(self) -> None:
        """Wait until the scheduler has noticed the processes that have ended.

        If a task has deferred itself, its process ends. If the task is queued again before the scheduler has noticed
        this end, the task fails ("reported that the task instance finished with state success, but ...").

        The wait has a fixed length, because a test cannot see what the scheduler has noticed: this is only in the
        memory of the scheduler. The scheduler's log is not usable either. It has one line for each end of a process,
        but for a task that waits for a person, Airflow 3.3 writes several lines.
        """
        time.sleep(PROCESS_END_SECONDS)

    def _tails(self) -> str:
        logs = sorted(self.printed.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)
