# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Mapped tasks on two workers and waits in two triggerers, one of which is killed: all end right, with one token.

Runs of `example_faceki_kyc_link` also wait in these triggerers.
"""

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

#: Persons whose decision is made before one triggerer is killed, after it was killed, and after the other triggerer has
#: taken over the waits.
BEFORE, MEANWHILE, AFTER = WAITED[:3], WAITED[3:8], WAITED[8:]
DECISIONS = ("ACCEPTED", "DECLINED")
#: The decision about each person with a link, and the task that follows it.
LINKED = {
    "linked-accepted": ("ACCEPTED", "welcome"),
    "linked-declined": ("DECLINED", "decline"),
    "linked-escalated": ("ESCALATED", "ask_a_person"),
}
WAITS = len(WAITED) + len(LINKED)
KNOWN = [person for people in FETCHED.values() for person in people]


@dataclass(frozen=True)
class Scenario:
    """The finished runs, and how their waits were distributed over the triggerers."""

    run: DagResult
    #: The run of the example for each person with a link.
    linked: dict[str, DagResult]
    #: Number of waits of each triggerer before one of them was killed.
    shared: Counter[str]


def _decision(person: str) -> str:
    return DECISIONS[WAITED.index(person) % 2]


@pytest.fixture(scope="module")
def scenario(site: Site) -> Scenario:
    """The finished run."""
    site.slow_down(FAST_SECONDS)
    cluster, control = site.cluster, site.faceki.control

    def decide(people: list[str]) -> None:
        for person in people:
            control.post("records", record_identifier=person, decision=_decision(person))

    for person in KNOWN:
        control.post("records", record_identifier=person)
    begun = [("example_faceki_kyc_link", {"record_identifier": person}) for person in LINKED]
    run, *runs = cluster.begin_all(("hosts", {}), *begun)
    linked = dict(zip(LINKED, runs, strict=True))
    cluster.wait("all to wait", lambda: sum(_deferred(each) for each in (run, *runs)) == WAITS)
    cluster.wait("all to be in a triggerer", lambda: sum(_shared(site).values()) == WAITS)
    shared = _shared(site)
    decide(BEFORE)
    busiest = shared.most_common(1)[0][0]
    cluster.end(busiest, signal.SIGKILL)
    decide(MEANWHILE)
    for person, (decision, _) in LINKED.items():
        control.post("decide", link=linked[person].xcom("make_link")["link"], decision=decision)
    cluster.wait("another one to take over", lambda: _deferred(run) <= len(AFTER))
    decide(AFTER)
    cluster.wait("all to end", lambda: all(each.state in ENDED for each in (run, *runs)))
    cluster.start(busiest)
    return Scenario(run, linked, shared)


def _deferred(run: DagResult) -> int:
    return Counter(run.states.values())["deferred"]


def _shared(site: Site) -> Counter[str]:
    found = site.cluster.rows(
        "SELECT j.hostname, count(*) FROM trigger t JOIN job j ON j.id = t.triggerer_id GROUP BY j.hostname"
    )
    return Counter(dict(found))


def test_both_triggerers_had_waits(scenario: Scenario) -> None:
    assert set(scenario.shared) == set(TRIGGERERS)
    assert sum(scenario.shared.values()) == WAITS


def test_every_wait_ends_with_the_right_decision(scenario: Scenario) -> None:
    assert Counter(scenario.run.states.values()) == {"success": len(KNOWN) + len(WAITED)}
    told = {person: scenario.run.xcom(f"wait[{number}]")["decision"] for number, person in enumerate(WAITED)}
    assert told == {person: _decision(person) for person in WAITED}


@pytest.mark.parametrize("person", LINKED)
def test_every_link_ends_with_the_right_decision(scenario: Scenario, person: str) -> None:
    run, (decision, followed) = scenario.linked[person], LINKED[person]
    assert run.state == "success", run.states
    assert run.xcom("wait_for_decision")["decision"] == decision
    ran = {task for task in ("welcome", "decline", "ask_a_person") if run.states[task] == "success"}
    assert ran == {followed}


def test_both_workers_had_tasks(scenario: Scenario, site: Site) -> None:
    found = site.cluster.rows(
        "SELECT task_id, hostname, count(*) FROM task_instance"
        " WHERE dag_id = 'hosts' AND task_id LIKE %s GROUP BY task_id, hostname",
        "fetch_on_%",
    )
    assert set(found) == {(f"fetch_on_{worker}", worker, len(people)) for worker, people in FETCHED.items()}


def test_all_hosts_have_used_one_token(scenario: Scenario, site: Site) -> None:
    """All tasks and waits of all tests on all hosts share the token on S3."""
    assert site.counters["requests"]["records"] >= len(KNOWN) + len(WAITED)
    assert site.counters["tokens_issued"] == 1
