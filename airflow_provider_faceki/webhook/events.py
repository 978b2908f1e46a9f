# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""How does a hint become an asset event, once?

Through Airflow's own asset manager, in the API server's session. All of it is one transaction, which begins by
locking the asset's row: between looking whether the event is there and writing it nobody else can write it, in
whatever thread, process or machine. On SQLite that is the lock for writing, and having it from the start also keeps
Airflow's manager from rolling back and going on without the event when it does not get that lock itself.
"""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_faceki.assets import faceki_verifications

if TYPE_CHECKING:
    from airflow.models.asset import AssetModel
    from airflow.models.dag import DagModel
    from sqlalchemy.orm import Session

    from airflow_provider_faceki.api.protocol.webhook import WebhookNotification

log = logging.getLogger(__name__)

#: Seconds for which SQLite's lock is waited for; less than the receiver gives the whole.
LOCK_SECONDS = 20.0
#: The same status of the same verification, told again within this time, is no news.
REPEATED_WITHIN = timedelta(days=1)


class NobodyListens(Exception):
    """No DAG that could run is scheduled on the asset: the event would be stored for nobody."""


def named() -> frozenset[str]:
    """Return the ids of the Connections whose asset a DAG names. For any other nothing would be stored anyway."""
    from airflow.models.asset import AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    before, after = faceki_verifications("_").uri.split("_")
    with create_session() as session:
        uris = session.scalars(select(AssetModel.uri).where(AssetModel.uri.like(f"{before}%{after}"))).all()
    return frozenset(uri.removeprefix(before).removesuffix(after) for uri in uris)


def store(conn_id: str, hint: WebhookNotification) -> bool:
    """Store the event, or return ``False`` if it was stored within the last day.

    :raises NobodyListens: nothing was stored.
    """
    from sqlalchemy.exc import OperationalError

    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return _stored_once(conn_id, hint)
        except OperationalError as error:
            # SQLite does not queue those who wait for its lock: under load the same one may come too late every time.
            if "database is locked" not in str(error.orig) or time.monotonic() > give_up:
                raise
        time.sleep(random.uniform(0.0, 0.1))  # noqa: S311 - guards nothing


def _stored_once(conn_id: str, hint: WebhookNotification) -> bool:
    from airflow.assets.manager import asset_manager
    from airflow.utils.session import create_session

    with create_session() as session:
        asset = _locked(session, faceki_verifications(conn_id).uri)
        if asset is None:
            raise NobodyListens
        if _is_stored(session, asset, hint):
            return False
        listeners = _listeners(session, asset)
        if not listeners:
            raise NobodyListens
        # Airflow queues an event with a key for partitioned DAGs only, one without a key for the others only.
        partitioned = [dag.dag_id for dag in listeners if getattr(dag, "timetable_partitioned", False)]
        event = asset_manager.register_asset_change(
            asset=asset,
            extra=hint.extra,
            partition_key=hint.request_id if partitioned else None,
            session=session,
        )
        if event is None:
            raise NobodyListens
    if partitioned:
        _tell_once(conn_id, sorted({dag.dag_id for dag in listeners} - set(partitioned)))
    return True


_told: set[tuple[str, ...]] = set()


def _tell_once(conn_id: str, plain: list[str]) -> None:
    if plain and (conn_id, *plain) not in _told:
        _told.add((conn_id, *plain))
        log.warning(
            "Webhooks for %r do not start %s: Airflow does not combine partitioned and plain schedules on one asset",
            conn_id,
            ", ".join(plain),
        )


def _locked(session: Session, uri: str) -> AssetModel | None:
    from airflow.models.asset import AssetModel
    from sqlalchemy import select, update

    this = (AssetModel.name == uri) & (AssetModel.uri == uri)
    # Changes nothing, but locks the row. updated_at is named because it would be set to now if it were not.
    session.execute(
        update(AssetModel).where(this).values(updated_at=AssetModel.updated_at),
        execution_options={"synchronize_session": False},
    )
    return session.scalar(select(AssetModel).where(this))


def _is_stored(session: Session, asset: AssetModel, hint: WebhookNotification) -> bool:
    from airflow.models.asset import AssetEvent
    from sqlalchemy import Text, cast, select

    # Not by partition key: it is not there before Airflow 3.2, nor with a plain schedule.
    found = session.scalars(
        select(AssetEvent.extra).where(
            AssetEvent.asset_id == asset.id,
            AssetEvent.timestamp > datetime.now(UTC) - REPEATED_WITHIN,
            cast(AssetEvent.extra, Text).contains(hint.request_id),
        )
    )
    return any({name: extra.get(name) for name in hint.extra} == hint.extra for extra in found)


def _listeners(session: Session, asset: AssetModel) -> list[DagModel]:
    """Return the DAGs that an event would start: Airflow forgets it for one that is paused."""
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
