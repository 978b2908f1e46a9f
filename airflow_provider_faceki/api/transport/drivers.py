# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Drivers, which run the steps of a call. They contain no logic of FACEKI's protocol.

The steps are a generator (see ``protocol/session.py``). The generator yields effects, such as "send this request" or
"wait", and the driver executes each effect. :class:`SyncDriver` blocks the caller's thread. :class:`AsyncDriver` does
blocking work in threads, so that it does not block its event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from tenacity import AsyncRetrying, Retrying

from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.protocol.envelope import Payload, read_payload
from airflow_provider_faceki.api.protocol.messages import HttpRequest
from airflow_provider_faceki.api.protocol.session import (
    CountToken,
    Effect,
    MaskSecret,
    RunBlocking,
    SendRequest,
    Sleep,
    Steps,
)
from airflow_provider_faceki.api.transport.http_transport import Transport, without_frames
from airflow_provider_faceki.api.transport.retry import RetryPolicy

T = TypeVar("T")


#: Maximum number of new links that a client masks. Airflow masks all secrets of a process with one pattern, and
#: compiles this pattern again for each new secret. On Airflow 3.3, 100 secrets need 0.1 s of CPU time in all, and 1 000
#: secrets need 28 s.
MAX_MASKED_LINKS = 100


@dataclass(frozen=True, slots=True)
class SecretMasker:
    """Functions that mask an access token or the id of a new verification link in all later log lines.

    Each masked value makes logging slower. Therefore only the first :data:`MAX_MASKED_LINKS` links are masked. Every
    token is masked.

    :param mask: Function for synchronous code. It is called with the secret.
    :param mask_async: Coroutine function for asynchronous code. It is called with the secret.
    :param warn: Function that is called once, with one sentence, for the first link that is not masked. With ``None``,
        there is no warning.
    """

    mask: Callable[[str], None]
    mask_async: Callable[[str], Awaitable[None]]
    warn: Callable[[str], None] | None = None
    _links: Iterator[int] = field(default_factory=itertools.count, init=False, repr=False, compare=False)

    def accepts(self, secret: MaskSecret) -> bool:
        """Return True if the secret has to be masked. This is the case for each token, and for the first 100 links."""
        if not secret.is_link:
            return True
        number = next(self._links)
        if number == MAX_MASKED_LINKS and self.warn is not None:
            self.warn(
                f"this process has created more than {MAX_MASKED_LINKS} verification links; the further links are not "
                "masked in its log, because each masked value makes logging slower"
            )
        return number < MAX_MASKED_LINKS


class RequestObserver(Protocol):
    """Observer of all requests, for metrics. Its methods are called from several threads and must not raise errors."""

    def sent(self, endpoint: str, status: int | None) -> None:
        """Record one attempt to send a request.

        :param endpoint: Name of the class that describes the call, such as ``FetchRecords``. It is empty for a token
            request.
        :param status: HTTP status of the response, or ``None`` if there was no response.
        """

    def retried(self, endpoint: str) -> None:
        """Record that a request failed and will be sent again after a pause."""

    def token_received(self) -> None:
        """Record that FACEKI answered a token request with an access token."""


class _Driver:
    """Base class of the synchronous and the asynchronous driver. A driver is the code that does the I/O of a call.

    :param policy: Rules for sending a failed request again.
    :param secret_masker: Functions that mask access tokens and the ids of new links in log lines, or ``None``.
    :param observer: Observer of all requests, for metrics, or ``None``.
    """

    def __init__(
        self,
        transport: Transport,
        policy: RetryPolicy,
        secret_masker: SecretMasker | None,
        observer: RequestObserver | None,
    ) -> None:
        self._transport = transport
        self._secret_masker = secret_masker
        self._observer = observer
        # The first attempt of a request runs without tenacity. If it fails, tenacity gets its error as the result of
        # the first attempt, and repeats the request. So a request that succeeds at once needs no time for tenacity. For
        # a poll of a triggerer, this would be about a fifth of the CPU time.
        self._retry_arguments = policy.arguments()
        if observer is not None:
            self._retry_arguments["before_sleep"] = lambda state: observer.retried(state.args[0].endpoint)

    def _exchange(self, request: HttpRequest) -> Payload:
        if self._observer is None:
            return read_payload(self._transport.send(request))
        status: int | None = None
        try:
            response = self._transport.send(request)
            status = response.status
        finally:
            self._observer.sent(request.endpoint, status)
        return read_payload(response)


class SyncDriver(_Driver):
    """Driver that does the I/O of a call, such as sending and waiting, on the caller's thread."""

    def run(self, steps: Steps[T]) -> T:
        """Run the steps of a call to their end and return the result of the call.

        :raises FacekiError: if the call failed. The functions that ran the steps are removed from the traceback of the
            error, because their local variables contain responses, and tools such as Sentry report the local variables
            in a traceback.
        """
        advance: Callable[[], Effect] = partial(next, steps)
        try:
            while True:
                effect = advance()
                try:
                    advance = partial(steps.send, self._handle(effect))
                except FacekiError as error:
                    advance = partial(steps.throw, error)
        except StopIteration as end:
            result: T = end.value
            return result
        except FacekiError as error:
            failure = without_frames(error)
        finally:
            steps.close()
        raise failure

    def _handle(self, effect: Effect) -> object:
        match effect:
            case SendRequest(request):
                return self._send_with_retries(request)
            case RunBlocking(operation):
                return operation()
            case Sleep(seconds):
                time.sleep(seconds)
            case MaskSecret() if self._secret_masker is not None and self._secret_masker.accepts(effect):
                self._secret_masker.mask(effect.value)
            case CountToken() if self._observer is not None:
                self._observer.token_received()
        return None

    def _send_with_retries(self, request: HttpRequest) -> Payload:
        try:
            return self._send(request)
        except FacekiError as error:
            failures = [error]
        return Retrying(**self._retry_arguments)(self._send, request, failures)

    def _send(self, request: HttpRequest, failures: list[FacekiError] | None = None) -> Payload:
        if failures:
            raise failures.pop()
        delay = self._transport.rate_limiter.reserve(time.monotonic())
        if delay:
            time.sleep(delay)
        return self._exchange(request)


class AsyncDriver(_Driver):
    """Driver for event loops. It does I/O in the transport's threads, and waits with ``asyncio.sleep``."""

    async def run(self, steps: Steps[T]) -> T:
        """Run the steps of a call to their end and return the result of the call.

        :raises FacekiError: if the call failed, as in :meth:`SyncDriver.run`.
        """
        advance: Callable[[], Effect] = partial(next, steps)
        try:
            while True:
                effect = advance()
                try:
                    advance = partial(steps.send, await self._handle(effect))
                except FacekiError as error:
                    advance = partial(steps.throw, error)
        except StopIteration as end:
            result: T = end.value
            return result
        except FacekiError as error:
            failure = without_frames(error)
        finally:
            steps.close()
        raise failure

    async def _handle(self, effect: Effect) -> object:
        match effect:
            case SendRequest(request):
                return await self._send_with_retries(request)
            case RunBlocking(operation):
                return await self._transport.run_in_thread(operation)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case MaskSecret() if self._secret_masker is not None and self._secret_masker.accepts(effect):
                await self._secret_masker.mask_async(effect.value)
            case CountToken() if self._observer is not None:
                self._observer.token_received()
        return None

    async def _send_with_retries(self, request: HttpRequest) -> Payload:
        try:
            return await self._send(request)
        except FacekiError as error:
            failures = [error]
        return await AsyncRetrying(**self._retry_arguments, sleep=asyncio.sleep)(
            self._send, request, failures
        )

    async def _send(self, request: HttpRequest, failures: list[FacekiError] | None = None) -> Payload:
        if failures:
            raise failures.pop()
        delay = self._transport.rate_limiter.reserve(time.monotonic())
        if delay:
            await asyncio.sleep(delay)
        # The response is parsed in the thread that sends the request. On the event loop, parsing a large response would
        # block all other tasks.
        return await self._transport.run_in_thread(partial(self._exchange, request))
