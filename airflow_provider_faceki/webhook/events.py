# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Store webhook notifications as asset events, each once.

Events go through Airflow's own asset manager, in the API server's session. A transaction begins by locking the asset's
row: between the look for an earlier event and the write no other thread, process or machine can write one. On SQLite
that is the lock for writing, and having it from the start also keeps Airflow's manager from rolling back and going on
without the event when it does not get that lock itself. Commits and that lock are what a burst waits for, so
notifications that wait are stored in one transaction.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_faceki.assets import faceki_verifications

if TYPE_CHECKING:
    from airflow.models.asset import AssetModel
    from airflow.models.dag import DagModel
    from sqlalchemy.orm import Session

    from airflow_provider_faceki.api.protocol.webhook import WebhookNotification

log = logging.getLogger(__name__)

#: SQLite's lock is waited for as long as this; less than the receiver gives the whole.
LOCK_TIMEOUT_SECONDS = 20.0
#: An event has to be stored within this time. Long: a sender that has gone by then has still been heard.
STORE_TIMEOUT_SECONDS = 60.0
#: The latest event of a verification, said again within this time, is no news.
REPEAT_WINDOW = timedelta(days=1)
#: Notifications in one transaction. It locks the asset, so other API servers wait for its end.
MAX_GROUP_SIZE = 50


class Outcome(StrEnum):
    """What became of a notification."""

    STORED = "stored"
    #: The latest event of the verification says the same.
    REPEATED = "repeated"
    #: Not stored: no DAG that could run is scheduled on the asset, so the event would start nothing.
    NO_SCHEDULED_DAG = "no scheduled DAG"
    #: Not stored: the asset had as many events in the last 24 hours as the Connection allows.
    OVER_LIMIT = "over limit"


#: Stores notifications of one Connection in one transaction, at most so many in 24 hours, and returns their outcomes.
StoreEvents = Callable[[str, Sequence["WebhookNotification"], int], Sequence[Outcome]]


@dataclass(frozen=True, slots=True)
class _Pending:
    conn_id: str
    notification: WebhookNotification
    max_per_day: int
    outcome: asyncio.Future[Outcome]


class EventWriter:
    """Stores the notifications of one process, those that wait together. Belongs to one event loop.

    :param store: Stores a group; runs in a thread.
    """

    def __init__(self, store: StoreEvents) -> None:
        self._store = store
        # One thread: the database lets one write at a time, and a queue is fairer than its lock.
        self._thread = ThreadPoolExecutor(1, "faceki-webhook-writer")
        self._waiting: deque[_Pending] = deque()
        self._draining: asyncio.Task[None] | None = None

    async def write(self, conn_id: str, notification: WebhookNotification, max_per_day: int) -> Outcome:
        """Return when the notification is committed.

        :raises TimeoutError: it may still be stored, which does no harm.
        :raises Exception: what the store raised.
        """
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Pending(conn_id, notification, max_per_day, outcome))
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        await asyncio.wait({outcome}, timeout=STORE_TIMEOUT_SECONDS)
        if not outcome.done():
            outcome.cancel()
            raise TimeoutError
        return outcome.result()

    async def _drain(self) -> None:
        try:
            while group := self._next_group():
                await self._store_group(group)
        finally:
            self._draining = None

    def _next_group(self) -> list[_Pending]:
        """Take the first that waits, and those of the same Connection, in their order."""
        live = [each for each in self._waiting if not each.outcome.cancelled()]
        group = [each for each in live if each.conn_id == live[0].conn_id][:MAX_GROUP_SIZE]
        taken = {id(each) for each in group}
        self._waiting = deque(each for each in live if id(each) not in taken)
        return group

    async def _store_group(self, group: list[_Pending]) -> None:
        conn_id, notifications = group[0].conn_id, [each.notification for each in group]
        loop = asyncio.get_running_loop()
        limit = group[-1].max_per_day
        storing = loop.run_in_executor(self._thread, self._store, conn_id, notifications, limit)
        await asyncio.wait({storing})
        error = storing.exception()
        outcomes = storing.result() if error is None else [None] * len(group)
        for pending, outcome in zip(group, outcomes, strict=True):
            if pending.outcome.cancelled():
                continue
            if outcome is not None:
                pending.outcome.set_result(outcome)
            elif error is not None:
                pending.outcome.set_exception(error)


def referenced_conn_ids() -> frozenset[str]:
    """Return the ids of the Connections whose asset a DAG names. For any other nothing would be stored anyway."""
    from airflow.models.asset import AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    before, after = faceki_verifications("_").uri.split("_")
    with create_session() as session:
        uris = session.scalars(select(AssetModel.uri).where(AssetModel.uri.like(f"{before}%{after}"))).all()
    return frozenset(uri.removeprefix(before).removesuffix(after) for uri in uris)


def store_events(
    conn_id: str, notifications: Sequence[WebhookNotification], max_per_day: int
) -> list[Outcome]:
    """Store these events in one transaction, but those that say the same as the latest of their verification."""
    from sqlalchemy.exc import OperationalError

    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            return _store_in_transaction(conn_id, notifications, max_per_day)
        except OperationalError as error:
            # SQLite does not queue writers that wait for its lock: under load the same one may lose every time.
            if "database is locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.0, 0.1))  # noqa: S311 - guards nothing


def _store_in_transaction(
    conn_id: str, notifications: Sequence[WebhookNotification], max_per_day: int
) -> list[Outcome]:
    from airflow.utils.session import create_session

    with create_session() as session:
        asset = _lock_asset(session, faceki_verifications(conn_id).uri)
        if asset is None:
            return [Outcome.NO_SCHEDULED_DAG] * len(notifications)
        listeners = _scheduled_dags(session, asset)
        latest = _latest_statuses(session, asset, notifications)
        left = max_per_day - _count_of_a_day(session, asset)
        outcomes = []
        for notification in notifications:
            if latest.get(notification.request_id) == notification.status:
                outcome = Outcome.REPEATED
            elif left <= 0:
                outcome = Outcome.OVER_LIMIT
            else:
                outcome = _register(session, asset, listeners, notification)
            if outcome is Outcome.STORED:
                latest[notification.request_id] = notification.status
                left -= 1
            outcomes.append(outcome)
    if Outcome.STORED in outcomes:
        _warn_of_plain_schedules(conn_id, listeners)
    return outcomes


def _register(
    session: Session, asset: AssetModel, listeners: Sequence[DagModel], notification: WebhookNotification
) -> Outcome:
    from airflow.assets.manager import asset_manager

    if not listeners:
        return Outcome.NO_SCHEDULED_DAG
    # Airflow queues an event with a key for partitioned DAGs only, one without a key for the others only.
    key = notification.request_id if any(map(_is_partitioned, listeners)) else None
    event = asset_manager.register_asset_change(
        asset=asset, extra=notification.extra, partition_key=key, session=session
    )
    return Outcome.NO_SCHEDULED_DAG if event is None else Outcome.STORED


def _is_partitioned(dag: DagModel) -> bool:
    return bool(getattr(dag, "timetable_partitioned", False))


_warned: set[tuple[str, ...]] = set()


def _warn_of_plain_schedules(conn_id: str, listeners: Sequence[DagModel]) -> None:
    plain = sorted(dag.dag_id for dag in listeners if not _is_partitioned(dag))
    if 0 < len(plain) < len(listeners) and (conn_id, *plain) not in _warned:
        _warned.add((conn_id, *plain))
        log.warning(
            "Webhooks for %r do not start %s: Airflow does not combine partitioned and plain schedules on one asset",
            conn_id,
            ", ".join(plain),
        )


def _lock_asset(session: Session, uri: str) -> AssetModel | None:
    from airflow.models.asset import AssetModel
    from sqlalchemy import select, update

    this = (AssetModel.name == uri) & (AssetModel.uri == uri)
    # Changes nothing, but locks the row. updated_at is named because it would be set to now if it were not.
    session.execute(
        update(AssetModel).where(this).values(updated_at=AssetModel.updated_at),
        execution_options={"synchronize_session": False},
    )
    return session.scalar(select(AssetModel).where(this))


def _latest_statuses(
    session: Session, asset: AssetModel, notifications: Sequence[WebhookNotification]
) -> dict[str, Any]:
    """Return what the latest event of each of these verifications says, in one query."""
    from airflow.models.asset import AssetEvent
    from sqlalchemy import JSON, select, type_coerce

    # Not by partition key: it is not there before Airflow 3.2, nor with a plain schedule.
    request_id = type_coerce(AssetEvent.extra, JSON)["request_id"].as_string()
    found = session.scalars(
        select(AssetEvent.extra)
        .where(
            AssetEvent.asset_id == asset.id,
            AssetEvent.timestamp > datetime.now(UTC) - REPEAT_WINDOW,
            request_id.in_({each.request_id for each in notifications}),
        )
        .order_by(AssetEvent.timestamp, AssetEvent.id)
    )
    return {extra["request_id"]: extra.get("status") for extra in found}


def _count_of_a_day(session: Session, asset: AssetModel) -> int:
    from airflow.models.asset import AssetEvent
    from sqlalchemy import func, select

    since = datetime.now(UTC) - timedelta(days=1)
    count = select(func.count()).where(AssetEvent.asset_id == asset.id, AssetEvent.timestamp > since)
    return session.scalar(count) or 0


def _scheduled_dags(session: Session, asset: AssetModel) -> list[DagModel]:
    """Return the DAGs that an event would start: Airflow drops it for one that is paused."""
    from airflow.models.asset import (
        DagScheduleAssetNameReference,
        DagScheduleAssetReference,
        DagScheduleAssetUriReference,
    )
    from airflow.models.dag import DagModel
    from sqlalchemy import or_, select

    by_asset = select(DagScheduleAssetReference.dag_id).where(DagScheduleAssetReference.asset_id == asset.id)
    by_name = select(DagScheduleAssetNameReference.dag_id).where(
        DagScheduleAssetNameReference.name == asset.name
    )
    by_uri = select(DagScheduleAssetUriReference.dag_id).where(DagScheduleAssetUriReference.uri == asset.uri)
    return list(
        session.scalars(
            select(DagModel).where(
                or_(DagModel.dag_id.in_(by_asset), DagModel.dag_id.in_(by_name), DagModel.dag_id.in_(by_uri)),
                DagModel.is_paused.is_(False),
                DagModel.is_stale.is_(False),
            )
        )
    )
