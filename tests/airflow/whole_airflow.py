# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A whole Airflow of separate processes: start, watch and command it, and end it to the last child."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.running import AIRFLOW_3, reading

#: Seconds; on an idle machine of two cores a tenth of it is enough.
PATIENCE = 300.0
END_SECONDS = 15.0
SETTLE_SECONDS = 10.0

SERVICES = (
    ("api-server", "dag-processor", "scheduler", "triggerer") if AIRFLOW_3 else ("scheduler", "triggerer")
)

# Several commands in one process: importing Airflow takes longer than what they do.
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
    """Airflow's services on SQLite, from `with` to the end of the block; what they print goes to `printed/`."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        self.printed = home / "printed"
        self.database = home / "airflow.db"
        port = _free_port()
        self.environment = {
            **os.environ,
            # Airflow 2 starts its tasks as `airflow`, found by PATH.
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "600",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            # After this long without a sign of life a triggerer that was killed is dead to the others.
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
            # Another Airflow may run on this machine, on the usual ports.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(_free_port()),
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
        self.tell(["db", "migrate"])
        for service in SERVICES:
            self.start(service)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # All are asked before any is waited for.
        families = {service: self._signal(service, signal.SIGTERM) for service in reversed(self._running)}
        for service, family in families.items():
            self._see_off(service, family)

    def start(self, service: str) -> None:
        """Start a service in a session of its own."""
        with (self.printed / f"{service}.log").open("ab") as output:
            self._running[service] = subprocess.Popen(
                [sys.executable, "-m", "airflow", service],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    def end(self, service: str, number: signal.Signals) -> None:
        """End a service by a signal to its group, then whatever of it is left."""
        self._see_off(service, self._signal(service, number))

    def _signal(self, service: str, number: signal.Signals) -> list[psutil.Process]:
        process = self._running[service]
        # Tasks have sessions of their own, so their group is not enough; the family is known while it lives.
        family = [process.pid, *_descendants(process.pid)]
        found = [psutil.Process(pid) for pid in family if psutil.pid_exists(pid)]
        if process.poll() is None:
            os.killpg(process.pid, number)
        return found

    def _see_off(self, service: str, family: list[psutil.Process]) -> None:
        process = self._running.pop(service)
        _, left = psutil.wait_procs(family, timeout=END_SECONDS)
        for each in left:
            each.kill()
        psutil.wait_procs(left, timeout=END_SECONDS)
        process.wait(END_SECONDS)

    def test(self, *runs: tuple[str, Mapping[str, object]]) -> None:
        """Run DAGs by `airflow dags test`, whatever becomes of them."""
        self.tell(
            *(("dags", "test", dag_id, "--conf", json.dumps(conf)) for dag_id, conf in runs), well=False
        )

    def tell(self, *commands: Sequence[str], well: bool = True) -> None:
        """Run commands of `airflow`; all of them must succeed, unless `well` is false."""
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS],
            input=json.dumps(commands),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            timeout=PATIENCE,
            check=False,
        )
        with (self.printed / "commands.log").open("a") as output:
            output.write(done.stdout)
        ends = [
            line for line in done.stdout.splitlines() if " ended with " in line and "with None]" not in line
        ]
        assert not well or (done.returncode, ends) == (0, []), done.stdout[-5000:]

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, object]) -> tuple[str, ...]:
        """The command that triggers a DAG; to be told, alone or with others."""
        self._triggered += 1
        # Airflow 2 takes the second as the run's date, of which there is one run at most; Airflow 3 needs no date.
        date = () if AIRFLOW_3 else ("--exec-date", f"2026-02-03T00:00:{self._triggered:02}")
        return ("dags", "trigger", dag_id, "--run-id", run_id, "--conf", json.dumps(conf), *date)

    def run(self, dag_id: str, run_id: str) -> DagResult:
        return DagResult(self.database, dag_id, run_id)

    def runs(self, dag_id: str) -> list[DagResult]:
        with reading(self.database) as database:
            found = database.execute("SELECT run_id FROM dag_run WHERE dag_id = ?", (dag_id,))
            return [DagResult(self.database, dag_id, run_id) for (run_id,) in found]

    def knows(self, *dag_ids: str) -> bool:
        """Whether these DAGs have been read."""
        with reading(self.database) as database:
            known = {dag_id for (dag_id,) in database.execute("SELECT dag_id FROM serialized_dag")}
        return set(dag_ids) <= known

    def wait(self, what: str, done: Callable[[], bool]) -> None:
        """Wait until it is so. A service that ends meanwhile, or too long a wait, fails the test and shows the logs."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            ended = [name for name, process in self._running.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {what}; ended: {ended}\n{self._tails()}")
            time.sleep(0.2)

    def settle(self) -> None:
        """Let the scheduler hear of processes that have ended: a task that has deferred itself and is queued again
        before it has heard fails for it ("reported that the task instance finished with state success, but ...")."""
        time.sleep(SETTLE_SECONDS)

    def _tails(self) -> str:
        logs = sorted(self.printed.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)


def _descendants(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
