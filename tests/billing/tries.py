# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tries of one task instance. Each try is a new operator, as Airflow makes one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_faceki.charged_call import digest
from tests.airflow.fakes import TaskInstance

#: No test here waits for more than a few events.
MOST_DEFERRALS = 10


class KeptInFile:
    """Stands in for ``task_state_store``: a file that outlives the process, whole at any moment."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str, default: object = None) -> Any:
        return self._all().get(key, default)

    def set(self, key: str, value: object) -> None:
        # As Airflow's own, it takes nothing that JSON has no word for, and not None.
        assert value is not None
        self._write({**self._all(), key: value})

    def delete(self, key: str) -> None:
        self._write({name: value for name, value in self._all().items() if name != key})

    @property
    def is_marked(self) -> bool:
        """Whether anything may have been sent, as far as it knows."""
        marks: list[Any] = [
            mark for key, mark in self._all().items() if key.startswith("faceki_submitting_since")
        ]
        return any(not mark.get("is_finished") for mark in marks)

    def _all(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.path.read_text()) if self.path.exists() else {}
        return found

    def _write(self, content: dict[str, object]) -> None:
        beside = self.path.with_name(f"{self.path.name}.new")
        beside.write_text(json.dumps(content, allow_nan=False))
        os.replace(beside, self.path)


def mark(store: KeptInFile, at: object, identifier: str | None = None) -> None:
    """Leave behind what a try leaves that was killed while it sent."""
    apart = "" if identifier is None else f"_{digest(identifier)}"
    store.set(f"faceki_submitting_since{apart}", {"at": at, "images": None})


class Tries:
    """One task instance: :meth:`go` is its next try, to the end, whatever it is deferred for on the way.

    What :attr:`meanwhile` is set to happens whenever it is deferred, before the triggerer comes to look.

    :param make: Makes the operator.
    :param store: Where the task instance remembers, or ``None`` for an Airflow before 3.3.
    """

    #: Whether the task begins anew, by its clock, whenever it is resumed: so in Airflow 3.0 to 3.2
    #: (https://github.com/apache/airflow/issues/63240).
    start_moves = False

    def __init__(self, make: Callable[[], Any], store: KeptInFile | None) -> None:
        self.make = make
        self.store = store
        self.ti = TaskInstance(run_id="run", try_number=0)
        self.deferrals: list[TaskDeferred] = []
        self.meanwhile: Callable[[TaskDeferred], object] = id

    def go(self) -> Any:
        self.ti.try_number += 1
        self.ti.start_date = datetime.now(UTC)
        self.ti.pushed.clear()
        context = {"ti": self.ti, "params": {}}
        if self.store is not None:
            context["task_state_store"] = self.store
        operator, step = self._begin(context), "execute"
        event: dict[str, object] = {}
        while True:
            try:
                return getattr(operator, step)(context, **event)
            except TaskDeferred as deferred:
                self.deferrals.append(deferred)
                assert len(self.deferrals) < MOST_DEFERRALS, "deferred again and again"
                self.meanwhile(deferred)
                event = {**(deferred.kwargs or {}), "event": asyncio.run(first_event(deferred.trigger))}
                if self.start_moves:
                    self.ti.start_date = datetime.now(UTC)
                operator, step = self._begin(context), deferred.method_name

    def _begin(self, context: Any) -> Any:
        operator = self.make()
        operator.render_template_fields(context)
        return operator


async def first_event(trigger: Any) -> object:
    """What a trigger tells, having been through the database."""
    path, arguments = trigger.serialize()
    # The first look comes at some moment of the first pause, which may be a minute.
    hasty = {**arguments, "poke_interval": 0.0}
    again = type(trigger)(**json.loads(json.dumps(hasty)))
    assert path == f"{type(again).__module__}.{type(again).__qualname__}"
    async for event in again.run():
        return event.payload
    return None
