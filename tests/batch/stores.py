# Licensed under the Apache License, Version 2.0; see the file LICENSE.
"""A storage that fails sometimes, registered in the same way as the storages of Airflow's providers."""

# fsspec has no types.
# mypy: disable-error-code="import-untyped,misc,no-untyped-call"

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_faceki.storage import attach


class StoreDown(Exception):
    """Error of an object store's own library, which is not derived from a standard exception such as OSError."""


class FlakyStore(MemoryFileSystem):
    """An object store in memory. ``fails`` is called before and after each operation, and can raise an error."""

    protocol = "flaky"
    cachable = False

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        # This store needs its own attributes, because the parent class shares them in the whole process.
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]
        self.fails: Callable[[str, str], None] = lambda operation, path: None
        self._lock = threading.RLock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("flaky://").strip("/")

    def _guarded(self, operation: str, path: str, carry_out: Callable[[], Any]) -> Any:
        self.fails(operation, path)
        with self._lock:
            done = carry_out()
        self.fails(f"{operation} done", path)
        return done

    def pipe_file(self, path: str, value: bytes, **kwargs: object) -> None:
        self._guarded("write", path, lambda: super(FlakyStore, self).pipe_file(path, value, **kwargs))

    def ls(self, path: str, detail: bool = True, **kwargs: object) -> Any:
        return self._guarded("list", path, lambda: super(FlakyStore, self).ls(path, detail, **kwargs))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        opened = self._guarded("open", path, lambda: super(FlakyStore, self)._open(path, mode, **kwargs))
        # Each reader gets its own file object. fsspec would give all readers the same object with one position.
        return io.BytesIO(opened.getvalue()) if mode == "rb" else opened

    def _rm(self, path: str) -> None:
        self._guarded("delete", path, lambda: super(FlakyStore, self)._rm(path))

    def texts(self, folder: str) -> list[str]:
        """Return the lines of all objects below a folder."""
        found = sorted(path for path in self.store if f"/{folder}/" in path)
        return [line for path in found for line in self.store[path].getvalue().decode().splitlines()]


fsspec.register_implementation("flaky", FlakyStore, clobber=True)
# Airflow uses the first storage that is attached, so there is only one instance.
_STORE = FlakyStore()
attach("flaky", fs=_STORE)


def attached() -> FlakyStore:
    """Empty the storage that Airflow finds under ``flaky://``, end its failures, and return it."""
    _STORE.store.clear()
    _STORE.pseudo_dirs[:] = [""]
    _STORE.fails = lambda operation, path: None
    return _STORE


def intermittent_failures(share: float, seed: int, operations: tuple[str, ...]) -> Callable[[str, str], None]:
    """Return a function that makes this share of the operations fail, at most three times in a row."""
    rng, in_a_row, lock = random.Random(seed), 0, threading.RLock()

    def fails(operation: str, path: str) -> None:
        nonlocal in_a_row
        if operation not in operations:
            return
        with lock:
            hit = rng.random() < share and in_a_row < 3
            in_a_row = in_a_row + 1 if hit else 0
        if hit:
            raise rng.choice([OSError("slow down"), StoreDown("slow down"), TimeoutError("slow down")])

    return fails
