# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Compare the duration of a batch task with the duration of mapped tasks for the same rows, in a complete Airflow.

One DAG has a single batch task for all rows. Another DAG has one mapped task for each row. The duration of both DAG
runs is measured.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from benchmarks import clients
from benchmarks.batching import WORKFLOW
from benchmarks.loopback import Loopback
from tests.airflow.running import bundles, reading
from tests.airflow.whole_airflow import WholeAirflow

DAGS = Path(__file__).parent / "dags"
ONE_TASK, MAPPED_TASKS = "one_task", "mapped_tasks"


def seconds(server: Loopback, people: Path, home: Path) -> dict[str, float]:
    """Run a DAG with one batch task for all rows, and a DAG with one mapped task for each row.

    Return the duration of each DAG run in seconds, as Airflow has recorded it, by the id of the DAG.

    :param server: The verification server.
    :param people: Folder with the manifest of the batch and with the images of the persons.
    :param home: The Airflow home directory.
    """
    clients.connect(server, tls=True, shared_file=True, workflow_id=WORKFLOW)
    environment = {
        **bundles(DAGS),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "BENCHMARK_FOLDER": str(people),
    }
    with WholeAirflow(home, environment) as airflow:
        airflow.wait("the DAGs to be read", lambda: airflow.knows(ONE_TASK, MAPPED_TASKS))
        airflow.tell(*(("dags", "unpause", dag_id) for dag_id in (ONE_TASK, MAPPED_TASKS)))
        return {dag_id: _run(airflow, dag_id) for dag_id in (ONE_TASK, MAPPED_TASKS)}


def _run(airflow: WholeAirflow, dag_id: str) -> float:
    airflow.tell(airflow.trigger(dag_id, "benchmark", {}))
    run = airflow.run(dag_id, "benchmark")
    airflow.wait(f"{dag_id} to end", lambda: run.state in {"success", "failed"})
    assert run.state == "success", f"{dag_id}: {run.states}"
    with reading(airflow.database) as database:
        times = database.execute("SELECT start_date, end_date FROM dag_run WHERE dag_id = ?", (dag_id,))
        start, end = (datetime.fromisoformat(moment) for moment in times.fetchone())
    return (end - start).total_seconds()
