# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Fakes of the task instance, the context, the state store and the logger, for tests that run no DAG."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass
class TaskInstance:
    """Task instance that stores the XComs that are pushed to it."""

    dag_id: str = "dag"
    task_id: str = "task"
    run_id: str = "run"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    start_date: datetime | None = field(default_factory=lambda: datetime.now(UTC))
    pushed: dict[str, object] = field(default_factory=dict)

    def xcom_push(self, key: str, value: object) -> None:
        self.pushed[key] = value


class StateStore(dict[str, object]):
    """Fake of the store that Airflow 3.3 provides for a task instance over its pokes and tries."""

    def set(self, key: str, value: object) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Recorder:
    """Logger that stores its lines, because pytest does not capture the output of Airflow 3's own logger."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *arguments: object) -> None:
        self.lines.append(f"INFO {text % arguments}")

    def warning(self, text: str, *arguments: object) -> None:
        self.lines.append(f"WARNING {text % arguments}")


def context(**more: object) -> Any:
    """Return a context with a new task instance. Its type is Any, because Airflow 2 and 3 define different types."""
    return {"ti": TaskInstance(), "params": {}, **more}


def execute(operator: Any, rendered_with: dict[str, object] | None = None) -> tuple[Any, dict[str, object]]:
    """Render and execute an operator; return its result and the XComs that it pushed in addition."""
    seen = context(**(rendered_with or {}))
    operator.render_template_fields(seen)
    return operator.execute(seen), seen["ti"].pushed
