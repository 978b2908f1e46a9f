# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Airflow hook that calls FACEKI with the credentials of an Airflow Connection."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

# The names below are imported at the top and not inside functions, so that each name is imported once. On Airflow 2.11,
# each import of such a name first tries to import a module that does not exist. During this attempt, the thread holds
# an import lock. If another thread forked the process at this moment, the child process would wait for the lock
# forever.
from airflow.providers.common.compat.sdk import AirflowException, BaseHook, get_current_context, mask_secret

from airflow_provider_faceki import api, metrics
from airflow_provider_faceki.api.arguments import DEFAULT_LOOKUP_TIMEOUT_SECONDS
from airflow_provider_faceki.api.charge_limit import charge_limit
from airflow_provider_faceki.api.lazy import lazy_property
from airflow_provider_faceki.api.values import check_identifier, is_identifier
from airflow_provider_faceki.connection import form, schema
from airflow_provider_faceki.connection.settings import StoredConnection

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

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
    from airflow_provider_faceki.hooks.documents import DocumentSource, ImageSource

T = TypeVar("T")


class FacekiHook(BaseHook):
    """Hook that calls FACEKI with the client id and secret of an Airflow Connection.

    In a process, hooks with the same account and the same network settings share HTTP connections. Hooks with the same
    account and the same token store share one access token. By default, all processes of one user on a machine share
    this token. Creating a hook does not read the Connection and sends no request.

    :param faceki_conn_id: Id of a Connection of type ``faceki``; see ``docs/connection.md``.
    """

    conn_name_attr = schema.CONN_NAME_ATTR
    default_conn_name = schema.DEFAULT_CONN_ID
    conn_type = schema.CONN_TYPE
    hook_name = schema.HOOK_NAME

    def __init__(self, faceki_conn_id: str = schema.DEFAULT_CONN_ID) -> None:
        super().__init__()
        self.faceki_conn_id = faceki_conn_id

    def __getstate__(self) -> dict[str, Any]:
        """Exclude the client from copies and pickles of the hook.

        The client is excluded, because it contains locks and secrets. A copy of the hook that needs a client reads its
        Connection again.
        """
        return {name: value for name, value in self.__dict__.items() if name != "_cached_connection"}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the Connection form for Airflow before 3.2.

        Later versions of Airflow read the form from the provider's metadata.
        """
        return form.form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the labels and placeholders of the Connection form for Airflow before 3.2."""
        return form.hook_field_behaviour()

    @property
    def settings(self) -> ConnectionSettings:
        """The checked settings of the Connection.

        :raises ConfigurationError: if a field is wrong, or if the Connection has another type. The text names the
            Connection, the field and the allowed values.
        :raises ValidationError: if ``faceki_conn_id`` is not a valid id.
        :raises AirflowNotFoundException: if there is no such Connection.
        """
        return self._cached_connection.settings

    def get_conn(self) -> FacekiClient:
        """Return the FACEKI client, which is independent of Airflow. Errors are as for :attr:`settings`."""
        client = self._cached_connection.client
        # Airflow can look up a Connection only on certain threads. One of them is the main thread, on which a task
        # runs. Therefore the next lines look up the Connection of the shared token store only on the main thread. If
        # an earlier lookup has succeeded, it is not repeated.
        if threading.current_thread() is threading.main_thread():
            _connect_token_backend(client)
        return client

    def call(self, endpoint: Endpoint[T]) -> T:
        """Perform one call to FACEKI and return its typed result.

        :param endpoint: An endpoint of ``airflow_provider_faceki.api``, such as ``FetchRecords(request_id=...)``.
        :raises FacekiError: if the call fails. ``api/errors.py`` defines the error classes. The error text contains the
            id of the Connection.
        """
        with self._with_conn_id(), _naming_workflow(endpoint):
            return self.get_conn().call(endpoint)

    async def acall(self, endpoint: Endpoint[T]) -> T:
        """Perform one call to FACEKI without blocking the event loop. Parameters and errors are as for :meth:`call`."""
        client = await self.aget_conn()
        with self._with_conn_id(), _naming_workflow(endpoint):
            return await client.call(endpoint)

    def fetch_records(
        self,
        *,
        request_id: str | None = None,
        link: str | Mapping[str, Any] | None = None,
        record_identifier: str | None = None,
        face_id: str | None = None,
    ) -> tuple[VerificationRecord, ...]:
        """Fetch the records of a verification, of a link, of your own identifier, or of a person.

        :param request_id: FACEKI's id of the verification.
        :param link: Link id, URL of the hosted page, or output of the task that created the link.
        :param record_identifier: Your own id of the person or case.
        :param face_id: FACEKI's id of the person.
        :returns: The records in FACEKI's order, or an empty tuple if there are none.
        :raises ValidationError: if no parameter or more than one parameter is set, or if its value is not a valid id.
        :raises FacekiError: if the call fails; see :meth:`call`.
        """
        with self._with_conn_id():
            endpoint = api.FetchRecords.parse(
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
        """Create a link to a page on which one person is verified in a browser. Each call creates a new link.

        :param workflow_id: Id of a workflow in the FACEKI portal. Default: the Connection's default workflow.
        :param record_identifier: Your own id of the person or case.
        :param expires_in_minutes: Whole minutes until the link expires. Default: FACEKI's default, which is not
            published.
        :param redirect_url: ``https`` or ``http`` URL that the browser opens after the verification.
        :raises FacekiError: if the call fails; see :meth:`call`.
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
        """Fetch the rules of a workflow or of a link, such as the documents that the workflow requires.

        :param workflow_id: Id of a workflow in the FACEKI portal. If neither ``workflow_id`` nor ``link`` is set, the
            Connection's default workflow is used.
        :param link: Id of a link. It cannot be combined with ``workflow_id``.
        :raises FacekiError: if the call fails; see :meth:`call`.
        """
        with self._with_conn_id():
            chosen = workflow_id if link is not None else self.workflow(workflow_id)
            endpoint = api.GetWorkflowRules(workflow_id=chosen, link=link)
        return self.call(endpoint)

    def perform_kyc_verification(
        self,
        *,
        selfie: ImageSource,
        documents: Sequence[DocumentSource],
        record_identifier: str,
        workflow_id: str | None = None,
        image_conn_id: str | None = None,
        lookup_timeout: float = DEFAULT_LOOKUP_TIMEOUT_SECONDS,
    ) -> KycVerification:
        """Verify one person. FACEKI charges for this call.

        The request is sent again only if FACEKI certainly did not act on it. If the answer is lost or cannot be used,
        the hook looks up the record by ``record_identifier``.

        The hook stores nothing between two tries of a task. If Airflow retries the task, FACEKI possibly charges for
        the verification again. To avoid this, use ``FacekiKycVerificationOperator``, which first searches for a
        verification that an earlier try sent.

        :param selfie: Image of the person: its bytes, its absolute local path, its URI, or an ``Image``.
        :param documents: One to three documents. Each document is the image of its front, ``{"front": image,
            "back": image}``, or a ``Document``.
        :param record_identifier: Your own id of this verification.
        :param workflow_id: Id of a workflow in the FACEKI portal. Default: the Connection's default workflow.
        :param image_conn_id: Connection for the storage of the images.
        :param lookup_timeout: Maximum time in seconds of the lookup after a lost answer.
        :raises FacekiError: if the call fails; see :meth:`call`.
        """
        from airflow_provider_faceki.hooks.documents import load_documents

        def load(name: str, source: ImageSource) -> Image:
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
        self, selfie: ImageSource, *, image_conn_id: str | None = None
    ) -> tuple[VerificationRecord, ...]:
        """Search for a face among the persons that FACEKI has verified before. FACEKI charges for each call.

        :param selfie: Image of the person: its bytes, its absolute local path, its URI, or an ``Image``.
        :param image_conn_id: Connection for the storage of the image.
        :returns: The records of the persons with this face, or an empty tuple if no person has this face.
        :raises FacekiError: if the call fails; see :meth:`call`.
        """
        return self.call(api.FaceMatch(self.image(selfie, name="selfie", conn_id=image_conn_id)))

    def analyze_face(self, selfie: ImageSource, *, image_conn_id: str | None = None) -> FaceAnalysis:
        """Estimate age, gender and liveness of a face. FACEKI possibly charges for each call.

        Parameters and errors are as for :meth:`match_face`.
        """
        return self.call(api.AnalyzeFace(self.image(selfie, name="selfie", conn_id=image_conn_id)))

    def check_image(self, image: ImageSource, *, image_conn_id: str | None = None) -> ImageCheck:
        """Check the quality of an image. As far as is known, FACEKI does not charge for this call.

        Parameters and errors are as for :meth:`match_face`, but the image is passed as ``image`` and not as ``selfie``.
        """
        return self.call(api.CheckImage(self.image(image, name="image", conn_id=image_conn_id)))

    def get_pdf_report(self, request_id: str) -> PdfReport:
        """Fetch the PDF report of a verification. The Connection must have a ``pdf_report_path``.

        :param request_id: FACEKI's id of the verification.
        :returns: The report as an open file. The caller must close it.
        :raises FacekiError: if the call fails; see :meth:`call`.
        """
        with self._with_conn_id():
            endpoint = api.FetchPdfReport(request_id)
        return self.call(endpoint)

    def workflow(self, workflow_id: str | None) -> str:
        """Return ``workflow_id``, or the Connection's default workflow.

        :raises ValidationError: if neither ``workflow_id`` nor a default workflow is set, or if the id is not valid.
        """
        is_given = workflow_id is not None and workflow_id != ""
        chosen = workflow_id if is_given else self.settings.workflow_id
        with self._with_conn_id():
            if chosen is None:
                raise api.ValidationError(
                    "no workflow: give workflow_id, or set the Connection's default workflow (extra workflow_id)"
                )
            return check_identifier("workflow_id", chosen)

    def workflow_rules(self, workflow_id: str) -> WorkflowRules | None:
        """Return the rules of a workflow, for example which images it requires.

        The process caches the rules for ten minutes. It caches ``None`` and a :class:`WorkflowError` for one minute.

        :returns: The rules, or ``None`` if they cannot be fetched for a reason that does not prevent a verification.
            For example, the URL of the rules is unknown, or FACEKI does not answer. In this case, a warning is logged.
        :raises FacekiError: if the request fails for a reason that also prevents a verification, such as wrong
            credentials.
        """
        from airflow_provider_faceki.hooks.workflow_rules import cached_rules

        key = (self.settings.base_url, self.settings.client_id, workflow_id)
        return cached_rules(key, lambda: self.get_workflow_rules(workflow_id))

    def image(self, source: ImageSource, *, name: str = "image", conn_id: str | None = None) -> Image:
        """Check an image and return it as an ``Image`` for a call such as ``AnalyzeFace``.

        An image in a storage is checked, but not loaded into memory. If an image is larger than the Connection's
        ``max_image_bytes``, it is refused. Do not call this method on an event loop, because reading a storage would
        block the event loop.

        :param source: Bytes of the image, its absolute local path, its URI, or an ``Image``. An ``Image`` is returned
            unchanged.
        :param name: Name of the image in error messages, such as ``selfie``.
        :param conn_id: Connection for the storage. Default: the Connection in the URI. If the URI contains no
            Connection, none is used.
        :raises ValidationError: if the image is missing, empty, too large, or not JPEG, PNG, WEBP or HEIC.
        :raises OSError: if the storage fails.
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
        """Return a bearer token for FACEKI. If the stored token is missing or expires soon, request a new token.

        :raises FacekiError: if no token can be obtained.
        """
        with self._with_conn_id():
            return self.get_conn().get_access_token()

    def test_connection(self) -> tuple[bool, str]:
        """Request an access token from FACEKI. Return whether the request succeeded, and a message for the user.

        The token store is not used. FACEKI does not charge for a token. FACEKI's documentation and SDKs contain several
        forms of the token request. If FACEKI does not know the configured form, the other forms are tried until one of
        them works, and the message names this form. The form with the secret in the URL is tried only if it is
        configured.
        """
        from dataclasses import replace

        from airflow_provider_faceki.api.transport.retry import RetryPolicy

        try:
            once = replace(self.get_conn(), retry=RetryPolicy(max_attempts=1))
            token = once.fetch_access_token()
        except api.FacekiError as error:
            text = str(error)
            if isinstance(error, api.ConfigurationError) and error.http_status is not None:
                text += self._suggest_auth_flow()
            # Square brackets in the error text are replaced. Otherwise Airflow's command line would interpret them as
            # markup and fail on text such as `[/x]`.
            return False, text.translate(str.maketrans("[]", "()"))
        finally:
            # Airflow's Test button uses a new Connection id for each test. Without this line, the cache would keep the
            # secrets of all tested Connections.
            _cached_connections.pop(self.faceki_conn_id, None)
        mask_secret(token.value)
        return True, f"FACEKI issued a token that is valid for {token.lifetime:.0f} s."

    def _suggest_auth_flow(self) -> str:
        """Try the forms of the token request that are not configured, and return a sentence for the error message.

        The form with the secret in the URL (the URL form) is never tried. The result depends on the other forms:

        - One of them works: the sentence names this form.
        - None of them works, and the URL form is not configured: the sentence says that the URL form was not tried.
        - None of them works, and the URL form is configured, so it has already failed: the result is an empty text.
        """
        from airflow_provider_faceki.api.probes import Diagnosis

        # One form of the token request has the client secret in the URL. It is not tried: if the base URL is wrong, the
        # request possibly reaches the server of somebody else, and the log of this server would contain the secret.
        found = Diagnosis(self.get_conn()).other_auth_flow(in_url=False)
        if found is not None:
            return f". FACEKI issues a token with auth_flow={found.value!r}: set this value"
        if self.settings.auth_flow.sends_url:
            return ""
        untried = api.AuthFlow.ACCESS_TOKEN_QUERY.value
        return f". The form auth_flow={untried!r}, which puts the secret into the URL, was not tried"

    @lazy_property
    def _cached_connection(self) -> _CachedConnection:
        with self._with_conn_id():
            check_identifier("faceki_conn_id", self.faceki_conn_id)
            stored = StoredConnection.of(self.get_connection(self.faceki_conn_id))
            cached = self._find_cached(stored)
            if cached is None:
                cached = self._read(stored)
                for secret in cached.settings.secrets:
                    mask_secret(secret)
                _cached_connections[self.faceki_conn_id] = cached
            _connect_token_backend(cached.client)
        return cached

    async def aget_conn(self) -> AsyncFacekiClient:
        """Return the FACEKI client for use in an event loop. Errors are as for :attr:`settings`."""
        from airflow.providers.common.compat.connection import get_async_connection

        if "_cached_connection" not in self.__dict__:
            check_identifier("faceki_conn_id", self.faceki_conn_id)
            stored = StoredConnection.of(await get_async_connection(self.faceki_conn_id, hook=self))
            cached = self._find_cached(stored)
            if cached is None:
                with self._with_conn_id():
                    # The check imports modules and searches for the file of the CA bundle, which would block the event
                    # loop. Therefore the Connection is checked in a thread.
                    cached = await asyncio.to_thread(self._read, stored)
                for secret in cached.settings.secrets:
                    await _mask_secret_async(secret)
                _cached_connections[self.faceki_conn_id] = cached
            self.__dict__["_cached_connection"] = cached
        client = self._cached_connection.client
        if getattr(client.token_backend, "needs_connect", False):
            from asgiref.sync import sync_to_async

            # The next line looks up a Connection, which blocks the thread. In a triggerer, Airflow allows such lookups
            # only on the threads of asgiref's `sync_to_async`. Therefore the lookup runs on one of these threads.
            await sync_to_async(_connect_token_backend)(client)
        return client.as_async()

    def _find_cached(self, stored: StoredConnection) -> _CachedConnection | None:
        cached = _cached_connections.get(self.faceki_conn_id)
        return cached if cached is not None and cached.stored == stored else None

    def _read(self, stored: StoredConnection) -> _CachedConnection:
        from airflow_provider_faceki.connection.settings import settings_from_connection, token_directory

        settings = settings_from_connection(self.faceki_conn_id, stored)
        backend: TokenBackend | None = None
        if settings.token_store not in schema.TOKEN_STORES:
            from airflow_provider_faceki.token_backend import token_backend

            backend = token_backend(settings.token_store)
        client = api.FacekiClient(
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
            token_backend=backend,
            secret_masker=api.SecretMasker(mask_secret, _mask_secret_async, self.log.warning),
            warn=self.log.warning,
            # Without an observer, the client does no work for metrics.
            observer=metrics.RequestMetrics() if metrics.is_on() else None,
            charge_limit=charge_limit(settings.conn_id, settings.max_charged_calls, current_try),
        )
        return _CachedConnection(stored, settings, client)

    @contextmanager
    def _with_conn_id(self) -> Iterator[None]:
        try:
            yield
        except api.FacekiError as error:
            if is_identifier(self.faceki_conn_id):
                error.with_conn_id(self.faceki_conn_id)
            raise error from None


def current_try(context: Context | None = None) -> str:
    """Return a text that identifies the running try of a task. If no task is running, identify this process.

    The limit of charged calls applies to each of these texts separately.

    :param context: Context of the try. Default: Airflow's current context.
    """
    try:
        ti = (context or get_current_context())["ti"]
    except (RuntimeError, AirflowException):  # RuntimeError in Airflow 3, AirflowException in Airflow 2
        return f"process {os.getpid()}"
    return f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index} {ti.try_number}"


@contextmanager
def _naming_workflow(endpoint: Endpoint[Any]) -> Iterator[None]:
    """Add the id of the workflow to the text of a ``WorkflowError``, because most of these ids are misspelled."""
    try:
        yield
    except api.WorkflowError as error:
        if workflow_id := getattr(endpoint, "workflow_id", None):
            error.message = f"workflow {workflow_id!r}: {error.message}"
        raise


class _CachedConnection(NamedTuple):
    """The stored fields of a Connection, its checked settings, and the client that is built from them."""

    stored: StoredConnection
    settings: ConnectionSettings
    client: FacekiClient


#: Cache of the stored fields, checked settings and client of each Connection, by Connection id. Every hook reads its
#: Connection from Airflow once. If the fields of the Connection are the same as in the cache, the hook uses the
#: settings and the client from the cache. Otherwise the hook creates new ones.
_cached_connections: dict[str, _CachedConnection] = {}

# Airflow's log masker in a forked child process does not know the secrets that the parent process has registered.
# Therefore the child process clears the cache. It then reads its Connections again, and so registers their secrets.
os.register_at_fork(after_in_child=_cached_connections.clear)


def _connect_token_backend(client: FacekiClient) -> None:
    """Look up the Connection for the storage of the client's shared token store.

    The lookup is skipped in three cases: the client has no shared token store in an object storage, the lookup has
    already succeeded in this process, or it failed less than ``SUSPEND_SECONDS`` ago. The docstring of
    ``ObjectStorageTokenBackend.connect`` explains why the hook makes this lookup.
    """
    connect = getattr(client.token_backend, "connect", None)
    if connect is not None:
        connect()


async def _mask_secret_async(value: str) -> None:
    try:
        from airflow.sdk.log import amask_secret
    except ImportError:
        from asgiref.sync import sync_to_async

        # In Airflow 3 without `amask_secret`, masking is a blocking call to Airflow's supervisor, so it must not run on
        # the event loop. In a triggerer of Airflow 3.0 and 3.1, it must run on a thread that `sync_to_async` of asgiref
        # uses. On any other thread, the triggerer would assign the supervisor's responses to the wrong requests and
        # stop.
        await sync_to_async(mask_secret)(value)
    else:
        await amask_secret(value)
