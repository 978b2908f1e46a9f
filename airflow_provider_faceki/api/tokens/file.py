# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Token store of one host: a sealed file that all processes of one user share.

A directory of mode 0700 holds, for each account, a token file and lock files, all 0600. Everything is opened relative
to the directory's descriptor and never through a symbolic link; what this provider would not have made is not
trusted. No method waits, and no failure is fatal: it is warned of once, and the process goes on with its memory.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from airflow_provider_faceki.api.protocol.auth import AccessToken
from airflow_provider_faceki.api.tokens.memory import MemoryRefreshLock, MemoryTokenStore
from airflow_provider_faceki.api.tokens.sealing import MAX_SEALED_BYTES, TokenSeal, UntrustedError

_OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
T = TypeVar("T")


class FileTokenStore:
    """A memory store whose token also lies in a file.

    On a network file system it works as far as that has ``flock``; where it has not, each host fetches its own.

    :param directory: Directory of the files; made with mode 0700 when missing.
    :param seal: Names and seals the account's token.
    :param warn: Called with one sentence, at most once, when the directory or a file cannot be used.
    """

    def __init__(self, directory: Path, seal: TokenSeal, warn: Callable[[str], None]) -> None:
        self.memory = MemoryTokenStore()
        self._directory = directory
        self._seal = seal
        self._warn = warn
        self._has_warned = False

    def peek(self) -> AccessToken | None:
        """Return the token that this process knows, without touching the file."""
        return self.memory.peek()

    def read(self) -> AccessToken | None:
        """Return the newer of the token in the file, if it can be trusted, and the one in memory."""
        found = self._best_effort(self._load)
        if found is not None:
            self.memory.merge(found)
        return self.memory.read()

    def try_lock(self, generation: int = 0) -> FileRefreshLock | None:
        """Take the refresh lock of this host; where files do not work, of this process."""
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
        """Make ``token`` the token of this process and, if files work, of this host."""
        self.memory.set(token)
        self._best_effort(lambda: self._save(token))

    def merge(self, token: AccessToken) -> bool:
        """Take over a token that another host has fetched, unless it is older than ours or was refused here.

        :return: Whether it was taken over.
        """
        is_taken = self.memory.merge(token)
        if is_taken:
            self._best_effort(lambda: self._save(token))
        return is_taken

    def invalidate(self, token: AccessToken) -> None:
        """Forget ``token`` in this process and on the host.

        The file is removed only under the refresh lock: another holder is about to replace the file.
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
        """Lock the file of a generation and return its key in the registry of open locks."""
        name = f"{self._seal.name}.lock.{generation}" if generation else f"{self._seal.name}.lock"
        with _Directory(self._directory) as directory:
            descriptor = directory.open(name, os.O_RDWR | os.O_CREAT)
        # Registered before it is locked: a fork on another thread closes it in the child at any moment after.
        key = next(_lock_keys)
        _open_locks[key] = descriptor
        try:
            # The kernel releases the lock when its holder dies, however it dies.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            del _open_locks[key]
            os.close(descriptor)
            raise
        return key


class FileRefreshLock:
    """The right to fetch the next token, within one host: a locked file, under the lock of the process."""

    def __init__(self, inner: MemoryRefreshLock, key: int | None) -> None:
        self._inner = inner
        self._key = key

    def release(self) -> None:
        """Let others fetch."""
        self._unlock()
        self._inner.release()

    def _unlock(self) -> None:
        descriptor = None if self._key is None else _open_locks.pop(self._key, None)
        if descriptor is not None:
            # Closing alone would leave it locked for as long as a child lives that was forked meanwhile.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    # A task can be cancelled before it sees its lock; then nobody is left to release it.
    __del__ = _unlock


_lock_keys = itertools.count()
#: Descriptors of locked files, by a key that is never used again, as the number of a descriptor is.
_open_locks: dict[int, int] = {}


def _after_fork() -> None:
    # The locks are the parent's; a child that kept them open would hold them beyond its parent's death.
    while _open_locks:
        os.close(_open_locks.popitem()[1])


os.register_at_fork(after_in_child=_after_fork)


class _Directory:
    """A private directory, held open so that nobody can swap it meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Directory:
        try:
            os.mkdir(self._path, 0o700)
        except FileExistsError:
            pass
        except FileNotFoundError:
            # Another process may make it at the same time.
            os.makedirs(self._path, 0o700, exist_ok=True)
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
        """Open a file of this directory, made with mode 0600 where ``flags`` ask for it, or refuse it."""
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
        """Read a small file."""
        with os.fdopen(self.open(name, os.O_RDONLY), "rb") as file:
            content = file.read(MAX_SEALED_BYTES + 1)
        if len(content) > MAX_SEALED_BYTES:
            raise UntrustedError("a file in it is too large")
        return content

    def replace(self, name: str, content: bytes) -> None:
        """Write a file so that a reader sees the old one or the new one, whole."""
        draft = f"{name}.{os.getpid()}.{os.urandom(6).hex()}"
        descriptor = self.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.rename(draft, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            # Any failure, a killed task's too: a draft left behind would hold a token for good.
            os.unlink(draft, dir_fd=self._fd)
            raise

    def remove(self, name: str) -> None:
        """Remove a file."""
        os.unlink(name, dir_fd=self._fd)


def _check_private(found: os.stat_result, is_kind: Callable[[int], bool], what: str) -> None:
    if not is_kind(found.st_mode):
        raise UntrustedError(f"{what} is not of the right kind")
    if found.st_uid != os.geteuid():
        raise UntrustedError(f"{what} belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise UntrustedError(f"{what} is open to others (mode {stat.S_IMODE(found.st_mode):04o})")
