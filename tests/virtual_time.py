# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""An event loop with a virtual clock: if all tasks wait, the clock jumps to the end of the shortest wait.

A test of a wait of three days then takes no time, and its seconds are exact. The tested code must not use other
threads, because the clock would not wait for them. :class:`VirtualExecutor` replaces such threads.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

#: Time of the virtual clock, in seconds, at the start of each event loop.
START = 1000.0


class _JumpingSelector(selectors.DefaultSelector):
    """Selector that does not wait, but advances the clock."""

    now = START

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "every task waits for an event that never happens"
            self.now += timeout
        return ready


class _VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self.spent = 0.0

    def time(self) -> float:
        return self._jumping.now


class VirtualTime:
    """Replacement for the module ``time``. Both of its clocks are the clock of the running event loop."""

    @staticmethod
    def monotonic() -> float:
        return asyncio.get_running_loop().time()

    time = monotonic


class VirtualExecutor:
    """Replacement for ``ThreadPoolExecutor`` that calls each function on the event loop.

    The attribute ``seconds`` of a function is the number of virtual seconds until its call begins. Without this
    attribute, the call begins at once. If the function calls :func:`spend`, its result is available later.
    """

    def __init__(self, max_workers: int, thread_name_prefix: str) -> None:
        pass

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        result: Future[T] = Future()

        def call() -> None:
            if not result.set_running_or_notify_cancel():
                return
            loop.spent = 0.0
            try:
                end = partial(result.set_result, function(*arguments))
            except Exception as error:  # noqa: BLE001 - a real executor also passes every exception on
                end = partial(result.set_exception, error)
            if loop.spent:
                loop.call_later(loop.spent, end)
            else:
                end()

        loop = _running_loop()
        loop.call_later(getattr(function, "seconds", 0.0), call)
        return result


def block(seconds: float) -> None:
    """Simulate code that blocks the event loop for this number of virtual seconds."""
    _running_loop()._jumping.now += seconds


def spend(seconds: float) -> None:
    """Let the function that a :class:`VirtualExecutor` runs now take this number of virtual seconds longer."""
    _running_loop().spent += seconds


def _running_loop() -> _VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _VirtualTimeLoop)
    return loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop with a virtual clock, and return its result."""
    with asyncio.Runner(loop_factory=_VirtualTimeLoop) as runner:
        return runner.run(work)


def use_virtual_time(monkeypatch: pytest.MonkeyPatch, *modules: object) -> None:
    """Let these modules, which import ``time``, read the clock of the running event loop."""
    for module in modules:
        monkeypatch.setattr(module, "time", VirtualTime)


def elapsed() -> float:
    """Return the virtual seconds since the start of the running event loop."""
    return asyncio.get_running_loop().time() - START
