# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""One run of a complete Airflow that several tests evaluate: examples, every path, many waits, a killed triggerer."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_faceki.sandbox import SandboxProcess
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.dags.many_waits import CONN_ID, PEOPLE
from tests.airflow.planting import Planted, planted
from tests.airflow.running import AIRFLOW_3, DAGS, EXAMPLES, bundles, reading
from tests.airflow.whole_airflow import WholeAirflow

LINK_DAG = "example_faceki_kyc_link"
SCHEDULED = ("example_faceki_fetch_records", "example_faceki_hook_taskflow")
EVERY = ("every_path", "every_image")
HOOK_DAG = "hook_link"
WAITS_DAG = "many_waits"
ENDED = {"success", "failed"}
DECISIONS = ("ACCEPTED", "DECLINED")
#: Persons whose decision is made before the triggerer is killed, while no triggerer runs, and after a new triggerer has
#: taken over the waits.
BEFORE, MEANWHILE, AFTER = PEOPLE[:7], PEOPLE[7:17], PEOPLE[17:]


def decision_of(person: str) -> str:
    """Return the decision that the sandbox takes about one of the persons in :data:`PEOPLE`."""
    return DECISIONS[PEOPLE.index(person) % 2]


@dataclass
class ManyWaits:
    """The run of the DAG `many_waits`, with its own sandbox. On Airflow 2.11, this DAG is not run."""

    faceki: SandboxProcess
    run: DagResult
    #: The number of waits in each state when the triggerer was killed. `polls_while_dead` is the number of polls that
    #: the sandbox received while no triggerer was running.
    at_death: Counter[str] = field(default_factory=Counter)
    polls_while_dead: int = 0

    @property
    def counters(self) -> dict[str, Any]:
        found: Any = self.faceki.control.get("counters")
        return dict(found)

    @property
    def polls(self) -> int:
        return int(self.counters["requests"].get("records", 0))

    def decide(self, people: Iterable[str]) -> None:
        for person in people:
            self.faceki.control.post("records", record_identifier=person, decision=decision_of(person))

    def deferred(self) -> int:
        return Counter(self.run.states.values())["deferred"]


@dataclass(frozen=True)
class RealRun:
    """State after the run: all Airflow processes have ended; the files and the sandbox still exist."""

    airflow: WholeAirflow
    planted: Planted
    records: Path
    accepted: DagResult
    declined: DagResult
    #: Copy of Airflow's database, made while the waits of the runs `accepted` and `declined` were deferred.
    waiting: Path
    many: ManyWaits

    @property
    def counters(self) -> dict[str, Any]:
        found: Any = self.planted.faceki.control.get("counters")
        return dict(found)


@contextmanager
def real_run(folder: Path) -> Iterator[RealRun]:
    """Run all DAGs.

    On Airflow 2.11 only the link DAG is run, because Airflow 2.11 runs only one task at a time with SQLite.
    """
    records = folder / "records"
    settings = {
        **bundles(EXAMPLES, DAGS),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
        "AIRFLOW__CORE__PARALLELISM": "8" if AIRFLOW_3 else "1",
    }
    with planted(records) as made, SandboxProcess() as other:
        settings[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = json.dumps(other.connection())
        airflow = WholeAirflow(folder / "home", {**settings, **made.environment})
        accepted, declined = airflow.run(LINK_DAG, "accepted"), airflow.run(LINK_DAG, "declined")
        many = ManyWaits(other, airflow.run(WAITS_DAG, "once"))
        run = RealRun(airflow, made, records, accepted, declined, folder / "waiting.db", many)
        with airflow:
            _run_all(run)
        yield run


def _run_all(run: RealRun) -> None:
    airflow, control = run.airflow, run.planted.faceki.control
    many = run.many
    dags = (LINK_DAG, HOOK_DAG, WAITS_DAG, *SCHEDULED, *EVERY) if AIRFLOW_3 else (LINK_DAG,)
    airflow.wait_until_ready(*dags)
    airflow.tell(
        *(("dags", "unpause", dag_id) for dag_id in dags),
        *(
            airflow.trigger(LINK_DAG, run_id, {"record_identifier": f"real-{run_id}"})
            for run_id in ("accepted", "declined")
        ),
        *(airflow.trigger(dag_id, "every", run.planted.conf) for dag_id in EVERY if AIRFLOW_3),
        *(airflow.trigger(dag_id, "once", {}) for dag_id in (HOOK_DAG, WAITS_DAG) if AIRFLOW_3),
    )
    waits = (run.accepted, run.declined)
    airflow.wait("both to wait", lambda: all(_waits(each) for each in waits))
    airflow.wait("many to wait", lambda: not AIRFLOW_3 or many.deferred() == len(PEOPLE))
    airflow.wait_for_ended_processes()
    with reading(airflow.database) as database, closing(sqlite3.connect(run.waiting)) as copy:
        database.backup(copy)
    control.post("decide", link=run.accepted.xcom("make_link")["link"], decision="ACCEPTED")
    airflow.wait("the first to end", lambda: run.accepted.state in ENDED)
    many.decide(BEFORE)
    airflow.end("triggerer", signal.SIGKILL)
    many.at_death, seen = Counter(many.run.states.values()), many.polls
    # These decisions are made while no triggerer is running.
    control.post("decide", link=run.declined.xcom("make_link")["link"], decision="DECLINED")
    many.decide(MEANWHILE)
    # The longest pause between two polls of a wait is shorter than 5 s. So if a wait were still running, the sandbox
    # would receive a poll now.
    time.sleep(5)
    many.polls_while_dead = many.polls - seen
    airflow.start("triggerer")
    airflow.wait("another one to take over", lambda: many.deferred() <= len(AFTER))
    many.decide(AFTER)
    airflow.wait("all to end", lambda: all(_ended(airflow, dag_id) for dag_id in dags))


def _waits(run: DagResult) -> bool:
    return run.states.get("wait_for_decision") == "deferred"


def _ended(airflow: WholeAirflow, dag_id: str) -> bool:
    runs = airflow.runs(dag_id)
    return bool(runs) and all(each.state in ENDED for each in runs)
