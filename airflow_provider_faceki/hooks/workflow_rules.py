# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Cache of workflow rules, shared by all hooks of a process."""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_faceki import api
from airflow_provider_faceki.failures import are_rules_unavailable

if TYPE_CHECKING:
    from airflow_provider_faceki.api.endpoints.workflows import WorkflowRules

log = logging.getLogger(__name__)

#: Rules are changed by hand, in FACEKI's portal.
CACHE_TTL_SECONDS = 600.0
#: A refusal, or no rules at all, is asked again sooner: somebody may be repairing the workflow.
NEGATIVE_CACHE_TTL_SECONDS = 60.0
#: A manifest names a few workflows; a template might name one for each row.
MAX_CACHED_WORKFLOWS = 1000

#: Base URL, client id and workflow id.
Key = tuple[str, str, str]


class _Cached(NamedTuple):
    expires_at: float
    found: WorkflowRules | api.WorkflowError | None


_cache: dict[Key, _Cached] = {}
_locks: dict[Key, threading.Lock] = {}
# The thread that holds a lock in the parent does not exist in the child, so it would never release it.
os.register_at_fork(after_in_child=_locks.clear)


def cached_rules(key: Key, fetch: Callable[[], WorkflowRules]) -> WorkflowRules | None:
    """Return the rules of a workflow, fetched once by one of the threads that ask.

    :param key: Whose rules, and of which workflow.
    :param fetch: Asks FACEKI.
    :returns: ``None`` where FACEKI tells no rules, which is logged.
    :raises WorkflowError: the workflow is unknown or has no rules.
    :raises FacekiError: FACEKI cannot be asked now, or refused for a reason that holds for the verification too.
    """
    if len(_locks) >= MAX_CACHED_WORKFLOWS:
        _locks.clear()
        _cache.clear()
    with _locks.setdefault(key, threading.Lock()):
        cached = _cache.get(key)
        if cached is None or time.monotonic() >= cached.expires_at:
            found = _fetch(key, fetch)
            ttl = CACHE_TTL_SECONDS if isinstance(found, api.WorkflowRules) else NEGATIVE_CACHE_TTL_SECONDS
            cached = _cache[key] = _Cached(time.monotonic() + ttl, found)
    if isinstance(cached.found, api.WorkflowError):
        # Raising adds a traceback to an exception, and several threads may raise this one.
        raise copy.copy(cached.found)
    return cached.found


def _fetch(key: Key, fetch: Callable[[], WorkflowRules]) -> WorkflowRules | api.WorkflowError | None:
    try:
        return fetch()
    except api.WorkflowError as error:
        error.message = f"workflow {key[2]!r}: {error.message}"
        return error
    except api.FacekiError as error:
        if not are_rules_unavailable(error):
            raise
        log.warning("The workflow's rules cannot be had, so documents go unchecked: %s", error)
        return None
