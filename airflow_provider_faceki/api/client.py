# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""FACEKI from any Python program: ``FacekiClient(...).ask(FetchRecords(request_id=...))``."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from airflow_provider_faceki.api import conversation
from airflow_provider_faceki.api.auth import AccessToken, AuthFlow, RequestToken, TokenStore
from airflow_provider_faceki.api.conversation import Account, Endpoint
from airflow_provider_faceki.api.performers import AsyncPerformer, Concealer, Performer
from airflow_provider_faceki.api.retry import RetryPolicy
from airflow_provider_faceki.api.service import FACEKI, Service
from airflow_provider_faceki.api.token_store import MemoryTokenStore, shared_store
from airflow_provider_faceki.api.transport import Transport, TransportSettings, shared_transport

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class FacekiClient:
    """Asks FACEKI, on the caller's thread.

    :param client_id: From the FACEKI portal, Integrations → Client ID.
    :param client_secret: Its secret.
    :param auth_flow: Form of the token request.
    :param service: Addresses and paths.
    :param transport: Timeouts, TLS and proxies.
    :param retry: What is sent again.
    :param token_directory: Directory (made with mode 0700) through which the processes of one host share the
        token, encrypted; ``None`` keeps it in this process.
    :param concealer: How to keep tokens out of logs.
    :param warn: Called with a sentence when the directory cannot be used.
    """

    client_id: str
    client_secret: str
    auth_flow: AuthFlow = AuthFlow.GENERATE_TOKEN
    service: Service = FACEKI
    transport: TransportSettings = field(default_factory=TransportSettings)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    token_directory: Path | None = None
    concealer: Concealer = field(default_factory=Concealer)
    warn: Callable[[str], None] = warnings.warn

    def ask(self, endpoint: Endpoint[T]) -> T:
        """Perform one call and return its typed result.

        :raises FacekiError: any of the tree in ``api/errors.py``.
        """
        return self._performer.perform(conversation.ask(self._account, endpoint))

    def get_access_token(self) -> str:
        """Return a usable bearer token, from the store if there is one."""
        return self._performer.perform(conversation.token(self._account)).value

    def fetch_access_token(self) -> AccessToken:
        """Ask FACEKI for a new token, past the store and without keeping it."""
        return self._performer.perform(conversation.fetch_token(self._account))

    @cached_property
    def on_event_loop(self) -> AsyncFacekiClient:
        """The same for an event loop."""
        return AsyncFacekiClient(self)

    @cached_property
    def _performer(self) -> Performer:
        return Performer(self._shared_transport(), self.retry, self.concealer)

    @cached_property
    def _account(self) -> Account:
        request = RequestToken(self.service.base_url, self.client_id, self.client_secret, self.auth_flow)
        return Account(self.service, request, self._store(request), time.time)

    def _shared_transport(self) -> Transport:
        return shared_transport(f"{self.service.base_url} {self.client_id}", self.transport)

    def _store(self, request: RequestToken) -> TokenStore:
        def make() -> TokenStore:
            if self.token_directory is None:
                return MemoryTokenStore()
            from airflow_provider_faceki.api.token_file import FileTokenStore

            return FileTokenStore(self.token_directory, request, self.warn)

        return shared_store((self.token_directory, request.fingerprint()), make)


class AsyncFacekiClient:
    """Asks FACEKI from an event loop, by the rules and with the token of ``client``.

    :param client: The client whose account it shares.
    """

    def __init__(self, client: FacekiClient) -> None:
        self._client = client

    @property
    def on_own_thread(self) -> FacekiClient:
        """The same for the caller's thread."""
        return self._client

    async def ask(self, endpoint: Endpoint[T]) -> T:
        """Perform one call and return its typed result.

        :raises FacekiError: any of the tree in ``api/errors.py``.
        """
        return await self._performer.perform(conversation.ask(self._client._account, endpoint))

    async def get_access_token(self) -> str:
        """Return a usable bearer token, from the store if there is one."""
        return (await self._performer.perform(conversation.token(self._client._account))).value

    @cached_property
    def _performer(self) -> AsyncPerformer:
        client = self._client
        return AsyncPerformer(client._shared_transport(), client.retry, client.concealer)
