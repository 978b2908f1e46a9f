# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Threads that work off what they are given, and hold up nobody's end.

The threads of a ``ThreadPoolExecutor`` are waited for when the process ends: one that sits in an upload would keep a
killed task for minutes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


class Crew(Generic[Given, Made]):
    """Some threads. Only the thread that made it may use it.

    :param size: How many.
    :param work: What they do with each thing that they are given.
    :param broken: What is made of it if that raises.
    """

    def __init__(self, size: int, work: Callable[[Given], Made], broken: Callable[[Exception], Made]) -> None:
        self._work = work
        self._broken = broken
        self._todo: SimpleQueue[Given | None] = SimpleQueue()
        self._made: SimpleQueue[Made] = SimpleQueue()
        self._size = size
        #: What was given, and neither taken nor dismissed.
        self.pending = 0
        for number in range(size):
            threading.Thread(target=self._run, name=f"faceki-batch-{number}", daemon=True).start()

    def give(self, thing: Given) -> None:
        """Have this worked off."""
        self.pending += 1
        self._todo.put(thing)

    def take(self, timeout: float) -> Made | None:
        """Return what became of one thing, or ``None`` if nothing is ready within ``timeout`` seconds."""
        try:
            made = self._made.get(timeout=timeout)
        except Empty:
            return None
        self.pending -= 1
        return made

    def dismiss(self) -> list[Given]:
        """Have nothing more begun; return what was given and will not be."""
        left: list[Given] = []
        while True:
            try:
                thing = self._todo.get_nowait()
            except Empty:
                break
            if thing is not None:
                left.append(thing)
        self.pending -= len(left)
        for _ in range(self._size):
            self._todo.put(None)
        return left

    def _run(self) -> None:
        while (thing := self._todo.get()) is not None:
            try:
                made = self._work(thing)
            except Exception as error:  # noqa: BLE001 - whoever takes it sees to it
                made = self._broken(error)
            self._made.put(made)
            # What was given may hold on to a picture; nothing is held while there is nothing to do.
            del thing, made
