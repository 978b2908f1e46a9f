# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A group of webhooks costs few database queries. Although query results are cached, a group sees its own new rows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_faceki.api.protocol.webhook import WebhookNotification, parse_webhook
from airflow_provider_faceki.api.service import Service
from airflow_provider_faceki.assets import faceki_verifications
from airflow_provider_faceki.webhook.events import Outcome, _cached_reads, store_events
from tests.airflow.running import AIRFLOW_3, HAS_PARTITIONS
from tests.webhook.served import webhook_body

pytestmark = pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 receives no webhooks")

GROUP = 20
#: Queries for each further event: three rows are written, the partition is looked up, and the asset is locked.
MAX_QUERIES_PER_EVENT = 5
LIMIT = 1_000_000


def _notification(request_id: str = "", status: str = "ACCEPTED") -> WebhookNotification:
    return parse_webhook(
        json.dumps(webhook_body(request_id, status)).encode(), Service("https://faceki.example")
    )


@contextmanager
def _counted_queries() -> Iterator[list[str]]:
    from airflow import settings
    from sqlalchemy import event

    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *more: object) -> None:
        found.append(statement)

    event.listen(settings.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(settings.engine, "before_cursor_execute", note)


@pytest.mark.parametrize("conn_id", ["faceki_default", "faceki_plain", "faceki_mixed"])
def test_a_further_event_of_a_group_costs_few_queries(listening: Path, conn_id: str) -> None:
    with _counted_queries() as one:
        assert store_events(conn_id, [_notification()], LIMIT) == [Outcome.STORED]
    with _counted_queries() as many:
        stored = store_events(conn_id, [_notification() for _ in range(1 + GROUP)], LIMIT)
    assert stored == [Outcome.STORED] * (1 + GROUP)
    # Before Airflow 3.2 this asset starts two DAGs by plain events, and Airflow needs three statements for each DAG.
    more = 3 if conn_id == "faceki_mixed" and not HAS_PARTITIONS else 0
    assert len(many) - len(one) <= GROUP * (MAX_QUERIES_PER_EVENT + more), "\n".join(many[:40])


@pytest.mark.skipif(not HAS_PARTITIONS, reason="there are no partitions before Airflow 3.2")
def test_two_statuses_of_one_verification_in_a_group_start_one_run(listening: Path) -> None:
    from airflow.models.asset import AssetPartitionDagRun
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    request_id = str(uuid.uuid4())
    both = [_notification(request_id, status) for status in ("REVIEW", "ACCEPTED")]
    assert store_events("faceki_default", both, LIMIT) == [Outcome.STORED] * 2
    with create_session() as session:
        query = select(func.count()).where(AssetPartitionDagRun.partition_key == request_id)
        assert session.scalar(query) == 1


def test_events_that_tasks_create_use_up_no_limit(listening: Path) -> None:
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    with create_session() as session:
        asset_id = session.scalar(
            select(AssetModel.id).where(AssetModel.uri == faceki_verifications("faceki_plain").uri)
        )
        assert asset_id is not None
        # Another test has possibly stored events, so the limit of this test is relative to the events of the last 24
        # hours.
        webhooks = select(func.count()).where(
            AssetEvent.asset_id == asset_id,
            AssetEvent.source_task_id.is_(None),
            AssetEvent.timestamp >= datetime.now(UTC) - timedelta(days=1),
        )
        stored = session.scalar(webhooks) or 0
        for number in range(3):
            session.add(
                AssetEvent(
                    asset_id=asset_id,
                    extra={"request_id": str(uuid.uuid4()), "status": "ACCEPTED"},
                    source_task_id="announce",
                    source_dag_id="example_faceki_reconcile",
                    source_run_id="manual",
                    source_map_index=number,
                )
            )
    outcomes = store_events("faceki_plain", [_notification() for _ in range(2)], stored + 1)
    assert outcomes == [Outcome.STORED, Outcome.OVER_LIMIT]


def test_the_next_transaction_reads_again(listening: Path) -> None:
    """Groups on one thread share a database session, so cached results of one group must not be used for the next."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    def pause(is_paused: bool) -> None:
        with create_session() as session:
            session.execute(update(DagModel).where(DagModel.dag_id == "plain").values(is_paused=is_paused))

    outcomes = []
    for is_paused in (False, True, False):
        pause(is_paused)
        outcomes += store_events("faceki_plain", [_notification()], LIMIT)
    assert outcomes == [Outcome.STORED, Outcome.NO_SCHEDULED_DAG, Outcome.STORED]


def test_the_latest_event_is_the_last_stored_despite_clock_skew(listening: Path) -> None:
    """The clock of the API server that stored the first event is 30 seconds ahead."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import func, select, update

    def store(status: str) -> list[Outcome]:
        return store_events("faceki_plain", [_notification(request_id, status)], LIMIT)

    request_id = str(uuid.uuid4())
    assert store("REVIEW") == [Outcome.STORED]
    with create_session() as session:
        last, timestamp = session.execute(
            select(AssetEvent.id, AssetEvent.timestamp).order_by(AssetEvent.id.desc()).limit(1)
        ).one()
        ahead = timestamp + timedelta(seconds=30)
        session.execute(update(AssetEvent).where(AssetEvent.id == last).values(timestamp=ahead))
        count = session.scalars(select(func.count(AssetEvent.id))).one()
    assert store("ACCEPTED") + store("REVIEW") == [Outcome.STORED] * 2
    with create_session() as session:
        assert session.scalars(select(func.count(AssetEvent.id))).one() == count + 2


def test_rows_that_are_read_by_their_key_are_not_mixed_up(listening: Path) -> None:
    from airflow.models.asset import AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        ids = session.scalars(select(AssetModel.id)).all()
    with create_session() as session, _cached_reads(session):
        found = [session.get(AssetModel, each) for each in ids]
        assert [asset and asset.id for asset in found] == ids
        for asset in found:
            session.expire(asset)
        assert [asset and asset.id for asset in found] == ids
