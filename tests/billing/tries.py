# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Tries of one task instance. Each try creates a new operator, as Airflow does."""

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

#: If a test defers more often than this, it fails.
MOST_DEFERRALS = 10


class FileStateStore:
    """Replacement for ``task_state_store``: a file that outlives the process. A kill never leaves it half written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str, default: object = None) -> Any:
        return self._all().get(key, default)

    def set(self, key: str, value: object) -> None:
        # Like Airflow's own store, it accepts only JSON values, and it does not accept None.
        assert value is not None
        self._write({**self._all(), key: value})

    def delete(self, key: str) -> None:
        self._write({name: value for name, value in self._all().items() if name != key})

    @property
    def has_intent(self) -> bool:
        """Whether the store contains the mark of an unfinished call, which means that the call was possibly sent."""
        intents: list[Any] = [
            intent for key, intent in self._all().items() if key.startswith("faceki_submitting_since")
        ]
        return any(not intent.get("is_finished") for intent in intents)

    def _all(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.path.read_text()) if self.path.exists() else {}
        return found

    def _write(self, content: dict[str, object]) -> None:
        beside = self.path.with_name(f"{self.path.name}.new")
        beside.write_text(json.dumps(content, allow_nan=False))
        os.replace(beside, self.path)


def mark(store: FileStateStore, at: object, identifier: str | None = None) -> None:
    """Store an intent, as a try leaves it behind if it is killed while it sends.

    Unlike a real intent, it does not say which try stored it.
    """
    apart = "" if identifier is None else f"_{digest(identifier)}"
    store.set(f"faceki_submitting_since{apart}", {"at": at, "images": None})


class Tries:
    """One task instance: :meth:`go` runs its next try to the end, including all deferrals.

    The function in :attr:`meanwhile` is called after each deferral, before the triggerer polls.

    :param make: Creates the operator.
    :param store: State store of the task instance, or ``None`` for an Airflow before 3.3.
    """

    #: Whether the task's start time moves each time it resumes, as in Airflow 3.0 to 3.2
    #: (https://github.com/apache/airflow/issues/63240).
    start_moves = False

    def __init__(self, make: Callable[[], Any], store: FileStateStore | None) -> None:
        self.make = make
        self.store = store
        self.ti = TaskInstance(run_id="run", try_number=0)
        self.deferrals: list[TaskDeferred] = []
        self.meanwhile: Callable[[TaskDeferred], object] = id
        self._resumed: tuple[str, dict[str, object]] = ("execute", {})

    def go(self) -> Any:
        self.ti.try_number += 1
        self.ti.start_date = datetime.now(UTC)
        return self._run("execute", {})

    def clear(self) -> None:
        """Clear the task after it has ended. Airflow then raises ``max_tries``, which a retry does not change."""
        self.ti.max_tries = self.ti.try_number

    def run_after_clear(self) -> Any:
        """Run the next try of a deferred task that had resumed and was then cleared while it was running.

        Airflow 3 keeps the start time, the method and the arguments with which the earlier try resumed.
        """
        self.ti.try_number += 1
        return self._run(*self._resumed)

    def resume_twice(self) -> Any:
        """Execute the last resumption of the current try a second time."""
        return self._run(*self._resumed)

    def _run(self, step: str, event: dict[str, object]) -> Any:
        self.ti.pushed.clear()
        context = {"ti": self.ti, "params": {}}
        if self.store is not None:
            context["task_state_store"] = self.store
        while True:
            try:
                return getattr(self._begin(context), step)(context, **event)
            except TaskDeferred as deferred:
                self.deferrals.append(deferred)
                assert len(self.deferrals) < MOST_DEFERRALS, "deferred again and again"
                self.meanwhile(deferred)
                event = {**(deferred.kwargs or {}), "event": asyncio.run(first_event(deferred.trigger))}
                if self.start_moves:
                    self.ti.start_date = datetime.now(UTC)
                step = deferred.method_name
                self._resumed = step, event

    def _begin(self, context: Any) -> Any:
        operator = self.make()
        operator.render_template_fields(context)
        return operator


async def first_event(trigger: Any) -> object:
    """Return the payload of a trigger's event, after the trigger was serialized as Airflow does for its database.

    The trigger polls with the shortest pauses. If it ends without an event, the result is ``None``.
    """
    path, arguments = trigger.serialize()
    # The first poll comes at a random time in the first pause, which can be a minute. With the interval zero, it comes
    # within a second.
    hasty = {**arguments, "poke_interval": 0.0}
    again = type(trigger)(**json.loads(json.dumps(hasty)))
    assert path == f"{type(again).__module__}.{type(again).__qualname__}"
    async for event in again.run():
        return event.payload
    return None
