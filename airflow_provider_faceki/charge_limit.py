# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Limit of the charged calls that one try of a task makes with one Connection.

All threads of the try share the limit. Airflow runs each try in one process, so the count needs no storage. Calls
outside a task are counted for each process.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from airflow_provider_faceki.api.errors import ChargeLimitError, FacekiError

#: Number of charged calls by Connection and try. The number is not stored in the client, because the client is replaced
#: if the Connection changes.
_made = Counter[tuple[str, str]]()
_lock = threading.Lock()


def charge_limit(conn_id: str, maximum: int | None) -> Callable[[], AbstractContextManager[None]]:
    """Return the function that ``FacekiClient`` calls around each charged call to count and to limit these calls.

    :param maximum: Maximum number of charged calls in one try. ``None`` means no limit.
    """
    return nullcontext if maximum is None else partial(_charging, conn_id, maximum)


@contextmanager
def _charging(conn_id: str, maximum: int) -> Iterator[None]:
    """Count the charged call that runs inside this context. If the call was certainly not charged, the count is undone.

    :raises ChargeLimitError: if the limit is reached.
    """
    key = (conn_id, _current_try())
    with _lock:
        if _made[key] >= maximum:
            raise ChargeLimitError(
                f"max_charged_calls={maximum} is reached: this try made {_made[key]} calls that were charged or may "
                "have been, and sent no more. What is left stays open: raise max_charged_calls in the Connection and "
                "clear the task to go on"
            )
        _made[key] += 1
    try:
        yield
    except FacekiError as error:
        if not error.is_ambiguous:
            with _lock:
                _made[key] -= 1
        raise


def _current_try() -> str:
    """Return a text that identifies the running try of a task, or this process if no task is running."""
    from airflow.providers.common.compat.sdk import AirflowException, get_current_context

    try:
        ti = get_current_context()["ti"]
    except (RuntimeError, AirflowException):  # RuntimeError in Airflow 3, AirflowException in Airflow 2
        return f"process {os.getpid()}"
    return f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index} {ti.try_number}"
