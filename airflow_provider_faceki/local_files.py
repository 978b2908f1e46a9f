# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Read local files, and write files atomically.

Only the owner can read the written files, because they can contain personal data.

On Linux, most filesystems support files without a name (``O_TMPFILE``). On such a filesystem, a new file gets its name
when it is complete, so a killed task leaves no file behind. On other filesystems, and during the replacement of an
existing file, the new file has the temporary name ``.faceki-….part``. A killed task can leave a file with this name.

A process locks its temporary file while it writes the file. When a later process writes to the same folder for the
first time, it deletes each temporary file that is not locked and older than a minute. On a filesystem without locks, it
deletes no temporary file, because nothing shows whether a file is still being written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

_PART_PREFIX, _PART_SUFFIX = ".faceki-", ".part"
#: A temporary file is considered abandoned if no process has locked it, and it is older than this number of seconds. A
#: younger file is not deleted, because the process that has created the file possibly has not locked it yet.
_MIN_PART_AGE_SECONDS = 60.0
#: Maximum number of folders for which this process remembers that it has already deleted abandoned temporary files.
_MAX_SWEPT_FOLDERS = 10_000
_swept_folders: set[str] = set()
# Only Linux has O_PATH. With O_PATH, a process can open a folder whose content it is not allowed to list.
_FOLDER_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


def open_regular(path: str, *, follows_links: bool = True) -> BinaryIO:
    """Open a regular file for reading, without buffering.

    :param path: Absolute path of the file.
    :param follows_links: Whether symbolic links in the path are followed. With ``False``, a path with a symbolic link
        is refused.
    :raises OSError: if the file cannot be opened, or is a folder, device, pipe or socket. A device, pipe or socket is
        refused, because reading it possibly never ends.
    """
    # Without O_NONBLOCK, opening a pipe would wait for its writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags) if follows_links else _open_without_links(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "this is not a regular file")
    return os.fdopen(handle, "rb", buffering=0)


def _open_without_links(path: str, flags: int) -> int:
    """Open the file at an absolute path, and refuse each symbolic link in the path.

    Each folder is opened relative to its open parent folder. If somebody replaces a folder by a link while this
    function works, the link is therefore not followed.
    """
    *names, last = filter(None, path.split("/"))
    folder = os.open("/", _FOLDER_FLAGS)
    try:
        for name in names:
            inner = os.open(name, _FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(last, flags | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


def check_replaceable(path: str) -> None:
    """Refuse to replace a folder, a pipe, a socket, or a device such as ``/dev/null`` by a file.

    :raises OSError: if the path is refused, or cannot be examined.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "this is a folder; name a file in it")
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise FileExistsError(errno.EEXIST, "this is not a regular file")


def check_folder_writable(path: str) -> None:
    """Check whether this process is allowed to create files in the folder of ``path``. Nothing is written.

    If the folder does not exist, the nearest existing path above it is checked, because the folder is created there.

    :raises PermissionError: if this process is not allowed to create files there.
    """
    folder = os.path.dirname(path)
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_atomically(path: str, source: BinaryIO) -> None:
    """Copy ``source`` to ``path`` with mode 0600 and replace an existing file. Missing folders get mode 0700.

    :raises OSError: if the file cannot be written. An existing file then remains unchanged.
    """
    folder, name = os.path.split(path)
    _make_folders(folder)
    check_replaceable(path)
    with _open_folder(folder) as folder_handle:
        if folder not in _swept_folders:
            _delete_abandoned_parts(folder_handle)
            if len(_swept_folders) < _MAX_SWEPT_FOLDERS:
                _swept_folders.add(folder)
        unnamed = _open_unnamed(folder_handle)
        if unnamed is not None:
            with os.fdopen(unnamed, "wb") as file:
                _copy(source, file)
                _link(file.fileno(), name, folder_handle)
        else:
            _write_part(source, name, folder_handle)
        # Without this fsync of the folder, a power failure possibly loses the file's name. Errors are ignored, because
        # some filesystems do not support fsync of a folder, and the content of the file is already safe.
        with suppress(OSError):
            os.fsync(folder_handle)


def _make_folders(folder: str) -> None:
    if os.path.isdir(folder):
        return
    _make_folders(os.path.dirname(folder))
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        # Another worker possibly created the folder at the same time. This is not an error.
        if not os.path.isdir(folder):
            raise NotADirectoryError(errno.ENOTDIR, "a folder on the way to it is a file") from None


@contextmanager
def _open_folder(folder: str) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _open_unnamed(folder: int) -> int | None:
    """Open a file without a name in a folder, or return ``None`` if the system does not support this."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.open(".", flag | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        # Older kernels and some filesystems report these errors if they do not support O_TMPFILE. Then the result is
        # `None`.
        if error.errno in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}:
            return None
        raise


def _link(handle: int, name: str, folder: int) -> None:
    """Give an unnamed file its name. An existing file with this name is replaced atomically."""

    def link(as_name: str) -> None:
        # The file has no name yet, and gets its name by a hard link. /proc contains a symbolic link to the open file.
        # ``os.link`` must follow this symbolic link, so that the new name refers to the file and not to the symbolic
        # link. With the folder arguments (``src_dir_fd``, ``dst_dir_fd``), Python calls linkat(2), which follows the
        # symbolic link. Without them, Python calls link(2), which does not follow the symbolic link.
        os.link(
            f"/proc/self/fd/{handle}", as_name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True
        )

    try:
        link(name)
    except FileExistsError:
        _lock(handle)
        part = _new_part_name()
        with _deleted_after_exception(part, folder):
            link(part)
            os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)


def _write_part(source: BinaryIO, name: str, folder: int) -> None:
    """Write a temporary file, and rename it to ``name`` when it is complete."""
    part = _new_part_name()
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    with _deleted_after_exception(part, folder), os.fdopen(handle, "wb") as file:
        _lock(handle)
        _copy(source, file)
        os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)


@contextmanager
def _deleted_after_exception(part: str, folder: int) -> Iterator[None]:
    """Delete a temporary file if the ``with`` block raises an exception."""
    try:
        yield
    except BaseException:
        # The file possibly contains personal data. Therefore it is deleted after any exception, including the exception
        # with which Airflow ends a killed task.
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)
        raise


def _copy(source: BinaryIO, file: BinaryIO) -> None:
    shutil.copyfileobj(source, file)
    file.flush()
    os.fsync(file.fileno())


def _new_part_name() -> str:
    # The temporary name does not contain the target name, because a long target name with an addition would possibly be
    # too long for the filesystem.
    return f"{_PART_PREFIX}{secrets.token_hex(8)}{_PART_SUFFIX}"


def _lock(handle: int) -> None:
    # A process locks its temporary file while it writes the file. The system removes the lock when this process ends.
    # If another process can lock the file, then the writing process has ended, and the file can be deleted. A new file
    # is an exception, because its process has possibly not locked it yet. Errors are ignored, because some filesystems
    # have no locks.
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _delete_abandoned_parts(folder: int) -> None:
    """Delete temporary files of processes that have ended. Errors are ignored, so that a new file is still written."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_PART_PREFIX) and entry.name.endswith(_PART_SUFFIX):
                with suppress(OSError):
                    _delete_if_abandoned(entry.name, folder)


def _delete_if_abandoned(part: str, folder: int) -> None:
    # The file is opened for writing, because NFS refuses an exclusive lock of a file that is opened only for reading.
    handle = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(handle)
        is_old = time.time() - status.st_mtime > _MIN_PART_AGE_SECONDS
        if is_old and stat.S_ISREG(status.st_mode):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(part, dir_fd=folder)
    finally:
        os.close(handle)
