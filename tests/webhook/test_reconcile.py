# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Events that the reconciling example reads and emits. test_whole.py tests its whole run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tests.airflow.running import AIRFLOW_3, EXAMPLES, load

pytestmark = pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 receives no webhooks")

ONE, OTHER, THIRD = (f"973f1bb2-c4a6-424c-ae61-d220202b061{number}" for number in range(3))
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Events:
    """Stand-in for Airflow's events of an asset. :meth:`after` records the time, but does not filter the events."""

    def __init__(self, *said: tuple[str, str]) -> None:
        self.said = said
        self.since: datetime | None = None

    def after(self, moment: str) -> Events:
        self.since = datetime.fromisoformat(moment)
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(
            SimpleNamespace(extra={"request_id": each, "status": status}) for each, status in self.said
        )


class Inlets:
    """Stand-in for the events of all assets. It is not a dictionary, because an asset has no hash in Airflow 3.1."""

    def __init__(self, asset: object, events: object) -> None:
        self.of = asset, events

    def __getitem__(self, asset: object) -> object:
        assert asset == self.of[0]
        return self.of[1]


def record(request_id: str, decision: str | None, created_at: datetime | None = NOON) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "decision": decision,
        "created_at": created_at.isoformat() if created_at else None,
    }


def missed(airflow_db: object, fetched: list[list[dict[str, Any]]], events: Any) -> list[tuple[str, str]]:
    dag = load(EXAMPLES, "example_faceki_reconcile")
    asset = dag.get_task("missed").inlets[0]
    found = dag.get_task("missed").python_callable(fetched, inlet_events=Inlets(asset, events))
    return [(each["request_id"], each["status"]) for each in found]


def test_decisions_without_an_event_are_reported(airflow_db: object) -> None:
    fetched = [[record(ONE, "ACCEPTED")], [], [record(OTHER, "REVIEW"), record(THIRD, "DECLINED")]]
    events = Events((ONE, "ACCEPTED"), (OTHER, "ACCEPTED"))
    assert missed(airflow_db, fetched, events) == [(OTHER, "REVIEW"), (THIRD, "DECLINED")]


def test_a_record_without_a_decision_is_not_reported(airflow_db: object) -> None:
    assert missed(airflow_db, [[record(ONE, None)], [record(OTHER, "")]], Events()) == []


def test_missed_decisions_are_normalized_like_webhooks(airflow_db: object) -> None:
    fetched = [[record(ONE.upper(), "FROZEN")]]
    assert missed(airflow_db, fetched, Events()) == [(ONE, "OTHER")]
    assert missed(airflow_db, fetched, Events((ONE, "OTHER"))) == []


def test_only_events_since_the_oldest_open_case_are_read(airflow_db: object) -> None:
    events = Events()
    ages = (3, 40, 0)
    fetched = [
        [record(each, "REVIEW", NOON - timedelta(days=age))]
        for each, age in zip((ONE, OTHER, THIRD), ages, strict=True)
    ]
    missed(airflow_db, fetched, events)
    assert events.since == NOON - timedelta(days=41)


@pytest.mark.parametrize(
    "events", [Events(), [SimpleNamespace(extra={})]], ids=["no time told", "an Airflow without"]
)
def test_all_events_are_read_if_their_start_is_unknown(airflow_db: object, events: Any) -> None:
    created_at = None if isinstance(events, Events) else NOON
    assert missed(airflow_db, [[record(ONE, "REVIEW", created_at)]], events) == [(ONE, "REVIEW")]
    assert getattr(events, "since", None) is None
