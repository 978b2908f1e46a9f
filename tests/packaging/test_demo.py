# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The demonstration continues if Airflow's scheduler lets a try fail, and reports the error of a failed task."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from airflow_provider_faceki.sandbox import SandboxProcess
from demo.airflow_stack import Airflow
from demo.processes import Processes
from demo.run_demo import LINK_DAG, Demo
from tests.waiting import wait_until

pytestmark = pytest.mark.airflow

RUN = "manual__1"
RACE = (
    "Executor LocalExecutor reported that the task instance <TaskInstance: "
    f"{LINK_DAG}.wait_for_decision {RUN} [running]> finished with state success, but the task instance's state"
    " attribute is running."
)


def task(state: str, try_number: int = 1, task_id: str = "wait_for_decision") -> dict[str, Any]:
    return {
        "dag_id": LINK_DAG,
        "dag_run_id": RUN,
        "task_id": task_id,
        "map_index": -1,
        "state": state,
        "try_number": try_number,
        "start_date": f"2026-01-01T00:00:0{try_number}Z",
        "end_date": None,
    }


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    made = Demo(tmp_path, cast("SandboxProcess", None), Processes(tmp_path))
    made._who[RUN] = "customer-1001"
    return made


def test_a_try_failed_by_the_scheduler_does_not_end_the_demo(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = [
        [task("running")],
        [task("deferred")],
        [task("up_for_retry")],
        [task("up_for_retry")],
        [task("running", 2)],
        [task("success", 2)],
    ]
    monkeypatch.setattr(demo.airflow, "all_tasks", lambda: seen.pop(0))
    assert not any(demo._follow() for _ in range(len(seen)))
    assert demo._waits_in_the_triggerer("customer-1001")
    assert not demo._waits_in_the_triggerer("customer-1002")
    lines = [line.split("wait_for_decision")[1].strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "deferred: waits in the triggerer, no worker is held",
        "fails, Airflow tries again",
        "success (try 2)",
    ]
    assert [each["task_id"] for each in demo._retried.values()] == ["wait_for_decision"]


@pytest.mark.parametrize("state", ["failed", "upstream_failed"])
def test_a_finally_failed_task_ends_the_demo(demo: Demo, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.airflow, "all_tasks", lambda: [task("success", task_id="send"), task(state)])
    assert demo._follow()


@pytest.mark.parametrize(
    ("attempts", "scheduler", "told"),
    [
        pytest.param([], "", "no error line names it", id="no error anywhere"),
        pytest.param([], f"2026 [error] {RACE}", f"scheduler: 2026 [error] {RACE}", id="the scheduler's"),
        pytest.param(
            [[{"level": "error", "event": "Server indicated the task shouldn't be running anymore"}]],
            "",
            "Server indicated the task shouldn't be running anymore",
            id="an error line without an exception",
        ),
        pytest.param(
            [
                [
                    {
                        "level": "error",
                        "event": "Task failed",
                        "error_detail": [{"exc_type": "E", "exc_value": "v"}],
                    }
                ]
            ],
            "",
            "Task failed / E: v",
            id="an exception",
        ),
        pytest.param(
            [[{"level": "error", "event": "first"}], [{"level": "info", "event": "second"}]],
            f"[error] {RACE}",
            "first",
            id="of the try before",
        ),
    ],
)
def test_the_demo_shows_the_error_of_the_task(
    tmp_path: Path, attempts: list[list[dict[str, Any]]], scheduler: str, told: str
) -> None:
    airflow = Airflow(tmp_path / "airflow")
    log = airflow.home / "logs" / f"dag_id={LINK_DAG}" / f"run_id={RUN}" / "task_id=wait_for_decision"
    log.mkdir(parents=True)
    for number, lines in enumerate(attempts, 1):
        (log / f"attempt={number}.log").write_text("not JSON\n" + "\n".join(map(json.dumps, lines)))
    (tmp_path / "airflow.log").write_text(f"[info] fine\n{scheduler}\n")
    assert airflow.error_of(task("failed")).startswith(told)


def test_other_child_processes_are_not_ended(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"]) as other:
        try:
            before = set(psutil.Process().children(recursive=True))
            with Processes(tmp_path) as processes:
                processes.start("own", ["sh", "-c", "sleep 300 & sleep 300"], dict(os.environ))
                wait_until(lambda: len(set(psutil.Process().children(recursive=True)) - before) == 3)
            assert other.poll() is None
            assert set(psutil.Process().children(recursive=True)) <= before
        finally:
            other.kill()
