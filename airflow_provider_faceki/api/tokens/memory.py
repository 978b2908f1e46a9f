# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The token of an account inside one process: shared by all hooks, threads and event loops in it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import TypeVar

from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenStore


class MemoryTokenStore:
    """One token and one claim, or one for each turn. Its lock is held for a few assignments, never across I/O."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._token: AccessToken | None = None
        self._refused: str | None = None
        # Weak: a claim that nobody holds any more is none. A cancelled task may never get to see its claim.
        self._locks: dict[int, weakref.ref[MemoryRefreshLock]] = {}

    def peek(self) -> AccessToken | None:
        """Return the token, if there is one."""
        return self._token

    def read(self) -> AccessToken | None:
        """Return the token, if there is one; memory has no neighbours to ask."""
        return self._token

    def try_lock(self, turn: int = 0) -> MemoryRefreshLock | None:
        """Take the right to fetch, unless somebody in this process has it."""
        return next(filter(None, map(self.take, range(turn + 1))), None)

    def take(self, turn: int) -> MemoryRefreshLock | None:
        """Take the right of this turn and no other."""
        with self._lock:
            held = self._locks.get(turn)
            if held is not None and held() is not None:
                return None
            claim = MemoryRefreshLock(self, turn)
            self._locks[turn] = weakref.ref(claim)
            return claim

    def set(self, token: AccessToken) -> None:
        """Make ``token`` the one of this process."""
        with self._lock:
            self._token = token
            self._refused = None

    def merge(self, token: AccessToken) -> None:
        """Take a token that a neighbour has left, unless it is older than ours or has been refused here."""
        with self._lock:
            older = self._token is not None and self._token.obtained_at >= token.obtained_at
            if token.value != self._refused and not older:
                self._token = token

    def invalidate(self, token: AccessToken) -> None:
        """Forget ``token`` and remember that it was refused; a newer one stays."""
        with self._lock:
            self._refused = token.value
            if self._token is not None and self._token.value == token.value:
                self._token = None

    def _released(self, claim: MemoryRefreshLock) -> None:
        with self._lock:
            held = self._locks.get(claim.turn)
            if held is not None and held() is claim:
                del self._locks[claim.turn]

    def _after_fork(self) -> None:
        # The child has none of its parent's threads: whoever held lock or claim is not here.
        self._lock = threading.Lock()
        self._locks = {}


class MemoryRefreshLock:
    """The right to fetch, within one process."""

    def __init__(self, store: MemoryTokenStore, turn: int) -> None:
        self._store = store
        self.turn = turn

    def release(self) -> None:
        """Give it back."""
        self._store._released(self)


StoreT = TypeVar("StoreT", bound=TokenStore)
_shared: dict[Hashable, TokenStore] = {}
_shared_lock = threading.Lock()


def shared_store(key: Hashable, make: Callable[[], TokenStore]) -> TokenStore:
    """Return the process's one store for ``key``, made by ``make`` the first time.

    :param key: Whatever tells accounts apart; it is kept in memory, so a hash of a secret, not the secret.
    """
    with _shared_lock:
        if key not in _shared:
            _shared[key] = make()
        return _shared[key]


def _after_fork() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    for store in _shared.values():
        memory = getattr(store, "memory", store)
        if isinstance(memory, MemoryTokenStore):
            memory._after_fork()


os.register_at_fork(after_in_child=_after_fork)
