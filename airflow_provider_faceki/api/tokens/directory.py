# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""Token backend in a directory that several hosts share, such as a volume that is mounted on each host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DirectoryTokenBackend:
    """Backend that stores the objects of a shared token store as files with mode 0600.

    Unlike the file store it does not use file locks, which many network file systems do not support. All of them
    support the creation of a file only if it does not exist, which is sufficient as a lock.

    :param path: The directory. If it does not exist, it is created with mode 0700.
    """

    path: Path

    @property
    def place(self) -> str:
        """Path of the directory, for a log line."""
        return repr(str(self.path))

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return the first ``max_bytes`` bytes of a file, or ``None`` if it does not exist."""
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(max_bytes)

    def write(self, name: str, content: bytes) -> None:
        """Create or replace a file atomically."""
        draft = f"{name}.{os.urandom(8).hex()}"
        if self.create(draft, content):
            os.replace(self.path / draft, self.path / name)

    def create(self, name: str, content: bytes) -> bool:
        """Create a file and return ``True``. If it already exists, return ``False`` without a change."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(
                self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return True

    def delete(self, name: str) -> None:
        """Remove a file, if it exists."""
        (self.path / name).unlink(missing_ok=True)
