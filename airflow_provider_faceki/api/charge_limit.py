# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Limit the number of charged calls that one try of a task makes with one Connection.

The caller says which try runs now. All threads of the try share the limit. The count is stored only in the memory of
the process that runs the try. If a deferred try resumes in another process, the count starts from 0 there.

The module also remembers charged calls whose outcome is unknown: calls that are running, and calls that an error such
as ``AirflowTaskTimeout`` has interrupted.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from airflow_provider_faceki.api.errors import ChargeLimitError, FacekiError

#: For each try: the number of charged calls that are running or that were interrupted.
_unknown_outcomes = Counter[str]()
#: For each Connection id and try: the number of charged calls. The client does not store the number, because a changed
#: Connection causes a new client, which would count from 0 again.
_made = Counter[tuple[str, str]]()
_lock = threading.Lock()


def _after_fork() -> None:
    # After a fork, the threads of the parent process do not exist in the child process. If one of them held the lock,
    # nothing would release the lock. Therefore the child process creates a new lock.
    global _lock
    _lock = threading.Lock()
    _unknown_outcomes.clear()


os.register_at_fork(after_in_child=_after_fork)


def charge_limit(
    conn_id: str, maximum: int | None, current_try: Callable[[], str]
) -> Callable[[], AbstractContextManager[None]]:
    """Return a function that creates the context manager of one charged call.

    ``FacekiClient`` runs each charged call inside such a context manager, which does two things:

    - It counts the call. If the limit is reached, it raises :class:`ChargeLimitError`, and the call is not sent. If
      there is no limit, it does not count.
    - It notes that the outcome of the call is unknown, until the call ends with a result or a :class:`FacekiError`.
      :func:`has_unknown_outcome` reads this note.

    :param conn_id: Id of the Connection.
    :param maximum: Maximum number of charged calls in one try. ``None`` means no limit.
    :param current_try: Function that returns a text that identifies the running try. It is called for each charged
        call, because the client is also used by later tries that the same process runs.
    """
    return partial(_charging, conn_id, maximum, current_try)


def has_unknown_outcome(of_try: str) -> bool:
    """Return True if a charged call of a try is running or was interrupted, so that nobody knows its outcome.

    In this case, another try could be charged again. A call that ended with a result or with a :class:`FacekiError` was
    not interrupted.

    :param of_try: Text that identifies the try, as in :func:`charge_limit`.
    """
    with _lock:
        return _unknown_outcomes[of_try] > 0


@contextmanager
def _charging(conn_id: str, maximum: int | None, current_try: Callable[[], str]) -> Iterator[None]:
    current = current_try()
    with _lock:
        _unknown_outcomes[current] += 1
    is_interrupted = True
    try:
        with nullcontext() if maximum is None else _counting((conn_id, current), maximum):
            yield
        is_interrupted = False
    except FacekiError:
        is_interrupted = False
        raise
    finally:
        if not is_interrupted:
            with _lock:
                _unknown_outcomes[current] -= 1


@contextmanager
def _counting(key: tuple[str, str], maximum: int) -> Iterator[None]:
    """Count the charged call that runs inside this context.

    If the call fails and FACEKI has certainly not acted on the call, the count is reduced again.

    :raises ChargeLimitError: if the limit is reached.
    """
    with _lock:
        if _made[key] >= maximum:
            raise ChargeLimitError(
                f"max_charged_calls={maximum} is reached: this try made {_made[key]} calls that were "
                "charged or may have been, and sent no more. To continue, raise max_charged_calls in "
                "the Connection and clear the task"
            )
        _made[key] += 1
    try:
        yield
    except FacekiError as error:
        if not error.is_ambiguous:
            with _lock:
                _made[key] -= 1
        raise
