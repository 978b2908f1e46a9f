# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A triggerer with many waits is killed (``kill -9``) and started again: no wait and no decision is lost."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki.sandbox import SandboxProcess
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.running import AIRFLOW_3, bundles
from tests.airflow.whole_airflow import WholeAirflow
from tests.triggerer.dags.many_waits import PEOPLE

# On Airflow 2.11, the only executor for SQLite starts one task after another and needs five seconds for each. There,
# tests/airflow/test_real_run.py tests one wait during which the triggerer dies.
pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2.11 would take minutes to begin so many waits"),
]

DAGS = Path(__file__).parent / "dags"
DECISIONS = ("ACCEPTED", "DECLINED")
#: People whose decision is made before the triggerer is killed, while it is dead, and after a new one has taken over.
BEFORE, MEANWHILE, AFTER = PEOPLE[:7], PEOPLE[7:17], PEOPLE[17:]
ENDED = {"success", "failed"}


@dataclass(frozen=True)
class Scenario:
    run: DagResult
    counters: dict[str, Any]
    #: States of the waits when the triggerer died, and the number of polls that FACEKI received while it was dead.
    at_death: Counter[str]
    polls_while_dead: int


def decision(person: str) -> str:
    return DECISIONS[PEOPLE.index(person) % 2]


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    folder = tmp_path_factory.mktemp("waits")
    with SandboxProcess() as faceki:
        environment = {
            **bundles(DAGS),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW_CONN_FACEKI_DEFAULT": json.dumps(faceki.connection()),
        }
        with WholeAirflow(folder / "home", environment) as airflow:
            yield _run_scenario(airflow, faceki)


def _run_scenario(airflow: WholeAirflow, faceki: SandboxProcess) -> Scenario:
    def decide(people: list[str]) -> None:
        for person in people:
            faceki.control.post("records", record_identifier=person, decision=decision(person))

    def polls() -> int:
        counters: Any = faceki.control.get("counters")
        return int(counters["requests"]["records"])

    run = airflow.run("many_waits", "once")
    airflow.wait_until_ready("many_waits")
    airflow.tell(("dags", "unpause", "many_waits"), airflow.trigger("many_waits", "once", {}))
    airflow.wait("all to wait", lambda: Counter(run.states.values())["deferred"] == len(PEOPLE))
    airflow.wait_for_ended_processes()
    decide(BEFORE)
    airflow.end("triggerer", signal.SIGKILL)
    at_death, seen = Counter(run.states.values()), polls()
    decide(MEANWHILE)
    # This is longer than the longest pause between two polls of a running wait.
    time.sleep(5)
    polls_while_dead = polls() - seen
    airflow.start("triggerer")
    airflow.wait("another one to take over", lambda: Counter(run.states.values())["deferred"] <= len(AFTER))
    decide(AFTER)
    airflow.wait("all to end", lambda: run.state in ENDED)
    return Scenario(run, dict(faceki.control.get("counters")), at_death, polls_while_dead)  # type: ignore[call-overload]


def test_the_triggerer_was_killed_with_the_waits_in_it(scenario: Scenario) -> None:
    assert scenario.at_death["deferred"] >= len(MEANWHILE) + len(AFTER)
    assert scenario.polls_while_dead <= sum(scenario.at_death.values()) - scenario.at_death["deferred"]


def test_every_wait_ends_with_the_right_decision(scenario: Scenario) -> None:
    assert Counter(scenario.run.states.values()) == {"success": len(PEOPLE)}
    told = {person: scenario.run.xcom(f"wait[{number}]")["decision"] for number, person in enumerate(PEOPLE)}
    assert told == {person: decision(person) for person in PEOPLE}


def test_all_waits_used_one_token(scenario: Scenario) -> None:
    assert scenario.counters["tokens_issued"] == 1
