# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Eight hundred rows in a complete Airflow: the task is killed five times, runs out of credit, is ended by a user."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from airflow_provider_faceki.sandbox import SandboxProcess
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.running import reading
from tests.airflow.shared import BATCHES, SharedAirflow
from tests.airflow.whole_airflow import WholeAirflow
from tests.batch.harness import BatchHarness

pytestmark = pytest.mark.airflow

DAG_ID = "batch_verify"
#: More than `IDENTIFIERS_PER_QUERY`, so that a try needs several queries for them.
PEOPLE = 800
#: Numbers of billed rows at which the task is killed: at the beginning, in between, and shortly before the end.
MOMENTS = (1, 140, 320, 560, 760)
#: FACEKI slows down before the last of these kills. Otherwise the task could end before it is killed.
SLOW_FROM, SLOW = 660, 1.0
CREDIT = 280
#: Seconds before each answer of FACEKI, for each batch. Two tests act at a certain number of billed rows. Their answers
#: are slow, so that the tests act in time.
LATENCIES = {"killed": 0.1, "poor": 0.02, "ended": 0.5}
ENDED = {"success", "failed"}


@dataclass(frozen=True)
class Batch:
    """One run of the DAG, with a sandbox and a folder of its own."""

    shared_airflow: SharedAirflow
    name: str
    harness: BatchHarness

    @property
    def airflow(self) -> WholeAirflow:
        return self.shared_airflow.airflow

    @property
    def faceki(self) -> SandboxProcess:
        return self.shared_airflow.sandboxes[self.name]

    @property
    def run(self) -> DagResult:
        return self.airflow.run(DAG_ID, self.name)

    @property
    def identifiers(self) -> list[str]:
        return [f"{self.name}-{number}" for number in range(PEOPLE)]

    @property
    def conf(self) -> dict[str, object]:
        manifest = self.harness.everybody(*self.identifiers)
        return {"faceki": f"faceki_{self.name}", "manifest": manifest, "output": self.harness.out.as_uri()}

    @property
    def billed(self) -> int:
        counters: Any = self.faceki.control.get("counters")
        return int(counters["bills"])

    @property
    def ledger(self) -> dict[str, int]:
        state: Any = self.faceki.control.get("state")
        return dict(state["ledger"])

    def pid(self) -> int | None:
        """Return the process id of the task if, according to Airflow, the task is running."""
        with reading(self.airflow.database) as database:
            found = database.execute(
                "SELECT pid FROM task_instance WHERE run_id = ? AND task_id = 'verify'"
                " AND state = 'running' AND pid IS NOT NULL",
                (self.name,),
            ).fetchone()
        return int(found[0]) if found else None

    def tries(self) -> int:
        return len(list((self.harness.out / "_journal" / "tries").glob("try-*")))

    def logs(self) -> str:
        folder = self.airflow.home / "logs" / f"dag_id={DAG_ID}" / f"run_id={self.name}"
        return "".join(path.read_text(errors="replace") for path in sorted(folder.rglob("*.log")))


@pytest.fixture(scope="module")
def batches(shared_airflow: SharedAirflow) -> dict[str, Batch]:
    """Three batches, each of which a test starts."""
    shared_airflow.airflow.wait_until_ready(DAG_ID)
    made = {}
    for name in BATCHES:
        folder = shared_airflow.folder / name
        folder.mkdir()
        made[name] = Batch(shared_airflow, name, BatchHarness(folder))
        made[name].faceki.control.post("settings", credit=None, latency=LATENCIES[name])
    return made


def begin(batch: Batch) -> None:
    batch.shared_airflow.begin((DAG_ID, batch.name, batch.conf))


def check(batch: Batch) -> None:
    """Check that each person was billed once and has one result."""
    assert Counter(batch.ledger.values()) == {1: PEOPLE}
    assert batch.harness.results() == dict.fromkeys(batch.identifiers, "ACCEPTED")
    told = batch.run.xcom("verify")
    assert (told["rows"], told["decisions"], told["errors"]) == (PEOPLE, {"ACCEPTED": PEOPLE}, {})


def test_killed_at_five_moments_and_tried_again(batches: dict[str, Batch]) -> None:
    batch = batches["killed"]
    begin(batch)
    for number, moment in enumerate(MOMENTS, 1):
        batch.airflow.wait(f"try {number}", lambda number=number: batch.tries() >= number)  # type: ignore[misc]
        if moment > SLOW_FROM:
            batch.airflow.wait(f"{SLOW_FROM} bills", lambda: batch.billed >= SLOW_FROM)
            batch.faceki.control.post("settings", latency=SLOW)
        batch.airflow.wait(f"{moment} bills", lambda moment=moment: batch.billed >= moment)  # type: ignore[misc]
        pid = batch.pid()
        assert pid is not None, f"try {number} had ended before it could be killed"
        process = psutil.Process(pid)
        process.kill()
        process.wait(120)
        assert batch.billed < PEOPLE
    batch.airflow.wait("the run to end", lambda: batch.run.state in ENDED)
    assert batch.run.state == "success"
    assert batch.tries() == len(MOMENTS) + 1
    check(batch)
    assert f"{PEOPLE} of {PEOPLE} rows done" in batch.logs()


def test_out_of_credit_and_topped_up(batches: dict[str, Batch]) -> None:
    batch = batches["poor"]
    batch.faceki.control.post("credit", credit=CREDIT)
    begin(batch)
    batch.airflow.wait("the run to end", lambda: batch.run.state in ENDED)
    # The task fails at once although it has retries, because credit is not added within a second.
    assert (batch.run.state, batch.tries(), batch.billed) == ("failed", 1, CREDIT)
    assert f"{PEOPLE - CREDIT} of {PEOPLE} rows are left" in batch.logs()
    assert len(batch.harness.results()) == CREDIT
    batch.faceki.control.post("credit", credit=PEOPLE)
    batch.shared_airflow.clear_failed(DAG_ID, batch.name)
    batch.airflow.wait("the run to go on", lambda: batch.tries() == 2)
    batch.airflow.wait("the run to end", lambda: batch.run.state in ENDED)
    assert batch.run.state == "success"
    check(batch)


def test_a_batch_ended_by_a_user_keeps_its_results(batches: dict[str, Batch]) -> None:
    batch = batches["ended"]
    begin(batch)
    batch.airflow.wait("some bills", lambda: batch.billed >= 100)
    pid = batch.pid()
    assert pid is not None
    process = psutil.Process(pid)
    decided = set(batch.ledger)
    # This is the signal that a worker sends to a task that a user has ended. Ending it through Airflow would take one
    # heartbeat longer.
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs([process], timeout=120)
    assert alive == []
    assert batch.billed < PEOPLE
    # All rows that FACEKI had decided before the signal have a result. A row that was not billed has none.
    finished = set(batch.harness.results())
    assert decided <= finished <= set(batch.ledger)
    assert len(decided) >= 100
    # The remaining rows are processed faster to save time.
    batch.faceki.control.post("settings", latency=0.01)
    batch.airflow.wait("the run to end", lambda: batch.run.state in ENDED)
    assert (batch.run.state, batch.tries()) == ("success", 2)
    check(batch)
