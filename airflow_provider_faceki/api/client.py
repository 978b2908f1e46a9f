# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Synchronous and asynchronous client of FACEKI for Python programs with and without Airflow.

Example: ``FacekiClient(...).call(FetchRecords(request_id=...))``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self, TypeVar

from airflow_provider_faceki.api.lazy import lazy_property
from airflow_provider_faceki.api.protocol import session
from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest, TokenStore
from airflow_provider_faceki.api.protocol.session import AuthSession, Endpoint
from airflow_provider_faceki.api.service import FACEKI, AuthFlow, Service
from airflow_provider_faceki.api.tokens.memory import MemoryTokenStore, shared_store
from airflow_provider_faceki.api.transport.drivers import (
    AsyncDriver,
    RequestObserver,
    SecretMasker,
    SyncDriver,
)
from airflow_provider_faceki.api.transport.http_transport import (
    Transport,
    TransportSettings,
    shared_transport,
)
from airflow_provider_faceki.api.transport.retry import RetryPolicy

if TYPE_CHECKING:
    from airflow_provider_faceki.api.tokens.file import FileTokenStore
    from airflow_provider_faceki.api.tokens.shared import TokenBackend

T = TypeVar("T")


class _SharedValue:
    """Base class of the clients. ``copy`` returns the client itself, and ``pickle`` raises an error.

    A client is immutable, so a copy is not needed. A client contains a client secret, and a pickle would contain this
    secret in plain text. Therefore a client cannot be pickled.
    """

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} contains a client secret and cannot be pickled; create it in the "
            "process that uses it"
        )


@dataclass(frozen=True, repr=False)
class FacekiClient(_SharedValue):
    """Synchronous client of FACEKI. Its calls block the caller's thread.

    :param client_id: Client id from the FACEKI portal, Integrations → Client ID.
    :param client_secret: Client secret from the same page of the FACEKI portal.
    :param auth_flow: Form of the request that fetches an access token.
    :param service: URLs, paths and field names of the FACEKI installation.
    :param transport: Timeouts, TLS and proxy settings.
    :param retry: Rules for sending a failed request again.
    :param token_directory: Directory in which the processes of one host share the encrypted access token. The directory
        is created with mode 0700. If both ``token_directory`` and ``token_backend`` are ``None``, the token is stored
        in the memory of this process only.
    :param token_backend: Storage through which several hosts share the encrypted access token. If ``token_directory``
        is also set, the directory is a cache for this storage.
    :param secret_masker: Functions that mask access tokens and the ids of new links in log lines. The default is
        ``None``, because this package itself writes no log lines that contain secrets.
    :param warn: Function that logs a warning. It is called with one sentence if ``token_directory`` or
        ``token_backend`` cannot be used.
    :param observer: Object that counts requests for metrics. It is called for each request.
    :param charge_limit: Function that returns a context manager. The client calls the function for each charged call of
        FACEKI's API, and performs the charged call inside the context manager. If the charged call is not allowed, the
        context manager raises an error.
    """

    client_id: str
    client_secret: str
    auth_flow: AuthFlow = AuthFlow.GENERATE_TOKEN
    service: Service = FACEKI
    transport: TransportSettings = field(default_factory=TransportSettings)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    token_directory: Path | None = None
    token_backend: TokenBackend | None = None
    secret_masker: SecretMasker | None = None
    warn: Callable[[str], None] = warnings.warn
    observer: RequestObserver | None = None
    charge_limit: Callable[[], AbstractContextManager[None]] = nullcontext

    def call(self, endpoint: Endpoint[T]) -> T:
        """Perform one call of FACEKI's API and return its typed result.

        :param endpoint: The call with its arguments, such as ``FetchRecords(request_id=...)``.
        :raises FacekiError: if the call failed. The tree in ``api/errors.py`` shows the subclasses of ``FacekiError``.
        """
        with self._charging(endpoint):
            return self._driver.run(session.call(self._session, endpoint))

    def get_access_token(self) -> str:
        """Return the stored access token if it is usable. Otherwise fetch a new token and return it."""
        return self._driver.run(session.token(self._session)).value

    def fetch_access_token(self) -> AccessToken:
        """Request a new token from FACEKI and return it. The token store is neither read nor changed."""
        return self._driver.run(session.fetch_token(self._session))

    def as_async(self) -> AsyncFacekiClient:
        """Return an asynchronous client with the same account, settings and access token."""
        return AsyncFacekiClient(self)

    def _charging(self, endpoint: object) -> AbstractContextManager[None]:
        return self.charge_limit() if getattr(endpoint, "is_charged", False) else nullcontext()

    @lazy_property
    def _driver(self) -> SyncDriver:
        return SyncDriver(self._shared_transport(), self.retry, self.secret_masker, self.observer)

    @lazy_property
    def _session(self) -> AuthSession:
        request = TokenRequest(self.service.base_url, self.client_id, self.client_secret, self.auth_flow)
        return AuthSession(self.service, request, self._store(request), time.time)

    def _shared_transport(self) -> Transport:
        return shared_transport(f"{self.service.base_url} {self.client_id}", self.transport)

    def _store(self, request: TokenRequest) -> TokenStore:
        verified = self.transport.verify is not False
        key = (self.token_directory, self.token_backend, verified, request.fingerprint())
        return shared_store(key, lambda: self._make_store(request, verified))

    def _make_store(self, request: TokenRequest, verified: bool) -> TokenStore:
        local: MemoryTokenStore | FileTokenStore = MemoryTokenStore()
        if self.token_directory is None and self.token_backend is None:
            return local
        # These modules are imported late, because they load the package `cryptography`. A client that stores its token
        # in memory only does not need this package.
        from airflow_provider_faceki.api.tokens.file import FileTokenStore
        from airflow_provider_faceki.api.tokens.sealing import TokenSeal

        seal = TokenSeal(request, verified=verified)
        if self.token_directory is not None:
            local = FileTokenStore(self.token_directory, seal, self.warn)
        if self.token_backend is None:
            return local
        from airflow_provider_faceki.api.tokens.shared import SharedTokenStore

        return SharedTokenStore(self.token_backend, local, seal, self.warn)


class AsyncFacekiClient(_SharedValue):
    """Asynchronous client of FACEKI, for event loops.

    :param client: Synchronous client. The asynchronous client uses its account, settings and access token.
    """

    def __init__(self, client: FacekiClient) -> None:
        self._client = client

    def as_sync(self) -> FacekiClient:
        """Return the synchronous client with the same account, settings and access token."""
        return self._client

    async def call(self, endpoint: Endpoint[T]) -> T:
        """Perform one call of FACEKI's API. The parameter, result and errors are those of :meth:`FacekiClient.call`."""
        with self._client._charging(endpoint):
            return await self._driver.run(session.call(self._client._session, endpoint))

    async def get_access_token(self) -> str:
        """Return the stored access token if it is usable. Otherwise fetch a new token and return it."""
        return (await self._driver.run(session.token(self._client._session))).value

    @lazy_property
    def _driver(self) -> AsyncDriver:
        client = self._client
        return AsyncDriver(client._shared_transport(), client.retry, client.secret_masker, client.observer)
