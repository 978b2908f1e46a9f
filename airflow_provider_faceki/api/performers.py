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

from airflow_provider_faceki.api.conversation import Conceal, Conversation, Effect, Exchange, Offload, Pause
from airflow_provider_faceki.api.envelope import Answer, read_answer
from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.retry import RetryPolicy
from airflow_provider_faceki.api.transport import Transport
from airflow_provider_faceki.api.wire import HttpRequest

T = TypeVar("T")


def _nothing(_value: str) -> None:
    """Conceal from nobody: without Airflow there is no log that we write to."""


async def _nothing_async(_value: str) -> None:
    """Conceal from nobody."""


@dataclass(frozen=True, slots=True)
class Concealer:
    """How to keep a value out of logs, for each of the two loops. Default: nobody logs."""

    conceal: Callable[[str], None] = _nothing
    conceal_async: Callable[[str], Awaitable[None]] = _nothing_async


class Performer:
    """Carries effects out on this thread.

    :param transport: Sends.
    :param policy: Says what is sent again.
    :param concealer: Keeps tokens out of logs.
    """

    def __init__(self, transport: Transport, policy: RetryPolicy, concealer: Concealer) -> None:
        self._transport = transport
        self._concealer = concealer
        self._retrying = Retrying(**policy.arguments())

    def perform(self, conversation: Conversation[T]) -> T:
        """Run ``conversation`` to its end and return its result."""
        step: Callable[[], Effect] = partial(next, conversation)
        try:
            while True:
                effect = step()
                try:
                    step = partial(conversation.send, self._carry_out(effect))
                except FacekiError as error:
                    step = partial(conversation.throw, error)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            conversation.close()

    def _carry_out(self, effect: Effect) -> object:
        match effect:
            case Exchange(request):
                return self._retrying(self._exchange, request)
            case Offload(operation):
                return operation()
            case Pause(seconds):
                time.sleep(seconds)
            case Conceal(value):
                self._concealer.conceal(value)
        return None

    def _exchange(self, request: HttpRequest) -> Answer:
        early = self._transport.pace.reserve(time.monotonic())
        if early:
            time.sleep(early)
        return read_answer(self._transport.send(request))


class AsyncPerformer:
    """Carries effects out for an event loop: I/O in the transport's threads, waits as ``asyncio.sleep``.

    Takes what :class:`Performer` takes.
    """

    def __init__(self, transport: Transport, policy: RetryPolicy, concealer: Concealer) -> None:
        self._transport = transport
        self._concealer = concealer
        self._retrying = AsyncRetrying(**policy.arguments(), sleep=asyncio.sleep)

    async def perform(self, conversation: Conversation[T]) -> T:
        """Run ``conversation`` to its end and return its result."""
        step: Callable[[], Effect] = partial(next, conversation)
        try:
            while True:
                effect = step()
                try:
                    step = partial(conversation.send, await self._carry_out(effect))
                except FacekiError as error:
                    step = partial(conversation.throw, error)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            conversation.close()

    async def _carry_out(self, effect: Effect) -> object:
        match effect:
            case Exchange(request):
                # A copy, for the waits of one AsyncRetrying would share their state within a thread.
                return await self._retrying.copy()(self._exchange, request)
            case Offload(operation):
                return await self._transport.run_off_loop(operation)
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Conceal(value):
                await self._concealer.conceal_async(value)
        return None

    async def _exchange(self, request: HttpRequest) -> Answer:
        early = self._transport.pace.reserve(time.monotonic())
        if early:
            await asyncio.sleep(early)
        # Reading a large answer takes as long as a small request, so that too is not for the loop.
        return await self._transport.run_off_loop(lambda: read_answer(self._transport.send(request)))
