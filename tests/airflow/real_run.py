# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""One run of a complete Airflow that several tests evaluate: examples, every path, a killed triggerer."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.planting import Planted, planted
from tests.airflow.running import AIRFLOW_3, DAGS, EXAMPLES, bundles, reading
from tests.airflow.whole_airflow import WholeAirflow

LINK_DAG = "example_faceki_kyc_link"
SCHEDULED = ("example_faceki_fetch_records", "example_faceki_hook_taskflow")
EVERY = ("every_path", "every_image")
HOOK_DAG = "hook_link"
ENDED = {"success", "failed"}


@dataclass(frozen=True)
class RealRun:
    """State after the run: all Airflow processes have ended; the files and the sandbox still exist."""

    airflow: WholeAirflow
    planted: Planted
    records: Path
    accepted: DagResult
    declined: DagResult
    #: Copy of Airflow's database, made while both waits were in the triggerer.
    waiting: Path

    @property
    def counters(self) -> dict[str, Any]:
        found: Any = self.planted.faceki.control.get("counters")
        return dict(found)


@contextmanager
def real_run(folder: Path) -> Iterator[RealRun]:
    """Run all DAGs.

    On Airflow 2.11 only the link DAG is run, because there tasks run one after the other and need five seconds each.
    """
    records = folder / "records"
    settings = {**bundles(EXAMPLES, DAGS), "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES)}
    with planted(records) as made:
        airflow = WholeAirflow(folder / "home", {**settings, **made.environment})
        accepted, declined = airflow.run(LINK_DAG, "accepted"), airflow.run(LINK_DAG, "declined")
        run = RealRun(airflow, made, records, accepted, declined, folder / "waiting.db")
        with airflow:
            _run_all(run)
        yield run


def _run_all(run: RealRun) -> None:
    airflow, control = run.airflow, run.planted.faceki.control
    dags = (LINK_DAG, HOOK_DAG, *SCHEDULED, *EVERY) if AIRFLOW_3 else (LINK_DAG,)
    airflow.wait_until_ready(*dags)
    airflow.tell(
        *(("dags", "unpause", dag_id) for dag_id in dags),
        *(
            airflow.trigger(LINK_DAG, run_id, {"record_identifier": f"real-{run_id}"})
            for run_id in ("accepted", "declined")
        ),
        *(airflow.trigger(dag_id, "every", run.planted.conf) for dag_id in EVERY if AIRFLOW_3),
        *(airflow.trigger(dag_id, "once", {}) for dag_id in (HOOK_DAG,) if AIRFLOW_3),
    )
    waits = (run.accepted, run.declined)
    airflow.wait("both to wait", lambda: all(_waits(each) for each in waits))
    airflow.wait_for_ended_processes()
    with reading(airflow.database) as database, closing(sqlite3.connect(run.waiting)) as copy:
        database.backup(copy)
    control.post("decide", link=run.accepted.xcom("make_link")["link"], decision="ACCEPTED")
    airflow.wait("the first to end", lambda: run.accepted.state in ENDED)
    airflow.end("triggerer", signal.SIGKILL)
    # The decision is made while no triggerer is running.
    control.post("decide", link=run.declined.xcom("make_link")["link"], decision="DECLINED")
    time.sleep(1)
    airflow.start("triggerer")
    airflow.wait("all to end", lambda: all(_ended(airflow, dag_id) for dag_id in dags))


def _waits(run: DagResult) -> bool:
    return run.states.get("wait_for_decision") == "deferred"


def _ended(airflow: WholeAirflow, dag_id: str) -> bool:
    runs = airflow.runs(dag_id)
    return bool(runs) and all(each.state in ENDED for each in runs)
