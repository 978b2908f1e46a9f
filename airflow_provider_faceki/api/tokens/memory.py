# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Token store in the memory of one process. All clients, threads and event loops of the process share it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable

from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenStore


class MemoryTokenStore:
    """Token store in the memory of this process, with its refresh locks.

    The owner of a refresh lock fetches the next token; see :class:`TokenStore`. The mutex is locked only for a few
    assignments, and never during I/O. Therefore the methods do not block an event loop.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._token: AccessToken | None = None
        self._refused: str | None = None
        # The refresh locks that have an owner. The owner of a refresh lock fetches the next token. The key is the
        # number of the lock: if the owner of lock 0 hangs, another caller acquires lock 1. The references are weak, so
        # a lock becomes free as soon as its owner no longer refers to it. For example, an asyncio task that is
        # cancelled before it receives its lock cannot release the lock.
        self._locks: dict[int, weakref.ref[MemoryRefreshLock]] = {}

    def peek(self) -> AccessToken | None:
        return self._token

    def read(self) -> AccessToken | None:
        return self._token

    def try_lock(self, generation: int = 0) -> MemoryRefreshLock | None:
        return next(filter(None, map(self.try_lock_generation, range(generation + 1))), None)

    def try_lock_generation(self, generation: int) -> MemoryRefreshLock | None:
        """Try to acquire the refresh lock with the number ``generation``. If the lock has an owner, return ``None``.

        The owner of a refresh lock fetches the next token; see :class:`TokenStore`.
        """
        with self._mutex:
            held = self._locks.get(generation)
            if held is not None and held() is not None:
                return None
            lock = MemoryRefreshLock(self, generation)
            self._locks[generation] = weakref.ref(lock)
            return lock

    def set(self, token: AccessToken) -> None:
        with self._mutex:
            self._token = token
            self._refused = None

    def merge(self, token: AccessToken) -> bool:
        """Store a token that another process or host has possibly fetched.

        A token is ignored if it is not newer than the stored token. The last token that was passed to
        :meth:`invalidate` is also ignored, until :meth:`set` is called.

        :returns: Whether the token was stored.
        """
        with self._mutex:
            is_older = self._token is not None and self._token.obtained_at >= token.obtained_at
            if token.value == self._refused or is_older:
                return False
            self._token = token
            return True

    def invalidate(self, token: AccessToken) -> None:
        """Remove ``token`` and remember that FACEKI refused it. If another token is stored, the other token remains."""
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
        """Release the mutex and all refresh locks in a forked child process.

        The mutex and the locks belong to threads of the parent process, which cannot release them in the child process.
        """
        self._mutex = threading.Lock()
        self._locks = {}


class MemoryRefreshLock:
    """Refresh lock that the threads of one process share. Its owner fetches the next token."""

    def __init__(self, store: MemoryTokenStore, generation: int) -> None:
        self._store = store
        self.generation = generation

    def release(self) -> None:
        self._store._release(self)


_shared: dict[Hashable, TokenStore] = {}
_shared_mutex = threading.Lock()


def shared_store(key: Hashable, make: Callable[[], TokenStore]) -> TokenStore:
    """Return the token store that all clients of the process share for ``key``.

    The first call with a key creates the store with ``make``.

    :param key: Key that identifies the account and the kind of token store. The key remains in memory. Therefore it
        must contain a hash of the client secret, and not the client secret itself.
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
