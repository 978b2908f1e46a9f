# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Airflow's own task processes are killed (``kill -9``) while they verify, and retried: each person is billed once."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import psutil
import pytest

from airflow_provider_faceki.sandbox import SandboxProcess
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.canaries import NOWHERE, PERSON, files_below, logs_clean_of, rows_of
from tests.airflow.running import AIRFLOW_3, HAS_STATE_STORE
from tests.airflow.shared import SharedAirflow
from tests.airflow.whole_airflow import WholeAirflow
from tests.billing.billed_dags.killed import DEFERRED, SLEEPING
from tests.billing.image_files import image_bytes, write

pytestmark = pytest.mark.airflow

DECISIONS = {
    "accepted-k1": "ACCEPTED",
    "declined-k2": "DECLINED",
    "review-k3": "REVIEW",
    "code-5004-k4": "DECLINED",
}
PLACES = {**{f"sleeping[{n}]": who for n, who in enumerate(SLEEPING)}}
PLACES |= {f"deferred[{n}]": who for n, who in enumerate(DEFERRED)}
#: Number of processes to kill, fewer than there are tasks. On Airflow 2.11 fewer processes are killed, because it runs
#: only one task at a time here.
KILLS = 3 if AIRFLOW_3 else 2
ENDED = {"success", "failed"}


@dataclass
class Killer:
    """Killer of processes that have a connection to FACEKI, after a random delay."""

    port: int
    rng: random.Random = field(default_factory=lambda: random.Random(33))
    due: dict[int, float] = field(default_factory=dict)
    killed: list[int] = field(default_factory=list)

    def strike(self) -> bool:
        """Kill the processes whose delay has passed; return whether enough processes have been killed."""
        sockets = self._sockets()
        for process in psutil.Process().children(recursive=True) if sockets else ():
            if len(self.killed) >= KILLS:
                break
            if process.pid in self.killed or not self._verifies(process, sockets):
                continue
            # With the random delay, a process is killed before it sends anything, or while FACEKI processes its call.
            # The processing takes ten seconds. So the process is still alive, even if a busy machine kills it 8 s late.
            due = self.due.setdefault(process.pid, time.monotonic() + self.rng.uniform(0.0, 2.0))
            if time.monotonic() >= due:
                process.kill()
                self.killed.append(process.pid)
        return len(self.killed) >= KILLS

    def _sockets(self) -> set[str]:
        """Return the names of the sockets that are connected to FACEKI.

        The kernel's list is read once for all processes. It contains thousands of closed connections of other tests, so
        reading it for each process would take longer than a call.
        """
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        found = {line.split()[9] for line in lines if line.split()[2].endswith(f":{self.port:04X}")}
        # The sandbox's own end of a connection has this port as the local port, so only the remote port is compared.
        # A connection that belongs to no process any more has the number 0, so 0 is left out.
        return {f"socket:[{number}]" for number in found - {"0"}}

    def _verifies(self, process: psutil.Process, sockets: set[str]) -> bool:
        try:
            parent = process.ppid()
            opened = {os.readlink(each.path) for each in os.scandir(f"/proc/{process.pid}/fd")}
        except (psutil.NoSuchProcess, OSError):
            # The process has ended.
            return False
        # A task that ends forks a process that reports the task to OpenLineage. This process inherits the connection,
        # but killing it would not make Airflow run the task again. So processes whose parent is a task are left out.
        return parent not in self.due and not opened.isdisjoint(sockets)


@dataclass(frozen=True)
class Scenario:
    airflow: WholeAirflow
    faceki: SandboxProcess
    killer: Killer
    folder: Path
    run: DagResult

    @property
    def ledger(self) -> dict[str, int]:
        return cast("dict[str, Any]", self.faceki.control.get("state"))["ledger"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def scenario(shared_airflow: SharedAirflow) -> Scenario:
    """The finished scenario."""
    airflow, faceki = shared_airflow.airflow, shared_airflow.sandboxes["billing"]
    folder = shared_airflow.folder / "billing"
    folder.mkdir()
    for name in ("selfie-0.jpg", "front.jpg", "back.jpg"):
        write(folder, name, image_bytes(2_000_000))
    faceki.control.post("settings", person=PERSON)
    faceki.control.post("faults", kind="status", status=429, retry_after=1, record_identifier="throttled")
    killer = Killer(urlsplit(faceki.url).port or 0)
    made = Scenario(airflow, faceki, killer, folder, airflow.run("killed", "k"))
    _run_scenario(made, shared_airflow)
    return made


def _run_scenario(scenario: Scenario, shared_airflow: SharedAirflow) -> None:
    dags = ("killed", "own_tasks") if HAS_STATE_STORE else ("killed",)
    airflow = scenario.airflow
    airflow.wait_until_ready(*dags)
    shared_airflow.begin(("killed", "k", {}))
    airflow.wait(
        f"{KILLS} processes to kill", lambda: scenario.killer.strike() or scenario.run.state in ENDED
    )
    for dag_id in dags[1:]:
        # These DAGs are triggered only now, because the killer does not distinguish between processes of different
        # DAGs.
        shared_airflow.begin((dag_id, "k", {}))
    airflow.wait("all to end", lambda: all(airflow.run(dag_id, "k").state in ENDED for dag_id in dags))


def test_each_verification_is_billed_once_despite_kills(scenario: Scenario) -> None:
    assert len(set(scenario.killer.killed)) == KILLS
    assert scenario.ledger == {f"slow-10-{who}": 1 for who in DECISIONS}


def test_every_task_ends_with_the_right_decision(scenario: Scenario) -> None:
    assert {task: state for task, state in scenario.run.states.items() if state != "success"} == {}
    assert {who: scenario.run.xcom(task)["decision"] for task, who in PLACES.items()} == DECISIONS


def test_airflow_did_try_again(scenario: Scenario) -> None:
    # Each killed process is one try. Airflow 3.3 possibly makes more tries: of a deferred task whose wait ends before
    # the scheduler has noticed the deferral. These tries must not bill twice either.
    assert sum(scenario.run.tries.values()) >= len(PLACES) + KILLS


def test_the_records_are_whole(scenario: Scenario) -> None:
    for task, who in PLACES.items():
        place = Path(scenario.run.xcom(task, "output_path").removeprefix("file://"))
        assert json.loads(place.read_text())["record_identifier"] == f"slow-10-{who}"


@pytest.mark.skipif(not HAS_STATE_STORE, reason="Airflow has retry policies from 3.3 on")
def test_the_retry_policy_in_a_user_task(scenario: Scenario) -> None:
    own = scenario.airflow.run("own_tasks", "k")
    assert own.states == {"hopeless": "failed", "throttled": "success"}
    assert own.tries == {"hopeless": 1, "throttled": 2}


def test_no_file_log_or_table_holds_personal_data(scenario: Scenario) -> None:
    logs = logs_clean_of(())
    home = scenario.airflow.home
    leaks = [
        (path, line)
        for path, content in files_below(home)
        if not path.startswith(str(scenario.airflow.database))
        for line in logs.lines_in(content)
    ]
    leaks += [
        (table, line) for table, row in rows_of(scenario.airflow.database) for line in NOWHERE.lines_in(row)
    ]
    assert leaks == []
    # This proves that the search works: the records contain the person.
    assert any(NOWHERE.found_in(record.read_bytes()) for record in scenario.folder.glob("*.json"))
