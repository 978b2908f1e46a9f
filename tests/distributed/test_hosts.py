# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Mapped tasks on two workers and waits in two triggerers, one of which is killed: all end right, with one token."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass

import pytest

from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.distributed.cluster import ENDED, TRIGGERERS
from tests.distributed.dags.hosts import FETCHED, WAITED
from tests.distributed.site import FAST_SECONDS, Site

pytestmark = pytest.mark.airflow

#: People whose decision is made before a triggerer is killed, while it is dead, and after the other one has taken over.
BEFORE, MEANWHILE, AFTER = WAITED[:3], WAITED[3:8], WAITED[8:]
DECISIONS = ("ACCEPTED", "DECLINED")


@dataclass(frozen=True)
class Scene:
    """What was seen while the waits were in the triggerers."""

    run: DagResult
    #: Number of waits of each triggerer before one of them was killed.
    shared: Counter[str]


def _decision(person: str) -> str:
    return DECISIONS[WAITED.index(person) % 2]


@pytest.fixture(scope="module")
def scene(site: Site) -> Scene:
    """The finished run."""
    site.slow_down(FAST_SECONDS)
    cluster, control = site.cluster, site.faceki.control

    def decide(people: list[str]) -> None:
        for person in people:
            control.post("records", record_identifier=person, decision=_decision(person))

    for person in FETCHED:
        control.post("records", record_identifier=person)
    run = cluster.begin("hosts", {})
    cluster.wait("all to wait", lambda: Counter(run.states.values())["deferred"] == len(WAITED))
    cluster.wait("all to be in a triggerer", lambda: sum(_shared(site).values()) == len(WAITED))
    shared = _shared(site)
    decide(BEFORE)
    busiest = shared.most_common(1)[0][0]
    cluster.end(busiest, signal.SIGKILL)
    decide(MEANWHILE)
    cluster.wait("another one to take over", lambda: Counter(run.states.values())["deferred"] <= len(AFTER))
    decide(AFTER)
    cluster.wait("all to end", lambda: run.state in ENDED)
    cluster.start(busiest)
    return Scene(run, shared)


def _shared(site: Site) -> Counter[str]:
    found = site.cluster.rows(
        "SELECT j.hostname, count(*) FROM trigger t JOIN job j ON j.id = t.triggerer_id GROUP BY j.hostname"
    )
    return Counter(dict(found))


def test_both_triggerers_had_waits(scene: Scene) -> None:
    assert set(scene.shared) == set(TRIGGERERS)
    assert sum(scene.shared.values()) == len(WAITED)


def test_every_wait_ends_with_the_right_decision(scene: Scene) -> None:
    assert Counter(scene.run.states.values()) == {"success": len(FETCHED) + len(WAITED)}
    told = {person: scene.run.xcom(f"wait[{number}]")["decision"] for number, person in enumerate(WAITED)}
    assert told == {person: _decision(person) for person in WAITED}


def test_both_workers_had_tasks(scene: Scene, site: Site) -> None:
    found = site.cluster.rows(
        "SELECT DISTINCT hostname FROM task_instance WHERE dag_id = 'hosts' AND task_id = 'fetch'"
    )
    assert len(found) == 2


def test_all_hosts_have_used_one_token(scene: Scene, site: Site) -> None:
    """All tasks and waits of all tests on all hosts share the token on S3."""
    assert site.counters["requests"]["records"] >= len(FETCHED) + len(WAITED)
    assert site.counters["tokens_issued"] == 1
