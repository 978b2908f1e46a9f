# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Pool of daemon threads that never delays the end of its process.

``ThreadPoolExecutor`` joins its threads when the process ends, so one thread with a running upload would keep a killed
task alive for minutes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerPool(Generic[Item, Result]):
    """Threads that turn items into results. Only the thread that created the pool is allowed to use it.

    :param size: Number of threads.
    :param work: Turns an item into a result.
    :param on_error: Turns an exception that ``work`` raises into a result.
    """

    def __init__(
        self, size: int, work: Callable[[Item], Result], on_error: Callable[[Exception], Result]
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._items: SimpleQueue[Item | None] = SimpleQueue()
        self._results: SimpleQueue[Result] = SimpleQueue()
        self._size = size
        #: Number of items that were submitted and neither returned as results nor cancelled.
        self.pending = 0
        for number in range(size):
            threading.Thread(target=self._run, name=f"faceki-batch-{number}", daemon=True).start()

    def submit(self, item: Item) -> None:
        """Queue an item."""
        self.pending += 1
        self._items.put(item)

    def next_result(self, timeout: float) -> Result | None:
        """Return a result, or ``None`` if none is ready within ``timeout`` seconds."""
        try:
            result = self._results.get(timeout=timeout)
        except Empty:
            return None
        self.pending -= 1
        return result

    def cancel_pending(self) -> list[Item]:
        """Return the items that no thread has started, and let the threads end after their current item."""
        cancelled: list[Item] = []
        while True:
            try:
                item = self._items.get_nowait()
            except Empty:
                break
            if item is not None:
                cancelled.append(item)
        self.pending -= len(cancelled)
        for _ in range(self._size):
            self._items.put(None)
        return cancelled

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            try:
                result = self._work(item)
            except Exception as error:  # noqa: BLE001 - on_error passes the exception to the pool's owner
                result = self._on_error(error)
            self._results.put(result)
            # An idle thread must not keep a picture in memory.
            del item, result
