# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Airflow's own task processes are killed (``kill -9``) while they verify, and tried again: bills."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import psutil
import pytest

from airflow_provider_faceki.sandbox import SandboxProcess
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.canaries import CLIENT_ID, NOWHERE, PERSON, SECRET, files_below, logs_clean_of, rows_of
from tests.airflow.running import AIRFLOW_3, HAS_STATE_STORE, bundles, reading
from tests.airflow.whole_airflow import WholeAirflow
from tests.billing.billed_dags.killed import DEFERRED, SLEEPING
from tests.billing.conftest import DAGS
from tests.billing.pictures import picture, write

pytestmark = pytest.mark.airflow

DECISIONS = {
    "accepted-k1": "ACCEPTED",
    "declined-k2": "DECLINED",
    "review-k3": "REVIEW",
    "code-5004-k4": "DECLINED",
}
PLACES = {**{f"sleeping[{n}]": who for n, who in enumerate(SLEEPING)}}
PLACES |= {f"deferred[{n}]": who for n, who in enumerate(DEFERRED)}
#: Processes to kill, fewer than there are tasks. Airflow 2.11 runs one task at a time here, five seconds each.
KILLS = 3 if AIRFLOW_3 else 2
ENDED = {"success", "failed"}


@dataclass
class Killer:
    """Kills whoever talks to FACEKI, some time after it began to."""

    port: int
    dice: random.Random = field(default_factory=lambda: random.Random(33))
    due: dict[int, float] = field(default_factory=dict)
    killed: list[int] = field(default_factory=list)

    def strike(self) -> bool:
        """Kill whose time has come; whether enough have been killed."""
        for process in psutil.process_iter():
            if len(self.killed) >= KILLS:
                break
            if process.pid in (os.getpid(), *self.killed) or not self._talks(process):
                continue
            # From before anything is sent to long after FACEKI has begun to work on it, which takes it five seconds;
            # so that a busy machine, late by three, still meets a process that lives.
            due = self.due.setdefault(process.pid, time.monotonic() + self.dice.uniform(0.0, 2.0))
            if time.monotonic() >= due:
                process.kill()
                self.killed.append(process.pid)
        return len(self.killed) >= KILLS

    def _talks(self, process: psutil.Process) -> bool:
        try:
            lines = process.net_connections("tcp")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False
        # FACEKI's own end of the line has it as the near port.
        return self.port in {getattr(line.raddr, "port", None) for line in lines}


@dataclass(frozen=True)
class Scene:
    airflow: WholeAirflow
    faceki: SandboxProcess
    killer: Killer
    folder: Path
    run: DagResult

    @property
    def ledger(self) -> dict[str, int]:
        return cast("dict[str, Any]", self.faceki.control.get("state"))["ledger"]  # type: ignore[no-any-return]

    def tries(self, dag_id: str) -> dict[str, int]:
        with reading(self.airflow.database) as database:
            rows = database.execute(
                "SELECT task_id, map_index, try_number FROM task_instance WHERE dag_id = ?", (dag_id,)
            )
            return {f"{task_id}[{index}]" if index >= 0 else task_id: tries for task_id, index, tries in rows}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """All is over when this is there: processes have ended, files and FACEKI are still there."""
    folder = tmp_path_factory.mktemp("killed")
    for name in ("selfie-0.jpg", "front.jpg", "back.jpg"):
        write(folder, name, picture(2_000_000))
    with SandboxProcess(client_id=CLIENT_ID, client_secret=SECRET) as faceki:
        faceki.control.post("settings", person=PERSON)
        faceki.control.post("faults", kind="status", status=429, retry_after=1, record_identifier="throttled")
        connection = json.dumps(faceki.connection(max_attempts=1, timeout=20, upload_timeout=20))
        environment = {
            **bundles(DAGS),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "20",
            "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "3",
            "AIRFLOW_CONN_FACEKI_DEFAULT": connection,
            "BILLED_FOLDER": folder.as_uri(),
        }
        airflow = WholeAirflow(folder / "home", environment)
        killer = Killer(urlsplit(faceki.url).port or 0)
        made = Scene(airflow, faceki, killer, folder, airflow.run("killed", "k"))
        with airflow:
            _live_through(made)
        yield made


def _live_through(scene: Scene) -> None:
    dags = ("killed", "own_tasks") if HAS_STATE_STORE else ("killed",)
    airflow = scene.airflow
    airflow.wait("the DAGs to be read", lambda: airflow.knows(*dags))
    airflow.tell(*(("dags", "unpause", dag_id) for dag_id in dags), airflow.trigger("killed", "k", {}))
    airflow.wait(f"{KILLS} processes to kill", lambda: scene.killer.strike() or scene.run.state in ENDED)
    for dag_id in dags[1:]:
        # Not before, for the killer does not ask whose process it is.
        airflow.tell(airflow.trigger(dag_id, "k", {}))
    airflow.wait("all to end", lambda: all(airflow.run(dag_id, "k").state in ENDED for dag_id in dags))


def test_everybody_is_billed_once(scene: Scene) -> None:
    assert len(set(scene.killer.killed)) == KILLS
    assert scene.ledger == {f"slow-5-{who}": 1 for who in DECISIONS}


def test_every_task_ends_with_the_right_decision(scene: Scene) -> None:
    assert {task: state for task, state in scene.run.states.items() if state != "success"} == {}
    assert {who: scene.run.xcom(task)["decision"] for task, who in PLACES.items()} == DECISIONS


def test_airflow_did_try_again(scene: Scene) -> None:
    # A killed process is a try of its own. Airflow 3.3 may make more: of a task that has deferred itself and whose
    # wait ends before the scheduler has heard of it. That has to bill nobody twice either.
    assert sum(scene.tries("killed").values()) >= len(PLACES) + KILLS


def test_the_records_are_whole(scene: Scene) -> None:
    for task, who in PLACES.items():
        place = Path(scene.run.xcom(task, "output_path").removeprefix("file://"))
        assert json.loads(place.read_text())["record_identifier"] == f"slow-5-{who}"


@pytest.mark.skipif(not HAS_STATE_STORE, reason="Airflow has retry policies from 3.3 on")
def test_the_retry_policy_in_a_task_of_ones_own(scene: Scene) -> None:
    own = scene.airflow.run("own_tasks", "k")
    assert own.states == {"hopeless": "failed", "throttled": "success"}
    assert scene.tries("own_tasks") == {"hopeless": 1, "throttled": 2}


def test_nothing_got_out(scene: Scene) -> None:
    logs = logs_clean_of(())
    home = scene.airflow.home
    leaks = [
        (path, line)
        for path, content in files_below(home)
        if path != str(scene.airflow.database)
        for line in logs.lines_in(content)
    ]
    leaks += [
        (table, line) for table, row in rows_of(scene.airflow.database) for line in NOWHERE.lines_in(row)
    ]
    assert leaks == []
    # It would have been found: the records hold the person.
    assert any(NOWHERE.found_in(record.read_bytes()) for record in scene.folder.glob("*.json"))
