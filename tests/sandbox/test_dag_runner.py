# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tests of the fixture `faceki_run_dag` with a DAG from a file, from a module, and from the test itself."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.dag_runner import DagError
from airflow_provider_faceki.sandbox.pytest_plugin import RunDag

DAG_FILE = """
from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_faceki.sensors.faceki import FacekiKycDecisionSensor
from number import NUMBER

for name in ("onboarding", "other"):
    with DAG(name, schedule=None):
        FacekiKycDecisionSensor(
            task_id="wait", link="{{ dag_run.conf['link'] }}", poke_interval=NUMBER, timeout=30, deferrable=True
        )
"""


@pytest.fixture
def dag_file(tmp_path: Path) -> Path:
    (tmp_path / "number.py").write_text("NUMBER = 1\n")
    path = tmp_path / "onboarding.py"
    path.write_text(DAG_FILE)
    return path


def test_a_dag_of_a_file(faceki_sandbox: FacekiSandbox, faceki_run_dag: RunDag, dag_file: Path) -> None:
    link = faceki_sandbox.create_link("order-7")
    faceki_sandbox.decide(link, "ACCEPTED")
    run = faceki_run_dag(dag_file, "onboarding", conf={"link": link})
    assert (run.state, run.states) == ("success", {"wait": "success"})
    assert run.xcom("wait")["decision"] == "ACCEPTED"
    with pytest.raises(KeyError, match="no XCom 'nothing' of task 'wait'; there are"):
        run.xcom("wait", "nothing")


def test_a_dag_of_a_module(faceki_sandbox: FacekiSandbox, faceki_run_dag: RunDag, dag_file: Path) -> None:
    module = types.ModuleType("onboarding")
    module.__file__ = str(dag_file)
    link = faceki_sandbox.create_link("order-7")
    faceki_sandbox.end_link(link, "expired")
    run = faceki_run_dag(module, "other", conf={"link": link})
    assert (run.state, run.states) == ("failed", {"wait": "failed"})


def test_a_dag_of_the_test(faceki_sandbox: FacekiSandbox, faceki_run_dag: RunDag) -> None:
    from airflow.providers.common.compat.sdk import dag, task

    @dag(schedule=None)
    def squares() -> None:
        @task
        def square(number: int) -> int:
            return number * number

        square.expand(number=[1, 2, 3])

    for _ in range(2):
        run = faceki_run_dag(squares)
        assert run.states == {f"square[{index}]": "success" for index in range(3)}
        assert run.tries == {f"square[{index}]": 1 for index in range(3)}
        assert [run.xcom(f"square[{index}]") for index in range(3)] == [1, 4, 9]


def test_the_home_is_thrown_away(faceki_run_dag: RunDag, tmp_path_factory: pytest.TempPathFactory) -> None:
    from airflow import configuration, settings

    home = os.environ["AIRFLOW_HOME"]
    assert home == configuration.AIRFLOW_HOME
    assert Path(home).is_relative_to(tmp_path_factory.getbasetemp())
    assert home in str(settings.SQL_ALCHEMY_CONN)


def test_the_airflow_settings_are_restored(airflow_home: Path) -> None:
    from airflow import configuration, settings

    assert os.environ["AIRFLOW_HOME"] == str(airflow_home) == configuration.AIRFLOW_HOME
    assert str(airflow_home) in str(settings.SQL_ALCHEMY_CONN)
    assert str(airflow_home) not in sys.path


def test_a_dag_that_is_not_there(faceki_run_dag: RunDag, dag_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('of the file')  # airflow dag\n")
    cases: list[tuple[Any, str]] = [
        (dag_file, "found dag_id None, allowed in .* is one of .'onboarding', 'other'."),
        (tmp_path / "nothing.py", "there is no file"),
        (broken, "(?s)cannot be imported.*of the file"),
        (7, "found int, allowed is a DAG"),
    ]
    for source, message in cases:
        with pytest.raises(DagError, match=message):
            faceki_run_dag(source)
