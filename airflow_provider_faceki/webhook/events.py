# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Store webhook notifications as asset events in Airflow's database, without repetitions.

The class ``Outcome`` lists the reasons for which a notification is not stored.

Airflow's asset manager creates the events, in a database session of the API server. Each transaction first locks the
database row of the asset, for two reasons:

- No other webhook receiver can write an event of the asset between the search for an earlier event and the write.
- On SQLite, the lock of the row is the write lock of the whole database. If the transaction did not hold this lock, the
  asset manager would try to acquire it. After a failed attempt, the asset manager rolls back the transaction, which
  contains the new event, and continues. So the event would be lost.

Only one transaction at a time can hold the lock of an asset, and each commit takes time. To store more events per
second, up to ``MAX_GROUP_SIZE`` waiting notifications of a Connection are stored together in one transaction.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_faceki.assets import faceki_verifications
from airflow_provider_faceki.webhook.auth import ends_within

if TYPE_CHECKING:
    from airflow.models.asset import AssetModel
    from airflow.models.dag import DagModel
    from sqlalchemy.engine import FrozenResult, Result
    from sqlalchemy.orm import ORMExecuteState, Session

    from airflow_provider_faceki.api.protocol.webhook import WebhookNotification

log = logging.getLogger(__name__)

#: If SQLite's lock is not free, the transaction fails and is tried again, for up to this number of seconds. The number
#: must be less than :data:`STORE_TIMEOUT_SECONDS`, because the HTTP request with the webhook waits no longer than that.
LOCK_TIMEOUT_SECONDS = 20.0
#: Maximum time in seconds that a webhook notification waits until it is stored as an event. After this time, a
#: notification that is still in the queue is dropped. The time is long, because the event is useful even if the sender
#: of the webhook no longer waits for the answer.
STORE_TIMEOUT_SECONDS = 60.0
#: Maximum age of an event that is used to recognize repetitions. A notification is a repetition if the latest event of
#: its verification has the same status. A repetition is not stored.
REPEAT_WINDOW = timedelta(days=1)
#: Maximum number of notifications in one transaction. The number is small, because other API servers must wait for the
#: end of the transaction, which locks the asset.
MAX_GROUP_SIZE = 50


class Outcome(StrEnum):
    """Result of the attempt to store a notification."""

    STORED = "stored"
    #: The notification is not stored, because the latest event of the verification has the same status.
    REPEATED = "repeated"
    #: The notification is not stored, because no active DAG is scheduled on the asset, so the event would start no DAG.
    NO_SCHEDULED_DAG = "no scheduled DAG"
    #: The notification is not stored, because the asset has reached the Connection's limit of events in the last 24
    #: hours. Events that tasks have created do not count.
    OVER_LIMIT = "over limit"


#: Function that stores notifications of one Connection in one transaction and returns their outcomes. Its last argument
#: is the maximum number of events in 24 hours.
StoreEvents = Callable[[str, Sequence["WebhookNotification"], int], Sequence[Outcome]]


@dataclass(frozen=True, slots=True)
class _Pending:
    conn_id: str
    notification: WebhookNotification
    max_per_day: int
    outcome: asyncio.Future[Outcome]


class EventWriter:
    """Writer that stores the webhook notifications of one process. Use each instance in only one event loop.

    The notifications are stored in groups. The notifications of a group belong to one Connection and are stored in one
    transaction.

    :param store: Function that stores a group. It runs in a thread.
    """

    def __init__(self, store: StoreEvents) -> None:
        self._store = store
        # A group consists of notifications that are stored in one transaction. A single thread stores all groups, so
        # its queue preserves the order of the groups. If several threads waited for the lock of the database, the order
        # could change.
        self._thread = ThreadPoolExecutor(1, "faceki-webhook-writer")
        self._waiting: deque[_Pending] = deque()
        self._draining: asyncio.Task[None] | None = None

    async def write(self, conn_id: str, notification: WebhookNotification, max_per_day: int) -> Outcome:
        """Store a notification, and wait for the end of the transaction.

        Return ``Outcome.STORED``, or the reason why the notification was not stored.

        :raises TimeoutError: if the transaction has not ended after :data:`STORE_TIMEOUT_SECONDS`. The notification is
            possibly stored later. If the sender sends the notification again after that, it is recognized as a
            repetition.
        :raises Exception: any error of the store function.
        """
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Pending(conn_id, notification, max_per_day, outcome))
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        if not await ends_within(outcome, STORE_TIMEOUT_SECONDS):
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
        """Remove the next group of notifications from the queue, and return the group.

        If no notification waits, return an empty list. All notifications of a group belong to one Connection. A
        notification for which no request waits any longer is removed from the queue and not stored.
        """
        live = [each for each in self._waiting if not each.outcome.cancelled()]
        group = [each for each in live if each.conn_id == live[0].conn_id][:MAX_GROUP_SIZE]
        taken = {id(each) for each in group}
        self._waiting = deque(each for each in live if id(each) not in taken)
        return group

    async def _store_group(self, group: list[_Pending]) -> None:
        conn_id, notifications = group[0].conn_id, [each.notification for each in group]
        loop = asyncio.get_running_loop()
        # The newest notification has the newest settings of the Connection.
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


def store_events(
    conn_id: str, notifications: Sequence[WebhookNotification], max_per_day: int
) -> list[Outcome]:
    """Store the notifications of one Connection as events, in one transaction, and return their outcomes.

    :param conn_id: Id of the Connection.
    :param notifications: Notifications of this Connection, in the order of their arrival. The outcomes have the same
        order.
    :param max_per_day: Maximum number of events of this Connection in the last 24 hours. An event that a task has
        created is not counted.
    """
    from sqlalchemy.exc import OperationalError

    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            return _store_in_transaction(conn_id, notifications, max_per_day)
        except OperationalError as error:
            # SQLite has no queue for writers that wait for its lock. Under load, one writer possibly fails several
            # times. Therefore the transaction is repeated for up to ``LOCK_TIMEOUT_SECONDS``.
            if "database is locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.0, 0.1))  # noqa: S311 - not used for security


def _store_in_transaction(
    conn_id: str, notifications: Sequence[WebhookNotification], max_per_day: int
) -> list[Outcome]:
    from airflow.utils.session import create_session

    with create_session() as session, _cached_reads(session):
        asset = _lock_asset(session, faceki_verifications(conn_id).uri)
        if asset is None:
            return [Outcome.NO_SCHEDULED_DAG] * len(notifications)
        listeners = _scheduled_dags(session, asset)
        latest = _latest_statuses(session, asset, notifications)
        left = max_per_day - _count_of_a_day(session, asset)
        outcomes = []
        for notification in notifications:
            # A repetition is answered with 200 even above the limit, so that the sender does not send it again.
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


@contextmanager
def _cached_reads(session: Session) -> Iterator[None]:
    """Cache the assets and DAGs that a database session reads.

    Airflow's asset manager reads the assets and DAGs again for each event. These reads are half of its queries. Within
    one transaction, the cached results can be used for all events. The asset cannot change, because it is locked. A
    change of a DAG in this short time can be ignored. Rows that the transaction itself writes are not cached.
    """
    from airflow.models.asset import AssetAliasModel, AssetModel
    from airflow.models.dag import DagModel
    from airflow.models.serialized_dag import SerializedDagModel
    from sqlalchemy import event
    from sqlalchemy.sql import Select

    classes = {AssetModel, AssetAliasModel, DagModel, SerializedDagModel}
    results: dict[object, FrozenResult[Any]] = {}

    def answer(query: ORMExecuteState) -> Result[Any] | None:
        mapper = query.bind_mapper
        if mapper is None or mapper.class_ not in classes or not isinstance(query.statement, Select):
            return None
        # Two kinds of queries are not cached. The first kind is ``Session.get()`` and lazy loads. They pass the key of
        # the wanted row as a parameter, which the cache key below does not contain. The second kind loads expired
        # columns of one object, and must return the current row of the object.
        if query.parameters or query.is_column_load:
            return None
        # The private method ``_generate_cache_key`` returns equal keys for queries of the same form. SQLAlchemy's own
        # example of a query cache uses the same method. For a query that cannot be cached, the method returns None.
        # Such a query is run as usual.
        cache_key = query.statement._generate_cache_key()
        if cache_key is None:
            return None
        key = (cache_key.key, repr([each.effective_value for each in cache_key.bindparams]))
        if key not in results:
            results[key] = query.invoke_statement().freeze()
        return results[key]()

    event.listen(session, "do_orm_execute", answer)
    try:
        yield
    finally:
        # Airflow uses the same database session for the next transaction of this thread. Without this removal of the
        # listener, that transaction would get old results from the cache.
        event.remove(session, "do_orm_execute", answer)


def _register(
    session: Session, asset: AssetModel, listeners: Sequence[DagModel], notification: WebhookNotification
) -> Outcome:
    from airflow.assets.manager import asset_manager

    if not listeners:
        return Outcome.NO_SCHEDULED_DAG
    # An event with a partition key starts only partitioned DAGs. An event without a key starts only the other DAGs.
    # Therefore the event gets a key if one of the scheduled DAGs is partitioned.
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
    # This UPDATE statement locks the row of the asset and changes no value. The statement sets updated_at to its old
    # value, because SQLAlchemy would otherwise set updated_at to the current time.
    session.execute(
        update(AssetModel).where(this).values(updated_at=AssetModel.updated_at),
        execution_options={"synchronize_session": False},
    )
    return session.scalar(select(AssetModel).where(this))


def _latest_statuses(
    session: Session, asset: AssetModel, notifications: Sequence[WebhookNotification]
) -> dict[str, Any]:
    """Return the status in the latest event of each verification, by request id, with only one query.

    Events that are older than ``REPEAT_WINDOW`` are ignored.
    """
    from airflow.models.asset import AssetEvent
    from sqlalchemy import JSON, select, type_coerce

    # This query finds the events by the request id in `extra`, the data of an event. The query does not use the
    # partition key, because some events have no partition key. These are all events before Airflow 3.2, and the events
    # for DAGs that are not partitioned.
    request_id = type_coerce(AssetEvent.extra, JSON)["request_id"].as_string()
    found = session.scalars(
        select(AssetEvent.extra)
        .where(
            AssetEvent.asset_id == asset.id,
            AssetEvent.timestamp > datetime.now(UTC) - REPEAT_WINDOW,
            request_id.in_({each.request_id for each in notifications}),
        )
        # The events are ordered by id, because the database assigns the ids while the row of the asset is locked. They
        # are not ordered by timestamp, because the timestamps come from the clocks of several API servers, which
        # possibly differ.
        .order_by(AssetEvent.id)
    )
    return {extra["request_id"]: extra.get("status") for extra in found}


def _count_of_a_day(session: Session, asset: AssetModel) -> int:
    """Return the number of events of an asset in the last 24 hours, without the events that tasks have created.

    The number is compared with the limit of webhooks per day (``max_per_day``). A task that looks for missed decisions
    can create many events at once. These events must not use up the limit, so the query counts only events without a
    source task. Airflow sets the source task of an event only if a task has created the event.
    """
    from airflow.models.asset import AssetEvent
    from sqlalchemy import func, select

    since = datetime.now(UTC) - timedelta(days=1)
    count = select(func.count()).where(
        AssetEvent.asset_id == asset.id,
        AssetEvent.timestamp > since,
        AssetEvent.source_task_id.is_(None),
    )
    return session.scalar(count) or 0


def _scheduled_dags(session: Session, asset: AssetModel) -> list[DagModel]:
    """Return the DAGs that are scheduled on the asset.

    Paused and stale DAGs are left out, because an event does not start them.
    """
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
