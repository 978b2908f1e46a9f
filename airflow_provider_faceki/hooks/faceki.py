# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""From a Connection id to FACEKI: the hook."""

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

from airflow_provider_faceki import api, connection_form

if TYPE_CHECKING:
    from airflow_provider_faceki.api.client import AsyncFacekiClient, FacekiClient
    from airflow_provider_faceki.api.endpoints.records import WorkflowRules
    from airflow_provider_faceki.api.protocol.session import Endpoint
    from airflow_provider_faceki.settings import ConnectionSettings
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

    conn_name_attr = connection_form.CONN_NAME_ATTR
    default_conn_name = connection_form.DEFAULT_CONN_ID
    conn_type = connection_form.CONN_TYPE
    hook_name = connection_form.HOOK_NAME

    def __init__(self, faceki_conn_id: str = connection_form.DEFAULT_CONN_ID) -> None:
        super().__init__()
        self.faceki_conn_id = faceki_conn_id

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's own fields for Airflow before 3.2; later ones read the provider's metadata."""
        return connection_form.form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's labels and placeholders for Airflow before 3.2."""
        return connection_form.hook_field_behaviour()

    @property
    def settings(self) -> ConnectionSettings:
        """The Connection, checked.

        :raises ConfigurationError: a field is wrong; the text names connection, field and what is allowed.
        """
        return self._reading.settings

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
        return self._reading.client

    @cached_property
    def _reading(self) -> _Reading:
        with self._named():
            conn = self.get_connection(self.faceki_conn_id)
            reading = self._known(conn)
            if reading is None:
                reading = self._read(conn)
                for secret in reading.settings.secrets:
                    mask_secret(secret)
                _readings[self.faceki_conn_id] = reading
        return reading

    async def aget_conn(self) -> AsyncFacekiClient:
        """Return the client for an event loop.

        :raises ConfigurationError: as :attr:`settings`.
        """
        from airflow.providers.common.compat.connection import get_async_connection

        if "_reading" not in self.__dict__:
            conn = await get_async_connection(self.faceki_conn_id, hook=self)
            reading = self._known(conn)
            if reading is None:
                with self._named():
                    # Off the loop: it imports what parsing a DAG must not, and looks for the CA bundle.
                    reading = await asyncio.to_thread(self._read, conn)
                for secret in reading.settings.secrets:
                    await _conceal_async(secret)
                _readings[self.faceki_conn_id] = reading
            self.__dict__["_reading"] = reading
        return self._client.as_async()

    def _known(self, conn: Any) -> _Reading | None:
        known = _readings.get(self.faceki_conn_id)
        return known if known is not None and known.stored == _stored(conn) else None

    def _read(self, conn: Any) -> _Reading:
        from airflow_provider_faceki.settings import settings_from_connection

        settings = settings_from_connection(self.faceki_conn_id, conn)
        return _Reading(_stored(conn), settings, self._make_client(settings))

    def _make_client(self, settings: ConnectionSettings) -> FacekiClient:
        from airflow_provider_faceki.settings import token_directory

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
                proxies=settings.proxies or None,
                max_concurrency=settings.max_concurrency,
                max_requests_per_second=settings.max_requests_per_second,
            ),
            retry=api.RetryPolicy(settings.max_attempts, settings.max_wait),
            token_directory=token_directory() if settings.token_store == "file" else None,  # noqa: S105
            secret_masker=api.SecretMasker(mask_secret, _conceal_async),
            warn=self.log.warning,
        )

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except api.FacekiError as error:
            raise error.with_conn_id(self.faceki_conn_id) from None


class _Reading:
    """What a Connection said, what that means, and the client made of it."""

    def __init__(
        self, stored: tuple[object, ...], settings: ConnectionSettings, client: FacekiClient
    ) -> None:
        self.stored = stored
        self.settings = settings
        self.client = client


#: The last reading of each Connection in this process. Every hook fetches its Connection, but as long as that
#: says the same, checking it and making a client of it need not be done again.
_readings: dict[str, _Reading] = {}

# What was masked in the parent is not known to whoever masks for the child.
os.register_at_fork(after_in_child=_readings.clear)
# Nor does whoever holds a lock in the parent live on to let it go in the child.
os.register_at_fork(after_in_child=_rules_locks.clear)


def _stored(conn: Any) -> tuple[object, ...]:
    return (conn.conn_type, conn.login, conn.password, conn.host, conn.port, conn.schema, conn.extra)


async def _conceal_async(value: str) -> None:
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
