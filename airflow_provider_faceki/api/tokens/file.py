# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""The token of an account on one host: an encrypted file that all processes of one user share.

A directory of mode 0700 holds, for each account, a token file and a claim file, both 0600. Everything is
opened relative to the directory's own descriptor and never through a link, and whatever is not as we would
have made it is not trusted. The content is useless without the client secret: HKDF makes the key from it,
Fernet seals it.

Nothing here waits, and nothing here is fatal: what does not work is said once, and the process goes on alone.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import os
import stat
import weakref
from collections.abc import Callable
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from airflow_provider_faceki.api.protocol.auth import AccessToken, TokenRequest
from airflow_provider_faceki.api.tokens.memory import MemoryRefreshLock, MemoryTokenStore

_LARGEST_FILE = 64 * 1024
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class UntrustedError(Exception):
    """A directory or file that is not as we would have made it; the text names no secret."""


class FileTokenStore:
    """A memory store whose token also lies in a file for the neighbours.

    :param directory: Where; made with mode 0700 when missing.
    :param account: Whose token. Its base URL, client id and form name the file; its secret seals the content.
    :param warn: Called with one sentence, at most once, when the directory or a file cannot be used.
    """

    def __init__(self, directory: Path, account: TokenRequest, warn: Callable[[str], None]) -> None:
        self.memory = MemoryTokenStore()
        self._directory = directory
        self._warn = warn
        self._warned = False
        names = (account.base_url, account.client_id, account.flow.value)
        self._name = hashlib.sha256("\0".join(names).encode()).hexdigest()[:40]
        self._fernet = Fernet(_key(account.client_secret, self._name))

    def peek(self) -> AccessToken | None:
        """Return the token that this process knows, without touching the file."""
        return self.memory.peek()

    def read(self) -> AccessToken | None:
        """Return the newer of the token in the file, if it can be trusted, and the one in memory."""
        found = self._best_effort(self._load)
        if found is not None:
            self.memory.merge(found)
        return self.memory.read()

    def try_lock(self, turn: int = 0) -> FileRefreshLock | None:
        """Take the right to fetch for this host; where files do not work, for this process."""
        return next(filter(None, map(self._take, range(turn + 1))), None)

    def _take(self, turn: int) -> FileRefreshLock | None:
        inner = self.memory.take(turn)
        if inner is None:
            return None
        try:
            lock = self._try_lock(turn)
        except BlockingIOError:
            inner.release()
            return None
        except (OSError, UntrustedError) as problem:
            self._warn_once(problem)
            lock = None
        return FileRefreshLock(inner, lock)

    def set(self, token: AccessToken) -> None:
        """Make ``token`` the one of this process and, if files work, of this host."""
        self.memory.set(token)
        self._best_effort(lambda: self._save(token))

    def invalidate(self, token: AccessToken) -> None:
        """Forget ``token`` here and on the host.

        The file goes only if we get the claim: who holds it is about to replace the file.
        """
        self.memory.invalidate(token)
        claim = self.try_lock()
        if claim is None:
            return
        try:
            found = self._best_effort(self._load)
            if found is not None and found.value == token.value:
                self._best_effort(self._remove)
        finally:
            claim.release()

    def _best_effort(self, operation: Callable[[], AccessToken | None]) -> AccessToken | None:
        try:
            return operation()
        except (OSError, UntrustedError) as problem:
            self._warn_once(problem)
            return None

    def _warn_once(self, problem: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        self._warn(
            f"the FACEKI token cannot be shared through {str(self._directory)!r} ({reason}); "
            "each process now fetches its own"
        )

    def _load(self) -> AccessToken | None:
        with _Directory(self._directory) as directory:
            try:
                sealed = directory.read(f"{self._name}.token")
            except FileNotFoundError:
                return None
        try:
            document = json.loads(self._fernet.decrypt(sealed))
            return AccessToken(
                str(document["value"]), float(document["obtained_at"]), float(document["lifetime"])
            )
        except InvalidToken:
            # Another secret's (rotated) or a damaged file: void, and replaced by the next fetch.
            return None
        except (ValueError, TypeError, KeyError):
            raise UntrustedError("a token file of another version lies there") from None

    def _save(self, token: AccessToken) -> None:
        document = {"value": token.value, "obtained_at": token.obtained_at, "lifetime": token.lifetime}
        with _Directory(self._directory) as directory:
            directory.replace(f"{self._name}.token", self._fernet.encrypt(json.dumps(document).encode()))

    def _remove(self) -> None:
        with _Directory(self._directory) as directory:
            directory.remove(f"{self._name}.token")

    def _try_lock(self, turn: int) -> int:
        name = f"{self._name}.claim.{turn}" if turn else f"{self._name}.claim"
        with _Directory(self._directory) as directory:
            descriptor = directory.open(name, os.O_RDWR | os.O_CREAT)
        try:
            # The kernel gives the lock back when its holder dies, however it dies.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


class FileRefreshLock:
    """The right to fetch, within one host: a lock on the claim file, under the process's own claim."""

    def __init__(self, inner: MemoryRefreshLock, lock: int | None) -> None:
        self._inner = inner
        self._lock = lock
        _locks.add(self)

    def release(self) -> None:
        """Give it back."""
        self._unlock()
        self._inner.release()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            # Closing alone would leave it locked for as long as a child lives that was forked meanwhile.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    # Nobody may be left to release it: a task can be cancelled before it gets to see its claim.
    __del__ = _unlock


_locks: weakref.WeakSet[FileRefreshLock] = weakref.WeakSet()


def _after_fork() -> None:
    # The locks are the parent's; a child that keeps them open would hold them beyond its parent's death.
    for claim in list(_locks):
        lock, claim._lock = claim._lock, None
        if lock is not None:
            os.close(lock)


os.register_at_fork(after_in_child=_after_fork)


class _Directory:
    """A directory that is ours alone, held open so that nobody can swap it under us."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Directory:
        try:
            os.mkdir(self._path, 0o700)
        except FileExistsError:
            pass
        except FileNotFoundError:
            # A neighbour may make it at the same time.
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
            descriptor = os.open(name, flags | _OPEN, 0o600, dir_fd=self._fd)
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
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
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
            # Whatever it was goes on its way; a draft left behind would hold a token that nobody looks for.
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


def _key(secret: str, name: str) -> bytes:
    # The file's name goes into the derivation, so that a copied file is void under another account's name.
    info = b"airflow-provider-faceki token file 1\0" + name.encode()
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret.encode())
    return base64.urlsafe_b64encode(derived)
