# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Token store in memory, shared by all clients, threads and event loops of one process."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable

from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenStore


class MemoryTokenStore:
    """One token and its refresh locks. The mutex is held for a few assignments, never across I/O."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._token: AccessToken | None = None
        self._refused: str | None = None
        # Weak references: a cancelled task may never see its lock, and a lock that nobody holds is free.
        self._locks: dict[int, weakref.ref[MemoryRefreshLock]] = {}

    def peek(self) -> AccessToken | None:
        """Return the token, if there is one."""
        return self._token

    def read(self) -> AccessToken | None:
        """Return the token, if there is one; nothing else shares this store."""
        return self._token

    def try_lock(self, generation: int = 0) -> MemoryRefreshLock | None:
        """Take the refresh lock of ``generation`` or of one before, unless all are held in this process."""
        return next(filter(None, map(self.try_lock_generation, range(generation + 1))), None)

    def try_lock_generation(self, generation: int) -> MemoryRefreshLock | None:
        """Take the refresh lock of ``generation`` and of no other."""
        with self._mutex:
            held = self._locks.get(generation)
            if held is not None and held() is not None:
                return None
            lock = MemoryRefreshLock(self, generation)
            self._locks[generation] = weakref.ref(lock)
            return lock

    def set(self, token: AccessToken) -> None:
        """Make ``token`` the token of this process."""
        with self._mutex:
            self._token = token
            self._refused = None

    def merge(self, token: AccessToken) -> bool:
        """Take over a token that another process has fetched, unless it is older than ours or was refused here.

        :return: Whether it was taken over.
        """
        with self._mutex:
            is_older = self._token is not None and self._token.obtained_at >= token.obtained_at
            if token.value == self._refused or is_older:
                return False
            self._token = token
            return True

    def invalidate(self, token: AccessToken) -> None:
        """Forget ``token`` and remember that it was refused; a newer one stays."""
        with self._mutex:
            self._refused = token.value
            if self._token is not None and self._token.value == token.value:
                self._token = None

    def _release(self, lock: MemoryRefreshLock) -> None:
        with self._mutex:
            held = self._locks.get(lock.generation)
            if held is not None and held() is lock:
                del self._locks[lock.generation]

    def reset_after_fork(self) -> None:
        """Free mutex and refresh locks: in a child the threads that held them do not exist."""
        self._mutex = threading.Lock()
        self._locks = {}


class MemoryRefreshLock:
    """The right to fetch the next token, within one process."""

    def __init__(self, store: MemoryTokenStore, generation: int) -> None:
        self._store = store
        self.generation = generation

    def release(self) -> None:
        """Let others fetch."""
        self._store._release(self)


_shared: dict[Hashable, TokenStore] = {}
_shared_mutex = threading.Lock()


def shared_store(key: Hashable, make: Callable[[], TokenStore]) -> TokenStore:
    """Return the process's one store for ``key``; ``make`` makes it the first time.

    :param key: Tells accounts and stores apart; kept in memory, so it holds a hash of the secret, not the secret.
    """
    with _shared_mutex:
        if key not in _shared:
            _shared[key] = make()
        return _shared[key]


def _after_fork() -> None:
    global _shared_mutex
    _shared_mutex = threading.Lock()
    for store in _shared.values():
        memory = getattr(store, "memory", store)
        if isinstance(memory, MemoryTokenStore):
            memory.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork)
