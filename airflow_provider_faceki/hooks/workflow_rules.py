# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Cache of the rules of FACEKI workflows, such as the required documents. All hooks of a process share the cache."""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_faceki import api
from airflow_provider_faceki.api.endpoints.workflows import are_rules_unavailable

if TYPE_CHECKING:
    from airflow_provider_faceki.api.endpoints.workflows import WorkflowRules

log = logging.getLogger(__name__)

#: Seconds for which the rules of a workflow are cached. The rules say which images the workflow requires. Users
#: change the rules by hand in FACEKI's portal, so the rules change rarely.
CACHE_TTL_SECONDS = 600.0
#: Seconds for which a ``WorkflowError`` or the result ``None`` is cached. ``None`` means that the request for the rules
#: failed for a reason that does not prevent a verification. Other errors, such as wrong credentials, are not cached.
#: The time is shorter than ``CACHE_TTL_SECONDS``, because a user possibly repairs the workflow soon.
NEGATIVE_CACHE_TTL_SECONDS = 60.0
#: Maximum number of workflows in the cache. A full cache is emptied. A manifest usually contains few different workflow
#: ids, but it can contain a different id in each row.
MAX_CACHED_WORKFLOWS = 1000

#: Cache key: base URL, client id and workflow id.
Key = tuple[str, str, str]


class _Cached(NamedTuple):
    expires_at: float
    found: WorkflowRules | api.WorkflowError | None


_cache: dict[Key, _Cached] = {}
_locks: dict[Key, threading.Lock] = {}
# A forked child process creates new locks. If a thread of the parent process held one of the old locks during the fork,
# this lock would never be released in the child process, because the thread does not exist there.
os.register_at_fork(after_in_child=_locks.clear)


def cached_rules(key: Key, fetch: Callable[[], WorkflowRules]) -> WorkflowRules | None:
    """Return the rules of a workflow from the cache of this process, or fetch them with ``fetch``.

    Rules are cached for ten minutes. ``None`` and a :class:`WorkflowError` are cached for one minute. If several
    threads need the same rules, one thread fetches them, and the others wait.

    :param key: Base URL, client id and workflow id.
    :param fetch: Function that fetches the rules from FACEKI.
    :returns: The rules. The result is ``None`` if the request for the rules fails for a reason that does not prevent a
        verification, such as an unknown URL or no answer. When such a request fails, a warning is logged.
    :raises WorkflowError: if FACEKI answers that the workflow is unknown or has no rules.
    :raises FacekiError: if the request fails for any other reason, such as wrong credentials.
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
        # Several threads possibly raise the same cached exception, and each raise adds a traceback to it. Therefore
        # each thread raises a copy.
        raise copy.copy(cached.found)
    return cached.found


def _fetch(key: Key, fetch: Callable[[], WorkflowRules]) -> WorkflowRules | api.WorkflowError | None:
    try:
        return fetch()
    except api.WorkflowError as error:
        return error
    except api.FacekiError as error:
        if not are_rules_unavailable(error):
            raise
        log.warning("The workflow's rules cannot be fetched, so nothing is checked against them: %s", error)
        return None
