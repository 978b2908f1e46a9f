# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The only two loops: they carry out what a conversation yields, and decide nothing.

``perform`` runs on the caller's thread; ``perform_async`` never blocks its event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tenacity import AsyncRetrying, Retrying

from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.protocol.envelope import Payload, read_payload
from airflow_provider_faceki.api.protocol.http import HttpRequest
from airflow_provider_faceki.api.protocol.session import (
    Effect,
    MaskSecret,
    RunBlocking,
    SendRequest,
    Sleep,
    Steps,
)
from airflow_provider_faceki.api.transport.http_transport import Transport
from airflow_provider_faceki.api.transport.retry import RetryPolicy

T = TypeVar("T")


def _nothing(_value: str) -> None:
    """MaskSecret from nobody: without Airflow there is no log that we write to."""


async def _nothing_async(_value: str) -> None:
    """MaskSecret from nobody."""


@dataclass(frozen=True, slots=True)
class SecretMasker:
    """How to keep a value out of logs, for each of the two loops. Default: nobody logs."""

    conceal: Callable[[str], None] = _nothing
    conceal_async: Callable[[str], Awaitable[None]] = _nothing_async


class SyncDriver:
    """Carries effects out on this thread.

    :param transport: Sends.
    :param policy: Says what is sent again.
    :param secret_masker: Keeps tokens out of logs.
    """

    def __init__(self, transport: Transport, policy: RetryPolicy, secret_masker: SecretMasker) -> None:
        self._transport = transport
        self._concealer = secret_masker
        self._retrying = Retrying(**policy.arguments())

    def perform(self, conversation: Steps[T]) -> T:
        """Run ``conversation`` to its end and return its result."""
        step: Callable[[], Effect] = partial(next, conversation)
        try:
            while True:
                effect = step()
                try:
                    step = partial(conversation.send, self._handle(effect))
                except FacekiError as error:
                    step = partial(conversation.throw, error)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            conversation.close()

    def _handle(self, effect: Effect) -> object:
        match effect:
            case SendRequest(request):
                return self._retrying(self._exchange, request)
            case RunBlocking(operation):
                return operation()
            case Sleep(seconds):
                time.sleep(seconds)
            case MaskSecret(value):
                self._concealer.conceal(value)
        return None

    def _exchange(self, request: HttpRequest) -> Payload:
        early = self._transport.rate_limiter.reserve(time.monotonic())
        if early:
            time.sleep(early)
        return read_payload(self._transport.send(request))


class AsyncDriver:
    """Carries effects out for an event loop: I/O in the transport's threads, waits as ``asyncio.sleep``.

    Takes what :class:`SyncDriver` takes.
    """

    def __init__(self, transport: Transport, policy: RetryPolicy, secret_masker: SecretMasker) -> None:
        self._transport = transport
        self._concealer = secret_masker
        self._retrying = AsyncRetrying(**policy.arguments(), sleep=asyncio.sleep)

    async def perform(self, conversation: Steps[T]) -> T:
        """Run ``conversation`` to its end and return its result."""
        step: Callable[[], Effect] = partial(next, conversation)
        try:
            while True:
                effect = step()
                try:
                    step = partial(conversation.send, await self._handle(effect))
                except FacekiError as error:
                    step = partial(conversation.throw, error)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            conversation.close()

    async def _handle(self, effect: Effect) -> object:
        match effect:
            case SendRequest(request):
                # A copy, for the waits of one AsyncRetrying would share their state within a thread.
                return await self._retrying.copy()(self._exchange, request)
            case RunBlocking(operation):
                return await self._transport.run_in_thread(operation)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case MaskSecret(value):
                await self._concealer.conceal_async(value)
        return None

    async def _exchange(self, request: HttpRequest) -> Payload:
        early = self._transport.rate_limiter.reserve(time.monotonic())
        if early:
            await asyncio.sleep(early)
        # Reading a large answer takes as long as a small request, so that too is not for the loop.
        return await self._transport.run_in_thread(lambda: read_payload(self._transport.send(request)))
