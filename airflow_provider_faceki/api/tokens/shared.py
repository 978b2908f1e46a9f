# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Token store that hosts share: a sealed object on any storage that can create an object only if it is missing.

Without it each host, and each Kubernetes pod, fetches a token of its own, and FACEKI charges for needless tokens. The
stores of the process and of the host are caches in front: the storage is asked only when neither has a usable token.
A storage that fails, hangs or holds rubbish is never fatal: it is warned of once and left alone for a minute.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from airflow_provider_faceki.api.errors import FacekiError
from airflow_provider_faceki.api.protocol.auth import AccessToken
from airflow_provider_faceki.api.tokens.file import FileRefreshLock, FileTokenStore
from airflow_provider_faceki.api.tokens.memory import MemoryRefreshLock, MemoryTokenStore
from airflow_provider_faceki.api.tokens.sealing import MAX_SEALED_BYTES, TokenSeal, UntrustedError

#: Seconds that one operation of the storage may take. Object storages answer within tenths of a second.
MAX_OPERATION_SECONDS = 5.0
#: Seconds for which a storage that has failed is not asked again.
SUSPEND_SECONDS = 60.0
#: Seconds between two looks while another host fetches; each look is a request that an object storage charges for.
POLL_SECONDS = 0.25
#: Age in seconds at which a lock object is void: its holder was killed, and nothing removes the object for it.
#: Longer than a token request with its retries, and than clocks of hosts differ.
MAX_LOCK_AGE_SECONDS = 120.0

T = TypeVar("T")


class TokenBackend(Protocol):
    """A storage for small named objects. Methods block, and may raise any exception.

    Backends of the same place are equal and hash alike, so that clients share one store.
    """

    @property
    def place(self) -> str:
        """Where it is, for a log line; without credentials."""

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return the first ``max_bytes`` of an object, or ``None`` if there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Create or replace an object, so that a reader sees the old content or the new, whole."""

    def create(self, name: str, content: bytes) -> bool:
        """Create an object, atomically; return ``False``, and change nothing, if it exists."""

    def delete(self, name: str) -> None:
        """Remove an object, if it exists."""


class SharedTokenStore:
    """The store of a process or host, in front of a storage that hosts share.

    :param backend: The storage.
    :param local: The store in front of it.
    :param seal: Names and seals the account's token.
    :param warn: Called with one sentence, at most once, when the storage cannot be used.
    """

    def __init__(
        self,
        backend: TokenBackend,
        local: MemoryTokenStore | FileTokenStore,
        seal: TokenSeal,
        warn: Callable[[str], None],
    ) -> None:
        self.memory = local.memory if isinstance(local, FileTokenStore) else local
        self._backend = backend
        self._local = local
        self._seal = seal
        self._warn = warn
        self._has_warned = False
        self._suspended_until = 0.0
        self._next_look = 0.0

    def peek(self) -> AccessToken | None:
        """Return the token that this process knows, without I/O."""
        return self._local.peek()

    def read(self) -> AccessToken | None:
        """Return a usable token of this process or host; else the newest one, the storage's included."""
        found = self._local.read()
        if (found is not None and found.usable(time.time())) or time.monotonic() < self._next_look:
            return found
        shared = self._best_effort(self._load)
        if shared is not None:
            self._local.merge(shared)
        return self._local.read()

    def try_lock(self, generation: int = 0) -> SharedRefreshLock | None:
        """Take the refresh lock among all hosts; where the storage does not work, on this host."""
        local = self._local.try_lock(generation)
        if local is None:
            return None
        if time.monotonic() < self._next_look:
            local.release()
            return None
        name = self._best_effort(lambda: self._create_lock(generation))
        if name == _HELD_ELSEWHERE:
            self._next_look = time.monotonic() + POLL_SECONDS
            local.release()
            return None
        self._next_look = 0.0
        return SharedRefreshLock(self, local, name)

    def set(self, token: AccessToken) -> None:
        """Make ``token`` the token of this process, this host and, if the storage works, of all hosts."""
        self._local.set(token)
        self._best_effort(lambda: self._backend.write(self._token_name, self._seal.seal(token)))

    def invalidate(self, token: AccessToken) -> None:
        """Forget ``token`` here; in the storage only under the refresh lock, whose holder is about to replace it."""
        self._local.invalidate(token)
        lock = self.try_lock()
        if lock is None:
            return
        try:
            found = self._best_effort(self._load)
            if found is not None and found.value == token.value:
                self._best_effort(lambda: self._backend.delete(self._token_name))
        finally:
            lock.release()

    @property
    def _token_name(self) -> str:
        return f"{self._seal.name}.token"

    def _load(self) -> AccessToken | None:
        sealed = self._backend.read(self._token_name, MAX_SEALED_BYTES)
        return None if sealed is None else self._seal.unseal(sealed)

    def _create_lock(self, generation: int) -> str:
        """Create the lock object of ``generation`` or of one before and return its name, or ``_HELD_ELSEWHERE``."""
        content = json.dumps({"locked_at": time.time(), "by": os.urandom(8).hex()}).encode()
        for number in range(generation + 1):
            name = f"{self._seal.name}.lock.{number}"
            if self._backend.create(name, content):
                return name
            if _is_void(self._backend.read(name, MAX_SEALED_BYTES)):
                self._backend.delete(name)
                if self._backend.create(name, content):
                    return name
        return _HELD_ELSEWHERE

    def _delete_lock(self, name: str) -> None:
        self._best_effort(lambda: self._backend.delete(name))

    def _best_effort(self, operation: Callable[[], T]) -> T | None:
        if time.monotonic() < self._suspended_until:
            return None
        try:
            return _within(MAX_OPERATION_SECONDS, operation)
        except Exception as problem:  # noqa: BLE001 - each storage has errors of its own, and none is fatal here
            self._suspended_until = time.monotonic() + SUSPEND_SECONDS
            self._warn_once(problem)
            return None

    def _warn_once(self, problem: Exception) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        # Only the type of a foreign error: its text may hold an address with credentials.
        reason = str(problem) if isinstance(problem, UntrustedError | FacekiError) else type(problem).__name__
        self._warn(
            f"the FACEKI token cannot be shared through {self._backend.place} ({reason}); this host now fetches its own"
        )


#: In place of a name: another host holds the lock.
_HELD_ELSEWHERE = ""


class SharedRefreshLock:
    """The right to fetch the next token among all hosts: an object in the storage, under the lock of this host."""

    def __init__(
        self, store: SharedTokenStore, local: MemoryRefreshLock | FileRefreshLock, name: str | None
    ) -> None:
        self._store = store
        self._local = local
        self._name = name

    def release(self) -> None:
        """Let others fetch. On an event loop a thread removes the object, because that is I/O."""
        name, self._name = self._name, None
        if name is not None:
            if asyncio._get_running_loop() is None:
                self._store._delete_lock(name)
            else:
                threading.Thread(target=self._store._delete_lock, args=(name,), daemon=True).start()
        self._local.release()


def _is_void(content: bytes | None) -> bool:
    """Whether a lock object is too old or damaged; one that is gone is not, because its holder has just finished."""
    if content is None:
        return False
    try:
        locked_at = float(json.loads(content)["locked_at"])
    except (ValueError, TypeError, KeyError):
        return True
    return not abs(time.time() - locked_at) <= MAX_LOCK_AGE_SECONDS


def _within(seconds: float, operation: Callable[[], T]) -> T:
    """Run ``operation`` on a thread of its own and return its result.

    :raises TimeoutError: it takes longer; the thread is left behind.
    """
    outcome: list[T] = []
    problems: list[Exception] = []

    def run() -> None:
        try:
            outcome.append(operation())
        except Exception as problem:  # noqa: BLE001 - raised again on the caller's thread
            problems.append(problem)

    thread = threading.Thread(target=run, name="faceki-token-store", daemon=True)
    thread.start()
    thread.join(seconds)
    if problems:
        raise problems[0]
    if not outcome:
        raise TimeoutError
    return outcome[0]
