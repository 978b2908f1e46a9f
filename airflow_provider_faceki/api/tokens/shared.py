# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Token store that several hosts share. It stores the encrypted token in a shared directory or an object storage.

Without this store, each host and each Kubernetes pod fetches its own token. FACEKI asks its users to use a token until
it expires (https://docs.faceki.com/api-integration/verification-apis/authentication).

The token stores of the process and of the host are caches. A process reads the shared storage only if no cache contains
a usable token. If the storage fails or hangs, the process logs at most one warning and does not use the storage for one
minute. An object that cannot be read as a token, such as a token of another version of this provider, is replaced by
the next token.

Before a host fetches a token, it creates an object as a lock. In some storages, such a lock does not work: they
overwrite an existing object, although they were told to create a new object, or they show a new object to other hosts
late. With such a storage, each host possibly fetches its own token. On a host without a ``token_directory``, each
process possibly fetches its own token. But no host or process fetches a second token while its first token is usable,
because its cache contains the first token.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from airflow_provider_faceki.api.errors import ConfigurationError, FacekiError
from airflow_provider_faceki.api.protocol.auth import AccessToken
from airflow_provider_faceki.api.tokens.file import FileRefreshLock, FileTokenStore
from airflow_provider_faceki.api.tokens.memory import MemoryRefreshLock, MemoryTokenStore
from airflow_provider_faceki.api.tokens.sealing import MAX_SEALED_BYTES, TokenSeal, UntrustedError

#: Maximum seconds for one operation of the storage. The maximum is sufficient, because object storages answer within
#: tenths of a second.
MAX_OPERATION_SECONDS = 5.0
#: Before a host fetches a token, it creates a lock object in the storage. If the storage is a directory, the lock
#: object is a file. A new file is empty until the host has written its content, which takes milliseconds. A lock object
#: that is still empty after this number of seconds is treated as corrupt.
EMPTY_LOCK_SECONDS = 1.0
#: Seconds for which the storage is not used after a failure.
SUSPEND_SECONDS = 60.0
#: Minimum seconds between two uses of the storage while another host fetches the access token. There is a minimum,
#: because object storages charge for each use.
POLL_SECONDS = 0.25
#: Before a host fetches a token, it tries to create a lock object. Sometimes the storage first answers that the object
#: exists, and then, when the host reads the object, that the object does not exist. Once, this contradiction is normal,
#: because another host possibly deleted the object in the meantime. After this number of contradictions in a row, which
#: take about ten seconds, it is assumed that the storage refuses to create objects. Then the host fetches a token
#: without a lock object.
MAX_MISSING_LOCKS = 40
#: A host creates a lock object before it requests a token, and deletes the lock object afterwards. If the host is
#: killed in the meantime, the lock object remains. Another host replaces a lock object that is older than this number
#: of seconds. This age is larger than the usual duration of a token request with retries, and larger than the usual
#: difference between the clocks of two hosts.
MAX_LOCK_AGE_SECONDS = 120.0

T = TypeVar("T")


class TokenBackend(Protocol):
    """A storage for small named objects: the encrypted token and its locks.

    The methods block, and they are allowed to raise any ``Exception``. Two backends with the same location must be
    equal and have the same hash, so that clients share one token store.
    """

    @property
    def place(self) -> str:
        """Location of the storage, without credentials, for a log line."""

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return the first ``max_bytes`` bytes of an object, or ``None`` if the object does not exist."""

    def write(self, name: str, content: bytes) -> None:
        """Create or replace an object atomically. A reader reads the complete old or the complete new content."""

    def create(self, name: str, content: bytes) -> bool:
        """Create an object atomically and return ``True``. If the object exists, do nothing and return ``False``."""

    def delete(self, name: str) -> None:
        """Remove an object. If the object does not exist, do nothing."""


@dataclass(frozen=True, slots=True)
class DirectoryTokenBackend:
    """:class:`TokenBackend` that stores its objects as files with mode 0600.

    Unlike :class:`FileTokenStore`, this class does not use file locks, which many network file systems do not support.
    Instead, a lock is a file that is created only if it does not exist yet. NFS since version 3 and SMB support this.

    :param path: The directory. If it does not exist, it is created with mode 0700.
    """

    path: Path

    @property
    def place(self) -> str:
        return repr(str(self.path))

    def read(self, name: str, max_bytes: int) -> bytes | None:
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(max_bytes)

    def write(self, name: str, content: bytes) -> None:
        draft = f"{name}.{os.urandom(8).hex()}"
        if self.create(draft, content):
            with self._removing_on_error(draft):
                os.replace(self.path / draft, self.path / name)

    def create(self, name: str, content: bytes) -> bool:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(
                self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except FileExistsError:
            return False
        with self._removing_on_error(name), os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return True

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def _removing_on_error(self, name: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # The writing of the file has failed or was interrupted. The file contains a token that nobody would use, or
            # it is a lock that nobody would release. Therefore the file is removed after any exception. If the removal
            # fails too, the first exception is raised nevertheless.
            with suppress(OSError):
                self.delete(name)
            raise


class SharedTokenStore:
    """Token store in a storage that several hosts share, with the store of the process or host as a cache.

    :param backend: The storage that several hosts share.
    :param local: The token store of this process or host, which is the cache.
    :param seal: Object that encrypts and decrypts the token of the account. It also contains the name under which the
        token is stored.
    :param warn: Function that is called with one sentence, at most once, if the storage cannot be used.
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
        self._next_read_at = 0.0
        self._missing_locks = 0

    def peek(self) -> AccessToken | None:
        return self._local.peek()

    def read(self) -> AccessToken | None:
        """Return the token that is stored on this host, or a newer token that another host has stored.

        If there is no token, return ``None``. The returned token can be expired, so the caller has to check it.

        The storage that several hosts share is not read in these cases:

        - The token of this host is usable.
        - Less than :data:`POLL_SECONDS` ago, :meth:`try_lock` found that another host is fetching a token.
        - The storage failed less than :data:`SUSPEND_SECONDS` ago.
        """
        found = self._local.read()
        if (found is not None and found.usable(time.time())) or time.monotonic() < self._next_read_at:
            return found
        shared = self._best_effort(self._load)
        if shared is not None:
            # While the storage was read, another process of this host possibly stored a newer token in the token file.
            # `self._local.read` copies the newer token to the memory, so that `merge` does not replace this token by an
            # older one.
            self._local.read()
            self._local.merge(shared)
        return self._local.read()

    def try_lock(self, generation: int = 0) -> SharedRefreshLock | None:
        """Try to acquire a refresh lock for all hosts. See :class:`TokenStore` for refresh locks.

        The owner of the lock fetches the next token. If the storage fails, try to acquire a refresh lock for this host
        only.
        """
        local = self._local.try_lock(generation)
        if local is None:
            return None
        if time.monotonic() < self._next_read_at:
            local.release()
            return None
        name = self._best_effort(lambda: self._create_lock(generation))
        if name == _HELD_ELSEWHERE:
            self._next_read_at = time.monotonic() + POLL_SECONDS
            local.release()
            return None
        self._next_read_at = 0.0
        return SharedRefreshLock(self, local, name)

    def set(self, token: AccessToken) -> None:
        """Store ``token`` for this process, for this host and, if the storage works, for all hosts."""
        self._local.set(token)
        self._best_effort(lambda: self._backend.write(self._token_name, self._seal.seal(token)))

    def invalidate(self, token: AccessToken) -> None:
        """Remove ``token`` from this host. If possible, also remove it from the storage that several hosts share.

        Before the token is removed from the storage, this method acquires refresh lock 0. This is the lock whose owner
        usually fetches the next token; see :class:`TokenStore`. If another caller owns the lock, the token remains in
        the storage, because the other caller will probably replace the token soon.
        """
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
        try:
            return None if sealed is None else self._seal.unseal(sealed)
        except UntrustedError:
            # Another version of this provider wrote the object, so this version cannot read it. The result is `None`,
            # as if there were no token. Then this host fetches a token and replaces the object. No exception is raised,
            # because after an exception the storage is not used for a minute, so the object would not be replaced.
            return None

    def _create_lock(self, generation: int) -> str:
        """Try once to acquire one of the refresh locks 0 to ``generation``. Return the name of its lock object.

        The owner of a refresh lock fetches the next token; see :class:`TokenStore`. A host acquires a lock by creating
        the lock object in the storage. If no lock was acquired, return ``_HELD_ELSEWHERE``. The caller then tries again
        later.
        """
        content = json.dumps({"locked_at": time.time(), "by": os.urandom(8).hex()}).encode()
        for number in range(generation + 1):
            name = f"{self._seal.name}.lock.{number}"
            if self._create(name, content):
                return name
            found = self._backend.read(name, MAX_SEALED_BYTES)
            if found == b"":
                # A new lock file is empty until its owner has written the content. If the file is still empty after a
                # pause, the owner has probably crashed before it wrote the content.
                time.sleep(EMPTY_LOCK_SECONDS)
                found = self._backend.read(name, MAX_SEALED_BYTES)
            self._missing_locks = self._missing_locks + 1 if found is None else 0
            if self._missing_locks >= MAX_MISSING_LOCKS:
                self._missing_locks = 0
                raise ConfigurationError("the storage refuses to create an object that does not exist")
            if _is_void(found):
                self._backend.delete(name)
                if self._create(name, content):
                    return name
        return _HELD_ELSEWHERE

    def _create(self, name: str, content: bytes) -> bool:
        is_created = self._backend.create(name, content)
        if is_created:
            self._missing_locks = 0
        return is_created

    def _delete_lock(self, name: str) -> None:
        self._best_effort(lambda: self._backend.delete(name))

    def _best_effort(self, operation: Callable[[], T]) -> T | None:
        if time.monotonic() < self._suspended_until:
            return None
        try:
            return _within(MAX_OPERATION_SECONDS, operation)
        except Exception as problem:  # noqa: BLE001 - storages raise exceptions of any class, and none is fatal here
            self._suspended_until = time.monotonic() + SUSPEND_SECONDS
            self._warn_once(problem)
            return None

    def _warn_once(self, problem: Exception) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        # For exceptions of other libraries only the class is logged, because their text possibly contains credentials.
        reason = str(problem) if isinstance(problem, FacekiError) else type(problem).__name__
        self._warn(
            f"the FACEKI token cannot be shared through {self._backend.place} ({reason}); this host now fetches its own"
        )


#: The method ``SharedTokenStore._create_lock`` returns this value if it has acquired no lock, usually because other
#: callers own all locks that it has tried.
_HELD_ELSEWHERE = ""


class SharedRefreshLock:
    """Refresh lock that all hosts share. Its owner fetches the next token.

    The lock consists of a lock object in the storage and the refresh lock of this host. If the storage fails, it
    consists of the refresh lock of this host only.
    """

    def __init__(
        self, store: SharedTokenStore, local: MemoryRefreshLock | FileRefreshLock, name: str | None
    ) -> None:
        self._store = store
        self._local = local
        self._name = name

    def release(self) -> None:
        # The deletion of the lock object is blocking I/O. Therefore, on an event loop, a new thread deletes the object.
        name, self._name = self._name, None
        if name is not None:
            if asyncio._get_running_loop() is None:
                self._store._delete_lock(name)
            else:
                threading.Thread(target=self._store._delete_lock, args=(name,), daemon=True).start()
        self._local.release()


def _is_void(content: bytes | None) -> bool:
    """Return True if the caller is allowed to delete a lock object of another host and create a new lock object.

    This is the case if the object is corrupt, or if the time in the object differs from the current time by more than
    ``MAX_LOCK_AGE_SECONDS``.

    :param content: Content of the lock object, or ``None`` if the object does not exist any more. With ``None``, the
        result is ``False``, because the caller could delete a lock object that a third host creates at this moment.
    """
    if content is None:
        return False
    try:
        locked_at = float(json.loads(content)["locked_at"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return True
    return not abs(time.time() - locked_at) <= MAX_LOCK_AGE_SECONDS


def _within(seconds: float, operation: Callable[[], T]) -> T:
    """Run ``operation`` in a new thread and return its result.

    :param seconds: Maximum duration in seconds.
    :raises TimeoutError: if the operation needs more time. Its thread continues to run.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(operation())
        except Exception as problem:  # noqa: BLE001 - raised again in the caller's thread
            outcome.set_exception(problem)

    threading.Thread(target=run, name="faceki-token-store", daemon=True).start()
    return outcome.result(seconds)
