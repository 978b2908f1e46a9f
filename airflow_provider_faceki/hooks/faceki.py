# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The hook: FACEKI with the credentials of an Airflow Connection."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import BaseHook, mask_secret

from airflow_provider_faceki import api
from airflow_provider_faceki.api.arguments import DEFAULT_LOOKUP_TIMEOUT_SECONDS
from airflow_provider_faceki.connection import form, schema

if TYPE_CHECKING:
    from airflow_provider_faceki.api.client import AsyncFacekiClient, FacekiClient
    from airflow_provider_faceki.api.endpoints.images import FaceAnalysis, ImageCheck
    from airflow_provider_faceki.api.endpoints.links import KycLink
    from airflow_provider_faceki.api.endpoints.reports import PdfReport
    from airflow_provider_faceki.api.endpoints.verification import KycVerification
    from airflow_provider_faceki.api.endpoints.workflows import WorkflowRules
    from airflow_provider_faceki.api.models import VerificationRecord
    from airflow_provider_faceki.api.protocol.session import Endpoint
    from airflow_provider_faceki.api.tokens.shared import TokenBackend
    from airflow_provider_faceki.api.uploads import Image
    from airflow_provider_faceki.connection.schema import ConnectionSettings
    from airflow_provider_faceki.connection.settings import ConnectionFields, StoredConnection
    from airflow_provider_faceki.hooks.documents import DocumentSource, Picture

T = TypeVar("T")


class FacekiHook(BaseHook):
    """Calls FACEKI with the client id and secret of an Airflow Connection.

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

    def __getstate__(self) -> dict[str, Any]:
        """Leave the client out of copies and pickles: it holds locks and secrets, and is made again when needed."""
        return {name: value for name, value in self.__dict__.items() if name != "_cached_connection"}

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
        with self._with_conn_id():
            return self._client.call(endpoint)

    async def acall(self, endpoint: Endpoint[T]) -> T:
        """Perform one call without blocking the event loop; parameters and errors as for :meth:`call`."""
        client = await self.aget_conn()
        with self._with_conn_id():
            return await client.call(endpoint)

    def fetch_records(
        self,
        *,
        request_id: str | None = None,
        link: str | None = None,
        record_identifier: str | None = None,
        face_id: str | None = None,
    ) -> tuple[VerificationRecord, ...]:
        """Fetch the records of a verification, a link, an id of your own, or a person. Give exactly one filter.

        :param request_id: FACEKI's id of one verification.
        :param link: Link id.
        :param record_identifier: Your own id.
        :param face_id: FACEKI's id of a person.
        :returns: The records in FACEKI's order; empty if there are none.
        :raises FacekiError: as :meth:`call`.
        """
        with self._with_conn_id():
            endpoint = api.FetchRecords(
                request_id=request_id, link=link, record_identifier=record_identifier, face_id=face_id
            )
        return self.call(endpoint)

    def generate_kyc_link(
        self,
        *,
        workflow_id: str | None = None,
        record_identifier: str | None = None,
        expires_in_minutes: int | None = None,
        redirect_url: str | None = None,
    ) -> KycLink:
        """Make a link under which one person is verified in a browser. Each call makes a new one.

        :param workflow_id: Workflow from the FACEKI portal. Default: the Connection's.
        :param record_identifier: Your own id of the person or case.
        :param expires_in_minutes: Whole minutes until the link expires. Default: FACEKI's own, which is not published.
        :param redirect_url: Where the browser goes afterwards; ``https`` or ``http``.
        :raises FacekiError: as :meth:`call`.
        """
        with self._with_conn_id():
            endpoint = api.GenerateKycLink(
                workflow_id=self.workflow(workflow_id),
                record_identifier=record_identifier,
                expires_in_minutes=expires_in_minutes,
                redirect_url=redirect_url,
            )
        return self.call(endpoint)

    def get_workflow_rules(self, workflow_id: str | None = None, *, link: str | None = None) -> WorkflowRules:
        """Fetch the rules of a workflow, or of a link.

        :param workflow_id: Workflow from the FACEKI portal. Default: the Connection's, unless ``link`` is given.
        :param link: Link id.
        :raises FacekiError: as :meth:`call`.
        """
        with self._with_conn_id():
            chosen = workflow_id if link is not None else self.workflow(workflow_id)
            endpoint = api.GetWorkflowRules(workflow_id=chosen, link=link)
        return self.call(endpoint)

    def perform_kyc_verification(
        self,
        *,
        selfie: Picture,
        documents: Sequence[DocumentSource],
        record_identifier: str,
        workflow_id: str | None = None,
        image_conn_id: str | None = None,
        lookup_timeout: float = DEFAULT_LOOKUP_TIMEOUT_SECONDS,
    ) -> KycVerification:
        """Verify one person. Charged, and sent once; a lost answer is looked up by the record identifier.

        The hook remembers nothing across the tries of a task: prefer ``FacekiPerformKycVerificationOperator``, which
        looks for what an earlier try sent before it sends anything.

        :param selfie: Picture of the person: its bytes, absolute local path, URI, or an ``Image``.
        :param documents: One to three documents, each the picture of its front, ``{"front": picture, "back":
            picture}``, or a ``Document``.
        :param record_identifier: Your own id of this verification.
        :param workflow_id: Workflow from the FACEKI portal. Default: the Connection's.
        :param image_conn_id: Connection for the storage of the pictures.
        :param lookup_timeout: Seconds for which the record is looked for after a lost answer.
        :raises FacekiError: as :meth:`call`.
        """
        from airflow_provider_faceki.hooks.documents import load_documents

        def load(name: str, source: Picture) -> Image:
            return self.image(source, name=name, conn_id=image_conn_id)

        with self._with_conn_id():
            endpoint = api.PerformKycVerification(
                workflow_id=self.workflow(workflow_id),
                selfie=load("selfie", selfie),
                documents=load_documents(load, documents),
                record_identifier=record_identifier,
                lookup_timeout=lookup_timeout,
            )
        return self.call(endpoint)

    def match_face(
        self, selfie: Picture, *, image_conn_id: str | None = None
    ) -> tuple[VerificationRecord, ...]:
        """Search the people verified before for a face. Charged for each call.

        :param selfie: Picture of the person: its bytes, absolute local path, URI, or an ``Image``.
        :param image_conn_id: Connection for the storage of the picture.
        :returns: The records found; empty if there are none.
        :raises FacekiError: as :meth:`call`.
        """
        return self.call(api.FaceMatch(self.image(selfie, name="selfie", conn_id=image_conn_id)))

    def analyze_face(self, selfie: Picture, *, image_conn_id: str | None = None) -> FaceAnalysis:
        """Estimate age, gender and liveness of a face; parameters and errors as for :meth:`match_face`."""
        return self.call(api.AnalyzeFace(self.image(selfie, name="selfie", conn_id=image_conn_id)))

    def check_image(self, image: Picture, *, image_conn_id: str | None = None) -> ImageCheck:
        """Check the quality of a picture, free as far as is known; parameters and errors as for :meth:`match_face`."""
        return self.call(api.CheckImage(self.image(image, name="image", conn_id=image_conn_id)))

    def get_pdf_report(self, request_id: str) -> PdfReport:
        """Fetch the PDF report of a verification. Needs the Connection's ``pdf_report_path``.

        :param request_id: FACEKI's id of the verification.
        :returns: The report as an open file; close it.
        :raises FacekiError: as :meth:`call`.
        """
        with self._with_conn_id():
            endpoint = api.FetchPdfReport(request_id)
        return self.call(endpoint)

    def workflow(self, workflow_id: str | None) -> str:
        """Return ``workflow_id``, or the Connection's default workflow.

        :raises ValidationError: there is neither.
        """
        chosen = workflow_id or self.settings.workflow_id
        if not chosen:
            with self._with_conn_id():
                raise api.ValidationError(
                    "no workflow: give workflow_id, or set the Connection's default workflow (extra workflow_id)"
                )
        return chosen

    def workflow_rules(self, workflow_id: str) -> WorkflowRules | None:
        """Return the rules of a workflow from the cache of this process.

        :returns: ``None`` where FACEKI tells no rules; that is logged.
        :raises FacekiError: what FACEKI answered holds for a verification too.
        """
        from airflow_provider_faceki.hooks.workflow_rules import cached_rules

        key = (self.settings.base_url, self.settings.client_id, workflow_id)
        return cached_rules(key, lambda: self.get_workflow_rules(workflow_id))

    def image(self, source: Picture, *, name: str = "image", conn_id: str | None = None) -> Image:
        """Return a checked picture for a call such as ``AnalyzeFace``. One in a storage is not loaded.

        Pictures larger than the Connection's ``max_image_bytes`` are refused. Reads the storage: not for an event loop.

        :param source: Its bytes, absolute local path or URI, or an ``Image``, which is returned as it is.
        :param name: What the picture is for; an error names it.
        :param conn_id: Connection for that storage. Default: the one in its URI, else none.
        :raises ValidationError: it is missing, empty, too large, or not an image.
        """
        from airflow_provider_faceki import storage

        with self._with_conn_id():
            if isinstance(source, api.Image):
                return source
            limit = self.settings.max_image_bytes
            if isinstance(source, bytes):
                return api.Image.of_bytes(name, source, limit)
            return storage.image(name, source, limit, conn_id)

    def get_access_token(self) -> str:
        """Return a bearer token that is good for at least the renewal margin; from the store if there is one.

        :raises FacekiError: none can be had.
        """
        with self._with_conn_id():
            return self._client.get_access_token()

    def test_connection(self) -> tuple[bool, str]:
        """Ask FACEKI for one token, past the store, and return whether it came, and a sentence. Nothing is charged.

        Where FACEKI does not know the form of the token request, the other forms are tried once.
        """
        from dataclasses import replace

        from airflow_provider_faceki.api.transport.retry import RetryPolicy

        try:
            once = replace(self._client, retry=RetryPolicy(max_attempts=1))
            token = once.fetch_access_token()
        except api.FacekiError as error:
            told = str(error)
            if isinstance(error, api.ConfigurationError) and error.http_status is not None:
                told += self._suggest_auth_flow()
            # Airflow's command line reads markup in it, and fails at what is none, such as `[/x]`.
            return False, told.translate(str.maketrans("[]", "()"))
        mask_secret(token.value)
        return True, f"FACEKI gave a token that is good for {token.lifetime:.0f} s."

    def _suggest_auth_flow(self) -> str:
        """Try the other forms of the token request, each once, and name the one that works."""
        from airflow_provider_faceki.api.diagnosis import Diagnosis

        found = Diagnosis(self._client).other_auth_flow()
        return f". FACEKI gives a token for auth_flow={found.value!r}: set that" if found else ""

    @property
    def _client(self) -> FacekiClient:
        return self._cached_connection.client

    @cached_property
    def _cached_connection(self) -> _CachedConnection:
        with self._with_conn_id():
            stored = _stored(self.get_connection(self.faceki_conn_id))
            cached = self._find_cached(stored)
            if cached is None:
                cached = self._read(stored)
                _connect_token_backend(cached.client)
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
                with self._with_conn_id():
                    # Off the loop: it imports what parsing a DAG must not, and looks for the CA bundle.
                    cached = await asyncio.to_thread(self._read, stored)
                if cached.client.token_backend is not None:
                    from asgiref.sync import sync_to_async

                    # It looks up a Connection, which a triggerer answers to threads of asgiref alone.
                    await sync_to_async(_connect_token_backend)(cached.client)
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
        from airflow_provider_faceki.metrics import request_metrics

        return api.FacekiClient(
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            auth_flow=settings.auth_flow,
            service=settings.service,
            transport=api.TransportSettings(
                timeout=settings.timeout,
                upload_timeout=settings.upload_timeout,
                verify=settings.verify,
                proxies=settings.proxies,
                max_concurrency=settings.max_concurrency,
                max_requests_per_second=settings.max_requests_per_second,
            ),
            retry=api.RetryPolicy(settings.max_attempts, settings.max_wait),
            token_directory=token_directory() if settings.token_store != "memory" else None,  # noqa: S105
            token_backend=_token_backend(settings),
            secret_masker=api.SecretMasker(mask_secret, _mask_secret_async),
            warn=self.log.warning,
            observer=request_metrics(),
        )

    @contextmanager
    def _with_conn_id(self) -> Iterator[None]:
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


def _stored(conn: ConnectionFields) -> StoredConnection:
    from airflow_provider_faceki.connection.settings import StoredConnection

    return StoredConnection.of(conn)


def _token_backend(settings: ConnectionSettings) -> TokenBackend | None:
    from airflow_provider_faceki.connection.schema import TOKEN_STORES

    if settings.token_store in TOKEN_STORES:
        return None
    from airflow_provider_faceki.token_backend import token_backend

    return token_backend(settings.token_store)


def _connect_token_backend(client: FacekiClient) -> None:
    """Look up the Connection of the token store's storage; what fails now is warned of when the store is used."""
    connect = getattr(client.token_backend, "connect", None)
    if connect is not None:
        with suppress(Exception):
            connect()


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
