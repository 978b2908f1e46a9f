# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Token store in an encrypted file, which all processes of one user on one host share.

A directory with mode 0700 contains a token file and lock files for each account. All files have mode 0600. All files
are opened relative to the directory's descriptor and never through a symbolic link. A file or directory is not used if
another user owns it, if other users can access it, or if it has the wrong type, such as a pipe. If the directory or a
file cannot be used, the store logs one warning and uses the memory of the process instead.

Before a process fetches a token, it locks one of the lock files, so that not every process fetches a token. If another
process has locked the file, the functions of this module do not wait for the lock, and the caller tries again later.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from airflow_provider_faceki.api.protocol.auth import AccessToken
from airflow_provider_faceki.api.tokens.memory import MemoryRefreshLock, MemoryTokenStore
from airflow_provider_faceki.api.tokens.sealing import MAX_SEALED_BYTES, TokenSeal, UntrustedError

_OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
T = TypeVar("T")


class FileTokenStore:
    """Token store in the memory of this process and in a file, which the processes of this host share.

    If the directory is on a network file system, this file system must support ``flock``. Without ``flock``, processes
    that start at the same time fetch one token each.

    :param directory: Directory of the files. If it does not exist, it is created with mode 0700.
    :param seal: Object that encrypts and decrypts the token of the account. It also contains the name under which the
        token is stored.
    :param warn: Function that is called with one sentence, at most once, if the directory or a file cannot be used.
    """

    def __init__(self, directory: Path, seal: TokenSeal, warn: Callable[[str], None]) -> None:
        self.memory = MemoryTokenStore()
        self._directory = directory
        self._seal = seal
        self._warn = warn
        self._has_warned = False

    def peek(self) -> AccessToken | None:
        return self.memory.peek()

    def read(self) -> AccessToken | None:
        """Return the newest known token, or ``None``.

        If the token in the file is newer than the token in memory, it is copied to the memory.
        """
        found = self._best_effort(self._load)
        if found is not None:
            self.memory.merge(found)
        return self.memory.read()

    def try_lock(self, generation: int = 0) -> FileRefreshLock | None:
        """Try to acquire a refresh lock of this host. See :class:`TokenStore` for refresh locks.

        The owner of the lock fetches the next token. If files cannot be used, try to acquire a refresh lock of this
        process only.
        """
        return next(filter(None, map(self._try_lock_generation, range(generation + 1))), None)

    def _try_lock_generation(self, generation: int) -> FileRefreshLock | None:
        inner = self.memory.try_lock_generation(generation)
        if inner is None:
            return None
        try:
            key = self._lock_file(generation)
        except BlockingIOError:
            inner.release()
            return None
        except (OSError, UntrustedError) as problem:
            self._warn_once(problem)
            key = None
        return FileRefreshLock(inner, key)

    def set(self, token: AccessToken) -> None:
        """Store ``token`` in the memory of this process and, if possible, in the token file."""
        self.memory.set(token)
        self._best_effort(lambda: self._save(token))

    def merge(self, token: AccessToken) -> None:
        """Store a token that another host has fetched; :meth:`MemoryTokenStore.merge` says which tokens are ignored."""
        if self.memory.merge(token):
            self._best_effort(lambda: self._save(token))

    def invalidate(self, token: AccessToken) -> None:
        """Remove ``token`` from the memory of this process. If possible, also remove the file that contains it.

        Before the file is removed, this method acquires refresh lock 0. This is the lock whose owner usually fetches
        the next token; see :class:`TokenStore`. If another caller owns the lock, the file remains, because the other
        caller will probably replace the file soon.
        """
        self.memory.invalidate(token)
        lock = self.try_lock()
        if lock is None:
            return
        try:
            found = self._best_effort(self._load)
            if found is not None and found.value == token.value:
                self._best_effort(self._remove)
        finally:
            lock.release()

    def _best_effort(self, operation: Callable[[], T]) -> T | None:
        try:
            return operation()
        except (OSError, UntrustedError) as problem:
            self._warn_once(problem)
            return None

    def _warn_once(self, problem: Exception) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        self._warn(
            f"the FACEKI token cannot be shared through {str(self._directory)!r} ({reason}); "
            "each process now fetches its own"
        )

    def _load(self) -> AccessToken | None:
        with _Directory(self._directory) as directory:
            try:
                sealed = directory.read(f"{self._seal.name}.token")
            except FileNotFoundError:
                return None
        return self._seal.unseal(sealed)

    def _save(self, token: AccessToken) -> None:
        with _Directory(self._directory) as directory:
            directory.replace(f"{self._seal.name}.token", self._seal.seal(token))

    def _remove(self) -> None:
        with _Directory(self._directory) as directory:
            directory.remove(f"{self._seal.name}.token")

    def _lock_file(self, generation: int) -> int:
        """Lock one of the numbered lock files of the account, and add the file to the dictionary ``_open_locks``.

        Return the key of the file in this dictionary.

        :param generation: Number of the lock file.
        :raises BlockingIOError: if the file is already locked.
        :raises OSError: if the file cannot be opened, or if the file system has no locks.
        :raises UntrustedError: if the directory or the file is not trusted.
        """
        name = f"{self._seal.name}.lock.{generation}" if generation else f"{self._seal.name}.lock"
        with _Directory(self._directory) as directory:
            descriptor = directory.open(name, os.O_RDWR | os.O_CREAT)
        # An open lock file in a child process would keep the lock. Therefore a child process closes all files in
        # `_open_locks` after the fork. Another thread can fork at any time, so the file is added to `_open_locks`
        # before it is locked.
        key = next(_lock_keys)
        _open_locks[key] = descriptor
        try:
            # If this process ends, the kernel releases the lock, even after SIGKILL.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            del _open_locks[key]
            os.close(descriptor)
            raise
        return key


class FileRefreshLock:
    """Refresh lock that the processes of one host share. Its owner fetches the next token.

    The lock consists of a refresh lock of this process and, if files can be used, of a file lock.

    :param inner: The refresh lock of this process.
    :param key: Key of the lock file in ``_open_locks``, or ``None`` if there is no file lock.
    """

    def __init__(self, inner: MemoryRefreshLock, key: int | None) -> None:
        self._inner = inner
        self._key = key

    def release(self) -> None:
        self._unlock()
        self._inner.release()

    def _unlock(self) -> None:
        descriptor = None if self._key is None else _open_locks.pop(self._key, None)
        if descriptor is None:
            return
        # A child process that was forked in the meantime possibly has the same file open. In this case, closing the
        # file in this process would not release the lock. Therefore the file is unlocked before it is closed. Errors
        # are ignored, because the connection to a network file system possibly breaks while the lock is held.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        with suppress(OSError):
            os.close(descriptor)

    # An asyncio task can be cancelled after a thread has acquired the lock for the task, and before the task receives
    # the lock. Then nobody calls `release`, and the destructor of the lock object releases the file lock.
    __del__ = _unlock


_lock_keys = itertools.count()
#: Descriptors of lock files, each with a unique key. The descriptor number is not the key, because the system reuses
#: it.
_open_locks: dict[int, int] = {}


def _after_fork() -> None:
    # After a fork, this function closes the lock files in the child process. The locks belong to the parent process. If
    # the child process kept the lock files open, they would remain locked after the parent process has ended.
    while _open_locks:
        with suppress(OSError):
            os.close(_open_locks.popitem()[1])


os.register_at_fork(after_in_child=_after_fork)


class _Directory:
    """The directory of the token files, as a context manager.

    The directory is opened once, so that another process cannot replace it between the check and the operations.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Directory:
        # If the path is not a directory, `mkdir` raises FileExistsError. This error is ignored, because `os.open` below
        # raises an error for such a path.
        with suppress(FileExistsError):
            self._path.mkdir(0o700, parents=True, exist_ok=True)
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as problem:
            if problem.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise UntrustedError("it is a link or not a directory") from None
            raise
        try:
            _check_private(os.fstat(self._fd), stat.S_ISDIR, "the directory")
        except UntrustedError:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def open(self, name: str, flags: int) -> int:
        """Open a file in this directory and return its descriptor. A new file has mode 0600.

        :raises UntrustedError: if another user owns the file, if other users can access it, or if it is not a regular
            file.
        :raises OSError: if the file cannot be opened for another reason.
        """
        try:
            descriptor = os.open(name, flags | _OPEN_FLAGS, 0o600, dir_fd=self._fd)
        except OSError as problem:
            if problem.errno in {errno.ELOOP, errno.ENXIO}:
                raise UntrustedError("a file in it is a link or a pipe") from None
            raise
        try:
            _check_private(os.fstat(descriptor), stat.S_ISREG, "a file in it")
        except UntrustedError:
            os.close(descriptor)
            raise
        return descriptor

    def read(self, name: str) -> bytes:
        """Return the content of a file in this directory.

        :raises UntrustedError: if the file is larger than :data:`MAX_SEALED_BYTES`, or if :meth:`open` raises this
            error.
        :raises OSError: if the file cannot be opened or read.
        """
        with os.fdopen(self.open(name, os.O_RDONLY), "rb") as file:
            content = file.read(MAX_SEALED_BYTES + 1)
        if len(content) > MAX_SEALED_BYTES:
            raise UntrustedError("a file in it is too large")
        return content

    def replace(self, name: str, content: bytes) -> None:
        """Replace a file in this directory atomically.

        Another process reads either the complete old content or the complete new content.
        """
        draft = f"{name}.{os.getpid()}.{os.urandom(6).hex()}"
        descriptor = self.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.rename(draft, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            # The draft is a temporary file, which is renamed to the token file at the end. It contains a token.
            # Therefore it is removed after any exception, including the exception with which Airflow ends a killed
            # task. If the removal fails too, the first exception is raised nevertheless.
            with suppress(OSError):
                os.unlink(draft, dir_fd=self._fd)
            raise

    def remove(self, name: str) -> None:
        """Remove a file from this directory."""
        os.unlink(name, dir_fd=self._fd)


def _check_private(found: os.stat_result, is_kind: Callable[[int], bool], what: str) -> None:
    if not is_kind(found.st_mode):
        raise UntrustedError(f"{what} is not of the right kind")
    if found.st_uid != os.geteuid():
        raise UntrustedError(f"{what} belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise UntrustedError(f"{what} is open to others (mode {stat.S_IMODE(found.st_mode):04o})")
