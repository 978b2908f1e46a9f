# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Result, timeout and soft_fail have the same meaning in all three modes of the sensor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki.sandbox import FacekiSandbox
from airflow_provider_faceki.sandbox.dag_runner import DagResult
from tests.airflow.conftest import FEW_ATTEMPTS
from tests.airflow.running import DAGS, HAS_STATE_STORE, bundles, run

pytestmark = pytest.mark.long

MODES = ("poke", "reschedule", "deferred")
#: Outcome -> the decision in XCom.
GOOD = {"accepted": "ACCEPTED", "late": "ACCEPTED", "review_returned": "REVIEW", "borne": "ACCEPTED"}
#: Outcome -> the state without and with soft_fail. An empty text means that there is no such sensor.
BAD = {
    "declined_fails": ("failed", "skipped"),
    "never": ("failed", "skipped"),
    "review_awaited": ("failed", ""),
    "expired_link": ("failed", "skipped"),
    "wrong_secret": ("failed", "skipped"),
    # Like Airflow's own sensors, this sensor does not skip a failure that a retry can resolve, even with soft_fail.
    "not_borne": ("failed", "failed"),
}
ENDS = [(outcome, soft) for outcome, ends in BAD.items() for soft in (False, True) if ends[soft]]
DECISIONS = {"declined_fails": "DECLINED", "review_returned": "REVIEW", "review_awaited": "REVIEW"}
#: Faults that the sandbox applies before it shows the record.
FAULTS: dict[str, list[dict[str, Any]]] = {
    "late": [{"kind": "code", "code": 8013}],
    "borne": [{"kind": "status", "status": 503}, {"kind": "reset_after_body"}],
    # A poking sensor fails at the second failure. Before a deferred sensor gives up, it polls once more itself, so
    # three failures are necessary.
    "not_borne": [{"kind": "status", "status": 503, "count": 3}],
}


def _set_outcomes(sandbox: FacekiSandbox) -> dict[str, str]:
    """Prepare the outcome of each task of the DAG; return the links of the tasks that wait by link."""
    links = {}
    for mode, (outcome, soft) in product(MODES, [*((good, False) for good in GOOD), *ENDS]):
        name = named(outcome, mode, soft=soft)
        if outcome == "expired_link":
            links[name] = sandbox.create_link(name)
            sandbox.end_link(links[name], "expired")
        elif outcome != "never":
            sandbox.add_record(name, DECISIONS.get(outcome, "ACCEPTED"))
        for fault in FAULTS.get(outcome, ()):
            sandbox.add_fault(**fault, route="records", record_identifier=name)
    return links


def named(outcome: str, mode: str, *, soft: bool = False) -> str:
    """Return the id of a task, which is also the identifier that it waits for."""
    return f"{outcome}-{mode}-{'soft' if soft else 'hard'}"


@pytest.fixture(scope="module")
def ended(airflow_db: Path) -> Iterator[tuple[DagResult, FacekiSandbox, dict[str, str]]]:
    """The finished run, the sandbox that it used, and the links in its conf."""
    with FacekiSandbox() as sandbox, pytest.MonkeyPatch.context() as patch:
        right = sandbox.connection(**FEW_ATTEMPTS)
        wrong = {**right, "password": "not-the-secret-at-all"}
        patch.setenv("AIRFLOW_CONN_FACEKI_DEFAULT", json.dumps(right))
        patch.setenv("AIRFLOW_CONN_FACEKI_WRONG", json.dumps(wrong))
        for name, value in bundles(DAGS).items():
            patch.setenv(name, value)
        links = _set_outcomes(sandbox)
        yield run(airflow_db, DAGS, "sensor_modes", **links), sandbox, links


@pytest.fixture
def waited(ended: tuple[DagResult, FacekiSandbox, dict[str, str]]) -> tuple[DagResult, FacekiSandbox]:
    """The finished run, and the sandbox that it used."""
    return ended[:2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("outcome", GOOD)
def test_same_result(waited: tuple[DagResult, FacekiSandbox], outcome: str, mode: str) -> None:
    done, _ = waited
    name = named(outcome, mode)
    assert done.states[name] == "success"
    summary = done.xcom(name)
    assert (summary["record_identifier"], summary["decision"]) == (name, GOOD[outcome])
    assert {"request_id", "link", "error_codes", "verification_summary", "created_at"} <= set(summary)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("outcome", "soft"), ENDS)
def test_same_end(waited: tuple[DagResult, FacekiSandbox], outcome: str, soft: bool, mode: str) -> None:
    done, _ = waited
    name = named(outcome, mode, soft=soft)
    if outcome == "not_borne" and mode == "reschedule" and not HAS_STATE_STORE:
        # This is documented: no state survives between the pokes of this sensor, so all failures are tolerated.
        assert done.states[name] == "success"
        return
    assert done.states[name] == BAD[outcome][soft]
    with pytest.raises(KeyError):
        done.xcom(name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("outcome", ["never", "review_awaited"])
def test_same_timeout(waited: tuple[DagResult, FacekiSandbox], outcome: str, mode: str) -> None:
    _, sandbox = waited
    looks = sandbox.polls(record_identifier=named(outcome, mode))
    # The sensor did not give up after the first poll, and it polled once more when the time was over.
    assert len(looks) >= 2


@pytest.mark.parametrize("mode", MODES)
def test_a_dead_link_is_not_waited_for(
    ended: tuple[DagResult, FacekiSandbox, dict[str, str]], mode: str
) -> None:
    # The link is read from the conf and not from the rendered fields. In the rendered fields, Airflow 2.11 masks each
    # value that any test has registered for masking.
    _, sandbox, links = ended
    assert len(sandbox.polls(link=links[named("expired_link", mode)])) == 1
