# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The hook: FACEKI with the credentials of an Airflow Connection."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import BaseHook, mask_secret

from airflow_provider_faceki import api
from airflow_provider_faceki.connection import form, schema

if TYPE_CHECKING:
    from airflow_provider_faceki.api.client import AsyncFacekiClient, FacekiClient
    from airflow_provider_faceki.api.endpoints.records import WorkflowRules
    from airflow_provider_faceki.api.protocol.session import Endpoint
    from airflow_provider_faceki.connection.schema import ConnectionSettings
    from airflow_provider_faceki.connection.settings import ConnectionFields, StoredConnection
    from airflow_provider_faceki.storage import Place

T = TypeVar("T")

#: Seconds for which a workflow's rules are believed: they are changed by hand, in FACEKI's portal.
RULES_LIFETIME = 600.0
_rules: dict[tuple[str, str, str], tuple[float, WorkflowRules]] = {}
_rules_locks: dict[tuple[str, str, str], threading.Lock] = {}


class FacekiHook(BaseHook):
    """Asks FACEKI with the client id and secret of an Airflow Connection.

    All hooks of a process share connections and, for the same account, one token; with the default token store
    so do all processes of a host. Nothing is read or sent before the first call.

    :param faceki_conn_id: Connection of type ``faceki``; see ``docs/connection.md``.
    """

    conn_name_attr = schema.CONN_NAME_ATTR
    default_conn_name = schema.DEFAULT_CONN_ID
    conn_type = schema.CONN_TYPE
    hook_name = schema.HOOK_NAME

    def __init__(self, faceki_conn_id: str = schema.DEFAULT_CONN_ID) -> None:
        super().__init__()
        self.faceki_conn_id = faceki_conn_id

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's own fields for Airflow before 3.2; later ones read the provider's metadata."""
        return form.form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels and placeholders for Airflow before 3.2."""
        return form.hook_field_behaviour()

    @property
    def settings(self) -> ConnectionSettings:
        """The Connection, checked.

        :raises ConfigurationError: a field is wrong; the text names connection, field and what is allowed.
        """
        return self._cached_connection.settings

    def get_conn(self) -> FacekiClient:
        """Return the client: FACEKI without Airflow."""
        return self._client

    def call(self, endpoint: Endpoint[T]) -> T:
        """Perform one call of FACEKI and return its typed result.

        :param endpoint: One of ``airflow_provider_faceki.api``, such as ``FetchRecords(request_id=...)``.
        :raises FacekiError: any of the tree in ``api/errors.py``, naming the Connection.
        """
        with self._named():
            return self._client.call(endpoint)

    async def acall(self, endpoint: Endpoint[T]) -> T:
        """Do what :meth:`ask` does, for an event loop: nothing here blocks it.

        :param endpoint: As for :meth:`ask`.
        :raises FacekiError: as :meth:`ask`.
        """
        client = await self.aget_conn()
        with self._named():
            return await client.call(endpoint)

    def workflow(self, workflow_id: str | None) -> str:
        """Return ``workflow_id``, or the Connection's default workflow.

        :raises ValidationError: there is neither.
        """
        chosen = workflow_id or self.settings.workflow_id
        if not chosen:
            with self._named():
                raise api.ValidationError(
                    "no workflow: give workflow_id, or set the Connection's default workflow (extra workflow_id)"
                )
        return chosen

    def workflow_rules(self, workflow_id: str) -> WorkflowRules:
        """Return the rules of a workflow, asked for once in this process and every ten minutes.

        :raises FacekiError: as :meth:`ask`.
        """
        key = (self.settings.base_url, self.settings.client_id, workflow_id)
        # Many tasks and threads, each with a hook of its own, ask at the same moment; one of them asks FACEKI.
        with _rules_locks.setdefault(key, threading.Lock()):
            found = _rules.get(key)
            if found is None or time.monotonic() - found[0] > RULES_LIFETIME:
                try:
                    rules = self.call(api.GetWorkflowRules(workflow_id=workflow_id))
                except api.WorkflowError as error:
                    error.message = f"workflow {workflow_id!r}: {error.message}"
                    raise
                found = _rules[key] = (time.monotonic(), rules)
        return found[1]

    def image(self, source: bytes | Place, *, name: str = "image", conn_id: str | None = None) -> api.Image:
        """Return a picture for a call such as ``AnalyzeFace``, checked, and not loaded if it lies in a storage.

        Larger ones than the Connection's ``max_image_bytes`` are refused. Reads the storage: not for an event loop.

        :param source: Its bytes, or where it is: the absolute local path or the URI of a file.
        :param name: What the picture is for; an error names it.
        :param conn_id: Connection for that storage. Default: the one in the URI, else the storage's own default.
        :raises ValidationError: it is missing, empty, too large, or not an image.
        """
        from airflow_provider_faceki import storage

        with self._named():
            limit = self.settings.max_image_bytes
            if isinstance(source, bytes):
                return api.Image.of_bytes(name, source, limit)
            return storage.image(name, source, limit, conn_id)

    def get_access_token(self) -> str:
        """Return a bearer token that is good for at least the renewal margin; from the store if there is one.

        :raises FacekiError: none can be had.
        """
        with self._named():
            return self._client.get_access_token()

    def test_connection(self) -> tuple[bool, str]:
        """Ask FACEKI for one token, past the store, and say what came of it. Nothing is charged."""
        from dataclasses import replace

        from airflow_provider_faceki.api.transport.retry import RetryPolicy

        try:
            once = replace(self._client, retry=RetryPolicy(max_attempts=1))
            token = once.fetch_access_token()
        except api.FacekiError as error:
            # Airflow's command line reads markup in it, and fails at what is none, such as `[/x]`.
            return False, str(error).translate(str.maketrans("[]", "()"))
        mask_secret(token.value)
        return True, f"FACEKI gave a token that is good for {token.lifetime:.0f} s."

    @property
    def _client(self) -> FacekiClient:
        return self._cached_connection.client

    @cached_property
    def _cached_connection(self) -> _CachedConnection:
        with self._named():
            stored = _stored(self.get_connection(self.faceki_conn_id))
            cached = self._find_cached(stored)
            if cached is None:
                cached = self._read(stored)
                for secret in cached.settings.secrets:
                    mask_secret(secret)
                _cached_connections[self.faceki_conn_id] = cached
        return cached

    async def aget_conn(self) -> AsyncFacekiClient:
        """Return the client for an event loop.

        :raises ConfigurationError: as :attr:`settings`.
        """
        from airflow.providers.common.compat.connection import get_async_connection

        if "_cached_connection" not in self.__dict__:
            stored = _stored(await get_async_connection(self.faceki_conn_id, hook=self))
            cached = self._find_cached(stored)
            if cached is None:
                with self._named():
                    # Off the loop: it imports what parsing a DAG must not, and looks for the CA bundle.
                    cached = await asyncio.to_thread(self._read, stored)
                for secret in cached.settings.secrets:
                    await _mask_secret_async(secret)
                _cached_connections[self.faceki_conn_id] = cached
            self.__dict__["_cached_connection"] = cached
        return self._client.as_async()

    def _find_cached(self, stored: StoredConnection) -> _CachedConnection | None:
        cached = _cached_connections.get(self.faceki_conn_id)
        return cached if cached is not None and cached.stored == stored else None

    def _read(self, stored: StoredConnection) -> _CachedConnection:
        from airflow_provider_faceki.connection.settings import settings_from_connection

        settings = settings_from_connection(self.faceki_conn_id, stored)
        return _CachedConnection(stored, settings, self._make_client(settings))

    def _make_client(self, settings: ConnectionSettings) -> FacekiClient:
        from airflow_provider_faceki.connection.settings import token_directory

        return api.FacekiClient(
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            auth_flow=settings.auth_flow,
            service=api.Service(
                settings.base_url, settings.addon_url, settings.records_path, settings.pdf_report_path
            ),
            transport=api.TransportSettings(
                timeout=settings.timeout,
                upload_timeout=settings.upload_timeout,
                verify=settings.verify,
                proxies=settings.proxies,
                max_concurrency=settings.max_concurrency,
                max_requests_per_second=settings.max_requests_per_second,
            ),
            retry=api.RetryPolicy(settings.max_attempts, settings.max_wait),
            token_directory=token_directory() if settings.token_store == "file" else None,  # noqa: S105
            secret_masker=api.SecretMasker(mask_secret, _mask_secret_async),
            warn=self.log.warning,
        )

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except api.FacekiError as error:
            raise error.with_conn_id(self.faceki_conn_id) from None


class _CachedConnection:
    """The stored fields of a Connection, its checked settings, and the client made of them."""

    def __init__(self, stored: StoredConnection, settings: ConnectionSettings, client: FacekiClient) -> None:
        self.stored = stored
        self.settings = settings
        self.client = client


#: The Connections that were read in this process. Every hook fetches its Connection, but as long as the stored fields
#: are the same, they are not checked again and the client is reused.
_cached_connections: dict[str, _CachedConnection] = {}

# Airflow's masker in a child does not know what was masked in its parent.
os.register_at_fork(after_in_child=_cached_connections.clear)
# The thread that holds a lock in the parent does not exist in the child, so it would never release it.
os.register_at_fork(after_in_child=_rules_locks.clear)


def _stored(conn: ConnectionFields) -> StoredConnection:
    from airflow_provider_faceki.connection.settings import StoredConnection

    return StoredConnection.of(conn)


async def _mask_secret_async(value: str) -> None:
    try:
        from airflow.sdk.log import amask_secret
    except ImportError:
        from asgiref.sync import sync_to_async

        # Before it existed, masking spoke to the supervisor synchronously, which must not happen on the loop. In a
        # triggerer of Airflow 3.0 and 3.1 it does so by asgiref, which finds the way back to the loop only from a
        # thread of its own; from any other the answers get mixed up, and the triggerer ends.
        await sync_to_async(mask_secret)(value)
    else:
        await amask_secret(value)
